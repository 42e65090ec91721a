//! Snapshots as files.
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `NOVASNAP` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | bytes of the description, n |
//! | 16 | n | what the snapshot holds: `SnapshotMeta` of `control/api` |
//! | 16+n | m | the state, as the state machine encodes it |
//! | 16+n+m | 8 | m |
//! | 24+n+m | 4 | CRC-32 (IEEE) over everything before |
//! | 28+n+m | 4 | `DONE` |
//!
//! A file is written under a temporary name, made durable and then renamed, so a name that ends in `.snap` is whole
//! or rotten, never half. The two newest are kept: when the newest rots, the older one and the log after it serve.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nova_api::raft as pb;
use prost::Message as _;

use crate::RaftError;
use crate::StateMachine;
use crate::convert;
use crate::types::{SnapshotMeta, StoredMembership};

/// First bytes of a snapshot file.
const MAGIC: [u8; 8] = *b"NOVASNAP";
const FORMAT_VERSION: u32 = 1;
const DONE: [u8; 4] = *b"DONE";
const HEAD_BYTES: usize = 16;
const TAIL_BYTES: usize = 16;
const HEAD_BYTES_U64: u64 = 16;
const TAIL_BYTES_U64: u64 = 16;
/// Files are read through in pieces of this size.
const READ_BYTES: usize = 1 << 20;
/// Snapshots that are kept.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;
/// Names and memberships are small; a larger description is not one of ours.
const META_BYTES_MAX: usize = 1 << 20;

/// A snapshot file that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
}

/// The folder of a group's snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotFolder {
    path: PathBuf,
    temporary: AtomicU64,
}

impl SnapshotFolder {
    /// Opens the folder and removes what a crash left half written.
    pub(crate) fn open(path: PathBuf) -> Result<Self, RaftError> {
        let io = |what: &'static str| {
            let path = path.clone();
            move |source| RaftError::Io { what, path, source }
        };
        crate::log::create_folder(&path)?;
        for file in fs::read_dir(&path).map_err(io("list"))? {
            let file = file.map_err(io("list"))?.path();
            if file.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&file).map_err(io("clear"))?;
            }
        }
        Ok(Self { path, temporary: AtomicU64::new(0) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A name for a file that is being written.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path.join(format!("{}.tmp", self.temporary.fetch_add(1, Ordering::Relaxed)))
    }

    /// The snapshots, newest first, with the index of the last entry each holds.
    pub(crate) fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let index = name
                .and_then(|name| name.strip_suffix(".snap"))
                .and_then(|name| name.split('-').next())
                .and_then(|index| u64::from_str_radix(index, 16).ok());
            found.extend(index.map(|index| (index, path)));
        }
        found.sort();
        found.reverse();
        Ok(found)
    }

    /// Writes a snapshot of `state` durably. Blocks on the disk.
    pub(crate) fn write<S: StateMachine>(&self, meta: &SnapshotMeta, state: &S) -> io::Result<SnapshotFile> {
        let temporary = self.temporary();
        let mut out =
            Summed { out: BufWriter::new(File::create_new(&temporary)?), sum: crc32fast::Hasher::new() };
        let description = encode_meta(meta).encode_to_vec();
        out.put(&MAGIC)?;
        out.put(&FORMAT_VERSION.to_le_bytes())?;
        out.put(&u32::try_from(description.len()).map_err(io::Error::other)?.to_le_bytes())?;
        out.put(&description)?;
        let mut state_bytes = 0_u64;
        let mut result = Ok(());
        state.encode(&mut |piece| {
            if result.is_ok() {
                state_bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                result = out.put(piece);
            }
        });
        result?;
        out.put(&state_bytes.to_le_bytes())?;
        let sum = out.sum.clone().finalize();
        out.put(&sum.to_le_bytes())?;
        out.put(&DONE)?;
        out.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.adopt(&temporary, meta)
    }

    /// Gives a whole temporary file its name, and removes snapshots beyond the newest [`SNAPSHOTS_KEPT`].
    pub(crate) fn adopt(&self, temporary: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
        let (index, term, node) =
            meta.last_log_id.map_or((0, 0, 0), |id| (id.index, id.leader_id.term, id.leader_id.node_id));
        let name = format!("{index:016x}-{term:x}-{node:x}.snap");
        let path = self.path.join(name);
        fs::rename(temporary, &path)?;
        File::open(&self.path)?.sync_all()?;
        for (_, old) in self.list()?.into_iter().skip(SNAPSHOTS_KEPT) {
            if old != path {
                fs::remove_file(old)?;
            }
        }
        let bytes = fs::metadata(&path)?.len();
        Ok(SnapshotFile { path, bytes })
    }
}

/// Reads a snapshot file back: what it holds, and the encoded state.
pub(crate) fn read(path: &Path) -> io::Result<(SnapshotMeta, Vec<u8>)> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (meta, state) = decode(&bytes).map_err(|reason| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is not a whole snapshot: {reason}", path.display()),
        )
    })?;
    let state = state.start..state.end;
    bytes.truncate(state.end);
    bytes.drain(..state.start);
    Ok((meta, bytes))
}

/// Reads a snapshot file through without keeping it; gives what it holds.
pub(crate) fn verify(path: &Path) -> io::Result<SnapshotMeta> {
    let refuse = |reason: String| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is not a whole snapshot: {reason}", path.display()),
        )
    };
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let tail_at = bytes.checked_sub(TAIL_BYTES_U64).ok_or_else(|| refuse("it is too short".to_owned()))?;
    let mut tail = [0; TAIL_BYTES];
    file.read_exact_at(&mut tail, tail_at)?;
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let count =
        usize::try_from(u32::from_le_bytes([head[12], head[13], head[14], head[15]])).unwrap_or(usize::MAX);
    if count > META_BYTES_MAX {
        return Err(refuse("its description is too long".to_owned()));
    }
    let mut description = vec![0; count];
    file.read_exact_at(&mut description, HEAD_BYTES_U64)?;

    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut left = tail_at + 8;
    let mut input = &file;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        input.read_exact(&mut buffer[..want])?;
        sum.update(&buffer[..want]);
        left -= u64::try_from(want).expect("a buffer is small");
    }
    if tail[8..12] != sum.finalize().to_le_bytes() || tail[12..] != DONE || head[0..8] != MAGIC {
        return Err(refuse("it fails its sum".to_owned()));
    }
    let meta = pb::SnapshotMeta::decode(description.as_slice()).map_err(|error| refuse(error.to_string()))?;
    decode_meta(meta).map_err(refuse)
}

/// Checks a snapshot file; gives what it holds and where the state stands in it.
pub(crate) fn decode(bytes: &[u8]) -> Result<(SnapshotMeta, core::ops::Range<usize>), String> {
    if bytes.len() < HEAD_BYTES + TAIL_BYTES || bytes[0..8] != MAGIC {
        return Err("it does not begin like one".to_owned());
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(8) != FORMAT_VERSION {
        return Err("it has a format this version does not read".to_owned());
    }
    let tail = bytes.len() - TAIL_BYTES;
    if bytes[tail + 12..] != DONE {
        return Err("it does not end like one".to_owned());
    }
    if number(tail + 8) != crc32fast::hash(&bytes[..tail + 8]) {
        return Err("it fails its sum".to_owned());
    }
    let count = usize::try_from(number(12)).ok().filter(|count| *count <= META_BYTES_MAX);
    let start = count.map(|count| HEAD_BYTES + count).filter(|start| *start <= tail);
    let start = start.ok_or("its description is too long")?;
    let state_bytes = u64::from_le_bytes(*bytes[tail..].first_chunk().expect("the tail is 16 bytes"));
    if u64::try_from(tail - start) != Ok(state_bytes) {
        return Err("its length is wrong".to_owned());
    }
    let meta = pb::SnapshotMeta::decode(&bytes[HEAD_BYTES..start]).map_err(|error| error.to_string())?;
    Ok((decode_meta(meta)?, start..tail))
}

pub(crate) fn encode_meta(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(convert::log_id),
        membership: Some(convert::membership(meta.last_membership.membership())),
        membership_id: meta.last_membership.log_id().as_ref().map(convert::log_id),
    }
}

pub(crate) fn decode_meta(meta: pb::SnapshotMeta) -> Result<SnapshotMeta, String> {
    let membership = convert::membership_from(meta.membership.ok_or("it names no members")?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(convert::log_id_from),
        last_membership: StoredMembership::new(meta.membership_id.map(convert::log_id_from), membership),
    })
}

struct Summed {
    out: BufWriter<File>,
    sum: crc32fast::Hasher,
}

impl Summed {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}

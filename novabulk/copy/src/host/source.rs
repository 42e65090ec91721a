//! What a host does that has the files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nova_buf::SharedBuf;
use nova_device::Shard as _;
use nova_device::uring::PlainFile;
use novabulk_files::{
    BLOCK_BYTES, Digest, Entry, Fault, HEAD_BYTES_MAX, Identity, Name, PART_PREFIX, PackFile, Packed, Reply,
    block_count, block_range, root_of,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{Host, READERS_MAX, Stopwatch};
use crate::folder::{Folder, Near, entry_of, file_type, identity_of, names_in, status};
use crate::trouble::Trouble;

/// What a page of a list leaves free of a head, for failures and the last name.
const PAGE_SLACK_BYTES: usize = 12 << 10;
/// Failures that a page tells of.
const PAGE_FAILURES_MAX: usize = 2;
/// Ranges of data that one answer tells of.
const RANGES_MAX: usize = 3000;
/// Opening a file to read it never waits, whatever it is.
const READING: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A file that is kept open.
#[derive(Debug)]
pub(super) struct Reading {
    name: Name,
    identity: Identity,
    file: PlainFile,
}

impl Host {
    pub(super) async fn list(
        &self,
        folder: Name,
        after: Vec<u8>,
        watch: &Stopwatch,
    ) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| list(root, &folder, &after)).await
    }

    pub(super) async fn stat(&self, name: Name, watch: &Stopwatch) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| root.entry(&name).map(|entry| Reply::Status { entry })).await
    }

    pub(super) async fn map(&self, file: PackFile, from: u64, watch: &Stopwatch) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| map(root, &file, from)).await
    }

    pub(super) async fn digest(&self, name: Name, watch: &Stopwatch) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| digest(root, &name)).await
    }

    pub(super) async fn read(
        &self,
        from: PackFile,
        offset: u64,
        bytes: u32,
        watch: &Stopwatch,
    ) -> Result<(Reply, Option<SharedBuf>), Trouble> {
        let file = self.reader(&from, watch).await?;
        let length = usize::try_from(bytes).expect("a block fits memory");
        let room = self.shard.pool().take(length).await;
        let (read, room) = watch.time(&self.shard, file.read_at(room, offset)).await;
        let count = read.map_err(|error| Trouble::io(&error, format!("read {}", from.name)))?;
        // After the read too: what was written meanwhile changes the time.
        let now = identity_of(&file).map_err(|error| Trouble::of(error, format!("look at {}", from.name)))?;
        if count < length || now != from.identity {
            return Err(changed(&from.name));
        }
        Ok((Reply::Read { digest: Digest::of(&room) }, Some(room.freeze())))
    }

    pub(super) async fn read_pack(
        &self,
        files: Vec<PackFile>,
        watch: &Stopwatch,
    ) -> Result<(Reply, Option<SharedBuf>), Trouble> {
        let (bytes, files) = self.blocking(watch, move |root| Ok(read_pack(root, &files))).await?;
        if bytes.is_empty() {
            return Ok((Reply::Packed { files }, None));
        }
        let mut room = self.shard.pool().take(bytes.len()).await;
        room.copy_from_slice(&bytes);
        Ok((Reply::Packed { files }, Some(room.freeze())))
    }

    /// The file, open, as it was when it was listed.
    async fn reader(&self, from: &PackFile, watch: &Stopwatch) -> Result<PlainFile, Trouble> {
        let known = {
            let readers = self.readers.borrow();
            let same = |one: &&Reading| one.name == from.name && one.identity == from.identity;
            readers.iter().find(same).map(|one| one.file.clone())
        };
        if let Some(file) = known {
            return Ok(file);
        }
        let wanted = from.clone();
        let file = self.blocking(watch, move |root| open_same(root, &wanted)).await?;
        let file = PlainFile::new(self.shard.reactor(), file.into());
        let mut readers = self.readers.borrow_mut();
        readers.push_back(Reading { name: from.name.clone(), identity: from.identity, file: file.clone() });
        if readers.len() > READERS_MAX {
            readers.pop_front();
        }
        Ok(file)
    }
}

fn changed(name: &Name) -> Trouble {
    Trouble::new(Fault::Changed, format!("{name} changed while it was copied"))
}

/// Opens a file that is what it was when it was listed.
fn open_same(root: &Folder, file: &PackFile) -> Result<File, Trouble> {
    same(root.open_below(&file.name, READING, Mode::empty())?, file)
}

/// An open file, when it is what it was when it was listed.
fn same(open: OwnedFd, file: &PackFile) -> Result<File, Trouble> {
    let now = identity_of(&open).map_err(|error| Trouble::of(error, format!("look at {}", file.name)))?;
    if now != file.identity {
        return Err(changed(&file.name));
    }
    Ok(open.into())
}

/// A page of a directory: as many entries as go into a head.
fn list(root: &Folder, folder: &Name, after: &[u8]) -> Result<Reply, Trouble> {
    let open = root.open_folder(folder)?;
    let names = names_in(&open).map_err(|error| Trouble::of(error, format!("read the folder {folder}")))?;
    let begin = names.partition_point(|name| name.as_slice() <= after);
    let (mut entries, mut failures, mut skipped) = (Vec::new(), Vec::new(), 0);
    let (mut bytes, mut last) = (0, None);
    for name in &names[begin..] {
        match look(&open, folder, name) {
            Ok(Some(entry)) => {
                bytes += entry.head_bytes();
                if bytes > HEAD_BYTES_MAX - PAGE_SLACK_BYTES {
                    return Ok(Reply::Listed { entries, skipped, failures, next: last });
                }
                entries.push(entry);
            }
            Ok(None) => skipped += 1,
            Err(trouble) => failures.push(trouble.text),
        }
        last = Some(name.clone());
        if failures.len() == PAGE_FAILURES_MAX {
            return Ok(Reply::Listed { entries, skipped, failures, next: last });
        }
    }
    Ok(Reply::Listed { entries, skipped, failures, next: None })
}

/// An entry of a folder; nothing when it is of a kind that is not copied, or has gone meanwhile.
fn look(open: &std::os::fd::OwnedFd, folder: &Name, name: &[u8]) -> Result<Option<Entry>, Trouble> {
    let full = folder.child(name)?;
    if name.starts_with(PART_PREFIX.as_bytes()) {
        return Ok(None);
    }
    let last = OsStr::from_bytes(name);
    let stat = match status(open, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Trouble::of(error, format!("look at {full}"))),
    };
    match file_type(&stat) {
        FileType::RegularFile | FileType::Directory | FileType::Symlink => {
            entry_of(open, last, full, &stat).map(Some)
        }
        _ => Ok(None),
    }
}

/// Where the file has data, from `from` on.
fn map(root: &Folder, file: &PackFile, from: u64) -> Result<Reply, Trouble> {
    let open = open_same(root, file)?;
    let (mut at, mut ranges) = (from, Vec::new());
    while ranges.len() < RANGES_MAX {
        let begin = match rustix::fs::seek(&open, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(Reply::Mapped { ranges, next: None }),
            Err(error) => return Err(Trouble::of(error, format!("look for holes in {}", file.name))),
        };
        let end = rustix::fs::seek(&open, SeekFrom::Hole(begin))
            .map_err(|error| Trouble::of(error, format!("look for holes in {}", file.name)))?;
        ranges.push((begin, end - begin));
        at = end;
    }
    Ok(Reply::Mapped { ranges, next: Some(at) })
}

fn read_pack(root: &Folder, files: &[PackFile]) -> (Vec<u8>, Vec<Packed>) {
    let mut all = Vec::new();
    let mut near = Near::default();
    let one = |file: &PackFile| match read_whole(root, &mut near, file) {
        Ok(bytes) => {
            let count = u32::try_from(bytes.len()).expect("a small file");
            let packed = Packed::Bytes { bytes: count, digest: Digest::of(&bytes) };
            all.extend(bytes);
            packed
        }
        Err(Trouble { fault, mut text }) => {
            // Every file of a pack may fail, and all of it goes into one head.
            text.truncate(text.floor_char_boundary(64));
            Packed::Failed { fault, text }
        }
    };
    let packed = files.iter().map(one).collect();
    (all, packed)
}

/// A small file, if it is what it was when it was listed, before and after.
fn read_whole(root: &Folder, near: &mut Near, file: &PackFile) -> Result<Vec<u8>, Trouble> {
    let place = root.place_near(&file.name, near)?;
    let flags = READING | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::openat(&place.folder, place.last(), flags, Mode::empty())
        .map_err(|error| Trouble::of(error, format!("open {}", file.name)))?;
    let open = same(open, file)?;
    let expected = usize::try_from(file.identity.bytes).expect("a small file fits memory");
    let mut bytes = Vec::with_capacity(expected + 1);
    (&open)
        .take(file.identity.bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Trouble::io(&error, format!("read {}", file.name)))?;
    let now = identity_of(&open).map_err(|error| Trouble::of(error, format!("look at {}", file.name)))?;
    if bytes.len() != expected || now != file.identity {
        return Err(changed(&file.name));
    }
    Ok(bytes)
}

/// The root of a file over all its blocks, holes read as zeros.
fn digest(root: &Folder, name: &Name) -> Result<Reply, Trouble> {
    let open = File::from(root.open_below(name, READING, Mode::empty())?);
    let looking = |error| Trouble::of(error, format!("look at {name}"));
    let before = identity_of(open.as_fd()).map_err(looking)?;
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut digests = Vec::new();
    for index in 0..block_count(before.bytes) {
        let (_, bytes) = block_range(before.bytes, index).expect("a block of the file");
        let room = &mut block[..usize::try_from(bytes).expect("a block fits memory")];
        (&open).read_exact(room).map_err(|error| Trouble::io(&error, format!("read {name}")))?;
        digests.push((index, Digest::of(room)));
    }
    if identity_of(open.as_fd()).map_err(looking)? != before {
        return Err(changed(name));
    }
    Ok(Reply::DigestIs { bytes: before.bytes, root: root_of(before.bytes, digests) })
}

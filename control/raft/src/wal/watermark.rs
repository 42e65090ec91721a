//! How far the log is durable, told by a file beside its segments.
//!
//! A record that does not read is a torn tail, which nobody was told of, or rot, and then somebody may count on what
//! it held. A later record of the same log tells the two apart; after the last batch there is none. So the thread of
//! the log notes here, after every flush, up to where everything is durable. The note itself is flushed with the next
//! tick (a second) and when the log is closed, not with each batch: until then a power cut may lose it, and no other
//! end of the process does.
//!
//! The file `watermark` has two slots, one a page, and is never empty. A slot that was flushed stays until the other
//! one is; of two that read, the one that is further counts.
//!
//! | at | bytes | field of a slot |
//! | --- | --- | --- |
//! | 0 | 8 | magic `NOVAMARK` |
//! | 8 | 4 | CRC-32 (IEEE) over bytes 12..40 |
//! | 12 | 2 | format version, 1 |
//! | 14 | 2 | zero |
//! | 16 | 8 | number of a segment; 0: nothing is known yet |
//! | 24 | 8 | salt of that segment |
//! | 32 | 8 | bytes of it that are durable |

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::RaftError;

/// First bytes of every slot.
pub const MAGIC: [u8; 8] = *b"NOVAMARK";
/// Version of the format.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a slot; a disk writes them at once.
pub const SLOT_BYTES: usize = 40;
/// Places of the two slots.
pub const SLOTS: [u64; 2] = [0, 4096];
/// Bytes of the file.
const FILE_BYTES: u64 = 8192;
const NAME: &str = "watermark";

/// Up to where a log is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Number of the segment; 0 while nothing is known.
    pub segment: u64,
    /// Bytes of it that are durable.
    pub bytes: u64,
    /// Its salt, so that another segment of that number is not taken for it.
    pub salt: u64,
}

impl Mark {
    /// The slot as it lies on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[0..8].copy_from_slice(&MAGIC);
        slot[12..14].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        slot[16..24].copy_from_slice(&self.segment.to_le_bytes());
        slot[24..32].copy_from_slice(&self.salt.to_le_bytes());
        slot[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let sum = crc32fast::hash(&slot[12..]);
        slot[8..12].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    /// Reads a slot from the start of `bytes`; `None` when there is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let slot: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
        let number = |at: usize| u64::from_le_bytes(*slot[at..].first_chunk().expect("inside the slot"));
        let mark = Self { segment: number(16), salt: number(24), bytes: number(32) };
        // One value has one form: magic, version, zeros and sum are what they would be written as.
        (mark.encode() == *slot).then_some(mark)
    }
}

/// What the file in the folder of a log says; `None` when there is no such file.
///
/// # Errors
/// [`RaftError::Rot`] when neither slot reads.
pub(super) fn read(folder: &Path) -> Result<Option<Mark>, RaftError> {
    let path = path_in(folder);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RaftError::Io { what: "read", path, source }),
    };
    let slot = |at: u64| Mark::decode(bytes.get(usize::try_from(at).ok()?..)?);
    match SLOTS.into_iter().filter_map(slot).max() {
        Some(mark) => Ok(Some(mark)),
        None => Err(RaftError::Rot { path, at: 0, reason: "neither slot of the watermark reads".to_owned() }),
    }
}

/// Where the watermark of the log in `folder` lies.
pub(super) fn path_in(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// The open file; its owner alone writes it.
#[derive(Debug)]
pub(super) struct Watermark {
    path: PathBuf,
    file: File,
    /// Which slot the next note goes to: never the one that was flushed last.
    slot: usize,
    noted: bool,
}

impl Watermark {
    /// Opens the file of the log in `folder`, which says `mark`; makes it when there is none, durable with its name.
    pub(super) fn open(folder: &Path, mark: Option<Mark>) -> Result<Self, RaftError> {
        let path = path_in(folder);
        let open = || -> io::Result<File> {
            if mark.is_none() {
                // Under another name until it has a slot: a file without one would be rot.
                let new = path.with_extension("new");
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
                file.set_len(FILE_BYTES)?;
                file.write_all_at(&Mark::default().encode(), SLOTS[0])?;
                file.sync_all()?;
                fs::rename(&new, &path)?;
                File::open(folder)?.sync_all()?;
            }
            OpenOptions::new().read(true).write(true).open(&path)
        };
        let file = open().map_err(|source| RaftError::Io { what: "open", path: path.clone(), source })?;
        // The slot that counts stays until the other one is durable.
        let mut newest = [0; SLOT_BYTES];
        let reads = file.read_exact_at(&mut newest, SLOTS[0]).is_ok();
        let first_counts = reads && Mark::decode(&newest) == Some(mark.unwrap_or_default());
        Ok(Self { path, file, slot: usize::from(first_counts), noted: false })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes how far the log is durable. The note outlives this process, and a power cut after
    /// [`Watermark::make_durable`].
    pub(super) fn note(&mut self, mark: Mark) -> io::Result<()> {
        self.file.write_all_at(&mark.encode(), SLOTS[self.slot])?;
        self.noted = true;
        Ok(())
    }

    /// Makes the last note durable; gives whether that took a flush.
    pub(super) fn make_durable(&mut self) -> io::Result<bool> {
        if self.noted {
            self.file.sync_data()?;
            self.slot = 1 - self.slot;
            self.noted = false;
            return Ok(true);
        }
        Ok(false)
    }
}

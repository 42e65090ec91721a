//! A file that comes: its temporary file, its ledger, and what is known of its blocks.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nova_device::uring::PlainFile;
use nova_device::{Clock as _, Shard as _};
use nova_shard::RealShard;
use novabulk_files::{
    Blocks, Entry, Fault, Kind, LEDGER_HEADER_BYTES, Record, header, part_name, part_prefix, replay,
};
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::folder::{Folder, Place, dress, identity_of, names_in, status};
use crate::trouble::Trouble;

/// What is written between two flushes of a file.
const FLUSH_BYTES: u64 = 64 << 20;
/// And how long at most.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// A ledger is named like its file, with this behind.
const LEDGER_SUFFIX: &str = ".ledger";
/// A ledger of more than this is none of ours: 2^30 records.
const LEDGER_BYTES_MAX: u64 = 64 << 30;

/// What the kernel calls tmpfs.
const TMPFS: i64 = 0x0102_1994;

/// What opening gives, on the thread that may block.
#[derive(Debug)]
pub(super) struct Opened {
    place: Place,
    part: String,
    file: OwnedFd,
    ledger: File,
    blocks: Blocks,
}

/// A file that comes.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) entry: Entry,
    place: Place,
    part: String,
    pub(super) file: PlainFile,
    ledger: RefCell<File>,
    pub(super) blocks: RefCell<Blocks>,
    pub(super) used_at: Cell<Duration>,
    flushing: Cell<bool>,
    flushed_at: Cell<Duration>,
}

impl Opened {
    /// Finds what an earlier attempt left, or begins. Attempts at the same name from another source are removed.
    pub(super) fn new(folder: &Folder, entry: &Entry) -> Result<Self, Trouble> {
        let place = folder.place(&entry.name)?;
        let name = &entry.name;
        match status(&place.folder, place.last(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if crate::folder::file_type(&stat).is_dir() => {
                let text = format!("{name} is a directory, and a file is to come: move it away");
                return Err(Trouble::new(Fault::InTheWay, text));
            }
            _ => {}
        }
        let part = part_name(name, &entry.identity);
        let ledger = open_ledger(&place, &part, entry)?;
        remove_others(&place, entry, &part)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.folder, part.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Trouble::of(error, format!("create a temporary file beside {name}")))?;
        let mut opened = Self { place, part, file, ledger, blocks: Blocks::new(entry.bytes()) };
        if !opened.recall(entry)? {
            opened.begin(entry)?;
        }
        Ok(opened)
    }

    /// Takes over what the ledger says; nothing when it and the file do not fit each other.
    fn recall(&mut self, entry: &Entry) -> Result<bool, Trouble> {
        let trouble =
            |error: &std::io::Error| Trouble::io(error, format!("read the ledger of {}", entry.name));
        let bytes = identity_of(&self.file).map_or(0, |identity| identity.bytes);
        let mut said = Vec::new();
        (&self.ledger).take(LEDGER_BYTES_MAX).read_to_end(&mut said).map_err(|error| trouble(&error))?;
        let Ok(replayed) = replay(&said, &entry.identity) else { return Ok(false) };
        if bytes != entry.bytes() {
            return Ok(false);
        }
        let end = replayed.bytes as u64;
        self.ledger.set_len(end).map_err(|error| trouble(&error))?;
        self.ledger.seek(SeekFrom::Start(end)).map_err(|error| trouble(&error))?;
        for record in replayed.records {
            self.blocks.recall(record.block, record.digest);
        }
        Ok(true)
    }

    /// An empty file of the right length, and a ledger that says nothing.
    fn begin(&mut self, entry: &Entry) -> Result<(), Trouble> {
        let name = &entry.name;
        let sizing = |error| Trouble::of(error, format!("set aside {} bytes for {name}", entry.bytes()));
        rustix::fs::ftruncate(&self.file, 0).map_err(sizing)?;
        rustix::fs::ftruncate(&self.file, entry.bytes()).map_err(sizing)?;
        if matches!(entry.kind, Kind::File { sparse: false, .. }) && !is_in_memory(&self.file) {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, entry.bytes()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(error) => return Err(sizing(error)),
            }
        }
        let written = self
            .ledger
            .set_len(0)
            .and_then(|()| self.ledger.rewind())
            .and_then(|()| self.ledger.write_all(&header(&entry.identity)));
        written.map_err(|error| Trouble::io(&error, format!("write the ledger of {name}")))
    }
}

/// Whether the file is in tmpfs, where to set room aside is to clear every page of it, long before it is written.
fn is_in_memory(file: &OwnedFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|about| about.f_type == TMPFS)
}

/// The ledger, locked: two processes do not write one file.
fn open_ledger(place: &Place, part: &str, entry: &Entry) -> Result<File, Trouble> {
    let name = format!("{part}{LEDGER_SUFFIX}");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let action = || format!("create a ledger beside {}", entry.name);
    let file = rustix::fs::openat(&place.folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| Trouble::of(error, action()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(Errno::WOULDBLOCK) => {
            Err(Trouble::new(Fault::Busy, format!("{} is being copied by another process", entry.name)))
        }
        Err(error) => Err(Trouble::of(error, action())),
    }
}

/// Removes what earlier attempts left that came from another source.
fn remove_others(place: &Place, entry: &Entry, part: &str) -> Result<(), Trouble> {
    let prefix = part_prefix(&entry.name);
    let names = names_in(&place.folder)
        .map_err(|error| Trouble::of(error, format!("read the folder of {}", entry.name)))?;
    for name in names {
        if name.starts_with(prefix.as_bytes()) && !name.starts_with(part.as_bytes()) {
            // Somebody else may have removed it.
            let _ = rustix::fs::unlinkat(&place.folder, name.as_slice(), AtFlags::empty());
        }
    }
    Ok(())
}

impl Part {
    pub(super) fn new(shard: &RealShard, entry: Entry, opened: Opened) -> Self {
        let now = shard.clock().now();
        Self {
            entry,
            place: opened.place,
            part: opened.part,
            file: PlainFile::new(shard.reactor(), opened.file),
            ledger: RefCell::new(opened.ledger),
            blocks: RefCell::new(opened.blocks),
            used_at: Cell::new(now),
            flushing: Cell::new(false),
            flushed_at: Cell::new(now),
        }
    }

    /// Whether nothing is written or flushed now.
    pub(super) fn is_quiet(&self) -> bool {
        !self.flushing.get() && self.blocks.borrow().writing() == 0
    }

    /// Whether enough was written, or long enough ago, to flush.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let bytes = self.blocks.borrow().bytes_unflushed();
        !self.flushing.get()
            && (bytes >= FLUSH_BYTES || (bytes > 0 && self.flushed_at.get() + FLUSH_EVERY <= now))
    }

    /// Makes durable what is in the file, and then says so in the ledger: in this order.
    pub(super) async fn flush(&self, shard: &RealShard) -> Result<(), Trouble> {
        self.flushing.set(true);
        let blocks = self.blocks.borrow().unflushed();
        let synced = self.file.sync_data().await;
        self.flushing.set(false);
        self.flushed_at.set(shard.clock().now());
        synced.map_err(|error| Trouble::io(&error, format!("flush {}", self.entry.name)))?;
        let mut records = Vec::with_capacity(blocks.len() * novabulk_files::LEDGER_RECORD_BYTES);
        for (block, digest) in &blocks {
            let record = Record { block: *block, digest: *digest };
            records.extend(record.encode(&self.entry.identity));
        }
        // A few kilobytes into the page cache; the records need no flush of their own: one that is lost costs a block.
        let written = self.ledger.borrow_mut().write_all(&records);
        written.map_err(|error| Trouble::io(&error, format!("write the ledger of {}", self.entry.name)))?;
        self.blocks.borrow_mut().flushed(&blocks);
        Ok(())
    }

    /// What gives the file its name, for the thread that may block.
    pub(super) fn publishing(&self) -> Result<Publishing, Trouble> {
        let again = |error: std::io::Error| Trouble::io(&error, format!("publish {}", self.entry.name));
        Ok(Publishing {
            entry: self.entry.clone(),
            file: self.file.as_fd().try_clone_to_owned().map_err(again)?,
            folder: self.place.folder.try_clone().map_err(again)?,
            last: self.place.last.clone(),
            part: self.part.clone(),
        })
    }
}

/// A complete file, on its way to its name.
#[derive(Debug)]
pub(super) struct Publishing {
    entry: Entry,
    file: OwnedFd,
    folder: OwnedFd,
    last: Vec<u8>,
    part: String,
}

impl Publishing {
    /// Mode, attributes, time; flush; rename; flush of the folder. What it then is.
    pub(super) fn publish(self) -> Result<novabulk_files::Identity, Trouble> {
        use std::os::unix::ffi::OsStrExt as _;
        let name = &self.entry.name;
        let failed = |error| Trouble::of(error, format!("publish {name}"));
        dress(&self.file, &self.entry)?;
        rustix::fs::fsync(&self.file).map_err(failed)?;
        let last = OsStr::from_bytes(&self.last);
        rustix::fs::renameat(&self.folder, self.part.as_str(), &self.folder, last).map_err(failed)?;
        let ledger = format!("{}{LEDGER_SUFFIX}", self.part);
        // Without its file it says nothing.
        let _ = rustix::fs::unlinkat(&self.folder, ledger.as_str(), AtFlags::empty());
        rustix::fs::fsync(&self.folder).map_err(failed)?;
        identity_of(&self.file).map_err(failed)
    }

    /// Removes what came.
    pub(super) fn discard(self) {
        for name in [self.part.clone(), format!("{}{LEDGER_SUFFIX}", self.part)] {
            // It may be gone.
            let _ = rustix::fs::unlinkat(&self.folder, name.as_str(), AtFlags::empty());
        }
    }
}

const _: () = assert!(LEDGER_HEADER_BYTES < 4096);

//! A file or a block device, past the page cache.

use core::{
    cell::{Cell, RefCell},
    fmt,
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use io_uring::{opcode, squeue, types};
use nova_buf::{DmaBuf, SharedBuf};
use nova_units::{IoClass, PAGE_BYTES};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};

use super::{DiskLimits, Reactor, classes::ClassQueue, file::File, slots::Payload};
use crate::{Disk, DiskError, Done, Durability, Position, disk::check_range};

/// A transfer is carried on after this many short answers or interruptions; then the device is in error.
const CONTINUATIONS_MAX: u32 = 16;

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No such file, no permission, and the like.
    #[error("cannot open the disk {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file system cannot do direct I/O.
    #[error("{path} lies on a file system without direct I/O: put the disk on ext4, XFS or a raw device")]
    NoDirect {
        /// Which.
        path: PathBuf,
    },
    /// Direct I/O asks for more than page alignment.
    #[error("{path} needs direct I/O aligned to {bytes} bytes, and 4096 are supported: reformat the device")]
    Alignment {
        /// Which.
        path: PathBuf,
        /// What it needs.
        bytes: u32,
    },
    /// Another process, or another shard, has it open.
    #[error("{path} is in use: stop the process that has it, or give this shard another disk")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Space was not set aside for all of the file.
    #[error("{path} has holes ({allocated} of {bytes} bytes allocated): create disks with `create_disk`")]
    Sparse {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What the file system holds for it.
        allocated: u64,
    },
    /// Neither a regular file nor a block device, or smaller than a page.
    #[error("{path} is not a disk: give a preallocated file or a block device")]
    NotADisk {
        /// Which.
        path: PathBuf,
    },
}

/// What runs below a disk, for the start-up print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Where it is.
    pub path: PathBuf,
    /// Usable size.
    pub bytes: u64,
    /// A raw block device rather than a file.
    pub block_device: bool,
    /// Alignment direct I/O needs, when the kernel tells.
    pub direct_align: Option<u32>,
    /// Whether the ring knows its descriptor by index.
    pub fixed_file: bool,
}

impl fmt::Display for DiskFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.block_device { "block device" } else { "file" };
        write!(f, "{}: {kind} of {} MiB, io_uring O_DIRECT", self.path.display(), self.bytes >> 20)
    }
}

/// A disk that is open and locked, and that no ring drives yet. To open one may block: another thread can do it for a shard.
#[derive(Debug)]
pub struct OpenDisk {
    file: OwnedFd,
    path: PathBuf,
    bytes: u64,
    block_device: bool,
    direct_align: Option<u32>,
}

impl OpenDisk {
    /// Opens and locks the disk at `path`.
    ///
    /// # Errors
    /// When it is missing, in use, has holes, or cannot do direct I/O.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::INVAL => OpenError::NoDirect { path: path.to_owned() },
            errno => OpenError::Open { path: path.to_owned(), source: errno.into() },
        })?;
        let open_error =
            |errno: rustix::io::Errno| OpenError::Open { path: path.to_owned(), source: errno.into() };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => OpenError::InUse { path: path.to_owned() },
            errno => open_error(errno),
        })?;
        let (bytes, block_device) = usable_size(&file, path)?;
        let direct_align = direct_align(&file).map_err(open_error)?;
        if let Some(bytes) = direct_align.filter(|&align| u64::from(align) > PAGE_BYTES) {
            return Err(OpenError::Alignment { path: path.to_owned(), bytes });
        }
        Ok(Self { file, path: path.to_owned(), bytes, block_device, direct_align })
    }
}

/// A preallocated file or a block device through the ring of its shard, unbuffered. A clone is another handle.
#[derive(Clone)]
pub struct UringDisk {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    /// Until it is closed.
    file: RefCell<Option<Rc<File>>>,
    facts: DiskFacts,
    queue: ClassQueue,
    failed: Cell<bool>,
}

impl UringDisk {
    /// Opens a disk for this shard alone.
    ///
    /// # Errors
    /// When it is missing, in use, has holes, or cannot do direct I/O.
    pub fn open(reactor: &Reactor, path: &Path) -> Result<Self, OpenError> {
        Self::open_with(reactor, path, DiskLimits::default())
    }

    /// The same, with limits and shares of its own.
    ///
    /// # Errors
    /// As [`UringDisk::open`].
    pub fn open_with(reactor: &Reactor, path: &Path, limits: DiskLimits) -> Result<Self, OpenError> {
        OpenDisk::open(path).map(|open| Self::drive(reactor, open, limits))
    }

    /// Drives a disk that was opened, by this ring.
    #[must_use]
    pub fn drive(reactor: &Reactor, open: OpenDisk, limits: DiskLimits) -> Self {
        let OpenDisk { file, path, bytes, block_device, direct_align } = open;
        let file = reactor.register_file(file);
        let fixed_file = file.fixed().is_some();
        Self {
            inner: Rc::new(Inner {
                reactor: reactor.clone(),
                file: RefCell::new(Some(Rc::new(file))),
                facts: DiskFacts { path, bytes, block_device, direct_align, fixed_file },
                queue: ClassQueue::new(limits),
                failed: Cell::new(false),
            }),
        }
    }

    /// Lets go of the file, for all handles: requests from now on are answered as by a disk that failed. The file, its lock
    /// and its number stay with the requests under way until the last of them ends.
    pub fn close(&self) {
        self.inner.failed.set(true);
        self.inner.file.take();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.file.borrow().is_none()
    }

    /// What runs below.
    #[must_use]
    pub fn facts(&self) -> &DiskFacts {
        &self.inner.facts
    }

    /// Whether an earlier write or flush failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.inner.failed.get()
    }

    /// Requests the device has, and requests that wait for their turn.
    #[must_use]
    pub fn queue_depth(&self) -> (usize, usize) {
        (self.inner.queue.in_flight(), self.inner.queue.waiting())
    }
}

/// Size in whole pages, and whether it is a block device.
fn usable_size(file: &OwnedFd, path: &Path) -> Result<(u64, bool), OpenError> {
    let open_error =
        |errno: rustix::io::Errno| OpenError::Open { path: path.to_owned(), source: errno.into() };
    let stat = rustix::fs::fstat(file).map_err(open_error)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = match kind {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
        FileType::BlockDevice => rustix::fs::seek(file, SeekFrom::End(0)).map_err(open_error)?,
        _ => 0,
    };
    let bytes = size - size % PAGE_BYTES;
    if bytes == 0 {
        return Err(OpenError::NotADisk { path: path.to_owned() });
    }
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if kind == FileType::RegularFile && allocated < bytes {
        return Err(OpenError::Sparse { path: path.to_owned(), bytes, allocated });
    }
    Ok((bytes, kind == FileType::BlockDevice))
}

/// The larger of the alignments direct I/O needs in memory and on the device, when the kernel tells (Linux 6.1).
fn direct_align(file: &OwnedFd) -> Result<Option<u32>, rustix::io::Errno> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let told = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && stat.stx_dio_offset_align != 0;
    Ok(told.then(|| stat.stx_dio_offset_align.max(stat.stx_dio_mem_align)))
}

/// A request as the kernel needs it told, before it is known how the file and the buffer are named.
struct Span {
    position: u64,
    bytes: u32,
    buffer: Option<u16>,
}

impl Inner {
    fn check(&self, at: Position, bytes: u64) -> Result<(), DiskError> {
        check_range(at, bytes, self.facts.bytes)?;
        if self.failed.get() { Err(DiskError::Failed) } else { Ok(()) }
    }

    /// The file, for one request.
    fn file(&self) -> Result<Rc<File>, DiskError> {
        self.file.borrow().clone().ok_or(DiskError::Failed)
    }

    fn fail(&self, error: DiskError) -> DiskError {
        self.failed.set(true);
        error
    }

    fn read_entry(file: &File, span: &Span, into: *mut u8) -> squeue::Entry {
        let &Span { position, bytes, buffer } = span;
        match (file.fixed(), buffer) {
            (Some(fixed), Some(buffer)) => {
                opcode::ReadFixed::new(types::Fixed(fixed), into, bytes, buffer).offset(position).build()
            }
            (Some(fixed), None) => {
                opcode::Read::new(types::Fixed(fixed), into, bytes).offset(position).build()
            }
            (None, Some(buffer)) => {
                opcode::ReadFixed::new(file.raw(), into, bytes, buffer).offset(position).build()
            }
            (None, None) => opcode::Read::new(file.raw(), into, bytes).offset(position).build(),
        }
    }

    fn write_entry(file: &File, span: &Span, from: *const u8, durability: Durability) -> squeue::Entry {
        let &Span { position, bytes, buffer } = span;
        let flags = match durability {
            Durability::Cached => 0,
            Durability::Synced => libc::RWF_DSYNC,
        };
        match (file.fixed(), buffer) {
            (Some(fixed), Some(buffer)) => opcode::WriteFixed::new(types::Fixed(fixed), from, bytes, buffer)
                .offset(position)
                .rw_flags(flags)
                .build(),
            (Some(fixed), None) => {
                opcode::Write::new(types::Fixed(fixed), from, bytes).offset(position).rw_flags(flags).build()
            }
            (None, Some(buffer)) => opcode::WriteFixed::new(file.raw(), from, bytes, buffer)
                .offset(position)
                .rw_flags(flags)
                .build(),
            (None, None) => {
                opcode::Write::new(file.raw(), from, bytes).offset(position).rw_flags(flags).build()
            }
        }
    }

    /// What is left of a request, after `done` bytes.
    fn rest(&self, at: Position, len: usize, done: usize, pool: u64, region: usize) -> Span {
        Span {
            position: at.0 + done as u64,
            bytes: u32::try_from(len - done).expect("a buffer has at most 1 MiB"),
            buffer: self.reactor.buffer_index(pool, region),
        }
    }
}

/// How a transfer goes on after one answer of the kernel.
enum Answer {
    Moved(usize),
    Again,
    Failed(i32),
}

impl Answer {
    fn of(result: i32) -> Self {
        match result {
            // End of file inside a device that was measured at opening: it shrank.
            0 => Self::Failed(libc::EIO),
            result if result > 0 => Self::Moved(usize::try_from(result).expect("positive")),
            result if result == -libc::EAGAIN || result == -libc::EINTR => Self::Again,
            result => Self::Failed(-result),
        }
    }
}

impl Disk for UringDisk {
    async fn read(&self, class: IoClass, at: Position, mut into: DmaBuf) -> Done<()> {
        let disk = &*self.inner;
        if let Err(error) = disk.check(at, into.len() as u64) {
            return (Err(error), into);
        }
        let (len, mut done) = (into.len(), 0);
        for _ in 0..CONTINUATIONS_MAX {
            let admission = disk.queue.admit(class, len - done).await;
            let file = match disk.file() {
                Ok(file) => file,
                Err(error) => return (Err(error), into),
            };
            let span = disk.rest(at, len, done, into.pool_id(), into.region_index());
            let entry = Inner::read_entry(&file, &span, into[done..].as_mut_ptr());
            let (result, payload) =
                disk.reactor.disk_operation(&file, entry, Payload::Fill(into), Some(admission)).await;
            let Payload::Fill(back) = payload else { unreachable!("the payload comes back") };
            into = back;
            match Answer::of(result) {
                Answer::Moved(bytes) => done += bytes,
                Answer::Again => {}
                Answer::Failed(errno) => return (Err(DiskError::Io { position: at, errno }), into),
            }
            if done == len {
                return (Ok(()), into);
            }
        }
        (Err(DiskError::Io { position: at, errno: libc::EIO }), into)
    }

    async fn write(
        &self,
        class: IoClass,
        at: Position,
        mut from: SharedBuf,
        durability: Durability,
    ) -> Result<(), DiskError> {
        let disk = &*self.inner;
        disk.check(at, from.len() as u64)?;
        let (len, mut done) = (from.len(), 0);
        for _ in 0..CONTINUATIONS_MAX {
            let admission = disk.queue.admit(class, len - done).await;
            if disk.failed.get() {
                return Err(DiskError::Failed);
            }
            let file = disk.file()?;
            let span = disk.rest(at, len, done, from.pool_id(), from.region_index());
            let entry = Inner::write_entry(&file, &span, from[done..].as_ptr(), durability);
            let (result, payload) =
                disk.reactor.disk_operation(&file, entry, Payload::Drain(from), Some(admission)).await;
            let Payload::Drain(back) = payload else { unreachable!("the payload comes back") };
            from = back;
            match Answer::of(result) {
                Answer::Moved(bytes) => done += bytes,
                Answer::Again => {}
                Answer::Failed(libc::ENOSPC | libc::EDQUOT) => return Err(disk.fail(DiskError::NoSpace)),
                Answer::Failed(errno) => return Err(disk.fail(DiskError::Io { position: at, errno })),
            }
            if done == len {
                // What completed beside a failure may be in a cache that the device has dropped.
                return if disk.failed.get() { Err(DiskError::Failed) } else { Ok(()) };
            }
        }
        Err(disk.fail(DiskError::Io { position: at, errno: libc::EIO }))
    }

    async fn flush(&self) -> Result<(), DiskError> {
        let disk = &*self.inner;
        if disk.failed.get() {
            return Err(DiskError::Failed);
        }
        let flags = types::FsyncFlags::DATASYNC;
        for _ in 0..CONTINUATIONS_MAX {
            let file = disk.file()?;
            let entry = match file.fixed() {
                Some(fixed) => opcode::Fsync::new(types::Fixed(fixed)).flags(flags).build(),
                None => opcode::Fsync::new(file.raw()).flags(flags).build(),
            };
            let (result, _) = disk.reactor.disk_operation(&file, entry, Payload::None, None).await;
            match result {
                0 if disk.failed.get() => return Err(DiskError::Failed),
                0 => return Ok(()),
                // Interrupted before it began; an error is never retried, for the kernel reports it only once.
                result if result == -libc::EINTR => {}
                result => return Err(disk.fail(DiskError::Io { position: Position(0), errno: -result })),
            }
        }
        Err(disk.fail(DiskError::Io { position: Position(0), errno: libc::EINTR }))
    }

    /// On a block device, discards; a preallocated file keeps its space, so nothing happens there.
    async fn discard(&self, at: Position, bytes: u64) -> Result<(), DiskError> {
        let disk = &*self.inner;
        disk.check(at, bytes)?;
        if disk.facts.block_device {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let file = disk.file()?;
            let entry = opcode::Fallocate::new(file.raw(), bytes).offset(at.0).mode(mode).build();
            // A hint: a device that cannot, need not.
            let _ = disk.reactor.disk_operation(&file, entry, Payload::None, None).await;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.inner.facts.bytes
    }
}

impl fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDisk")
            .field("facts", &self.inner.facts)
            .field("failed", &self.inner.failed.get())
            .finish_non_exhaustive()
    }
}

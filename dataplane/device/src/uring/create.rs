//! Makes a file that stands for a disk: all of its space set aside and written once.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nova_buf::{BufError, DmaBuf, HugePages, Pool, PoolOptions};
use nova_units::PAGE_BYTES;
use rustix::{
    fs::{FallocateFlags, Mode, OFlags, RenameFlags},
    io::Errno,
};

/// Asks the device itself for written zeros (Linux 6.17): no data crosses the bus. Too new for the bindings.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// Bytes written at a time.
const STEP_BYTES: usize = 1 << 20;

/// Left free on the file system beside the disk, for its own metadata.
const SPARE_BYTES: u64 = 4 << 20;

/// Why a disk was not created. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is something at that path.
    #[error("{path} exists: choose another path, or remove it if its data is not needed")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file system is too full.
    #[error("{bytes} bytes do not fit: {free} are free where {path} would lie")]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What was asked for.
        bytes: u64,
        /// What there is.
        free: u64,
    },
    /// A disk is whole pages, and at least one.
    #[error("{bytes} bytes are not a whole number of 4096-byte pages")]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// The kernel refused a step.
    #[error("cannot {step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No memory for one buffer.
    #[error("no memory to write zeros from")]
    Memory(#[from] BufError),
}

/// How far the creation of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub bytes_done: u64,
    /// Bytes to write.
    pub bytes_total: u64,
}

/// What to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Size in bytes, a multiple of 4096.
    pub bytes: u64,
}

/// How the zeros were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// By the device, on request.
    ByDevice,
    /// By us, a mebibyte at a time.
    ByWriting,
}

/// Creates a disk of zeros at `path`: space set aside, every page written once, file and directory durable.
///
/// Blocks; run it outside a shard. The file appears under its name only when it is complete.
///
/// # Errors
/// When the path exists, space is short, or the file system refuses.
pub fn create_disk(
    path: &Path,
    options: CreateOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Filled, CreateError> {
    let CreateOptions { bytes } = options;
    if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) {
        return Err(CreateError::Size { bytes });
    }
    if path.symlink_metadata().is_ok() {
        return Err(CreateError::Exists { path: path.to_owned() });
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed =
        |step| move |errno: Errno| CreateError::Io { step, path: path.to_owned(), source: errno.into() };
    let space = rustix::fs::statvfs(folder).map_err(failed("look at the file system of"))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < bytes.saturating_add(SPARE_BYTES) {
        return Err(CreateError::NoSpace { path: path.to_owned(), bytes, free });
    }
    let mut draft_name = path.as_os_str().to_owned();
    draft_name.push(".creating");
    let draft = Draft(PathBuf::from(draft_name));
    // A draft of an earlier attempt that was killed is taken over.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = rustix::fs::open(&draft.0, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create"))?;
    let filled = fill(&file, bytes, &mut progress).map_err(|(step, errno)| match errno {
        Errno::NOSPC => CreateError::NoSpace { path: path.to_owned(), bytes, free },
        errno => failed(step)(errno),
    })?;
    let filled = filled?;
    rustix::fs::fsync(&file).map_err(failed("sync"))?;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, &draft.0, here, path, RenameFlags::NOREPLACE).map_err(
        |errno| match errno {
            Errno::EXIST => CreateError::Exists { path: path.to_owned() },
            errno => failed("name")(errno),
        },
    )?;
    let folder =
        rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open the directory of"))?;
    rustix::fs::fsync(&folder).map_err(failed("sync the directory of"))?;
    Ok(filled)
}

/// The file under its temporary name; removed when dropped. After the rename there is nothing to remove.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Step<T> = Result<T, (&'static str, Errno)>;

fn fill(
    file: &OwnedFd,
    bytes: u64,
    progress: &mut impl FnMut(Progress),
) -> Step<Result<Filled, CreateError>> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // A file system that cannot set space aside gets it by the writing below.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(("set space aside for", errno)),
    }
    if rustix::fs::fallocate(file, WRITE_ZEROES, 0, bytes).is_ok() {
        progress(Progress { bytes_done: bytes, bytes_total: bytes });
        return Ok(Ok(Filled::ByDevice));
    }
    let zeros = match zeros() {
        Ok(zeros) => zeros,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut done = 0;
    while done < bytes {
        let step = usize::try_from(bytes - done).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        match rustix::io::pwrite(file, &zeros[..step], done) {
            Ok(0) => return Err(("write", Errno::IO)),
            Ok(written) => done += written as u64,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(("write", errno)),
        }
        progress(Progress { bytes_done: done, bytes_total: bytes });
    }
    Ok(Ok(Filled::ByWriting))
}

/// A page-aligned mebibyte of zeros.
fn zeros() -> Result<DmaBuf, BufError> {
    let pool = Pool::new(PoolOptions { bytes: 1, huge: HugePages::Never })?;
    Ok(pool.try_take(STEP_BYTES).expect("a new pool has a buffer of every class"))
}

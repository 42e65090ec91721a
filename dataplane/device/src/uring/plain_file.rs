//! A regular file through the ring of the shard, in the page cache.
//!
//! A [`UringDisk`](super::UringDisk) is a device of ours: locked, without holes, past the cache. This is a file of
//! somebody else's file system, as tools read and write it: any length, any offset.

use core::fmt;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use io_uring::{opcode, types};
use nova_buf::{DmaBuf, SharedBuf};

use super::{Reactor, file::File, slots::Payload};

/// An open regular file. A clone is another handle.
#[derive(Clone)]
pub struct PlainFile {
    reactor: Reactor,
    file: Rc<File>,
}

impl PlainFile {
    /// Takes over an open file; what it may do is what it was opened for.
    #[must_use]
    pub fn new(reactor: &Reactor, file: OwnedFd) -> Self {
        Self { reactor: reactor.clone(), file: Rc::new(File::new(file)) }
    }

    /// Fills `into` with the bytes at `offset`; tells how many there were before the end of the file.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Cancel safety
    /// Safe: the operation owns the buffer until it ends.
    pub async fn read_at(&self, mut into: DmaBuf, offset: u64) -> (io::Result<usize>, DmaBuf) {
        let mut filled = 0;
        while filled < into.len() {
            let room = &mut into[filled..];
            let len = u32::try_from(room.len()).expect("a buffer has at most 1 MiB");
            let entry = opcode::Read::new(self.file.raw(), room.as_mut_ptr(), len)
                .offset(offset + filled as u64)
                .build();
            let (result, payload) =
                self.reactor.disk_operation(&self.file, entry, Payload::Fill(into), None).await;
            let Payload::Fill(back) = payload else { unreachable!("the payload comes back") };
            into = back;
            match result {
                0 => break,
                result if result > 0 => filled += usize::try_from(result).expect("positive"),
                result if is_passing(result) => {}
                result => return (Err(io::Error::from_raw_os_error(-result)), into),
            }
        }
        (Ok(filled), into)
    }

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// The kernel's; part of the bytes may have been written.
    ///
    /// # Cancel safety
    /// A dropped write may be carried out in part; its memory stays until the kernel is done.
    pub async fn write_at(&self, from: &SharedBuf, offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < from.len() {
            let left = from.slice(written..from.len());
            let len = u32::try_from(left.len()).expect("a buffer has at most 1 MiB");
            let entry = opcode::Write::new(self.file.raw(), left.as_ptr(), len)
                .offset(offset + written as u64)
                .build();
            let (result, _) =
                self.reactor.disk_operation(&self.file, entry, Payload::Drain(left), None).await;
            match result {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                result if result > 0 => written += usize::try_from(result).expect("positive"),
                result if is_passing(result) => {}
                result => return Err(io::Error::from_raw_os_error(-result)),
            }
        }
        Ok(())
    }

    /// Makes durable what was written before this began, and the length.
    ///
    /// # Errors
    /// The kernel's: what was written since the last success may be gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn sync_data(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.file.raw()).flags(types::FsyncFlags::DATASYNC).build();
        let (result, _) = self.reactor.disk_operation(&self.file, entry, Payload::None, None).await;
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}

/// Whether an answer means that nothing happened and asking again is right.
fn is_passing(result: i32) -> bool {
    result == -libc::EINTR || result == -libc::EAGAIN
}

impl AsFd for PlainFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for PlainFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainFile").field("file", &self.file.raw().0).finish_non_exhaustive()
    }
}

//! A descriptor that operations share, and what goes with it.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    rc::Weak,
};

use io_uring::types;

use super::reactor;

/// An open file or socket. Every operation in flight holds it, so that its number is not given to another file, nor
/// its lock to another process, while the kernel still works on it.
#[derive(Debug)]
pub(super) struct File {
    fd: OwnedFd,
    locked: bool,
    fixed: Option<(Weak<reactor::Inner>, u32)>,
}

impl File {
    /// A socket, or anything that is neither locked nor registered.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, locked: false, fixed: None }
    }

    /// A file this process has locked and, with an index, registered with the ring.
    pub(super) fn locked(fd: OwnedFd, fixed: Option<(Weak<reactor::Inner>, u32)>) -> Self {
        Self { fd, locked: true, fixed }
    }

    /// Its index among the files of the ring.
    pub(super) fn fixed(&self) -> Option<u32> {
        self.fixed.as_ref().map(|(_, index)| *index)
    }

    /// Its number, for a submission.
    pub(super) fn raw(&self) -> types::Fd {
        types::Fd(self.fd.as_raw_fd())
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some((reactor, index)) = self.fixed.take()
            && let Some(reactor) = reactor.upgrade()
        {
            reactor.unregister_file(index);
        }
        if self.locked {
            // The ring may let go of the file later than we do; the lock must not wait for that.
            let _ = rustix::fs::flock(&self.fd, rustix::fs::FlockOperation::NonBlockingUnlock);
        }
    }
}

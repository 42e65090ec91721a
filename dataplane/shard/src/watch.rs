//! Waits for descriptors that others write to.
//!
//! Not through the ring of the shard: the kernel does not signal one eventfd from within the wake-up of another, but
//! only after an RCU grace period, so a doorbell that is an eventfd would wake a parked shard tens of milliseconds
//! late. glommio sleeps in its own ring, without an eventfd, and hears it at once.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::park;

/// A descriptor to wait on: the doorbell of a ring, a pidfd, a signalfd.
#[derive(Debug)]
pub struct Watch {
    file: OwnedFd,
}

impl Watch {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self { file }
    }

    /// Waits until the descriptor is readable. Reads nothing: the caller does, through [`Watch::as_fd`], and without
    /// blocking, because a wait may end early.
    ///
    /// # Errors
    /// When the descriptor cannot be polled, or is a socket.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn readable(&self) -> io::Result<()> {
        park::readable(self.file.as_fd()).await
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

//! Waits until a descriptor that somebody else writes to becomes readable.
//!
//! The wait is an operation of the ring, so that a thread that sleeps in the ring hears it. Behind an eventfd that the
//! ring signals it would not: the kernel signals one eventfd from within the wake-up of another only after an RCU grace
//! period.

use core::fmt;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use io_uring::opcode;

use super::{Reactor, file::File, slots::Payload};
use crate::LaneError;

/// A descriptor to wait on: the eventfd of a ring's doorbell, a pidfd, a signalfd.
#[derive(Clone)]
pub struct Watch {
    reactor: Reactor,
    file: Rc<File>,
}

impl Watch {
    /// Watches `file`.
    #[must_use]
    pub fn new(reactor: &Reactor, file: OwnedFd) -> Self {
        Self { reactor: reactor.clone(), file: Rc::new(File::new(file)) }
    }

    /// Waits until the descriptor is readable, or in an error state that a read will name. Reads nothing: the caller
    /// does, through [`Watch::as_fd`].
    ///
    /// # Errors
    /// When the kernel cannot poll this kind of descriptor.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn readable(&self) -> Result<(), LaneError> {
        let events = u32::try_from(libc::POLLIN).expect("a small constant");
        let entry = opcode::PollAdd::new(self.file.raw(), events).build();
        let (result, _) = self.reactor.socket_operation(&self.file, entry, Payload::None).await;
        if result < 0 { Err(LaneError::Broken { errno: -result }) } else { Ok(()) }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("file", &self.file).finish_non_exhaustive()
    }
}

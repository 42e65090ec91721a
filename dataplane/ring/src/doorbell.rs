//! What wakes the other side of a ring, so that no call of a service ever waits for its peer.
//!
//! Two processes that hold one eventfd share its open file description, and with it `O_NONBLOCK`: a peer that clears
//! the flag decides when a plain read or write of the service returns. So the service makes calls whose flags are its
//! own, each time:
//!
//! | wakes | made of | the service | the peer |
//! | --- | --- | --- | --- |
//! | the service | an eventfd | reads with `RWF_NOWAIT` | writes |
//! | the peer | the socket of the attachment | sends with `MSG_DONTWAIT` | receives |
//!
//! An eventfd takes `RWF_NOWAIT` for reads only: a write with it is `EOPNOTSUPP` up to today's Linux, and a write
//! without it sleeps once the peer has filled the counter. Each end of a socket has a description of its own, and a
//! send that finds no room says so. It would serve for the other direction too, but a message that is received may
//! carry descriptors, and whoever throws them away closes the peer's files, which may take as long as the peer likes;
//! so the service receives nothing after the hello (`handshake::hush`). A pipe is worse: a peer that copies holds its
//! lock, also while the page it copies from or to is being fetched.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::ReadWriteFlags;
use rustix::net::{RecvFlags, SendFlags};

use crate::error::AttachError;
use crate::lane::LOOK_AGAIN;

/// Rings that are taken from a socket at once; an honest service sends one for each sleep.
const RINGS_TAKEN_MAX: usize = 64;
/// Says that an eventfd is read where it stands; any other offset is refused.
const NO_OFFSET: u64 = u64::MAX;

/// One end of what wakes the receiver of a ring.
#[derive(Debug)]
pub(crate) enum Doorbell {
    /// Rung by the peer, heard by the service: an eventfd.
    OfService(OwnedFd),
    /// Rung by the service, heard by the peer: their socket.
    OfPeer(Arc<UnixStream>),
}

impl Doorbell {
    /// Wakes the receiver. The service never waits here; a peer does when it spoiled its own eventfd.
    pub(crate) fn ring(&self) {
        // One that is full already wakes, and one that is closed has a socket that says so.
        match self {
            Self::OfService(event) => {
                let _ = rustix::io::write(event, &1u64.to_le_bytes());
            }
            Self::OfPeer(socket) => {
                let _ = rustix::net::send(socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
    }

    /// Waits on a std thread for a ring and takes it, for `timeout` at most and never over [`LOOK_AGAIN`].
    pub(crate) fn wait(&self, timeout: Duration) {
        // Interrupted or timed out: the caller looks again anyway.
        if let Self::OfPeer(socket) = self
            && timeout >= LOOK_AGAIN
        {
            // The time-out of the socket, which `attach` set: one call, where a poll would need a second.
            let _ = rustix::net::recv(socket, &mut [0; RINGS_TAKEN_MAX], RecvFlags::empty());
            return;
        }
        let timeout = Timespec::try_from(timeout.min(LOOK_AGAIN)).expect("at most 100 ms");
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        if matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            self.silence();
        }
    }

    /// Takes the rings that are there, so that the next wait waits for a new one. Never waits.
    pub(crate) fn silence(&self) {
        // Nothing to take (EAGAIN) is what a silent one says.
        match self {
            Self::OfService(event) => {
                let mut count = [0; 8];
                let into = &mut [IoSliceMut::new(&mut count)];
                let _ = rustix::io::preadv2(event, into, NO_OFFSET, ReadWriteFlags::NOWAIT);
            }
            Self::OfPeer(socket) => {
                let _ = rustix::net::recv(socket, &mut [0; RINGS_TAKEN_MAX], RecvFlags::DONTWAIT);
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::OfService(event) => event.as_fd(),
            Self::OfPeer(socket) => socket.as_fd(),
        }
    }
}

/// Makes the eventfd that wakes a service.
pub(crate) fn of_service() -> Result<OwnedFd, AttachError> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(AttachError::system("create a doorbell"))
}

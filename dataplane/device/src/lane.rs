//! The seam to one connection.

use core::time::Duration;

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::PeerAddr;

/// An attempt to connect gives up after this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a lane could not do what was asked. Whatever the reason, the lane is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The peer ended the stream in order, at or before the bytes asked for.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection broke: reset, unreachable, or cut by a fault.
    #[error("the connection broke (errno {errno}): connect again")]
    Broken {
        /// The kernel's answer, or `ECONNRESET` from a lane without a kernel.
        errno: i32,
    },
    /// Nobody listens there.
    #[error("the peer refused the connection: is its daemon running?")]
    Refused,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// A send was dropped half way, so the stream holds part of a message.
    #[error("an earlier send was abandoned half way: connect again")]
    Poisoned,
    /// What came does not pass TLS: changed on the way, out of turn, or nothing that a peer of ours sends. It may also be an
    /// alert of the peer, which found the same.
    #[error(
        "bytes came that TLS refuses, or the peer refuses ours: connect again; if it happens often, look for a host or a line that changes bytes"
    )]
    Forged,
    /// This host has no sockets or memory left for it.
    #[error("no resources for a connection (errno {errno}): close some, or raise the limit on open files")]
    NoResources {
        /// The kernel's answer.
        errno: i32,
    },
}

/// One ordered, reliable stream of bytes in each direction: kernel TCP, user TCP, or memory.
///
/// One task sends and one receives at a time; the two directions are independent.
pub trait Lane: 'static {
    /// Sends `head`, then `body`. Completes when the transport has accepted all of it, not when the peer has it.
    ///
    /// # Errors
    /// After an error the lane is of no further use.
    ///
    /// # Cancel safety
    /// Dropped after it started, it poisons the lane: part of a message may be on its way.
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError>;

    /// Receives at least `min` bytes, and as many as fit `into`, behind the first `filled` bytes of it; tells how many.
    ///
    /// A lane that went over all bytes of `into` leaves the sums of its pages with it; every other makes it forget them.
    ///
    /// # Errors
    /// [`LaneError::Closed`] when the stream ends before `min` bytes.
    ///
    /// # Panics
    /// When `min` is zero, or does not fit behind what is filled.
    ///
    /// # Cancel safety
    /// Not cancel safe: bytes received so far are lost, and the lane answers [`LaneError::Poisoned`] afterwards.
    async fn recv_behind(
        &self,
        into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf);

    /// Receives exactly `count` bytes into the front of `into`, at least one.
    ///
    /// # Errors
    /// As [`Lane::recv_behind`].
    ///
    /// # Panics
    /// When `count` is zero or above `into.len()`.
    ///
    /// # Cancel safety
    /// Not cancel safe, like [`Lane::recv_behind`].
    async fn recv_exact(&self, mut into: DmaBuf, count: usize) -> (Result<(), LaneError>, DmaBuf) {
        let len = into.len();
        assert!(count <= len, "{count} bytes into a buffer of {len}");
        into.truncate(count);
        let (result, mut into) = self.recv_behind(into, 0, count).await;
        if count < len {
            into.set_len(len);
        }
        (result.map(drop), into)
    }

    /// Receives at least `min` bytes and at most `into.len()` into the front of `into`; tells how many.
    ///
    /// # Errors
    /// As [`Lane::recv_behind`].
    ///
    /// # Panics
    /// When `min` is zero or above `into.len()`.
    ///
    /// # Cancel safety
    /// Not cancel safe, like [`Lane::recv_behind`].
    async fn recv_some(&self, into: DmaBuf, min: usize) -> (Result<usize, LaneError>, DmaBuf) {
        self.recv_behind(into, 0, min).await
    }

    /// Ends the sending direction: the peer receives what was sent, then [`LaneError::Closed`].
    ///
    /// # Errors
    /// When the connection is already broken.
    async fn shutdown(&self) -> Result<(), LaneError>;
}

/// Asserts what [`Lane::recv_behind`] asks of its caller; every implementation begins with it.
///
/// # Panics
/// When `min` is zero, or does not fit behind what is filled.
pub fn check_room(into: &DmaBuf, filled: usize, min: usize) {
    let fits = filled.checked_add(min).is_some_and(|end| end <= into.len());
    assert!(min > 0 && fits, "at least {min} bytes behind {filled} in a buffer of {}", into.len());
}

/// Takes connections that other hosts open.
pub trait Listener: 'static {
    /// What it hands out.
    type Lane: Lane;

    /// The next connection, and who opened it.
    ///
    /// # Errors
    /// When this host has no resources for it; the next call may succeed, after a pause.
    ///
    /// # Cancel safety
    /// Safe: a connection that a dropped call would have returned goes to the next call, or is closed.
    async fn accept(&self) -> Result<(Self::Lane, PeerAddr), LaneError>;

    /// Where it listens.
    fn address(&self) -> PeerAddr;
}

//! What a link has done since it was made.

use std::cell::RefCell;

/// Totals over all connections of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes handed to lanes.
    pub bytes_sent: u64,
    /// Bytes taken from lanes.
    pub bytes_received: u64,
    /// Frames handed to lanes.
    pub frames_sent: u64,
    /// Frames taken from lanes, checked.
    pub frames_received: u64,
    /// Receives that the lanes made for them: fewer than frames, when short ones come together.
    pub receives: u64,
    /// Frames whose checksum did not match; each closed its connection.
    pub checksum_failures: u64,
    /// Connections closed over bytes that are no frame, checksums not counted.
    pub garbled: u64,
    /// Connections closed because the peer broke the protocol.
    pub violations: u64,
    /// Connections closed because a peer went silent or owed an answer.
    pub stuck: u64,
    /// Connections dialled.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Dials to a peer that had been connected before and had lost every connection.
    pub reconnects: u64,
    /// Lanes taken over from the daemon.
    pub accepted: u64,
    /// Lanes dropped because too many were accepted already.
    pub accept_refusals: u64,
    /// Connections that were not made secure: certificates that are not ours, other protocols, handshakes that did not end.
    pub handshake_failures: u64,
    /// Connections of hosts that called themselves by a number that is not that of their certificate; each was closed.
    pub impostors: u64,
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended without an answer.
    pub calls_failed: u64,
    /// Requests handed to a handler.
    pub served: u64,
    /// Bodies that waited for a slab in vain; each closed its connection.
    pub body_starvations: u64,
}

/// The link's own copy.
#[derive(Debug, Default)]
pub(crate) struct Tally(RefCell<Counters>);

impl Tally {
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.0.borrow_mut());
    }

    pub(crate) fn read(&self) -> Counters {
        *self.0.borrow()
    }
}

//! What can happen to a connection.

use core::fmt;
use core::time::Duration;

use nova_units::Priority;
use novabulk_frame::{Control, FrameError, FrameHeader, Hop, MessageId, ResetReason};

use crate::error::Violation;

/// The caller's name for one of its requests; unique among those that are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {}", self.0)
    }
}

/// A request that this side makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's name for it.
    pub ticket: Ticket,
    /// How often the work was passed on; its pool pays for the body.
    pub hop: Hop,
    /// Who goes first.
    pub priority: Priority,
    /// What the machine does not look into.
    pub head: Vec<u8>,
    /// Length of the body, which stays with the caller.
    pub body_bytes: u32,
    /// Length of the buffer the caller has reserved for the reply's body.
    pub reply_max: u32,
    /// When the caller stops waiting, on the clock of `now`.
    pub deadline: Duration,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The lane stands; first input of all.
    Start,
    /// The lane took the last frame and can take another.
    Writable,
    /// This side asks. Ends with one `Answered` or `Failed`, then one `Settled`.
    Request(Request),
    /// Nobody waits for this request any more.
    Cancel(Ticket),
    /// The answer to a request the peer made; also gives back its credit.
    Answer {
        /// The peer's request.
        id: MessageId,
        /// What the machine does not look into.
        head: Vec<u8>,
        /// Length of the body, which stays with the caller.
        body_bytes: u32,
    },
    /// No answer to a request the peer made; also gives back its credit.
    Refuse {
        /// The peer's request.
        id: MessageId,
        /// Why.
        reason: ResetReason,
    },
    /// The body of a request of the peer is free before its answer is ready: its credit goes back now.
    Release(MessageId),
    /// A control frame arrived and was verified.
    Control(FrameHeader, Control),
    /// A data frame arrived where [`crate::Connection::place`] said, and was verified.
    Data(FrameHeader),
    /// A data frame had no place.
    Misplaced(Violation),
    /// Bytes arrived that are no frame.
    Garbled(FrameError),
    /// Take no new work, end what is under way, then close.
    Drain,
    /// The lane ended or failed.
    LaneLost,
    /// Time passed; due at [`crate::Connection::next_timer`].
    Tick,
}

//! Control headers: what the two ends of a connection say to each other beside payload.
//!
//! The first byte is the kind, fields follow in network order:
//!
//! | kind | name | fields |
//! | --- | --- | --- |
//! | 1 | HELLO | version_min u8, version_max u8, role u8, features u64, node u64, boot u64, body_bytes_max u32, port_base u16, port_count u16, 3 x grant u32 |
//! | 2 | OPEN | class u8, zero u16, transfer u64, token (to the end) |
//! | 3 | ACCEPT | zero u8, zero u16, grant u32 |
//! | 4 | REJECT | zero u8, zero u16, retry_after_ms u32 |
//! | 5 | MESSAGE | kind u8, hop u8, priority u8, id u64, body_bytes u32, reply_max u32, deadline_ms u32, head (to the end) |
//! | 6 | CREDIT | hop u8, zero u16, total u64 |
//! | 7 | BLOCKED | hop u8, zero u16, total u64 |
//! | 8 | STOP | reason u8, zero u16, id u64 |
//! | 9 | RESET | kind u8, reason u8, zero u8, id u64 |
//! | 10 | GOAWAY | zero u8, zero u16, last_stream u32, last_message u64 |
//!
//! OPEN, ACCEPT and REJECT are about the stream of their frame, all others but MESSAGE travel on stream 0.

mod hello;
mod message;
mod open;

pub use hello::{GoAway, HOPS, Hello, LinkRole};
pub use message::{
    Blocked, Credit, HEAD_BYTES_MAX, Hop, MESSAGE_FIELDS_BYTES, Message, MessageId, MessageKind, Reset,
    ResetReason, Stop, StopReason,
};
pub use open::{Accept, Open, Reject, TOKEN_BYTES_MAX};

use crate::error::FrameError;
use crate::reader::Reader;

/// The payload of a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// First frame of each side.
    Hello(Hello),
    /// Asks for a stream for a transfer.
    Open(Open),
    /// Grants the stream.
    Accept(Accept),
    /// Refuses the stream.
    Reject(Reject),
    /// Begins a message; its payload follows in data frames of the same stream.
    Message(Message),
    /// Raises what the peer may send.
    Credit(Credit),
    /// The sender has work that waits for credit.
    Blocked(Blocked),
    /// The requester does not want the answer any more.
    Stop(Stop),
    /// Ends a message before its time.
    Reset(Reset),
    /// No further requests, please.
    GoAway(GoAway),
}

impl Control {
    /// Appends the header's bytes, at most [`crate::CONTROL_BYTES_MAX`].
    ///
    /// # Panics
    /// When the opaque part of a message or the token of an OPEN is over its limit; senders check theirs before.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.push(self.kind());
        match self {
            Self::Hello(hello) => hello.encode(into),
            Self::Open(open) => open.encode(into),
            Self::Accept(accept) => accept.encode(into),
            Self::Reject(reject) => reject.encode(into),
            Self::Message(message) => message.encode(into),
            Self::Credit(credit) => credit.encode(into),
            Self::Blocked(blocked) => blocked.encode(into),
            Self::Stop(stop) => stop.encode(into),
            Self::Reset(reset) => reset.encode(into),
            Self::GoAway(goaway) => goaway.encode(into),
        }
    }

    /// Reads the payload of a control frame. Only the opaque parts are copied out.
    ///
    /// # Errors
    /// Any [`FrameError`] about control headers, also [`FrameError::Empty`].
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = payload.split_first().ok_or(FrameError::Empty)?;
        let fields = Reader::new(kind, rest);
        match kind {
            1 => Hello::decode(fields).map(Self::Hello),
            2 => Open::decode(fields).map(Self::Open),
            3 => Accept::decode(fields).map(Self::Accept),
            4 => Reject::decode(fields).map(Self::Reject),
            5 => Message::decode(fields).map(Self::Message),
            6 => Credit::decode(fields).map(Self::Credit),
            7 => Blocked::decode(fields).map(Self::Blocked),
            8 => Stop::decode(fields).map(Self::Stop),
            9 => Reset::decode(fields).map(Self::Reset),
            10 => GoAway::decode(fields).map(Self::GoAway),
            kind => Err(FrameError::ControlKind { kind }),
        }
    }

    /// The first byte on the wire.
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Open(_) => 2,
            Self::Accept(_) => 3,
            Self::Reject(_) => 4,
            Self::Message(_) => 5,
            Self::Credit(_) => 6,
            Self::Blocked(_) => 7,
            Self::Stop(_) => 8,
            Self::Reset(_) => 9,
            Self::GoAway(_) => 10,
        }
    }
}

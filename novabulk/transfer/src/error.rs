//! What goes wrong, and whose fault it is.

use novabulk_frame::{FrameError, Hop, MessageId, ResetReason, StreamId};
use thiserror::Error;

/// How a peer broke the protocol. The connection closes: a peer that miscounts cannot be trusted to count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Something came before HELLO.
    #[error("the peer's first frame is not HELLO")]
    HelloMissing,
    /// A second HELLO.
    #[error("the peer said HELLO twice")]
    HelloTwice,
    /// No version in common.
    #[error("the peer speaks versions {min} to {max}, this build speaks 1: upgrade the older side")]
    Version {
        /// Its lowest.
        min: u8,
        /// Its highest.
        max: u8,
    },
    /// The two ends disagree about what the connection is for.
    #[error("the peer takes the connection for another role")]
    Role,
    /// A stream that the peer may not use for this.
    #[error("{stream} is not the peer's for this frame")]
    Stream {
        /// The stream.
        stream: StreamId,
    },
    /// A message began on a stream whose last one had not ended.
    #[error("{stream} began a message inside of another")]
    StreamBusy {
        /// The stream.
        stream: StreamId,
    },
    /// Flags that say something else than the control header.
    #[error("{stream} has frame flags that contradict its control header")]
    Flags {
        /// The stream.
        stream: StreamId,
    },
    /// Request numbers are dense.
    #[error("the peer's next request should be {expected}, it is {found}")]
    Order {
        /// One more than the last.
        expected: MessageId,
        /// What came.
        found: MessageId,
    },
    /// Spec B.2.
    #[error("the peer has more than 128 requests outstanding")]
    TooManyRequests,
    /// More body than credit.
    #[error("hop {}: the peer sent {bytes} bytes more than it had credit for", hop.number())]
    Overrun {
        /// The pool.
        hop: Hop,
        /// By how much.
        bytes: u64,
    },
    /// A body over the limit that our HELLO named.
    #[error("a request body of {bytes} bytes, over the limit of {bytes_max} in our HELLO")]
    BodyTooLong {
        /// What it announces.
        bytes: u32,
        /// What we said.
        bytes_max: u32,
    },
    /// An answer or reset for a request that is not outstanding.
    #[error("the peer answers {id}, which is not outstanding")]
    Unknown {
        /// What it names.
        id: MessageId,
    },
    /// An answer over the reserved buffer.
    #[error("the answer to {id} has {bytes} bytes, {bytes_max} were reserved")]
    ReplyTooLong {
        /// The request.
        id: MessageId,
        /// What it announces.
        bytes: u32,
        /// What was reserved.
        bytes_max: u32,
    },
    /// Payload on a stream that is in no message.
    #[error("payload on {stream}, which is in no message")]
    Payload {
        /// The stream.
        stream: StreamId,
    },
    /// A data frame of another length than its message prescribes, or coded in a way nobody agreed on.
    #[error("a data frame on {stream} carries {bytes} bytes, its message prescribes {expected} raw ones")]
    Fragment {
        /// The stream.
        stream: StreamId,
        /// What the message prescribes.
        expected: u32,
        /// What it announces.
        bytes: u32,
    },
    /// A total that does not rise, or is beyond what a connection can use.
    #[error("hop {}: total {total} is not above the last one, {last}", hop.number())]
    Total {
        /// The pool.
        hop: Hop,
        /// What came.
        total: u64,
        /// What stood.
        last: u64,
    },
    /// Said twice.
    #[error("the peer said GOAWAY twice")]
    GoAwayTwice,
    /// Streams are asked for faster than they can be refused.
    #[error("the peer asks for streams without reading the answers")]
    OpenFlood,
    /// ACCEPT or REJECT for a stream nobody asked for.
    #[error("the peer grants or refuses {stream}, which was not asked for")]
    NotOpened {
        /// The stream.
        stream: StreamId,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// Asked for, and everything under way has ended.
    #[error("drained")]
    Drained,
    /// What was under way did not end within [`crate::DRAIN_TIMEOUT`].
    #[error("not drained within 30 s")]
    DrainTimeout,
    /// No HELLO within [`crate::HELLO_TIMEOUT`].
    #[error("no HELLO within 5 s")]
    HelloTimeout,
    /// The peer owes an answer for longer than [`crate::ANSWER_GRACE`] past its deadline.
    #[error("an answer is owed for 30 s past its deadline")]
    Stuck,
    /// The lane ended or failed.
    #[error("the lane ended")]
    LaneLost,
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(Violation),
    /// The peer sent bytes that are no frame.
    #[error("garbled: {0}")]
    Garbled(FrameError),
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// All places are taken on this connection; use another one or come back.
    #[error("{requests_max} requests are outstanding on the connection")]
    Busy {
        /// The limit for the request's priority and hop.
        requests_max: usize,
    },
    /// The peer never takes a body of this length on this hop; cut it.
    #[error("body of {bytes} bytes, the peer takes {bytes_max} on this hop")]
    BodyTooLong {
        /// Asked for.
        bytes: u32,
        /// Possible.
        bytes_max: u32,
    },
    /// The head does not fit a control frame.
    #[error("head of {bytes} bytes, at most {} fit a control frame", novabulk_frame::HEAD_BYTES_MAX)]
    HeadTooLong {
        /// Asked for.
        bytes: usize,
    },
    /// The deadline passed.
    #[error("no answer before the deadline")]
    Deadline {
        /// Whether the request had begun to leave; when not, it took no effect.
        sent: bool,
    },
    /// Its owner cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// The peer takes no new work; the request was not begun and may go elsewhere.
    #[error("the peer is leaving, the request was not begun")]
    GoingAway,
    /// The peer ended it.
    #[error("the peer gave no answer: {0:?}")]
    Reset(ResetReason),
    /// The connection closed.
    #[error("the connection closed before the answer")]
    Closed {
        /// Whether the request had begun to leave; when not, it took no effect.
        sent: bool,
    },
}

impl Failure {
    /// Whether the request certainly took no effect and may be tried again elsewhere.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::GoingAway
                | Self::Deadline { sent: false }
                | Self::Closed { sent: false }
                | Self::BodyTooLong { .. }
                | Self::HeadTooLong { .. }
        )
    }
}

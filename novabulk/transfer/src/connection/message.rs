//! Messages that are under way.

use core::time::Duration;

use novabulk_frame::MessageId;

use crate::effect::Inbound;
use crate::input::Request;

/// An own request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) state: Asking,
    /// The owner was told that it failed; the peer owes an answer until then.
    pub(super) given_up: Option<Duration>,
}

/// How far an own request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// No byte has left.
    Queued,
    /// The body has left up to `offset`.
    Sending { id: MessageId, offset: u32 },
    /// All has left.
    Waiting { id: MessageId },
    /// The reply's body has come up to `received`.
    Receiving { id: MessageId, head: Vec<u8>, body_bytes: u32, received: u32 },
}

impl Asking {
    pub(super) const fn id(&self) -> Option<MessageId> {
        match self {
            Self::Queued => None,
            Self::Sending { id, .. } | Self::Waiting { id } | Self::Receiving { id, .. } => Some(*id),
        }
    }
}

/// A request of the peer.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) inbound: Inbound,
    /// Credit that is still to be given back.
    pub(super) charge: u64,
    /// The requester does not wait any more.
    pub(super) stopped: bool,
    pub(super) state: ServingState,
}

/// How far a request of the peer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServingState {
    /// The body has come up to `received`; when `refused`, it is received only to be dropped.
    Receiving { received: u32, refused: bool },
    /// The driver has it.
    Serving,
    /// The answer waits, or its body has left up to `offset`.
    Answering { head: Vec<u8>, body_bytes: u32, offset: Option<u32> },
}

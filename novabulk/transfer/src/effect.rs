//! What a connection asks its driver to do.

use core::time::Duration;

use nova_units::Priority;
use novabulk_frame::{Codec, Control, FrameHeader, FrameKind, Hello, Hop, MessageId, StopReason, StreamId};

use crate::error::{CloseReason, Failure};
use crate::input::Ticket;

/// A body that this side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Of its own request.
    Request(Ticket),
    /// Of its answer to a request of the peer.
    Answer(MessageId),
}

/// Part of a body, as one data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Which body.
    pub body: Body,
    /// Where the part begins; a multiple of 1 MiB.
    pub offset: u32,
    /// Its length: 1 MiB, or the rest.
    pub bytes: u32,
    /// Further parts follow. When not, the body is not needed any more once the frame is sent.
    pub more: bool,
}

/// What to send next: a control frame, a data frame, or both in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The stream of both.
    pub stream: StreamId,
    /// The control header, to be encoded.
    pub control: Option<Control>,
    /// The part of a body.
    pub data: Option<Payload>,
}

impl Outgoing {
    /// The header of the control frame, once its payload of `payload_bytes` is encoded.
    #[must_use]
    pub const fn control_header(&self, payload_bytes: u32) -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Control,
            more: self.data.is_some(),
            end: false,
            stream: self.stream,
            payload_bytes,
        }
    }

    /// The header of the data frame, when there is one.
    #[must_use]
    pub fn data_header(&self) -> Option<FrameHeader> {
        self.data.map(|part| FrameHeader {
            kind: FrameKind::Data(Codec::Raw),
            more: part.more,
            end: false,
            stream: self.stream,
            payload_bytes: part.bytes,
        })
    }
}

/// Where the payload of a received data frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `Request` is the reply to this side's own request, `Answer` the peer's request.
    pub body: Body,
    /// Where in the body it begins.
    pub offset: u32,
    /// Length of the whole body.
    pub body_bytes: u32,
}

/// A request of the peer, complete with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Its number; the answer names it.
    pub id: MessageId,
    /// How often it was passed on.
    pub hop: Hop,
    /// Who goes first.
    pub priority: Priority,
    /// What the machine does not look into.
    pub head: Vec<u8>,
    /// Length of the body that was received.
    pub body_bytes: u32,
    /// Longest body of the answer.
    pub reply_max: u32,
    /// When the requester stops waiting, on the clock of `now`.
    pub deadline: Duration,
}

/// The reply to this side's own request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The request.
    pub ticket: Ticket,
    /// What the machine does not look into.
    pub head: Vec<u8>,
    /// Length of the body that was received.
    pub body_bytes: u32,
}

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The peer said HELLO; is it who we dialled?
    Opened(Hello),
    /// Hand this to the lane, then come back with [`crate::Input::Writable`]. At most one is under way.
    Send(Outgoing),
    /// Serve this, then come back with [`crate::Input::Answer`] or [`crate::Input::Refuse`].
    Serve(Inbound),
    /// The requester does not wait any more. The answer is still asked for, but not sent.
    StopServing {
        /// The peer's request.
        id: MessageId,
        /// Why.
        reason: StopReason,
    },
    /// Drop what was received of, or was to be answered to, this request of the peer.
    Discard(MessageId),
    /// The request has its answer.
    Answered(Answered),
    /// The request has no answer.
    Failed {
        /// The request.
        ticket: Ticket,
        /// Why, and whether another try is safe.
        failure: Failure,
    },
    /// The machine has forgotten the request: its body and its reserved reply buffer are free.
    Settled(Ticket),
    /// Close the lane. Every own request has failed or been answered before; drop what the peer sent.
    Close(CloseReason),
}

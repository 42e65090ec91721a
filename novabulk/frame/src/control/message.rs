//! Messages and what steers them: credit, stop, reset.

use core::fmt;
use core::time::Duration;

use nova_units::Priority;

use crate::error::FrameError;
use crate::header::CONTROL_BYTES_MAX;
use crate::reader::Reader;

use super::hello::HOPS;

/// Bytes of a MESSAGE in front of its opaque head, kind included.
pub const MESSAGE_FIELDS_BYTES: usize = 24;
/// Longest opaque head of a message: what is left of 64 KiB.
pub const HEAD_BYTES_MAX: usize = CONTROL_BYTES_MAX as usize - MESSAGE_FIELDS_BYTES;

/// A request of one side of a connection, dense from 1; its reply carries the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}", self.0)
    }
}

/// How often a request was passed on: 0 from where it entered, 1 and 2 forwarded.
///
/// Each hop has credit of its own, so that work on hop `h` waits for hop `h + 1` only, and never in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop(u8);

impl Hop {
    /// Every hop, the first one first.
    pub const ALL: [Self; HOPS] = [Self(0), Self(1), Self(2)];

    /// The hop with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < HOPS { Some(Self(number)) } else { None }
    }

    /// 0, 1 or 2.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// For tables with one row per hop.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Uses credit of its hop.
    Request,
    /// Lands in the buffer its request reserved; uses no credit.
    Reply,
}

impl MessageKind {
    fn decode(fields: &mut Reader<'_>) -> Result<Self, FrameError> {
        match fields.u8()? {
            0 => Ok(Self::Request),
            1 => Ok(Self::Reply),
            other => Err(fields.refuse("message_kind", other.into())),
        }
    }
}

/// MESSAGE: the beginning of a request or a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request or reply.
    pub kind: MessageKind,
    /// Which pool pays; a reply repeats the hop of its request.
    pub hop: Hop,
    /// Who goes first; believed only from peers of the cluster.
    pub priority: Priority,
    /// The request's number.
    pub id: MessageId,
    /// Decoded bytes that follow in data frames.
    pub body_bytes: u32,
    /// Longest body of the reply; 0 in a reply.
    pub reply_max: u32,
    /// How long the requester still waits, whole milliseconds up to 49 days; zero in a reply.
    pub deadline: Duration,
    /// What NovaBulk does not look into, at most [`HEAD_BYTES_MAX`] bytes.
    pub head: Vec<u8>,
}

impl Message {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        assert!(self.head.len() <= HEAD_BYTES_MAX, "head of {} bytes", self.head.len());
        into.extend([u8::from(self.kind == MessageKind::Reply), self.hop.0, self.priority as u8]);
        into.extend(self.id.0.to_be_bytes());
        into.extend(self.body_bytes.to_be_bytes());
        into.extend(self.reply_max.to_be_bytes());
        into.extend(millis(self.deadline).to_be_bytes());
        into.extend_from_slice(&self.head);
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let kind = MessageKind::decode(&mut fields)?;
        let hop = hop(&mut fields)?;
        let priority = fields.u8()?;
        let priority = Priority::from_number(priority).ok_or(fields.refuse("priority", priority.into()))?;
        let id = id(&mut fields)?;
        let body_bytes = fields.u32()?;
        let reply_max = fields.u32()?;
        let deadline = Duration::from_millis(fields.u32()?.into());
        let head = fields.remaining();
        if head.len() > HEAD_BYTES_MAX {
            return Err(fields.refuse("head_bytes", head.len() as u64));
        }
        if kind == MessageKind::Reply && reply_max != 0 {
            return Err(fields.refuse("reply_max", reply_max.into()));
        }
        Ok(Self { kind, hop, priority, id, body_bytes, reply_max, deadline, head: head.to_vec() })
    }
}

/// CREDIT: what the peer may have sent on a hop since the connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The pool.
    pub hop: Hop,
    /// Cumulative, in units of 256 KiB; it never falls.
    pub total: u64,
}

impl Credit {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([self.hop.0, 0, 0]);
        into.extend(self.total.to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let hop = hop(&mut fields)?;
        zeroes(&mut fields, 2)?;
        let credit = Self { hop, total: fields.u64()? };
        fields.finish()?;
        Ok(credit)
    }
}

/// BLOCKED: the sender waits for more than this total. Said once per level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The pool.
    pub hop: Hop,
    /// The last total the sender knows, in units of 256 KiB.
    pub total: u64,
}

impl Blocked {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        Credit { hop: self.hop, total: self.total }.encode(into);
    }

    pub(super) fn decode(fields: Reader<'_>) -> Result<Self, FrameError> {
        Credit::decode(fields).map(|Credit { hop, total }| Self { hop, total })
    }
}

/// Why a requester gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Nobody waits any more.
    Cancelled,
    /// The deadline passed.
    Deadline,
}

/// STOP: the requester does not want the answer; it still gets a reply or a RESET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// The request.
    pub id: MessageId,
}

impl Stop {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([u8::from(self.reason == StopReason::Deadline), 0, 0]);
        into.extend(self.id.0.to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let reason = match fields.u8()? {
            0 => StopReason::Cancelled,
            1 => StopReason::Deadline,
            other => return Err(fields.refuse("reason", other.into())),
        };
        zeroes(&mut fields, 2)?;
        let stop = Self { reason, id: id(&mut fields)? };
        fields.finish()?;
        Ok(stop)
    }
}

/// Why a message ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetReason {
    /// Its requester asked to stop.
    Stopped = 0,
    /// The server is leaving; ask another connection or host. The request was not begun.
    GoingAway = 1,
    /// The answer is longer than the requester reserved for.
    ReplyTooLong = 2,
    /// The server gave up on the request; whether it took effect is unknown.
    Abandoned = 3,
}

/// RESET: no more of this message will come; in place of a reply, or in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// What ends: the sender's own request, or the reply to the peer's.
    pub kind: MessageKind,
    /// Why.
    pub reason: ResetReason,
    /// The request's number.
    pub id: MessageId,
}

impl Reset {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([u8::from(self.kind == MessageKind::Reply), self.reason as u8, 0]);
        into.extend(self.id.0.to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let kind = MessageKind::decode(&mut fields)?;
        let reason = match fields.u8()? {
            0 => ResetReason::Stopped,
            1 => ResetReason::GoingAway,
            2 => ResetReason::ReplyTooLong,
            3 => ResetReason::Abandoned,
            other => return Err(fields.refuse("reason", other.into())),
        };
        zeroes(&mut fields, 1)?;
        let reset = Self { kind, reason, id: id(&mut fields)? };
        fields.finish()?;
        Ok(reset)
    }
}

fn hop(fields: &mut Reader<'_>) -> Result<Hop, FrameError> {
    let number = fields.u8()?;
    Hop::from_number(number).ok_or(fields.refuse("hop", number.into()))
}

fn id(fields: &mut Reader<'_>) -> Result<MessageId, FrameError> {
    match fields.u64()? {
        0 => Err(fields.refuse("id", 0)),
        id => Ok(MessageId(id)),
    }
}

/// Bytes that a later version may give a meaning.
pub(super) fn zeroes(fields: &mut Reader<'_>, count: usize) -> Result<(), FrameError> {
    for _ in 0..count {
        match fields.u8()? {
            0 => {}
            other => return Err(fields.refuse("zero", other.into())),
        }
    }
    Ok(())
}

/// Whole milliseconds, rounded up so that a short wait does not become none.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

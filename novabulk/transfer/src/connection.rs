//! The state of one connection and everything that moves it.

mod message;
mod receive;
mod send;
mod slots;

use core::time::Duration;
use std::collections::VecDeque;

use nova_units::Priority;
use novabulk_frame::{
    Control, FrameHeader, HEAD_BYTES_MAX, HOPS, Hello, Hop, MessageId, MessageKind, Reset, ResetReason, Stop,
    StopReason, StreamId,
};

use crate::credit::{Allowance, Grant, charge_bytes};
use crate::effect::{Effect, Place};
use crate::error::{CloseReason, Failure, Violation};
use crate::input::{Input, Request, Ticket};
use crate::{
    ANSWER_GRACE, DRAIN_TIMEOUT, HELLO_TIMEOUT, MESSAGE_STREAMS, REQUESTS_MAX, REQUESTS_PER_HOP,
    REQUESTS_RESERVED,
};

use message::{Asked, Asking, Serving, ServingState};
use slots::Slots;

/// The protocol versions this build speaks.
const VERSION: u8 = novabulk_frame::VERSION;

/// Which end this is; decides whose stream ids are odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Dialled; its streams are odd.
    Dialer,
    /// Accepted; its streams are even.
    Listener,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }

    /// The stream of this side with this index below [`MESSAGE_STREAMS`].
    fn stream(self, index: usize) -> StreamId {
        let index = u32::try_from(index).expect("streams are few");
        StreamId(2 * index + if self == Self::Dialer { 1 } else { 2 })
    }

    /// The index of one of this side's message streams.
    fn index(self, stream: StreamId) -> Option<usize> {
        let above = stream.0.checked_sub(if self == Self::Dialer { 1 } else { 2 })?;
        (above.is_multiple_of(2) && above / 2 < MESSAGE_STREAMS)
            .then(|| usize::try_from(above / 2).expect("streams are few"))
    }
}

/// What a connection is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which end this is.
    pub side: Side,
    /// What this end says. Its `grants` must be backed by slabs for as long as the connection lives.
    ///
    /// The dialer speaks first. A listener takes the role from the dialer, whatever stands here; on a control
    /// connection it grants nothing, so that requests there have no bodies.
    pub hello: Hello,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before `Start`.
    Idle,
    /// Waiting for the peer's HELLO until then.
    Greeting { until: Duration },
    /// The peer said HELLO.
    Open,
    /// Over.
    Closed,
}

/// A message of the peer that is being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// A request, by place in `serving`.
    Request(usize),
    /// The reply to a request, by place in `asked`.
    Reply(usize),
}

/// A message of this side that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// A request, by place in `asked`.
    Request(usize),
    /// An answer, by place in `serving`.
    Answer(usize),
}

/// One connection, seen from one end.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    phase: Phase,
    peer: Option<Hello>,
    writable: bool,
    hello_due: bool,
    /// Own requests; at most [`REQUESTS_MAX`].
    asked: Slots<Asked>,
    /// The number under which the request of each place last left.
    asked_ids: Vec<u64>,
    /// The peer's requests; at most [`REQUESTS_MAX`].
    serving: Slots<Serving>,
    /// Messages under way on the peer's streams.
    incoming: Vec<Option<Incoming>>,
    /// Own messages that wait, per priority; each at most once.
    ready: [VecDeque<Ready>; Priority::ALL.len()],
    /// STOP, RESET and REJECT in order; bounded by the two tables and `OPENS_MAX`.
    urgent: VecDeque<(StreamId, Control)>,
    allowances: [Allowance; HOPS],
    grants: [Grant; HOPS],
    last_asked: MessageId,
    last_served: MessageId,
    goaway: GoAwayState,
    /// The peer takes no new requests, and closes or is closed by then.
    peer_leaves: Option<Duration>,
    /// RESETs of answers that have not left yet; they count like answers.
    resets_due: usize,
    /// No timer is due before this.
    timer: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoAwayState {
    Staying,
    /// To be said; requests above `last` are refused.
    Due {
        last: MessageId,
        until: Duration,
    },
    Said {
        last: MessageId,
        until: Duration,
    },
}

impl GoAwayState {
    const fn last(self) -> Option<MessageId> {
        match self {
            Self::Staying => None,
            Self::Due { last, .. } | Self::Said { last, .. } => Some(last),
        }
    }

    const fn until(self) -> Option<Duration> {
        match self {
            Self::Staying => None,
            Self::Due { until, .. } | Self::Said { until, .. } => Some(until),
        }
    }
}

impl Connection {
    /// A connection before its lane stands.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let streams = usize::try_from(MESSAGE_STREAMS).expect("streams are few");
        Self {
            config,
            phase: Phase::Idle,
            peer: None,
            writable: false,
            hello_due: false,
            asked: Slots::new(REQUESTS_MAX),
            asked_ids: vec![0; REQUESTS_MAX],
            serving: Slots::new(REQUESTS_MAX),
            incoming: vec![None; streams],
            ready: Default::default(),
            urgent: VecDeque::new(),
            allowances: Default::default(),
            grants: config.hello.grants.map(Grant::open),
            last_asked: MessageId(0),
            last_served: MessageId(0),
            goaway: GoAwayState::Staying,
            peer_leaves: None,
            resets_due: 0,
            timer: None,
        }
    }

    /// Moves the machine by one event and appends what is to be done, in order.
    ///
    /// `now` never goes back.
    ///
    /// # Panics
    /// When the driver breaks the contract of [`Input`]: a ticket twice, an answer to a request that is not being
    /// served, an answer longer than a frame header can carry.
    pub fn on(&mut self, now: Duration, input: Input, out: &mut Vec<Effect>) {
        if self.phase == Phase::Closed {
            if let Input::Request(request) = input {
                fail(request.ticket, Failure::Closed { sent: false }, out);
            }
            return;
        }
        match input {
            Input::Start => self.start(now),
            Input::Writable => self.writable = true,
            Input::Request(request) => self.ask(now, request, out),
            Input::Cancel(ticket) => self.cancel(now, ticket, out),
            Input::Answer { id, head, body_bytes } => self.answer(id, head, body_bytes, out),
            Input::Refuse { id, reason } => self.refuse(id, reason),
            Input::Release(id) => self.release(id),
            Input::Control(header, control) => {
                if let Err(violation) = self.control(now, header, control, out) {
                    self.close(CloseReason::Violation(violation), out);
                }
            }
            Input::Data(header) => {
                if let Err(violation) = self.data(&header, out) {
                    self.close(CloseReason::Violation(violation), out);
                }
            }
            Input::Misplaced(violation) => self.close(CloseReason::Violation(violation), out),
            Input::Garbled(error) => self.close(CloseReason::Garbled(error), out),
            Input::Drain => self.drain(now),
            Input::LaneLost => self.lane_lost(out),
            Input::Tick => self.tick(now, out),
        }
        self.pump(now, out);
    }

    /// Where the payload of this data frame belongs; asked before anything is received or allocated.
    ///
    /// # Errors
    /// A [`Violation`], to be handed back as [`Input::Misplaced`].
    pub fn place(&self, header: &FrameHeader) -> Result<Place, Violation> {
        self.placed(header).map(|(_, place)| place)
    }

    /// When [`Input::Tick`] is due; may be early, never late.
    #[must_use]
    pub const fn next_timer(&self) -> Option<Duration> {
        self.timer
    }

    /// What the peer said, once it did.
    #[must_use]
    pub const fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether everything is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether a request of this priority and hop would be taken now rather than refused.
    #[must_use]
    pub fn has_room(&self, priority: Priority, hop: Hop) -> bool {
        let takes = matches!(self.phase, Phase::Open | Phase::Greeting { .. }) && !self.leaving();
        takes && self.asked_count() < Self::requests_max(priority, hop)
    }

    /// Whether new requests must go elsewhere, because either side is leaving or gone.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.phase == Phase::Closed || self.leaving()
    }

    /// Own requests that are not settled.
    #[must_use]
    pub fn asked_count(&self) -> usize {
        self.asked.count()
    }

    /// Requests of the peer that are not answered.
    #[must_use]
    pub fn serving_count(&self) -> usize {
        self.serving.count()
    }

    /// Bytes of slabs that requests of the peer hold, over all hops.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.grants.iter().map(Grant::held_bytes).sum()
    }

    /// How many may be outstanding when one more of this kind is asked.
    const fn requests_max(priority: Priority, hop: Hop) -> usize {
        let further_hops = HOPS - 1 - hop.index();
        let for_p0 = if matches!(priority, Priority::P0) { 0 } else { REQUESTS_RESERVED };
        REQUESTS_MAX - REQUESTS_PER_HOP * further_hops - for_p0
    }

    /// No new own requests: either side is leaving.
    fn leaving(&self) -> bool {
        self.peer_leaves.is_some() || self.goaway != GoAwayState::Staying
    }

    fn start(&mut self, now: Duration) {
        assert!(self.phase == Phase::Idle, "started twice");
        let until = now + HELLO_TIMEOUT;
        self.phase = Phase::Greeting { until };
        self.writable = true;
        self.hello_due = self.config.side == Side::Dialer;
        self.arm(until);
    }

    fn ask(&mut self, now: Duration, request: Request, out: &mut Vec<Effect>) {
        let ticket = request.ticket;
        if let Err(failure) = self.admit(now, &request) {
            return fail(ticket, failure, out);
        }
        self.arm(request.deadline);
        let priority = request.priority;
        let asked = Asked { request, state: Asking::Queued, given_up: None };
        let slot = self.asked.insert(ticket.0, asked).expect("fewer are asked than there are places");
        self.ready[priority as usize].push_back(Ready::Request(slot));
    }

    fn admit(&self, now: Duration, request: &Request) -> Result<(), Failure> {
        let requests_max = Self::requests_max(request.priority, request.hop);
        if self.phase == Phase::Idle || self.leaving() {
            return Err(Failure::GoingAway);
        }
        if self.asked_count() >= requests_max {
            return Err(Failure::Busy { requests_max });
        }
        if request.head.len() > HEAD_BYTES_MAX {
            return Err(Failure::HeadTooLong { bytes: request.head.len() });
        }
        if request.deadline <= now {
            return Err(Failure::Deadline { sent: false });
        }
        match &self.peer {
            Some(peer) => self.fits(peer, request),
            None => Ok(()),
        }
    }

    /// Whether the peer can ever take the body.
    fn fits(&self, peer: &Hello, request: &Request) -> Result<(), Failure> {
        let allowance = &self.allowances[request.hop.index()];
        let possible = allowance.ever(charge_bytes(request.body_bytes));
        if possible && request.body_bytes <= peer.body_bytes_max {
            return Ok(());
        }
        let by_credit = u32::try_from(allowance.charge_max()).unwrap_or(u32::MAX);
        Err(Failure::BodyTooLong { bytes: request.body_bytes, bytes_max: peer.body_bytes_max.min(by_credit) })
    }

    fn cancel(&mut self, now: Duration, ticket: Ticket, out: &mut Vec<Effect>) {
        if let Some(slot) = self.place_of(ticket) {
            self.give_up(now, slot, StopReason::Cancelled, Failure::Cancelled, out);
        }
    }

    /// Tells the owner at once; the place stays taken while the peer owes an answer.
    fn give_up(
        &mut self,
        now: Duration,
        slot: usize,
        why: StopReason,
        failure: Failure,
        out: &mut Vec<Effect>,
    ) {
        let Some(asked) = self.asked.get_mut(slot) else { return };
        if asked.given_up.is_some() {
            return;
        }
        let ticket = asked.request.ticket;
        match asked.state {
            Asking::Queued => {
                self.unqueue(Ready::Request(slot));
                self.asked.remove(slot);
                fail(ticket, failure, out);
            }
            Asking::Sending { id, .. } => {
                self.unqueue(Ready::Request(slot));
                self.asked.remove(slot);
                let reset = Reset { kind: MessageKind::Request, reason: ResetReason::Stopped, id };
                self.urgent.push_back((StreamId::CONNECTION, Control::Reset(reset)));
                fail(ticket, failure, out);
            }
            Asking::Waiting { id } | Asking::Receiving { id, .. } => {
                let until = now + ANSWER_GRACE;
                asked.given_up = Some(until);
                self.arm(until);
                self.urgent.push_back((StreamId::CONNECTION, Control::Stop(Stop { reason: why, id })));
                out.push(Effect::Failed { ticket, failure });
            }
        }
    }

    fn answer(&mut self, id: MessageId, head: Vec<u8>, body_bytes: u32, out: &mut Vec<Effect>) {
        let slot = self.served_place(id);
        let serving = self.serving.get_mut(slot).expect("served_place points at a request");
        assert!(matches!(serving.state, ServingState::Serving), "{id} answered twice");
        assert!(head.len() <= HEAD_BYTES_MAX, "answer with a head of {} bytes", head.len());
        if serving.stopped || body_bytes > serving.inbound.reply_max {
            let reason = if serving.stopped { ResetReason::Stopped } else { ResetReason::ReplyTooLong };
            self.refuse(id, reason);
            out.push(Effect::Discard(id));
            return;
        }
        serving.state = ServingState::Answering { head, body_bytes, offset: None };
        let priority = serving.inbound.priority;
        self.release_place(slot);
        self.ready[priority as usize].push_back(Ready::Answer(slot));
    }

    fn refuse(&mut self, id: MessageId, reason: ResetReason) {
        let slot = self.served_place(id);
        self.release_place(slot);
        self.serving.remove(slot);
        self.resets_due += 1;
        let reset = Reset { kind: MessageKind::Reply, reason, id };
        self.urgent.push_back((StreamId::CONNECTION, Control::Reset(reset)));
    }

    fn release(&mut self, id: MessageId) {
        let slot = self.served_place(id);
        self.release_place(slot);
    }

    /// Gives back the credit of a request, once.
    fn release_place(&mut self, slot: usize) {
        if let Some(serving) = self.serving.get_mut(slot) {
            let charge = core::mem::take(&mut serving.charge);
            self.grants[serving.inbound.hop.index()].free(charge);
        }
    }

    fn drain(&mut self, now: Duration) {
        if self.goaway != GoAwayState::Staying {
            return;
        }
        let until = now + DRAIN_TIMEOUT;
        self.goaway = GoAwayState::Due { last: self.last_served, until };
        self.arm(until);
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.timer.is_none_or(|timer| timer > now) {
            return;
        }
        if let Phase::Greeting { until } = self.phase
            && until <= now
        {
            return self.close(CloseReason::HelloTimeout, out);
        }
        if self.leaves_at().is_some_and(|until| until <= now) {
            return self.close(CloseReason::DrainTimeout, out);
        }
        for slot in 0..self.asked.places() {
            let Some(asked) = &self.asked[slot] else { continue };
            match asked.given_up {
                Some(until) if until <= now => return self.close(CloseReason::Stuck, out),
                None if asked.request.deadline <= now => {
                    let sent = asked.state != Asking::Queued;
                    self.give_up(now, slot, StopReason::Deadline, Failure::Deadline { sent }, out);
                }
                _ => {}
            }
        }
        self.rearm();
    }

    fn arm(&mut self, at: Duration) {
        self.timer = Some(self.timer.map_or(at, |timer| timer.min(at)));
    }

    fn rearm(&mut self) {
        let greeting = match self.phase {
            Phase::Greeting { until } => Some(until),
            _ => None,
        };
        let requests = self.asked.iter().map(|asked| asked.given_up.unwrap_or(asked.request.deadline));
        self.timer = requests.chain(greeting).chain(self.leaves_at()).min();
    }

    /// After our GOAWAY it is the peer that closes, once it has its last answer.
    fn lane_lost(&mut self, out: &mut Vec<Effect>) {
        let said = matches!(self.goaway, GoAwayState::Said { .. });
        let idle = self.asked_count() == 0 && self.serving_count() == 0;
        self.close(if said && idle { CloseReason::Drained } else { CloseReason::LaneLost }, out);
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<Effect>) {
        for slot in 0..self.asked.places() {
            let Some(asked) = self.asked.remove(slot) else { continue };
            let (ticket, sent) = (asked.request.ticket, asked.state != Asking::Queued);
            if asked.given_up.is_none() {
                out.push(Effect::Failed { ticket, failure: Failure::Closed { sent } });
            }
            out.push(Effect::Settled(ticket));
        }
        for slot in 0..self.serving.places() {
            self.serving.remove(slot);
        }
        self.incoming.fill(None);
        self.ready.iter_mut().for_each(VecDeque::clear);
        self.urgent.clear();
        self.timer = None;
        self.phase = Phase::Closed;
        out.push(Effect::Close(reason));
    }

    /// When either side's leaving must have ended.
    fn leaves_at(&self) -> Option<Duration> {
        self.goaway.until().into_iter().chain(self.peer_leaves).min()
    }

    fn unqueue(&mut self, gone: Ready) {
        for queue in &mut self.ready {
            queue.retain(|ready| *ready != gone);
        }
    }

    fn place_of(&self, ticket: Ticket) -> Option<usize> {
        self.asked.find(ticket.0)
    }

    fn asked_place(&self, id: MessageId) -> Option<usize> {
        let slot = self.asked_ids.iter().position(|other| *other == id.0)?;
        self.asked[slot].as_ref().is_some_and(|asked| asked.state.id() == Some(id)).then_some(slot)
    }

    fn serving_place(&self, id: MessageId) -> Option<usize> {
        self.serving.find(id.0)
    }

    fn served_place(&self, id: MessageId) -> usize {
        self.serving_place(id).unwrap_or_else(|| panic!("{id} is not being served"))
    }
}

/// The request ends without ever having had a place, or having lost it.
fn fail(ticket: Ticket, failure: Failure, out: &mut Vec<Effect>) {
    out.push(Effect::Failed { ticket, failure });
    out.push(Effect::Settled(ticket));
}

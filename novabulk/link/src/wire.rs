//! One connection: the machine, its tables, and the tasks that read, write and keep time.

mod inbox;
mod reader;
mod timer;
mod writer;

use core::{
    cell::{Cell, RefCell},
    fmt,
    time::Duration,
};
use std::{collections::BTreeMap, rc::Rc};

use nova_buf::{DmaBuf, SharedBuf};
use nova_device::{
    Clock, PeerError, Served, Shard,
    sync::{Notify, oneshot},
};
use nova_units::{BootId, NodeId, Priority, TaskClass};
use novabulk_frame::{FrameError, HEAD_BYTES_MAX, Hop, LinkRole, MessageId, ResetReason};
use novabulk_transfer::{
    Body, CloseReason, Config, Connection, Effect, Failure, Inbound, Input, Outgoing, Request, Side, Ticket,
};

use novabulk_tls::{PeerName, Tls, TlsLane};

use crate::{
    admission::Admission,
    budget::Lease,
    counters::Tally,
    link::Inner,
    options::{BULK_SILENCE_MAX, CONTROL_SILENCE_MAX},
};

/// Codes of [`PeerError::Refused`] that come from NovaBulk itself; below 100, which services leave free.
pub mod refusal {
    /// The body does not go into one call.
    pub const BODY_TOO_LONG: u16 = 1;
    /// The head does not go into one control frame.
    pub const HEAD_TOO_LONG: u16 = 2;
    /// The answer is longer than its request allowed.
    pub const REPLY_TOO_LONG: u16 = 3;
    /// The request was passed on too often.
    pub const TOO_MANY_HOPS: u16 = 4;
}

/// When to come back after this host or a connection had no room.
pub(crate) const BUSY_RETRY: Duration = Duration::from_millis(10);

/// A call as a wire takes it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) hop: Hop,
    pub(crate) priority: Priority,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<SharedBuf>,
    pub(crate) reply_max: u32,
    pub(crate) until: Duration,
    pub(crate) room: Option<DmaBuf>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<DmaBuf>,
}

/// What the tasks of a connection know beside the machine.
#[derive(Debug, Default)]
struct Tables {
    calls: BTreeMap<Ticket, Pending>,
    /// Bodies received for requests of the peer that are not complete yet.
    received: BTreeMap<MessageId, DmaBuf>,
    /// Bodies of answers that are still to be sent.
    answers: BTreeMap<MessageId, SharedBuf>,
    /// Complete requests of the peer, for the reader to hand out.
    to_serve: Vec<(Inbound, Option<DmaBuf>)>,
}

#[derive(Debug)]
struct Pending {
    answer: Option<oneshot::Sender<Result<Answer, Failure>>>,
    body: Option<SharedBuf>,
    room: Option<DmaBuf>,
}

/// One connection to or from a peer.
pub(crate) struct Wire<S: Shard> {
    shard: S,
    tally: Rc<Tally>,
    tls: Tls,
    machine: RefCell<Connection>,
    /// Reused from event to event.
    effects: RefCell<Vec<Effect>>,
    tables: RefCell<Tables>,
    lease: RefCell<Option<Lease>>,
    /// The frame that the machine has decided on.
    outgoing: RefCell<Option<Outgoing>>,
    to_send: Notify,
    timer_moved: Notify,
    armed: Cell<Duration>,
    state: Cell<State>,
    changed: Notify,
    next_ticket: Cell<u64>,
    idle_timeout: Duration,
    last_used: Cell<Duration>,
    last_heard: Cell<Duration>,
    /// When the first of the requests that are under way was made.
    busy_since: Cell<Duration>,
    /// Whose certificate the other end has.
    peer: PeerName,
    admission: Rc<Admission>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Open { node: NodeId, boot: BootId, role: LinkRole },
    Closed { node: NodeId, reason: CloseReason },
}

impl<S: Shard> fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("state", &self.state.get()).finish_non_exhaustive()
    }
}

impl<S: Shard> Wire<S> {
    /// Starts the tasks of a connection whose lane stands. `serve` gets each request of the peer and must see to it
    /// that the machine hears of an answer.
    pub(crate) fn start(
        inner: &Inner<S>,
        config: Config,
        lane: TlsLane<S::Lane>,
        lease: Option<Lease>,
        serve: impl Fn(&Rc<Self>, Inbound, Option<DmaBuf>) + 'static,
    ) -> Rc<Self> {
        let now = inner.shard.clock().now();
        // Who dialled closes an idle connection; the other end helps itself only when nobody came to do it.
        let idle_timeout = match config.side {
            Side::Dialer => inner.options.idle_timeout,
            Side::Listener => inner.options.idle_timeout.mul_f32(1.25),
        };
        let wire = Rc::new(Self {
            shard: inner.shard.clone(),
            tally: Rc::clone(&inner.tally),
            tls: inner.tls.clone(),
            machine: RefCell::new(Connection::new(config)),
            effects: RefCell::default(),
            tables: RefCell::default(),
            lease: RefCell::new(lease),
            outgoing: RefCell::default(),
            to_send: Notify::new(),
            timer_moved: Notify::new(),
            armed: Cell::new(Duration::MAX),
            state: Cell::new(State::Greeting),
            changed: Notify::new(),
            next_ticket: Cell::new(0),
            idle_timeout,
            last_used: Cell::new(now),
            last_heard: Cell::new(now),
            busy_since: Cell::new(now),
            peer: lane.peer().clone(),
            admission: Rc::clone(&inner.admission),
        });
        let class = Inner::<S>::class_of(config.hello.role);
        let lane = Rc::new(lane);
        wire.shard.spawn(class, reader::read(Rc::clone(&wire), Rc::clone(&lane), serve));
        wire.shard.spawn(class, writer::write(Rc::clone(&wire), lane));
        wire.shard.spawn(class, timer::keep(Rc::clone(&wire)));
        wire.on(Input::Start);
        wire
    }

    pub(crate) const fn shard(&self) -> &S {
        &self.shard
    }

    pub(crate) fn task_class(&self) -> TaskClass {
        match self.state.get() {
            State::Open { role, .. } => Inner::<S>::class_of(role),
            _ => TaskClass::Client,
        }
    }

    /// The host at the other end; node 0 before it said HELLO.
    pub(crate) fn peer_node(&self) -> NodeId {
        match self.state.get() {
            State::Open { node, .. } | State::Closed { node, .. } => node,
            State::Greeting => NodeId::default(),
        }
    }

    /// Which start of the peer this connects to, while it does.
    pub(crate) fn peer_boot(&self) -> Option<(NodeId, BootId)> {
        match self.state.get() {
            State::Open { node, boot, .. } => Some((node, boot)),
            State::Greeting | State::Closed { .. } => None,
        }
    }

    pub(crate) fn has_room(&self, priority: Priority, hop: Hop) -> bool {
        self.machine.borrow().has_room(priority, hop)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.machine.borrow().is_leaving()
    }

    /// Requests under way.
    pub(crate) fn load(&self) -> usize {
        self.machine.borrow().asked_count()
    }

    /// Waits for HELLO of the peer; false when the connection closed instead.
    pub(crate) async fn opened(&self) -> bool {
        loop {
            match self.state.get() {
                State::Greeting => self.changed.notified().await,
                State::Open { .. } => return true,
                State::Closed { .. } => return false,
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn closed(&self) {
        while !self.is_closed() {
            self.changed.notified().await;
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state.get(), State::Closed { .. })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Cancel safety
    /// Safe: a dropped call is taken back, or its answer thrown away.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let ticket = Ticket(self.next_ticket.get());
        self.next_ticket.set(ticket.0 + 1);
        let (sender, receiver) = oneshot::channel();
        let body_bytes = u32::try_from(call.body.as_ref().map_or(0, |body| body.len()))
            .expect("the link checked the body against its limit");
        let pending = Pending { answer: Some(sender), body: call.body, room: call.room };
        self.tables.borrow_mut().calls.insert(ticket, pending);
        let now = self.shard.clock().now();
        self.last_used.set(now);
        if self.load() == 0 {
            self.busy_since.set(now);
        }
        let mut guard = CancelOnDrop { wire: self, ticket: Some(ticket) };
        self.on(Input::Request(Request {
            ticket,
            hop: call.hop,
            priority: call.priority,
            head: call.head,
            body_bytes,
            reply_max: call.reply_max,
            deadline: call.until,
        }));
        let result = receiver.await.unwrap_or(Err(Failure::Closed { sent: true }));
        guard.ticket = None;
        result
    }

    /// Sends what a handler answered.
    pub(crate) fn answer(&self, id: MessageId, reply_max: u32, served: Served) {
        if self.is_closed() {
            return;
        }
        self.last_used.set(self.shard.clock().now());
        let body_bytes = served.body.as_ref().map_or(0, |body| body.len());
        let fits = u32::try_from(body_bytes).is_ok_and(|bytes| bytes <= reply_max);
        if !fits || served.head.len() > HEAD_BYTES_MAX {
            return self.on(Input::Refuse { id, reason: ResetReason::ReplyTooLong });
        }
        if let Some(body) = served.body {
            self.tables.borrow_mut().answers.insert(id, body);
        }
        let body_bytes = u32::try_from(body_bytes).expect("checked above");
        self.on(Input::Answer { id, head: served.head, body_bytes });
    }

    /// Moves the machine and does what it asks.
    pub(crate) fn on(&self, input: Input) {
        let now = self.shard.clock().now();
        let mut effects = self.effects.take();
        self.machine.borrow_mut().on(now, input, &mut effects);
        let mut dead = false;
        for effect in effects.drain(..) {
            dead |= self.carry_out(now, effect);
        }
        self.effects.replace(effects);
        if dead {
            return self.on(Input::LaneLost);
        }
        let timer = self.machine.borrow().next_timer();
        if timer.is_some_and(|timer| timer < self.armed.get()) {
            self.timer_moved.notify_one();
        }
    }

    /// Tells whether the connection must be given up.
    fn carry_out(&self, now: Duration, effect: Effect) -> bool {
        let mut tables = self.tables.borrow_mut();
        match effect {
            Effect::Opened(hello) => {
                if !self.admission.admits(hello.node, &self.peer) {
                    self.tally.count(|tally| tally.impostors += 1);
                    self.admission.note_refusal(format!(
                        "{}, which calls itself {}: that is not its number in the map",
                        self.peer, hello.node
                    ));
                    return true;
                }
                if let (LinkRole::Control, Some(lease)) = (hello.role, self.lease.borrow_mut().as_mut()) {
                    lease.give_back_bytes();
                }
                self.state.set(State::Open { node: hello.node, boot: hello.boot, role: hello.role });
                self.changed.notify_all();
            }
            Effect::Send(outgoing) => {
                self.outgoing.replace(Some(outgoing));
                self.to_send.notify_one();
            }
            Effect::Serve(inbound) => {
                let body = tables.received.remove(&inbound.id);
                tables.to_serve.push((inbound, body));
            }
            // A handler is not stopped half way; its answer becomes a RESET.
            Effect::StopServing { .. } => {}
            Effect::Discard(id) => {
                tables.received.remove(&id);
                tables.answers.remove(&id);
            }
            Effect::Answered(answered) => {
                if let Some(pending) = tables.calls.get_mut(&answered.ticket) {
                    let body = pending.room.take().filter(|_| answered.body_bytes > 0);
                    pending.tell(Ok(Answer { head: answered.head, body }));
                }
            }
            Effect::Failed { ticket, failure } => {
                if let Some(pending) = tables.calls.get_mut(&ticket) {
                    pending.tell(Err(failure));
                }
                if self.is_silent(now) && failure == (Failure::Deadline { sent: true }) {
                    self.tally.count(|tally| tally.stuck += 1);
                    return true;
                }
            }
            Effect::Settled(ticket) => {
                tables.calls.remove(&ticket);
            }
            Effect::Close(reason) => {
                drop(tables);
                self.close(reason);
            }
        }
        false
    }

    /// Nothing was heard for too long, counted from when there was something to be answered.
    fn is_silent(&self, now: Duration) -> bool {
        let silence_max = match self.state.get() {
            State::Open { role: LinkRole::Control, .. } => CONTROL_SILENCE_MAX,
            _ => BULK_SILENCE_MAX,
        };
        now.saturating_sub(self.last_heard.get().max(self.busy_since.get())) >= silence_max
    }

    fn close(&self, reason: CloseReason) {
        self.tally.count(|tally| match reason {
            CloseReason::Garbled(FrameError::Checksum { .. }) => tally.checksum_failures += 1,
            CloseReason::Garbled(_) => tally.garbled += 1,
            CloseReason::Violation(_) => tally.violations += 1,
            CloseReason::Stuck => tally.stuck += 1,
            CloseReason::Drained
            | CloseReason::DrainTimeout
            | CloseReason::HelloTimeout
            | CloseReason::LaneLost => {}
        });
        self.state.set(State::Closed { node: self.peer_node(), reason });
        let tables = self.tables.take();
        drop(tables);
        self.outgoing.take();
        self.changed.notify_all();
    }

    /// Whether the peer shall still receive what was accepted for sending.
    fn closed_in_order(&self) -> bool {
        matches!(self.state.get(), State::Closed { reason: CloseReason::Drained, .. })
    }

    fn body(&self, body: Body) -> Option<SharedBuf> {
        let tables = self.tables.borrow();
        match body {
            Body::Request(ticket) => tables.calls.get(&ticket).and_then(|pending| pending.body.clone()),
            Body::Answer(id) => tables.answers.get(&id).cloned(),
        }
    }

    /// The last part has gone out.
    fn forget_body(&self, body: Body) {
        let mut tables = self.tables.borrow_mut();
        match body {
            Body::Request(ticket) => {
                if let Some(pending) = tables.calls.get_mut(&ticket) {
                    pending.body = None;
                }
            }
            Body::Answer(id) => {
                tables.answers.remove(&id);
            }
        }
    }
}

impl Pending {
    fn tell(&mut self, result: Result<Answer, Failure>) {
        if let Some(answer) = self.answer.take() {
            // A caller that is gone does not want to know.
            let _ = answer.send(result);
        }
    }
}

/// Takes a call back when its future is dropped.
struct CancelOnDrop<'wire, S: Shard> {
    wire: &'wire Wire<S>,
    ticket: Option<Ticket>,
}

impl<S: Shard> Drop for CancelOnDrop<'_, S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.wire.on(Input::Cancel(ticket));
        }
    }
}

/// What a failure means to a caller. What certainly took no effect is `Busy` or `Refused`.
pub(crate) fn failed(failure: Failure) -> PeerError {
    match failure {
        Failure::Busy { .. } | Failure::GoingAway | Failure::Closed { sent: false } => {
            PeerError::Busy { retry_after: BUSY_RETRY }
        }
        Failure::BodyTooLong { .. } => {
            PeerError::Refused { code: refusal::BODY_TOO_LONG, reason: failure.to_string() }
        }
        Failure::HeadTooLong { .. } => {
            PeerError::Refused { code: refusal::HEAD_TOO_LONG, reason: failure.to_string() }
        }
        Failure::Reset(ResetReason::ReplyTooLong) => {
            PeerError::Refused { code: refusal::REPLY_TOO_LONG, reason: failure.to_string() }
        }
        Failure::Deadline { .. } => PeerError::TimedOut,
        Failure::Reset(_) | Failure::Cancelled | Failure::Closed { sent: true } => PeerError::Closed,
    }
}

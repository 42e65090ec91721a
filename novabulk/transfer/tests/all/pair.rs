//! Two ends of one connection, joined by pipes that carry encoded frames in order. The tests are the drivers.
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nova_units::{BootId, CREDIT_BYTES, NodeId, Priority};
use novabulk_frame::{Control, FrameKind, HEADER_BYTES, Hello, Hop, LinkRole, MessageId, decode};
use novabulk_transfer::{
    Body, CloseReason, Config, Connection, Effect, Failure, Inbound, Input, Outgoing, Request, Side, Ticket,
};

/// xorshift64*: what a seed does is the same on every machine.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

pub(crate) const BODY_BYTES_MAX: u32 = 4 << 20;

pub(crate) fn hello(node: u64, grants: [u32; 3]) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role: LinkRole::Bulk,
        features: 0,
        node: NodeId(node),
        boot: BootId(node + 100),
        body_bytes_max: BODY_BYTES_MAX,
        port_base: 0,
        port_count: 0,
        grants,
    }
}

pub(crate) fn hop(number: u8) -> Hop {
    Hop::from_number(number).unwrap()
}

pub(crate) fn request(ticket: u64, body_bytes: u32, reply_max: u32) -> Request {
    Request {
        ticket: Ticket(ticket),
        hop: hop(0),
        priority: Priority::P2,
        head: ticket.to_be_bytes().to_vec(),
        body_bytes,
        reply_max,
        deadline: Duration::from_secs(3600),
    }
}

/// Bytes that tell one body from every other.
pub(crate) fn pattern(key: u64, bytes: u32) -> Vec<u8> {
    let word = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    let bytes = usize::try_from(bytes).unwrap();
    let mut pattern = word.repeat(bytes.div_ceil(8));
    pattern.truncate(bytes);
    pattern
}

/// Head and body of the answer, or why there is none.
pub(crate) type Outcome = Result<(Vec<u8>, Vec<u8>), Failure>;

/// One end and its driver's tables.
pub(crate) struct End {
    pub(crate) machine: Connection,
    pub(crate) wire: VecDeque<Vec<u8>>,
    pub(crate) sending: bool,
    pub(crate) sends: BTreeMap<u64, Vec<u8>>,
    receives: BTreeMap<u64, Vec<u8>>,
    /// Requests of the peer that wait for an answer, with their bodies.
    pub(crate) to_serve: Vec<(Inbound, Vec<u8>)>,
    pub(crate) served: Vec<MessageId>,
    pub(crate) outcomes: BTreeMap<Ticket, Outcome>,
    pub(crate) settled: Vec<Ticket>,
    pub(crate) closed: Option<CloseReason>,
    pool_bytes: u64,
}

fn key(body: Body) -> u64 {
    match body {
        Body::Request(ticket) => ticket.0 << 1,
        Body::Answer(id) => (id.0 << 1) | 1,
    }
}

impl End {
    pub(crate) fn new(side: Side, hello: Hello) -> Self {
        Self {
            machine: Connection::new(Config { side, hello }),
            wire: VecDeque::new(),
            sending: false,
            sends: BTreeMap::new(),
            receives: BTreeMap::new(),
            to_serve: Vec::new(),
            served: Vec::new(),
            outcomes: BTreeMap::new(),
            settled: Vec::new(),
            closed: None,
            pool_bytes: hello.grants.iter().map(|units| u64::from(units * CREDIT_BYTES)).sum(),
        }
    }

    pub(crate) fn on(&mut self, now: Duration, input: Input) {
        let mut effects = Vec::new();
        self.machine.on(now, input, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
        assert!(self.machine.held_bytes() <= self.pool_bytes, "the peer holds more than the pool");
    }

    pub(crate) fn ask(&mut self, now: Duration, request: Request) {
        let ticket = request.ticket;
        self.sends.insert(ticket.0 << 1, pattern(ticket.0, request.body_bytes));
        self.on(now, Input::Request(request));
    }

    /// Answers with a body whose pattern follows from the request's head.
    pub(crate) fn answer(&mut self, now: Duration, inbound: &Inbound, body_bytes: u32) {
        let ticket = u64::from_be_bytes(inbound.head[..8].try_into().unwrap());
        self.sends.insert((inbound.id.0 << 1) | 1, pattern(!ticket, body_bytes));
        self.on(now, Input::Answer { id: inbound.id, head: inbound.head.clone(), body_bytes });
    }

    /// The lane took the frame.
    pub(crate) fn written(&mut self, now: Duration) {
        if std::mem::take(&mut self.sending) {
            self.on(now, Input::Writable);
        }
    }

    /// Takes one frame off the peer's wire.
    pub(crate) fn receive(&mut self, now: Duration, bytes: &[u8]) {
        let (head, payload) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let received = decode(head).unwrap();
        let header = *received.unverified();
        match header.kind {
            FrameKind::Control => {
                received.verify(payload).unwrap();
                self.on(now, Input::Control(header, Control::decode(payload).unwrap()));
            }
            FrameKind::Data(_) => match self.machine.place(&header) {
                Err(violation) => self.on(now, Input::Misplaced(violation)),
                Ok(place) => {
                    received.verify(payload).unwrap();
                    let body = self.receives.entry(key(place.body)).or_default();
                    assert_eq!(body.len(), usize::try_from(place.offset).unwrap());
                    body.extend_from_slice(payload);
                    self.on(now, Input::Data(header));
                }
            },
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Opened(_) | Effect::StopServing { .. } => {}
            Effect::Send(outgoing) => {
                assert!(!std::mem::replace(&mut self.sending, true), "two frames in flight");
                self.put_on_wire(&outgoing);
            }
            Effect::Serve(inbound) => {
                let body = self.receives.remove(&((inbound.id.0 << 1) | 1)).unwrap_or_default();
                assert_eq!(body.len(), usize::try_from(inbound.body_bytes).unwrap());
                assert!(!self.served.contains(&inbound.id), "served twice");
                self.served.push(inbound.id);
                self.to_serve.push((inbound, body));
            }
            Effect::Discard(id) => {
                self.sends.remove(&((id.0 << 1) | 1));
                self.receives.remove(&((id.0 << 1) | 1));
            }
            Effect::Answered(answered) => {
                let body = self.receives.remove(&(answered.ticket.0 << 1)).unwrap_or_default();
                let before = self.outcomes.insert(answered.ticket, Ok((answered.head, body)));
                assert!(before.is_none(), "two outcomes for {}", answered.ticket);
            }
            Effect::Failed { ticket, failure } => {
                let before = self.outcomes.insert(ticket, Err(failure));
                assert!(before.is_none(), "two outcomes for {ticket}");
            }
            Effect::Settled(ticket) => {
                assert!(self.outcomes.contains_key(&ticket), "settled before its outcome");
                assert!(!self.settled.contains(&ticket), "settled twice");
                self.settled.push(ticket);
                self.receives.remove(&(ticket.0 << 1));
                self.sends.remove(&(ticket.0 << 1));
            }
            Effect::Close(reason) => {
                assert_eq!(self.closed.replace(reason), None, "closed twice");
                self.to_serve.clear();
            }
        }
    }

    fn put_on_wire(&mut self, outgoing: &Outgoing) {
        if let Some(control) = &outgoing.control {
            let mut payload = Vec::new();
            control.encode(&mut payload);
            let header = outgoing.control_header(u32::try_from(payload.len()).unwrap());
            self.wire.push_back([&header.encode(&payload)[..], &payload].concat());
        }
        if let (Some(header), Some(part)) = (outgoing.data_header(), outgoing.data) {
            let begin = usize::try_from(part.offset).unwrap();
            let end = begin + usize::try_from(part.bytes).unwrap();
            let body = &self.sends[&key(part.body)];
            assert_eq!(part.more, end < body.len());
            let payload = &body[begin..end];
            self.wire.push_back([&header.encode(payload)[..], payload].concat());
            if !part.more {
                self.sends.remove(&key(part.body));
            }
        }
    }
}

/// Both ends, started, HELLO on the wires.
pub(crate) fn joined(grants: [u32; 3]) -> [End; 2] {
    let mut ends = [End::new(Side::Dialer, hello(1, grants)), End::new(Side::Listener, hello(2, grants))];
    for end in &mut ends {
        end.on(Duration::ZERO, Input::Start);
    }
    ends
}

/// Carries frames until nothing moves any more.
pub(crate) fn settle(ends: &mut [End; 2], now: Duration) {
    loop {
        let mut moved = false;
        for from in 0..2 {
            moved |= ends[from].sending;
            ends[from].written(now);
            while let Some(frame) = ends[from].wire.pop_front() {
                ends[1 - from].receive(now, &frame);
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

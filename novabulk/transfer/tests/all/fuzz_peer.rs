//! A peer that says anything at all, well formed or not: no panic, no growth.
use std::time::Duration;

use nova_units::Priority;
use novabulk_frame::{
    Blocked, Codec, Control, Credit, FrameHeader, FrameKind, GoAway, HEADER_BYTES, Message, MessageId,
    MessageKind, Open, Reset, ResetReason, Stop, StopReason, StreamId, decode,
};
use novabulk_transfer::{Config, Connection, Effect, Input, REQUESTS_MAX, Side, Ticket};

use super::pair::{Seeded, hello, hop, request};

const ROUNDS: u32 = 40_000;
const GRANTS: [u32; 3] = [2, 3, 5];

fn opened(now: Duration) -> Connection {
    let mut machine = Connection::new(Config { side: Side::Listener, hello: hello(1, GRANTS) });
    let mut effects = Vec::new();
    machine.on(now, Input::Start, &mut effects);
    let header = frame(FrameKind::Control, false, 0, 48);
    machine.on(now, Input::Control(header, Control::Hello(hello(2, GRANTS))), &mut effects);
    machine
}

fn frame(kind: FrameKind, more: bool, stream: u32, payload_bytes: u32) -> FrameHeader {
    FrameHeader { kind, more, end: false, stream: StreamId(stream), payload_bytes }
}

/// A peer that keeps to the protocol, so that the machine gets somewhere between the attacks.
#[derive(Default)]
struct Tame {
    next_id: u64,
    /// Stream and what is left of its message.
    under_way: Vec<(u32, u32)>,
}

impl Tame {
    fn next(&mut self, random: &mut Seeded) -> Input {
        if !self.under_way.is_empty() && (random.below(2) == 0 || self.under_way.len() > 3) {
            let which = random.below(self.under_way.len());
            let (stream, rest) = &mut self.under_way[which];
            let bytes = (*rest).min(1 << 20);
            *rest -= bytes;
            let header = frame(FrameKind::Data(Codec::Raw), *rest > 0, *stream, bytes);
            self.under_way.retain(|(_, rest)| *rest > 0);
            return Input::Data(header);
        }
        let stream =
            (11..99).step_by(2).find(|stream| self.under_way.iter().all(|(busy, _)| busy != stream)).unwrap();
        let body_bytes = [0, 1, 4096, 70_000][random.below(4)];
        self.next_id += 1;
        if body_bytes > 0 {
            self.under_way.push((stream, body_bytes));
        }
        let message = Message {
            kind: MessageKind::Request,
            hop: hop(u8::try_from(random.below(3)).unwrap()),
            priority: Priority::ALL[random.below(5)],
            id: MessageId(self.next_id),
            body_bytes,
            reply_max: 0,
            deadline: Duration::from_secs(1),
            head: vec![0; random.below(40)],
        };
        Input::Control(frame(FrameKind::Control, body_bytes > 0, stream, 24), Control::Message(message))
    }
}

/// Plausible one by one, but out of order.
fn anything(random: &mut Seeded, next_id: &mut u64) -> Input {
    let stream = u32::try_from(random.below(9)).unwrap();
    let odd = stream | 1;
    let hop = hop(u8::try_from(random.below(3)).unwrap());
    let id = MessageId(u64::try_from(random.below(6)).unwrap() + 1);
    let body_bytes = [0, 1, 4096, 70_000, 1 << 20, 2_000_000][random.below(6)];
    let control = match random.below(12) {
        0..=4 => {
            *next_id += 1;
            let message = Message {
                kind: if random.below(5) == 0 { MessageKind::Reply } else { MessageKind::Request },
                hop,
                priority: Priority::ALL[random.below(5)],
                id: MessageId(*next_id),
                body_bytes,
                reply_max: 0,
                deadline: Duration::from_secs(1),
                head: vec![0; random.below(40)],
            };
            return Input::Control(
                frame(FrameKind::Control, body_bytes > 0, odd, 24),
                Control::Message(message),
            );
        }
        5 => Control::Credit(Credit { hop, total: u64::try_from(random.below(40)).unwrap() }),
        6 => Control::Blocked(Blocked { hop, total: u64::try_from(random.below(40)).unwrap() }),
        7 => Control::Stop(Stop { reason: StopReason::Cancelled, id }),
        8 => {
            let kind = if random.below(2) == 0 { MessageKind::Reply } else { MessageKind::Request };
            Control::Reset(Reset { kind, reason: ResetReason::Abandoned, id })
        }
        9 => {
            let open = Open { class: Priority::P1, transfer: 1, token: Vec::new() };
            return Input::Control(frame(FrameKind::Control, false, 1001, 12), Control::Open(open));
        }
        10 if random.below(20) == 0 => {
            Control::GoAway(GoAway { last_stream: StreamId(0), last_message: MessageId(0) })
        }
        _ => {
            let bytes = body_bytes.clamp(1, 1 << 20);
            return Input::Data(frame(FrameKind::Data(Codec::Raw), random.below(4) == 0, odd, bytes));
        }
    };
    Input::Control(frame(FrameKind::Control, false, 0, 12), control)
}

#[test]
fn whatever_the_peer_says_the_bounds_hold() {
    let mut random = Seeded::new(77);
    let mut now = Duration::from_secs(1);
    let (mut closes, mut serves) = (0u32, 0u32);
    let mut machine = opened(now);
    let (mut tame, mut next_id, mut ticket) = (Tame::default(), 0, 0);
    let mut effects = Vec::new();
    for _ in 0..ROUNDS {
        now += Duration::from_millis(1);
        let input = match random.below(10) {
            0..=5 => tame.next(&mut random),
            6 if random.below(8) == 0 => anything(&mut random, &mut next_id),
            6 | 7 => Input::Writable,
            8 => {
                ticket += 1;
                Input::Request(request(ticket, u32::try_from(random.below(300_000)).unwrap(), 4096))
            }
            _ => Input::Cancel(Ticket(ticket)),
        };
        if let Input::Data(header) = &input {
            match machine.place(header) {
                Ok(place) => assert!(place.offset + header.payload_bytes <= place.body_bytes),
                Err(violation) => machine.on(now, Input::Misplaced(violation), &mut effects),
            }
        }
        machine.on(now, input, &mut effects);
        let mut closed = false;
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Serve(inbound) if random.below(3) > 0 => {
                    serves += 1;
                    let answer = Input::Answer { id: inbound.id, head: Vec::new(), body_bytes: 0 };
                    machine.on(now, answer, &mut effects);
                }
                Effect::Close(_) => closed = true,
                _ => {}
            }
        }
        assert!(machine.held_bytes() <= 10 * 256 * 1024);
        assert!(machine.serving_count() <= REQUESTS_MAX && machine.asked_count() <= REQUESTS_MAX);
        if closed || machine.is_closed() {
            closes += 1;
            machine = opened(now);
            (tame, next_id, ticket) = (Tame::default(), 0, 0);
        }
    }
    assert!(closes > 300 && serves > 3000, "the fuzz reaches too little: {closes} closes, {serves} serves");
}

#[test]
fn random_bytes_are_refused_at_the_header() {
    let mut random = Seeded::new(3);
    for _ in 0..100_000 {
        let mut bytes = [0; HEADER_BYTES];
        for byte in &mut bytes {
            *byte = u8::try_from(random.next() >> 56).unwrap();
        }
        assert!(decode(&bytes).is_err());
    }
}

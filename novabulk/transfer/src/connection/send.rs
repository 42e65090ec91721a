//! What leaves next: the connection's own words first, then messages by priority as far as credit goes.

use core::time::Duration;

use nova_units::Priority;
use novabulk_frame::{
    Blocked, Control, Credit, GoAway, Hop, Message, MessageId, MessageKind, PAYLOAD_BYTES_MAX, StreamId,
};

use crate::REQUESTS_MAX;
use crate::credit::charge_bytes;
use crate::effect::{Body, Effect, Outgoing, Payload};
use crate::error::CloseReason;

use super::message::{Asking, ServingState};
use super::{Connection, GoAwayState, Phase, Ready};

impl Connection {
    /// Sends one frame when the lane can take one, and closes when everything has drained.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if !self.writable || matches!(self.phase, Phase::Idle | Phase::Closed) {
            return;
        }
        if let Some(outgoing) = self.next_outgoing(now) {
            self.writable = false;
            out.push(Effect::Send(outgoing));
        } else if self.drained() {
            self.close(CloseReason::Drained, out);
        }
    }

    /// Who hears GOAWAY closes, because it alone knows that none of its requests is still on the way.
    fn drained(&self) -> bool {
        self.peer_leaves.is_some() && self.asked_count() == 0 && self.serving_count() == 0
    }

    fn next_outgoing(&mut self, now: Duration) -> Option<Outgoing> {
        if core::mem::take(&mut self.hello_due) {
            return Some(words(StreamId::CONNECTION, Control::Hello(self.config.hello)));
        }
        if self.phase != Phase::Open {
            return None;
        }
        if let GoAwayState::Due { last, until } = self.goaway {
            self.goaway = GoAwayState::Said { last, until };
            let last_stream = self.config.side.other().stream(self.incoming.len() - 1);
            return Some(words(
                StreamId::CONNECTION,
                Control::GoAway(GoAway { last_stream, last_message: last }),
            ));
        }
        if let Some((stream, control)) = self.urgent.pop_front() {
            let answers = matches!(&control, Control::Reset(reset) if reset.kind == MessageKind::Reply);
            self.resets_due -= usize::from(answers);
            return Some(words(stream, control));
        }
        for hop in Hop::ALL {
            if let Some(total) = self.grants[hop.index()].announce() {
                return Some(words(StreamId::CONNECTION, Control::Credit(Credit { hop, total })));
            }
        }
        self.next_message(now)
    }

    /// Highest priority first, in order of arrival; a body that waits for credit holds up only later bodies of
    /// its own hop, so that small ones cannot starve it.
    fn next_message(&mut self, now: Duration) -> Option<Outgoing> {
        let mut waits = [false; Hop::ALL.len()];
        for class in 0..Priority::ALL.len() {
            for at in 0..self.ready[class].len() {
                let ready = self.ready[class][at];
                if let Ready::Request(slot) = ready
                    && let Some((hop, charge)) = self.unpaid(slot)
                {
                    let allowance = &mut self.allowances[hop.index()];
                    waits[hop.index()] |= !allowance.allows(charge);
                    if waits[hop.index()] {
                        if let Some(total) = allowance.say_blocked() {
                            return Some(words(
                                StreamId::CONNECTION,
                                Control::Blocked(Blocked { hop, total }),
                            ));
                        }
                        continue;
                    }
                    allowance.take(charge);
                }
                self.ready[class].remove(at);
                let outgoing = match ready {
                    Ready::Request(slot) => self.send_request(now, slot),
                    Ready::Answer(slot) => self.send_answer(slot),
                };
                if outgoing.data.is_some_and(|part| part.more) {
                    self.ready[class].push_back(ready);
                }
                return Some(outgoing);
            }
        }
        None
    }

    /// What a request costs that has not begun to leave and has a body.
    fn unpaid(&self, slot: usize) -> Option<(Hop, u64)> {
        let asked = self.asked[slot].as_ref().expect("a queued request has its place");
        let charge = charge_bytes(asked.request.body_bytes);
        (asked.state == Asking::Queued && charge > 0).then_some((asked.request.hop, charge))
    }

    fn send_request(&mut self, now: Duration, slot: usize) -> Outgoing {
        let asked = self.asked.get_mut(slot).expect("a queued request has its place");
        let request = &mut asked.request;
        let (control, id, offset) = match asked.state {
            Asking::Queued => {
                self.last_asked = MessageId(self.last_asked.0 + 1);
                self.asked_ids[slot] = self.last_asked.0;
                let message = Message {
                    kind: MessageKind::Request,
                    hop: request.hop,
                    priority: request.priority,
                    id: self.last_asked,
                    body_bytes: request.body_bytes,
                    reply_max: request.reply_max,
                    deadline: request.deadline.saturating_sub(now),
                    head: core::mem::take(&mut request.head),
                };
                (Some(Control::Message(message)), self.last_asked, 0)
            }
            Asking::Sending { id, offset } => (None, id, offset),
            Asking::Waiting { .. } | Asking::Receiving { .. } => unreachable!("a request leaves once"),
        };
        let data = part(Body::Request(request.ticket), offset, request.body_bytes);
        asked.state = match data {
            Some(part) if part.more => Asking::Sending { id, offset: offset + part.bytes },
            _ => Asking::Waiting { id },
        };
        Outgoing { stream: self.config.side.stream(slot), control, data }
    }

    fn send_answer(&mut self, slot: usize) -> Outgoing {
        let serving = self.serving.get_mut(slot).expect("a queued answer has its place");
        let inbound = &serving.inbound;
        let ServingState::Answering { head, body_bytes, offset } = &mut serving.state else {
            unreachable!("a queued answer is being answered")
        };
        let control = match offset {
            Some(_) => None,
            None => Some(Control::Message(Message {
                kind: MessageKind::Reply,
                hop: inbound.hop,
                priority: inbound.priority,
                id: inbound.id,
                body_bytes: *body_bytes,
                reply_max: 0,
                deadline: Duration::ZERO,
                head: core::mem::take(head),
            })),
        };
        let begin = offset.unwrap_or(0);
        let data = part(Body::Answer(inbound.id), begin, *body_bytes);
        match data {
            Some(part) if part.more => *offset = Some(begin + part.bytes),
            _ => drop(self.serving.remove(slot)),
        }
        Outgoing { stream: self.config.side.stream(REQUESTS_MAX + slot), control, data }
    }
}

/// The connection's own words travel without payload.
const fn words(stream: StreamId, control: Control) -> Outgoing {
    Outgoing { stream, control: Some(control), data: None }
}

/// The next data frame of a body.
fn part(body: Body, offset: u32, body_bytes: u32) -> Option<Payload> {
    let rest = body_bytes - offset;
    let bytes = rest.min(PAYLOAD_BYTES_MAX);
    (bytes > 0).then_some(Payload { body, offset, bytes, more: rest > bytes })
}

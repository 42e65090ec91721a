//! What the peer says, checked before it is believed.

use core::time::Duration;

use novabulk_frame::{
    Codec, Control, FrameHeader, FrameKind, GoAway, HOPS, Hello, LinkRole, Message, MessageId, MessageKind,
    PAYLOAD_BYTES_MAX, Reject, Reset, ResetReason, Stop, StreamId,
};

use crate::credit::{Allowance, Grant, charge_bytes};
use crate::effect::{Answered, Body, Effect, Inbound, Place};
use crate::error::{Failure, Violation};
use crate::{DRAIN_TIMEOUT, MESSAGE_STREAMS, OPENS_MAX, REQUESTS_MAX};

use super::message::{Asking, Serving, ServingState};
use super::{Connection, Incoming, Phase, Ready, Side, VERSION, fail};

type Checked = Result<(), Violation>;

impl Connection {
    pub(super) fn control(
        &mut self,
        now: Duration,
        header: FrameHeader,
        control: Control,
        out: &mut Vec<Effect>,
    ) -> Checked {
        let stream = header.stream;
        let begins_body = matches!(&control, Control::Message(message) if message.body_bytes > 0);
        if header.kind != FrameKind::Control || header.end || header.more != begins_body {
            return Err(Violation::Flags { stream });
        }
        let on_connection = !matches!(
            control,
            Control::Message(_) | Control::Open(_) | Control::Accept(_) | Control::Reject(_)
        );
        if on_connection && stream != StreamId::CONNECTION {
            return Err(Violation::Stream { stream });
        }
        if self.phase != Phase::Open && !matches!(control, Control::Hello(_)) {
            return Err(Violation::HelloMissing);
        }
        match control {
            Control::Hello(hello) => self.hello(hello, out),
            Control::Message(message) => match message.kind {
                MessageKind::Request => self.request(now, stream, message, out),
                MessageKind::Reply => self.reply(stream, message, out),
            },
            Control::Credit(credit) => self.allowances[credit.hop.index()]
                .raise(credit.total)
                .map_err(|last| Violation::Total { hop: credit.hop, total: credit.total, last }),
            Control::Blocked(blocked) => self.grants[blocked.hop.index()]
                .blocked(blocked.total)
                .map_err(|last| Violation::Total { hop: blocked.hop, total: blocked.total, last }),
            Control::Stop(stop) => self.stop(stop, out),
            Control::Reset(reset) => self.reset(reset, out),
            Control::GoAway(goaway) => self.peer_leaves(now, goaway, out),
            Control::Open(_) => self.reject(stream),
            Control::Accept(_) | Control::Reject(_) => Err(Violation::NotOpened { stream }),
        }
    }

    fn hello(&mut self, hello: Hello, out: &mut Vec<Effect>) -> Checked {
        if self.peer.is_some() {
            return Err(Violation::HelloTwice);
        }
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(Violation::Version { min: hello.version_min, max: hello.version_max });
        }
        match self.config.side {
            Side::Dialer if hello.role != self.config.hello.role => return Err(Violation::Role),
            Side::Dialer => {}
            Side::Listener => self.greet_back(hello.role),
        }
        self.phase = Phase::Open;
        self.peer = Some(hello);
        self.allowances = hello.grants.map(Allowance::open);
        out.push(Effect::Opened(hello));
        // What was asked before HELLO may turn out to be more than this peer ever takes.
        for slot in 0..self.asked.places() {
            let Some(asked) = &self.asked[slot] else { continue };
            if let Err(failure) = self.fits(&hello, &asked.request) {
                let ticket = asked.request.ticket;
                self.unqueue(Ready::Request(slot));
                self.asked.remove(slot);
                fail(ticket, failure, out);
            }
        }
        Ok(())
    }

    /// The listener's HELLO follows the dialer's.
    fn greet_back(&mut self, role: LinkRole) {
        self.config.hello.role = role;
        if role == LinkRole::Control {
            self.config.hello.grants = [0; HOPS];
            self.grants = self.config.hello.grants.map(Grant::open);
        }
        self.hello_due = true;
    }

    fn request(
        &mut self,
        now: Duration,
        stream: StreamId,
        message: Message,
        out: &mut Vec<Effect>,
    ) -> Checked {
        let index = self.free_stream(stream)?;
        let expected = MessageId(self.last_served.0 + 1);
        if message.id != expected {
            return Err(Violation::Order { expected, found: message.id });
        }
        let bytes_max = self.config.hello.body_bytes_max;
        if message.body_bytes > bytes_max {
            return Err(Violation::BodyTooLong { bytes: message.body_bytes, bytes_max });
        }
        if self.serving_count() + self.resets_due >= REQUESTS_MAX {
            return Err(Violation::TooManyRequests);
        }
        let charge = charge_bytes(message.body_bytes);
        self.grants[message.hop.index()]
            .charge(charge)
            .map_err(|bytes| Violation::Overrun { hop: message.hop, bytes })?;
        self.last_served = message.id;
        let body_bytes = message.body_bytes;
        let inbound = Inbound {
            id: message.id,
            hop: message.hop,
            priority: message.priority,
            head: message.head,
            body_bytes,
            reply_max: message.reply_max,
            deadline: now.saturating_add(message.deadline),
        };
        let refused = self.goaway.last().is_some_and(|last| message.id > last);
        let state = ServingState::Receiving { received: 0, refused };
        let serving = Serving { inbound, charge, stopped: false, state };
        let slot = self.serving.insert(message.id.0, serving).map_err(|_| Violation::TooManyRequests)?;
        if body_bytes == 0 {
            self.serve(slot, out);
        } else {
            self.incoming[index] = Some(Incoming::Request(slot));
        }
        Ok(())
    }

    /// The request is complete: to the driver, or back when this side is leaving.
    fn serve(&mut self, slot: usize, out: &mut Vec<Effect>) {
        let serving = self.serving.get_mut(slot).expect("a completed request has its place");
        let id = serving.inbound.id;
        if matches!(serving.state, ServingState::Receiving { refused: true, .. }) {
            self.refuse(id, ResetReason::GoingAway);
            out.push(Effect::Discard(id));
            return;
        }
        serving.state = ServingState::Serving;
        let inbound = &mut serving.inbound;
        let head = core::mem::take(&mut inbound.head);
        out.push(Effect::Serve(Inbound { head, ..inbound.clone() }));
    }

    fn reply(&mut self, stream: StreamId, message: Message, out: &mut Vec<Effect>) -> Checked {
        let index = self.free_stream(stream)?;
        let id = message.id;
        let slot = self.asked_place(id).ok_or(Violation::Unknown { id })?;
        let asked = self.asked.get_mut(slot).expect("asked_place points at a request");
        if !matches!(asked.state, Asking::Waiting { .. }) {
            return Err(Violation::Unknown { id });
        }
        let bytes_max = asked.request.reply_max;
        if message.body_bytes > bytes_max {
            return Err(Violation::ReplyTooLong { id, bytes: message.body_bytes, bytes_max });
        }
        asked.state =
            Asking::Receiving { id, head: message.head, body_bytes: message.body_bytes, received: 0 };
        if message.body_bytes == 0 {
            self.settle(slot, out);
        } else {
            self.incoming[index] = Some(Incoming::Reply(slot));
        }
        Ok(())
    }

    /// The reply is complete.
    fn settle(&mut self, slot: usize, out: &mut Vec<Effect>) {
        let asked = self.asked.remove(slot).expect("a completed reply has its place");
        let ticket = asked.request.ticket;
        if let Asking::Receiving { head, body_bytes, .. } = asked.state
            && asked.given_up.is_none()
        {
            out.push(Effect::Answered(Answered { ticket, head, body_bytes }));
        }
        out.push(Effect::Settled(ticket));
    }

    pub(super) fn data(&mut self, header: &FrameHeader, out: &mut Vec<Effect>) -> Checked {
        let (index, place) = self.placed(header)?;
        let end = place.offset + header.payload_bytes;
        let incoming = self.incoming[index].expect("placed() found the message");
        match incoming {
            Incoming::Request(slot) => {
                let serving = self.serving.get_mut(slot).expect("a request under way has its place");
                if let ServingState::Receiving { received, .. } = &mut serving.state {
                    *received = end;
                }
            }
            Incoming::Reply(slot) => {
                let asked = self.asked.get_mut(slot).expect("a reply under way has its place");
                if let Asking::Receiving { received, .. } = &mut asked.state {
                    *received = end;
                }
            }
        }
        if end == place.body_bytes {
            self.incoming[index] = None;
            match incoming {
                Incoming::Request(slot) => self.serve(slot, out),
                Incoming::Reply(slot) => self.settle(slot, out),
            }
        }
        Ok(())
    }

    /// The peer's stream by index, and where the payload belongs; every field of the header is checked.
    pub(super) fn placed(&self, header: &FrameHeader) -> Result<(usize, Place), Violation> {
        let stream = header.stream;
        let nowhere = Violation::Payload { stream };
        let index = self.config.side.other().index(stream).ok_or(nowhere)?;
        let (body, offset, body_bytes) = match self.incoming[index].ok_or(nowhere)? {
            Incoming::Request(slot) => {
                let serving = self.serving[slot].as_ref().ok_or(nowhere)?;
                let ServingState::Receiving { received, .. } = serving.state else { return Err(nowhere) };
                (Body::Answer(serving.inbound.id), received, serving.inbound.body_bytes)
            }
            Incoming::Reply(slot) => {
                let asked = self.asked[slot].as_ref().ok_or(nowhere)?;
                let Asking::Receiving { received, body_bytes, .. } = asked.state else { return Err(nowhere) };
                (Body::Request(asked.request.ticket), received, body_bytes)
            }
        };
        let rest = body_bytes - offset;
        let expected = rest.min(PAYLOAD_BYTES_MAX);
        if header.kind != FrameKind::Data(Codec::Raw) || header.payload_bytes != expected {
            return Err(Violation::Fragment { stream, expected, bytes: header.payload_bytes });
        }
        if header.end || header.more != (rest > expected) {
            return Err(Violation::Flags { stream });
        }
        Ok((index, Place { body, offset, body_bytes }))
    }

    /// The index of one of the peer's streams on which a message may begin.
    fn free_stream(&self, stream: StreamId) -> Result<usize, Violation> {
        let index = self.config.side.other().index(stream).ok_or(Violation::Stream { stream })?;
        if self.incoming[index].is_some() {
            return Err(Violation::StreamBusy { stream });
        }
        Ok(index)
    }

    /// A STOP may cross the answer on the way, so an unknown number is no error.
    fn stop(&mut self, stop: Stop, out: &mut Vec<Effect>) -> Checked {
        if stop.id > self.last_served {
            return Err(Violation::Unknown { id: stop.id });
        }
        let Some(slot) = self.serving_place(stop.id) else { return Ok(()) };
        let serving = self.serving.get_mut(slot).expect("serving_place points at a request");
        match serving.state {
            ServingState::Receiving { .. } => return Err(Violation::Unknown { id: stop.id }),
            ServingState::Serving => {
                if core::mem::replace(&mut serving.stopped, true) {
                    return Err(Violation::Unknown { id: stop.id });
                }
                out.push(Effect::StopServing { id: stop.id, reason: stop.reason });
            }
            // The answer is on its way; a part of it that has not left is not worth sending.
            ServingState::Answering { .. } => {
                self.unqueue(Ready::Answer(slot));
                self.refuse(stop.id, ResetReason::Stopped);
                out.push(Effect::Discard(stop.id));
            }
        }
        Ok(())
    }

    fn reset(&mut self, reset: Reset, out: &mut Vec<Effect>) -> Checked {
        let unknown = Violation::Unknown { id: reset.id };
        match reset.kind {
            MessageKind::Request => {
                let slot = self.serving_place(reset.id).ok_or(unknown)?;
                let serving = self.serving[slot].as_ref().ok_or(unknown)?;
                if !matches!(serving.state, ServingState::Receiving { .. }) {
                    return Err(unknown);
                }
                self.leave_stream(Incoming::Request(slot));
                self.release_place(slot);
                self.serving.remove(slot);
                out.push(Effect::Discard(reset.id));
            }
            MessageKind::Reply => {
                let slot = self.asked_place(reset.id).ok_or(unknown)?;
                let asked = self.asked[slot].as_ref().ok_or(unknown)?;
                if matches!(asked.state, Asking::Queued | Asking::Sending { .. }) {
                    return Err(unknown);
                }
                let (ticket, told) = (asked.request.ticket, asked.given_up.is_some());
                self.leave_stream(Incoming::Reply(slot));
                self.asked.remove(slot);
                if !told {
                    let failure = match reset.reason {
                        ResetReason::GoingAway => Failure::GoingAway,
                        reason => Failure::Reset(reason),
                    };
                    out.push(Effect::Failed { ticket, failure });
                }
                out.push(Effect::Settled(ticket));
            }
        }
        Ok(())
    }

    fn leave_stream(&mut self, gone: Incoming) {
        for incoming in &mut self.incoming {
            if *incoming == Some(gone) {
                *incoming = None;
            }
        }
    }

    /// What has not begun to leave goes elsewhere; the peer refuses what it has not begun itself.
    fn peer_leaves(&mut self, now: Duration, goaway: GoAway, out: &mut Vec<Effect>) -> Checked {
        if self.peer_leaves.is_some() {
            return Err(Violation::GoAwayTwice);
        }
        if goaway.last_message > self.last_asked {
            return Err(Violation::Unknown { id: goaway.last_message });
        }
        let until = now + DRAIN_TIMEOUT;
        self.peer_leaves = Some(until);
        self.arm(until);
        for slot in 0..self.asked.places() {
            let Some(asked) = &self.asked[slot] else { continue };
            if asked.state == Asking::Queued {
                let ticket = asked.request.ticket;
                self.unqueue(Ready::Request(slot));
                self.asked.remove(slot);
                fail(ticket, Failure::GoingAway, out);
            }
        }
        Ok(())
    }

    /// This version serves no transfers.
    fn reject(&mut self, stream: StreamId) -> Checked {
        let above_messages = stream.0 > 2 * MESSAGE_STREAMS;
        let peers_own = stream.0 % 2 == self.config.side.other().stream(0).0 % 2;
        if !above_messages || !peers_own {
            return Err(Violation::Stream { stream });
        }
        let waiting = self.urgent.iter().filter(|(_, control)| matches!(control, Control::Reject(_))).count();
        if waiting >= OPENS_MAX {
            return Err(Violation::OpenFlood);
        }
        self.urgent.push_back((stream, Control::Reject(Reject { retry_after: Reject::NEVER })));
        Ok(())
    }
}

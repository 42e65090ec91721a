//! Receives frames, each payload straight to where it belongs.

use core::{
    future::Future,
    pin::{Pin, pin},
};
use std::rc::Rc;

use nova_buf::DmaBuf;
use nova_device::{Clock, Lane, Shard};
use novabulk_frame::{Control, FrameError, FrameKind, HEADER_BYTES, Received, decode, page_sums};
use novabulk_transfer::{Body, Inbound, Input, Place};

use super::{
    Wire,
    inbox::{Inbox, take},
};

/// Nothing more can be received; the machine knows why.
pub(super) struct Over;

pub(super) async fn read<S: Shard>(
    wire: Rc<Wire<S>>,
    lane: Rc<impl Lane>,
    serve: impl Fn(&Rc<Wire<S>>, Inbound, Option<DmaBuf>) + 'static,
) {
    let _ = receive_all(&wire, &*lane, serve).await;
}

async fn receive_all<S: Shard>(
    wire: &Rc<Wire<S>>,
    lane: &impl Lane,
    serve: impl Fn(&Rc<Wire<S>>, Inbound, Option<DmaBuf>),
) -> Result<(), Over> {
    let mut closed = pin!(wire.closed());
    let mut inbox = Inbox::new(wire, lane).await;
    loop {
        let bytes = inbox.header(closed.as_mut()).await?;
        let received = match decode(&bytes) {
            Ok(received) => received,
            Err(error) => return Err(wire.end(Input::Garbled(error))),
        };
        wire.last_heard.set(wire.shard.clock().now());
        let frame = *received.unverified();
        let payload_bytes = usize::try_from(frame.payload_bytes).expect("a frame fits memory");
        match frame.kind {
            FrameKind::Control => {
                // More frames follow for sure when the flag says so: their first header comes along.
                let along = if frame.more { HEADER_BYTES } else { 0 };
                let check = |payload: &[u8]| check_control(received, payload);
                let control = inbox.show(closed.as_mut(), payload_bytes, along, check).await?;
                wire.heard(payload_bytes);
                match control {
                    Ok(control) => wire.on(Input::Control(frame, control)),
                    Err(error) => return Err(wire.end(Input::Garbled(error))),
                }
            }
            FrameKind::Data(_) => {
                let place = wire.machine.borrow().place(&frame);
                let place = match place {
                    Ok(place) => place,
                    Err(violation) => return Err(wire.end(Input::Misplaced(violation))),
                };
                let into = room(wire, closed.as_mut(), &place, payload_bytes).await?;
                let mut into = inbox.body(closed.as_mut(), into).await?;
                wire.heard(payload_bytes);
                if let Err(error) = verify(received, &mut into) {
                    return Err(wire.end(Input::Garbled(error)));
                }
                wire.put(&place, into);
                wire.on(Input::Data(frame));
            }
        }
        loop {
            let next = wire.tables.borrow_mut().to_serve.pop();
            let Some((inbound, body)) = next else { break };
            serve(wire, inbound, body);
        }
        if wire.is_closed() {
            return Err(Over);
        }
    }
}

fn check_control(received: Received, payload: &[u8]) -> Result<Control, FrameError> {
    received.verify(payload)?;
    Control::decode(payload)
}

/// Checks a frame by one pass over its payload. What that gives for each page stays with the payload: whoever knows what
/// a page should sum up to compares, and reads nothing again.
fn verify(received: Received, payload: &mut DmaBuf) -> Result<(), FrameError> {
    // The lane went over the bytes already.
    if let Some(sums) = payload.page_sums() {
        return received.verify_summed(sums).map(drop);
    }
    let Some(sums) = page_sums(payload) else { return received.verify(payload).map(drop) };
    received.verify_summed(&sums)?;
    payload.set_page_sums(sums);
    Ok(())
}

/// The buffer that a payload is received into: the caller's own for a reply, a fresh slab for a request.
async fn room<S: Shard>(
    wire: &Wire<S>,
    closed: Pin<&mut impl Future<Output = ()>>,
    place: &Place,
    bytes: usize,
) -> Result<DmaBuf, Over> {
    // HELLO and the limit on replies allow one frame, so a payload is a whole body.
    assert!(place.offset == 0, "a body of more than one frame");
    match place.body {
        Body::Answer(_) => take(wire, closed, bytes).await,
        Body::Request(ticket) => {
            let room =
                wire.tables.borrow_mut().calls.get_mut(&ticket).and_then(|pending| pending.room.take());
            let mut room = room.expect("a call that allows an answer's body has set room aside for it");
            room.set_len(bytes);
            Ok(room)
        }
    }
}

impl<S: Shard> Wire<S> {
    /// Ends the connection for this reason.
    pub(super) fn end(&self, why: Input) -> Over {
        self.on(why);
        Over
    }

    /// A frame came.
    fn heard(&self, payload_bytes: usize) {
        self.last_heard.set(self.shard.clock().now());
        self.tally.count(|tally| {
            tally.frames_received += 1;
            tally.bytes_received += (HEADER_BYTES + payload_bytes) as u64;
        });
    }

    /// Keeps a received body until its message is complete.
    fn put(&self, place: &Place, body: DmaBuf) {
        let mut tables = self.tables.borrow_mut();
        match place.body {
            Body::Answer(id) => {
                tables.received.insert(id, body);
            }
            Body::Request(ticket) => {
                if let Some(pending) = tables.calls.get_mut(&ticket) {
                    pending.room = Some(body);
                }
            }
        }
    }
}

//! Receives frames, each payload straight to where it belongs.

use core::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};
use std::rc::Rc;

use nova_buf::DmaBuf;
use nova_device::{Clock, Lane, Shard, sync::timeout_at};
use novabulk_frame::{Control, FrameError, FrameKind, HEADER_BYTES, Received, decode, page_sums};
use novabulk_transfer::{Body, Inbound, Input, Place};

use crate::options::BODY_WAIT;

use super::Wire;

/// Headers and control frames up to this length share one buffer.
const SMALL_BYTES: usize = 4096;

/// Nothing more can be received; the machine knows why.
struct Over;

pub(super) async fn read<S: Shard>(
    wire: Rc<Wire<S>>,
    lane: Rc<S::Lane>,
    serve: impl Fn(&Rc<Wire<S>>, Inbound, Option<DmaBuf>) + 'static,
) {
    let _ = receive_all(&wire, &lane, serve).await;
}

async fn receive_all<S: Shard>(
    wire: &Rc<Wire<S>>,
    lane: &S::Lane,
    serve: impl Fn(&Rc<Wire<S>>, Inbound, Option<DmaBuf>),
) -> Result<(), Over> {
    let mut closed = pin!(wire.closed());
    let mut small = wire.shard.pool().take(SMALL_BYTES).await;
    let mut header: Option<[u8; HEADER_BYTES]> = None;
    loop {
        let bytes = match header.take() {
            Some(bytes) => bytes,
            None => {
                small = recv(wire, lane, closed.as_mut(), small, HEADER_BYTES).await?;
                header_at(&small, 0)
            }
        };
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
                let control = if payload_bytes + along <= SMALL_BYTES {
                    small = recv(wire, lane, closed.as_mut(), small, payload_bytes + along).await?;
                    header = frame.more.then(|| header_at(&small, payload_bytes));
                    check_control(received, &small[..payload_bytes])
                } else {
                    let large = take(wire, closed.as_mut(), payload_bytes).await?;
                    let large = recv(wire, lane, closed.as_mut(), large, payload_bytes).await?;
                    check_control(received, &large)
                };
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
                let mut into = recv(wire, lane, closed.as_mut(), into, payload_bytes).await?;
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

fn header_at(bytes: &[u8], at: usize) -> [u8; HEADER_BYTES] {
    *bytes[at..].first_chunk().expect("a header was received there")
}

fn check_control(received: Received, payload: &[u8]) -> Result<Control, FrameError> {
    received.verify(payload)?;
    Control::decode(payload)
}

/// Checks a frame by one pass over its payload. What that gives for each page stays with the payload: whoever knows what
/// a page should sum up to compares, and reads nothing again.
fn verify(received: Received, payload: &mut DmaBuf) -> Result<(), FrameError> {
    let Some(sums) = page_sums(payload) else { return received.verify(payload).map(drop) };
    received.verify_summed(&sums)?;
    payload.set_page_sums(sums);
    Ok(())
}

/// Receives unless the connection closes first.
async fn recv<S: Shard>(
    wire: &Wire<S>,
    lane: &S::Lane,
    closed: Pin<&mut impl Future<Output = ()>>,
    into: DmaBuf,
    count: usize,
) -> Result<DmaBuf, Over> {
    match unless_closed(closed, lane.recv_exact(into, count)).await {
        Some((Ok(()), bytes)) => Ok(bytes),
        Some((Err(_), _)) => Err(wire.end(Input::LaneLost)),
        None => Err(Over),
    }
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

/// A slab, waited for as long as [`BODY_WAIT`]: the credit said that there would be one.
async fn take<S: Shard>(
    wire: &Wire<S>,
    closed: Pin<&mut impl Future<Output = ()>>,
    bytes: usize,
) -> Result<DmaBuf, Over> {
    let clock = wire.shard.clock();
    let taking = timeout_at(clock, clock.now() + BODY_WAIT, wire.shard.pool().take(bytes));
    match unless_closed(closed, taking).await {
        Some(Ok(slab)) => Ok(slab),
        Some(Err(_)) => {
            wire.tally.count(|tally| tally.body_starvations += 1);
            Err(wire.end(Input::LaneLost))
        }
        None => Err(Over),
    }
}

/// The future's output, or nothing when the connection closes first.
async fn unless_closed<F: Future>(
    mut closed: Pin<&mut impl Future<Output = ()>>,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => closed.as_mut().poll(context).map(|()| None),
    })
    .await
}

impl<S: Shard> Wire<S> {
    /// Ends the connection for this reason.
    fn end(&self, why: Input) -> Over {
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

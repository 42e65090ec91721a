//! Sends what the machine decided. What is short and ready goes together, in one send: a system call, and a wake-up of
//! the peer, cost more than copying it.

use std::rc::Rc;

use futures_lite::future::or;
use nova_buf::SharedBuf;
use nova_device::{Lane, Shard};
use novabulk_frame::HEADER_BYTES;
use novabulk_transfer::{Input, Outgoing};

use super::Wire;

/// Head room for a control frame and a data header; longer heads grow it.
const HEAD_BYTES: usize = 4096;
/// A body up to this length is copied behind its header, so that more can follow in the same send.
const COPIED_BYTES_MAX: usize = 16 << 10;
/// A send that has gathered this much leaves.
const GATHERED_BYTES_MAX: usize = 64 << 10;

pub(super) async fn write<S: Shard>(wire: Rc<Wire<S>>, lane: Rc<impl Lane>) {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    loop {
        if wire.is_closed() {
            break;
        }
        let Some(outgoing) = wire.outgoing.take() else {
            or(wire.to_send.notified(), wire.changed.notified()).await;
            continue;
        };
        head.clear();
        let (mut frames, mut body) = next_frames(&wire, &outgoing, &mut head);
        // Whether the machine may decide on the next frames already.
        let mut asked = false;
        while head.len() < GATHERED_BYTES_MAX && !wire.is_leaving() {
            match body.take_if(|body| body.len() <= COPIED_BYTES_MAX) {
                Some(short) => {
                    wire.tls.count_copied(short.len());
                    head.extend_from_slice(&short);
                }
                None if body.is_some() => break,
                None => {}
            }
            wire.on(Input::Writable);
            let Some(outgoing) = wire.outgoing.take() else {
                asked = true;
                break;
            };
            let (more, next) = next_frames(&wire, &outgoing, &mut head);
            (frames, body) = (frames + more, next);
        }
        let bytes = head.len() + body.as_ref().map_or(0, |body| body.len());
        let sending = async { Some(lane.send(&head, body).await) };
        let ended = async {
            wire.closed().await;
            None
        };
        match or(sending, ended).await {
            Some(Ok(())) => {
                wire.tally.count(|tally| {
                    tally.bytes_sent += bytes as u64;
                    tally.frames_sent += frames;
                });
                if !asked {
                    wire.on(Input::Writable);
                }
            }
            Some(Err(_)) => wire.on(Input::LaneLost),
            None => {}
        }
    }
    if wire.closed_in_order() {
        // The peer may be gone already; then nobody waits for the end.
        let _ = lane.shutdown().await;
    }
}

/// Lays out what is to leave next; the table gives up a body of which this is the last part.
fn next_frames<S: Shard>(
    wire: &Wire<S>,
    outgoing: &Outgoing,
    head: &mut Vec<u8>,
) -> (u64, Option<SharedBuf>) {
    let frames = encode(wire, outgoing, head);
    if let Some(part) = outgoing.data.filter(|part| !part.more) {
        wire.forget_body(part.body);
    }
    frames
}

/// Lays control frame and data header side by side, so that they leave with the body in one send.
fn encode<S: Shard>(wire: &Wire<S>, outgoing: &Outgoing, head: &mut Vec<u8>) -> (u64, Option<SharedBuf>) {
    let mut frames = 0;
    if let Some(control) = &outgoing.control {
        let begin = head.len();
        head.resize(begin + HEADER_BYTES, 0);
        control.encode(head);
        let (front, payload) = head[begin..].split_at_mut(HEADER_BYTES);
        let payload_bytes = u32::try_from(payload.len()).expect("a control frame is short");
        front.copy_from_slice(&outgoing.control_header(payload_bytes).encode(payload));
        frames += 1;
    }
    let body = outgoing.data.zip(outgoing.data_header()).map(|(part, header)| {
        let whole = wire.body(part.body).expect("a body stays until its last part has left");
        let begin = usize::try_from(part.offset).expect("bodies fit memory");
        let end = begin + usize::try_from(part.bytes).expect("bodies fit memory");
        let payload = if begin == 0 && end == whole.len() { whole } else { whole.slice(begin..end) };
        // Sums that the payload carries spare a pass over it. Should they not be its own, the peer notices.
        let header =
            payload.page_sums().map_or_else(|| header.encode(&payload), |sums| header.encode_summed(sums));
        head.extend_from_slice(&header);
        frames += 1;
        payload
    });
    (frames, body)
}

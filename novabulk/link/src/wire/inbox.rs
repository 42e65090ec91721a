//! What was received of a connection and not looked at yet.

use core::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use nova_buf::DmaBuf;
use nova_device::{Clock, Lane, Shard, sync::timeout_at};
use novabulk_frame::HEADER_BYTES;
use novabulk_transfer::Input;

use crate::options::BODY_WAIT;

use super::Wire;
use super::reader::Over;

/// Room of a connection on which no body has come yet: headers and control frames.
const SMALL_BYTES: usize = 4096;
/// Room of one on which bodies come: a few short messages, bodies included.
const LARGE_BYTES: usize = 16 << 10;
/// After a body of at most this length everything that is there is received at once. After a longer one only what is
/// needed: the next is long too, and goes straight to where it belongs, aligned.
const SHORT_BODY_BYTES_MAX: usize = LARGE_BYTES / 2;

/// Receives ahead, so that a short message costs one receive and not one for each of its parts.
pub(super) struct Inbox<'wire, S: Shard, L> {
    wire: &'wire Wire<S>,
    lane: &'wire L,
    /// Not here while the lane fills it.
    buffer: Option<DmaBuf>,
    room: usize,
    start: usize,
    end: usize,
    ahead: bool,
}

impl<'wire, S: Shard, L: Lane> Inbox<'wire, S, L> {
    pub(super) async fn new(wire: &'wire Wire<S>, lane: &'wire L) -> Self {
        let buffer = Some(wire.shard.pool().take(SMALL_BYTES).await);
        Self { wire, lane, buffer, room: SMALL_BYTES, start: 0, end: 0, ahead: true }
    }

    /// The next header.
    pub(super) async fn header(
        &mut self,
        closed: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<[u8; HEADER_BYTES], Over> {
        self.fill(closed, HEADER_BYTES).await?;
        let header = *self.here().first_chunk().expect("just filled");
        self.start += HEADER_BYTES;
        Ok(header)
    }

    /// Shows the next `count` bytes, which are gone afterwards; `along` more follow for sure and may come with them.
    pub(super) async fn show<T>(
        &mut self,
        mut closed: Pin<&mut impl Future<Output = ()>>,
        count: usize,
        along: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Over> {
        if count + along <= self.room {
            self.fill(closed, count + along).await?;
            let seen = look(&self.here()[..count]);
            self.start += count;
            self.ahead |= along == 0;
            return Ok(seen);
        }
        let whole = take(self.wire, closed.as_mut(), count).await?;
        let whole = self.fill_whole(closed, whole).await?;
        Ok(look(&whole))
    }

    /// Fills all of `body`.
    pub(super) async fn body(
        &mut self,
        closed: Pin<&mut impl Future<Output = ()>>,
        body: DmaBuf,
    ) -> Result<DmaBuf, Over> {
        self.ahead = body.len() <= SHORT_BODY_BYTES_MAX;
        let body = self.fill_whole(closed, body).await?;
        // Only now: strangers, and connections for control, bring none.
        if self.ahead
            && self.room < LARGE_BYTES
            && self.start == self.end
            && let Ok(large) = self.wire.shard.pool().try_take(LARGE_BYTES)
        {
            (self.buffer, self.room) = (Some(large), LARGE_BYTES);
        }
        Ok(body)
    }

    /// What was received.
    fn here(&self) -> &[u8] {
        &self.buffer.as_ref().expect("back after every receive")[self.start..self.end]
    }

    async fn fill_whole(
        &mut self,
        closed: Pin<&mut impl Future<Output = ()>>,
        mut whole: DmaBuf,
    ) -> Result<DmaBuf, Over> {
        let here = whole.len().min(self.end - self.start);
        whole[..here].copy_from_slice(&self.here()[..here]);
        self.wire.tls.count_copied(here);
        self.start += here;
        let left = whole.len() - here;
        if left == 0 {
            return Ok(whole);
        }
        Ok(receive(self.wire, self.lane, closed, whole, here, left).await?.1)
    }

    /// Sees to it that the next `count` bytes are here.
    async fn fill(&mut self, closed: Pin<&mut impl Future<Output = ()>>, count: usize) -> Result<(), Over> {
        let here = self.end - self.start;
        if here >= count {
            return Ok(());
        }
        let mut buffer = self.buffer.take().expect("back after every receive");
        if here > 0 {
            buffer.copy_within(self.start..self.end, 0);
        }
        buffer.set_len(if self.ahead { self.room } else { count });
        let (received, buffer) = receive(self.wire, self.lane, closed, buffer, here, count - here).await?;
        self.buffer = Some(buffer);
        (self.start, self.end) = (0, here + received);
        Ok(())
    }
}

/// Receives at least `min` bytes behind the first `filled`, unless the connection closes first.
async fn receive<S: Shard>(
    wire: &Wire<S>,
    lane: &impl Lane,
    closed: Pin<&mut impl Future<Output = ()>>,
    into: DmaBuf,
    filled: usize,
    min: usize,
) -> Result<(usize, DmaBuf), Over> {
    wire.tally.count(|tally| tally.receives += 1);
    match unless_closed(closed, lane.recv_behind(into, filled, min)).await {
        Some((Ok(count), bytes)) => Ok((count, bytes)),
        Some((Err(_), _)) => Err(wire.end(Input::LaneLost)),
        None => Err(Over),
    }
}

/// A slab, waited for as long as [`BODY_WAIT`]: the credit said that there would be one.
pub(super) async fn take<S: Shard>(
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

//! Questions between the shards of one `novad`: a request that came to one, for a device of another.
//!
//! A shard asks by its neighbour's mailbox and waits for the answer in its own. Bodies are copied out of the arena of the
//! one and into that of the other: memory of an arena belongs to one thread. Work that passes a mailbox keeps its hop, and
//! each hop has room of its own, so that two shards that ask each other never wait in a ring.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nova_buf::{DmaBuf, Pool, SharedBuf};
use nova_device::sync::{Permit, Semaphore, TooManyWaiters, oneshot, timeout_at};
use nova_device::{Clock, Incoming, PeerError, Served, Shard};
use nova_units::{MIB, NodeId, PageSum, Priority};

use crate::switchboard::{Post, Switchboard};

/// Questions of one shard to another under way, for each hop; more wait.
const ASKED_MAX: usize = 256;
/// Questions that wait for one of these; the next is told to come again.
const WAITING_MAX: usize = 4096;
/// Bodies of questions under way to all shards and for all hops are at most this part of the arena...
const BODIES_PART: u64 = 8;
/// ...but one of 1 MiB always fits.
const BODIES_BYTES_MIN: u64 = MIB;
/// How often work may have been passed on between hosts: each has room of its own.
const HOPS: usize = 3;
/// When to come back after there was no room.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Bytes on their way from one arena to another.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    sums: Option<Vec<PageSum>>,
}

impl Packed {
    fn of(bytes: &[u8], sums: Option<&[PageSum]>) -> Self {
        Self { bytes: bytes.to_vec(), sums: sums.map(<[PageSum]>::to_vec) }
    }

    /// In a buffer of this pool; waits for one.
    pub(crate) async fn unpack(self, pool: &Pool) -> DmaBuf {
        let mut unpacked = pool.take(self.bytes.len()).await;
        unpacked.copy_from_slice(&self.bytes);
        if let Some(sums) = self.sums {
            unpacked.set_page_sums(sums.into());
        }
        unpacked
    }
}

/// A request, before it is packed.
#[derive(Debug)]
pub(crate) struct Question {
    /// The host that asks.
    pub(crate) from: NodeId,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<SharedBuf>,
    pub(crate) priority: Priority,
    pub(crate) hop: u8,
}

impl Question {
    pub(crate) fn of(from: NodeId, request: Incoming) -> Self {
        let Incoming { head, body, priority, hop } = request;
        Self { from, head, body: body.map(DmaBuf::freeze), priority, hop }
    }
}

/// A body in a mailbox. Who asked and waits no longer takes it back: a shard that hangs would keep the bodies of all that
/// ever gave up, for nobody.
#[derive(Clone, Debug)]
struct Left(Arc<Mutex<Body>>);

#[derive(Debug)]
enum Body {
    Waits(Option<Packed>),
    Taken,
    TakenBack,
}

impl Left {
    fn new(body: Option<Packed>) -> Self {
        Self(Arc::new(Mutex::new(Body::Waits(body))))
    }

    /// For the shard that serves it; `None` when it was taken back.
    fn take(&self) -> Option<Option<Packed>> {
        let mut body = self.0.lock().expect("no holder of this lock panics");
        match std::mem::replace(&mut *body, Body::Taken) {
            Body::Waits(packed) => Some(packed),
            Body::Taken => unreachable!("a question is served once"),
            Body::TakenBack => None,
        }
    }

    fn take_back(&self) {
        let mut body = self.0.lock().expect("no holder of this lock panics");
        if matches!(*body, Body::Waits(_)) {
            *body = Body::TakenBack;
        }
    }
}

/// A request in a mailbox.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The shard that asks, and by which number it knows the question.
    asker: usize,
    number: u64,
    pub(crate) from: NodeId,
    head: Vec<u8>,
    body: Left,
    priority: Priority,
    hop: u8,
}

impl Ask {
    /// The opaque part of the request.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// As it is served here, and whom to answer; waits for memory. There is nothing to serve when nobody waits for it any
    /// more; an answer still tells the asker that this shard is there.
    pub(crate) async fn unpack(self, pool: &Pool) -> (Option<Incoming>, Asker) {
        let Self { asker, number, head, body, priority, hop, .. } = self;
        let asker = Asker { asker, number };
        let body = match body.take() {
            Some(Some(packed)) => Some(packed.unpack(pool).await),
            Some(None) => None,
            None => return (None, asker),
        };
        (Some(Incoming { head, body, priority, hop }), asker)
    }
}

/// Whom to answer.
#[derive(Debug)]
pub(crate) struct Asker {
    asker: usize,
    number: u64,
}

/// An answer in a mailbox.
#[derive(Debug)]
pub(crate) struct Given {
    /// The shard that gives it.
    by: usize,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<Packed>,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the shard has no room for questions: ask again in a moment")]
    Busy,
    #[error("the shard did not answer in time")]
    TimedOut,
}

impl From<Unanswered> for PeerError {
    fn from(why: Unanswered) -> Self {
        match why {
            // It was not asked.
            Unanswered::Busy => Self::Busy { retry_after: BUSY_RETRY },
            Unanswered::TimedOut => Self::TimedOut,
        }
    }
}

/// The other shards, as one sees them.
#[derive(Debug)]
pub(crate) struct Neighbours {
    own: usize,
    switchboard: Arc<Switchboard>,
    others: Vec<Neighbour>,
    asked: RefCell<BTreeMap<u64, oneshot::Sender<Given>>>,
    numbers: Cell<u64>,
}

#[derive(Debug)]
struct Neighbour {
    questions: [Semaphore; HOPS],
    bodies: [Semaphore; HOPS],
    /// It did not answer in time, and has not answered since.
    late: Cell<bool>,
}

impl Neighbours {
    /// Those of shard `own`, whose arena has `arena_bytes`.
    pub(crate) fn new(own: usize, switchboard: Arc<Switchboard>, arena_bytes: u64) -> Self {
        let shards = switchboard.shards();
        let parts = BODIES_PART * (shards * HOPS) as u64;
        let bytes = usize::try_from((arena_bytes / parts).max(BODIES_BYTES_MIN)).unwrap_or(usize::MAX);
        let neighbour = || Neighbour {
            questions: std::array::from_fn(|_| Semaphore::new(ASKED_MAX, WAITING_MAX)),
            bodies: std::array::from_fn(|_| Semaphore::new(bytes, WAITING_MAX)),
            late: Cell::new(false),
        };
        let others = (0..shards).map(|_| neighbour()).collect();
        Self { own, switchboard, others, asked: RefCell::default(), numbers: Cell::new(0) }
    }

    /// The shard that these are the neighbours of.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// Whether a shard has let a question wait too long and has not answered any since.
    pub(crate) fn is_late(&self, shard: usize) -> bool {
        self.others[shard].late.get()
    }

    /// Has a request served by another shard.
    ///
    /// # Errors
    /// [`Unanswered::Busy`] when it was not asked, [`Unanswered::TimedOut`] when it did not answer within `within`, and may
    /// or may not have done what was asked.
    ///
    /// # Cancel safety
    /// Safe: a question that was begun may still be carried out, and its answer is thrown away.
    pub(crate) async fn ask<S: Shard>(
        &self,
        shard: &S,
        to: usize,
        question: Question,
        within: Duration,
    ) -> Result<Given, Unanswered> {
        assert_ne!(to, self.own, "a shard that asks itself would wait for itself");
        let until = shard.clock().now().saturating_add(within);
        let neighbour = &self.others[to];
        let room = neighbour.room(&question);
        let _room = timeout_at(shard.clock(), until, room)
            .await
            .map_err(|_| Unanswered::Busy)?
            .map_err(|_| Unanswered::Busy)?;
        // Room may come with the end of those that waited as long: too late to ask.
        if shard.clock().now() >= until {
            return Err(Unanswered::Busy);
        }
        let (waiting, answer) = self.post(to, question)?;
        let answered = timeout_at(shard.clock(), until, answer).await;
        drop(waiting);
        if answered.is_err() {
            neighbour.late.set(true);
        }
        // Nobody drops the other end before it is taken off the list.
        answered.map_err(|_| Unanswered::TimedOut)?.map_err(|_| Unanswered::TimedOut)
    }

    fn post(
        &self,
        to: usize,
        question: Question,
    ) -> Result<(Waiting<'_>, oneshot::Receiver<Given>), Unanswered> {
        let Question { from, head, body, priority, hop } = question;
        let body = Left::new(body.map(|body| Packed::of(&body, body.page_sums())));
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        let (sender, receiver) = oneshot::channel();
        self.asked.borrow_mut().insert(number, sender);
        let waiting = Waiting { asked: &self.asked, number, body: body.clone() };
        let ask = Ask { asker: self.own, number, from, head, body, priority, hop };
        self.switchboard.post_question(to, ask)?;
        Ok((waiting, receiver))
    }

    /// Answers another shard; one that has no room for answers has long stopped waiting.
    pub(crate) fn answer(&self, to: Asker, served: Served) {
        let Served { head, body } = served;
        let body = body.map(|body| Packed::of(&body, body.page_sums()));
        let post = Post::Answer { number: to.number, given: Given { by: self.own, head, body } };
        if self.switchboard.mailbox(to.asker).post(post).is_err() {
            tracing::warn!(shard = to.asker, "an answer to a shard is lost: its mailbox is full");
        }
    }

    /// An answer came. Nobody may be waiting any more; its shard is there again all the same.
    pub(crate) fn take_answer(&self, number: u64, given: Given) {
        self.others[given.by].late.set(false);
        if let Some(asker) = self.asked.borrow_mut().remove(&number) {
            let _ = asker.send(given);
        }
    }
}

impl Neighbour {
    async fn room(&self, question: &Question) -> Result<(Permit, Permit), TooManyWaiters> {
        let hop = usize::from(question.hop).min(HOPS - 1);
        let bytes = question.body.as_ref().map_or(0, |body| body.len());
        let bodies = self.bodies[hop].acquire(bytes).await?;
        Ok((bodies, self.questions[hop].acquire(1).await?))
    }
}

/// Takes a question off the list of those that wait, and its body back.
struct Waiting<'list> {
    asked: &'list RefCell<BTreeMap<u64, oneshot::Sender<Given>>>,
    number: u64,
    body: Left,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asked.borrow_mut().remove(&self.number);
        self.body.take_back();
    }
}

#[cfg(test)]
mod tests;

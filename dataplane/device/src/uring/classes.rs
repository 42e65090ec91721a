//! Who may use a disk next: I/O classes ahead of the submission queue.
//!
//! A device serves in its own order what it has been given, so only what it has not been given can be put in order.
//! Few requests are in flight at a time; the rest wait here. The log has slots of its own. The other classes share the
//! rest by deficit round robin in bytes, and a class that wants nothing leaves its share to the others.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{collections::VecDeque, rc::Rc};

use nova_units::IoClass;

/// Slots kept for the log.
pub(super) const WAL_SLOTS: usize = 32;

const SHARED_CLASSES: usize = 4;

/// Bytes a class may send in a round, for each point of its share.
const QUANTUM_BYTES: usize = 32 << 10;

/// What a disk is given at a time, and how the classes divide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// Requests of all classes but the log; at least 1.
    pub requests_max: usize,
    /// Bytes of all classes but the log. One request always fits, however large.
    pub bytes_max: usize,
    /// Who gets how much of it when all want more than there is.
    pub shares: IoShares,
}

/// Parts of the bytes that a disk serves beside its log, each at least 1. What a class does not use goes to the others,
/// in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoShares {
    /// Reads and cell writes of clients.
    pub client: u16,
    /// Copies that restore redundancy.
    pub repair: u16,
    /// Checkpoints, compaction, tiering.
    pub background: u16,
    /// Scrub.
    pub scrub: u16,
}

impl Default for DiskLimits {
    fn default() -> Self {
        Self { requests_max: 128, bytes_max: 32 << 20, shares: IoShares::default() }
    }
}

impl Default for IoShares {
    /// The shares of P1 to P4 (Spec B.3).
    fn default() -> Self {
        Self { client: 40, repair: 25, background: 15, scrub: 10 }
    }
}

impl IoShares {
    fn by_class(self) -> [usize; SHARED_CLASSES] {
        [self.client, self.repair, self.background, self.scrub].map(usize::from)
    }
}

/// The queue of one disk. A clone is another handle.
#[derive(Clone, Debug)]
pub(super) struct ClassQueue {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    requests_max: usize,
    bytes_max: usize,
    weights: [usize; SHARED_CLASSES],
    wal_in_flight: usize,
    shared_in_flight: usize,
    shared_bytes: usize,
    wal_waiting: VecDeque<Rc<Waiter>>,
    waiting: [VecDeque<Rc<Waiter>>; SHARED_CLASSES],
    deficits: [usize; SHARED_CLASSES],
    /// The class whose turn it is.
    turn: usize,
    /// Whether that class was given its quantum in this turn.
    topped_up: bool,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place among the requests in flight, given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    inner: Rc<Inner>,
    /// `None` for the log.
    shared: Option<usize>,
    bytes: usize,
}

/// Index among the classes that share, `None` for the log.
fn shared_index(class: IoClass) -> Option<usize> {
    match class {
        IoClass::Wal => None,
        IoClass::Client => Some(0),
        IoClass::Repair => Some(1),
        IoClass::Background => Some(2),
        IoClass::Scrub => Some(3),
    }
}

impl ClassQueue {
    /// # Panics
    /// When a limit or a share is zero: somebody would wait for ever.
    pub(super) fn new(limits: DiskLimits) -> Self {
        Self { inner: Rc::new(Inner { state: RefCell::new(State::new(limits)) }) }
    }

    /// Waits for a place. Cancel safe: a place granted to a dropped wait goes to the next.
    pub(super) async fn admit(&self, class: IoClass, bytes: usize) -> Admission {
        let shared = shared_index(class);
        let waiter = Rc::new(Waiter { bytes, granted: Cell::new(false), waker: RefCell::new(None) });
        self.inner.state.borrow_mut().queue(shared).push_back(Rc::clone(&waiter));
        let waiting = Waiting { inner: &self.inner, shared, waiter };
        self.inner.grant();
        waiting.await
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        let state = self.inner.state.borrow();
        state.wal_in_flight + state.shared_in_flight
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        let state = self.inner.state.borrow();
        state.wal_waiting.len() + state.waiting.iter().map(VecDeque::len).sum::<usize>()
    }
}

impl Inner {
    /// Gives out every place that is free.
    fn grant(&self) {
        loop {
            let next = self.state.borrow_mut().next();
            let Some(waiter) = next else { return };
            waiter.granted.set(true);
            let waker = waiter.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn release(&self, shared: Option<usize>, bytes: usize) {
        {
            let mut state = self.state.borrow_mut();
            match shared {
                None => state.wal_in_flight -= 1,
                Some(_) => {
                    state.shared_in_flight -= 1;
                    state.shared_bytes -= bytes;
                }
            }
        }
        self.grant();
    }
}

impl State {
    fn new(limits: DiskLimits) -> Self {
        let weights = limits.shares.by_class();
        assert!(limits.requests_max > 0 && limits.bytes_max > 0 && !weights.contains(&0), "{limits:?}");
        Self {
            requests_max: limits.requests_max,
            bytes_max: limits.bytes_max,
            weights,
            wal_in_flight: 0,
            shared_in_flight: 0,
            shared_bytes: 0,
            wal_waiting: VecDeque::new(),
            waiting: Default::default(),
            deficits: [0; SHARED_CLASSES],
            turn: 0,
            topped_up: false,
        }
    }

    fn queue(&mut self, shared: Option<usize>) -> &mut VecDeque<Rc<Waiter>> {
        match shared {
            None => &mut self.wal_waiting,
            Some(index) => &mut self.waiting[index],
        }
    }

    /// Takes the next waiter that may go, and counts it as in flight.
    fn next(&mut self) -> Option<Rc<Waiter>> {
        if self.wal_in_flight < WAL_SLOTS
            && let Some(waiter) = self.wal_waiting.pop_front()
        {
            self.wal_in_flight += 1;
            return Some(waiter);
        }
        if self.shared_in_flight >= self.requests_max || self.waiting.iter().all(VecDeque::is_empty) {
            return None;
        }
        loop {
            let turn = self.turn;
            match self.waiting[turn].front().map(|waiter| waiter.bytes) {
                None => self.deficits[turn] = 0,
                Some(bytes) => {
                    if !self.topped_up {
                        self.deficits[turn] += self.weights[turn] * QUANTUM_BYTES;
                        self.topped_up = true;
                    }
                    if self.deficits[turn] >= bytes {
                        // One request always fits, however large.
                        if self.shared_in_flight > 0 && self.shared_bytes + bytes > self.bytes_max {
                            return None;
                        }
                        self.deficits[turn] -= bytes;
                        self.shared_in_flight += 1;
                        self.shared_bytes += bytes;
                        return self.waiting[turn].pop_front();
                    }
                }
            }
            self.turn = (turn + 1) % SHARED_CLASSES;
            self.topped_up = false;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.inner.release(self.shared, self.bytes);
    }
}

struct Waiting<'queue> {
    inner: &'queue Rc<Inner>,
    shared: Option<usize>,
    waiter: Rc<Waiter>,
}

impl Future for Waiting<'_> {
    type Output = Admission;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Admission> {
        if self.waiter.granted.take() {
            let inner = Rc::clone(self.inner);
            return Poll::Ready(Admission { inner, shared: self.shared, bytes: self.waiter.bytes });
        }
        self.waiter.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.waiter.granted.take() {
            self.inner.release(self.shared, self.waiter.bytes);
        } else {
            let mut state = self.inner.state.borrow_mut();
            state.queue(self.shared).retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn now(queue: &ClassQueue, class: IoClass, bytes: usize) -> Option<Admission> {
        match poll(pin!(queue.admit(class, bytes))) {
            Poll::Ready(admission) => Some(admission),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_log_goes_ahead_of_a_full_disk() {
        let queue = ClassQueue::new(DiskLimits::default());
        let held: Vec<_> = (0..DiskLimits::default().requests_max)
            .map(|_| now(&queue, IoClass::Scrub, 4096).unwrap())
            .collect();
        assert!(now(&queue, IoClass::Client, 4096).is_none());
        let wal: Vec<_> = (0..WAL_SLOTS).map(|_| now(&queue, IoClass::Wal, 4096).unwrap()).collect();
        assert!(now(&queue, IoClass::Wal, 4096).is_none(), "the log is bounded too");
        assert_eq!((queue.in_flight(), queue.waiting()), (DiskLimits::default().requests_max + WAL_SLOTS, 0));
        drop((held, wal));
        assert_eq!(queue.in_flight(), 0);
    }

    #[test]
    fn bytes_in_flight_are_bounded() {
        let queue = ClassQueue::new(DiskLimits::default());
        let held: Vec<_> = (0..32).map(|_| now(&queue, IoClass::Client, 1 << 20).unwrap()).collect();
        assert!(now(&queue, IoClass::Client, 4096).is_none());
        drop(held);
        assert!(now(&queue, IoClass::Client, 4096).is_some());
    }

    /// Serves `total` bytes of a disk on which each class always has requests of the given sizes waiting, or none;
    /// answers the bytes of each, and the longest that one with work waited for its next request, in bytes of others.
    fn serve(
        limits: DiskLimits,
        mut size_of: impl FnMut(usize) -> Option<usize>,
        total: usize,
    ) -> ([usize; SHARED_CLASSES], [usize; SHARED_CLASSES]) {
        let mut state = State::new(limits);
        let mut in_flight = VecDeque::new();
        let (mut served, mut waited, mut longest) =
            ([0; SHARED_CLASSES], [0; SHARED_CLASSES], [0; SHARED_CLASSES]);
        while served.iter().sum::<usize>() < total {
            for (class, waiting) in state.waiting.iter_mut().enumerate() {
                while waiting.len() < 2
                    && let Some(bytes) = size_of(class)
                {
                    let waiter = Waiter { bytes, granted: Cell::new(false), waker: RefCell::new(None) };
                    waiting.push_back(Rc::new(waiter));
                }
            }
            let lengths: Vec<usize> = state.waiting.iter().map(VecDeque::len).collect();
            let Some(waiter) = state.next() else {
                let bytes = in_flight.pop_front().expect("a disk with nothing in flight takes a request");
                state.shared_in_flight -= 1;
                state.shared_bytes -= bytes;
                continue;
            };
            let class = (0..SHARED_CLASSES).find(|class| state.waiting[*class].len() < lengths[*class]);
            let class = class.expect("it was taken from one of them");
            served[class] += waiter.bytes;
            in_flight.push_back(waiter.bytes);
            assert!(in_flight.len() <= limits.requests_max);
            assert!(in_flight.len() == 1 || state.shared_bytes <= limits.bytes_max);
            for (waited, longest) in waited.iter_mut().zip(&mut longest) {
                *waited += waiter.bytes;
                *longest = (*longest).max(*waited);
            }
            waited[class] = 0;
        }
        (served, longest)
    }

    #[test]
    fn shares_hold_within_a_tenth_and_no_class_with_work_starves() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..60 {
            let mut share = || random.u16(5..=100);
            let shares = IoShares { client: share(), repair: share(), background: share(), scrub: share() };
            let largest = [0; SHARED_CLASSES].map(|_: usize| (16 << 10) << random.usize(0..=6));
            let mut busy = [0; SHARED_CLASSES].map(|_: usize| random.u8(0..4) > 0);
            busy[random.usize(0..SHARED_CLASSES)] = true;
            let requests_max = random.usize(1..200);
            let limits = DiskLimits { requests_max, bytes_max: 8 << 20, shares };
            let weights = shares.by_class();
            let all: usize =
                (0..SHARED_CLASSES).filter(|class| busy[*class]).map(|class| weights[class]).sum();
            // So many rounds that one request more or less does not matter, to any class.
            let a_round = all * QUANTUM_BYTES + SHARED_CLASSES * (1 << 20);
            let least = weights.iter().min().expect("there are four");
            let rounds = 100.max(40 * (1 << 20) / (least * QUANTUM_BYTES));
            let total = rounds * a_round;
            let mut sizes = fastrand::Rng::with_seed(round);
            let size_of = |class: usize| busy[class].then(|| sizes.usize(1..=largest[class]));
            let (served, longest) = serve(limits, size_of, total);
            for (class, is_busy) in busy.into_iter().enumerate() {
                if !is_busy {
                    assert_eq!(served[class], 0);
                    continue;
                }
                let expected = total as f64 * weights[class] as f64 / all as f64;
                let off = (served[class] as f64 - expected).abs() / expected;
                assert!(
                    off < 0.1,
                    "class {class} got {off:.3} off its share of {limits:?} {busy:?} {served:?}"
                );
                // One request needs so many rounds of its class's quantum, and no more.
                let rounds = largest[class] / (weights[class] * QUANTUM_BYTES) + 2;
                assert!(
                    longest[class] <= rounds * a_round,
                    "class {class} waited {} bytes: {limits:?}",
                    longest[class]
                );
            }
        }
    }

    #[test]
    fn a_class_alone_has_the_whole_disk() {
        let (served, _) = serve(DiskLimits::default(), |class| (class == 3).then_some(1 << 20), 1 << 30);
        assert_eq!(served, [0, 0, 0, 1 << 30]);
    }

    #[test]
    fn a_dropped_wait_passes_its_place_on() {
        let queue = ClassQueue::new(DiskLimits::default());
        let held: Vec<_> = (0..WAL_SLOTS).map(|_| now(&queue, IoClass::Wal, 1).unwrap()).collect();
        let mut second = pin!(queue.admit(IoClass::Wal, 1));
        {
            let mut first = pin!(queue.admit(IoClass::Wal, 1));
            assert!(poll(first.as_mut()).is_pending());
            assert!(poll(second.as_mut()).is_pending());
            drop(held);
        }
        assert!(poll(second.as_mut()).is_ready());
        assert_eq!(queue.in_flight(), 0);
    }
}

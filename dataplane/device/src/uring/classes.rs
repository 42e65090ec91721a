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

/// Requests of all classes but the log that a disk is given at a time.
pub(super) const SHARED_SLOTS: usize = 128;

/// Bytes of all classes but the log that a disk is given at a time.
pub(super) const SHARED_BYTES_MAX: usize = 32 << 20;

/// Slots kept for the log.
pub(super) const WAL_SLOTS: usize = 32;

/// Weights of Client, Repair, Background and Scrub (the shares of P1 to P4 in Spec B.3).
const WEIGHTS: [usize; SHARED_CLASSES] = [40, 25, 15, 10];
const SHARED_CLASSES: usize = 4;

/// Bytes a class may send in a round, for each point of its weight.
const QUANTUM_BYTES: usize = 32 << 10;

/// The queue of one disk. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(super) struct ClassQueue {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
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
        if self.shared_in_flight >= SHARED_SLOTS || self.waiting.iter().all(VecDeque::is_empty) {
            return None;
        }
        loop {
            let turn = self.turn;
            match self.waiting[turn].front().map(|waiter| waiter.bytes) {
                None => self.deficits[turn] = 0,
                Some(bytes) => {
                    if !self.topped_up {
                        self.deficits[turn] += WEIGHTS[turn] * QUANTUM_BYTES;
                        self.topped_up = true;
                    }
                    if self.deficits[turn] >= bytes {
                        // One request always fits, however large.
                        if self.shared_in_flight > 0 && self.shared_bytes + bytes > SHARED_BYTES_MAX {
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
        let queue = ClassQueue::default();
        let held: Vec<_> = (0..SHARED_SLOTS).map(|_| now(&queue, IoClass::Scrub, 4096).unwrap()).collect();
        assert!(now(&queue, IoClass::Client, 4096).is_none());
        let wal: Vec<_> = (0..WAL_SLOTS).map(|_| now(&queue, IoClass::Wal, 4096).unwrap()).collect();
        assert!(now(&queue, IoClass::Wal, 4096).is_none(), "the log is bounded too");
        assert_eq!((queue.in_flight(), queue.waiting()), (SHARED_SLOTS + WAL_SLOTS, 0));
        drop((held, wal));
        assert_eq!(queue.in_flight(), 0);
    }

    #[test]
    fn bytes_in_flight_are_bounded() {
        let queue = ClassQueue::default();
        let held: Vec<_> = (0..32).map(|_| now(&queue, IoClass::Client, 1 << 20).unwrap()).collect();
        assert!(now(&queue, IoClass::Client, 4096).is_none());
        drop(held);
        assert!(now(&queue, IoClass::Client, 4096).is_some());
    }

    #[test]
    fn classes_share_by_weight_and_leave_what_they_do_not_use() {
        let queue = ClassQueue::default();
        let held: Vec<_> = (0..SHARED_SLOTS).map(|_| now(&queue, IoClass::Client, 4096).unwrap()).collect();
        let classes = [IoClass::Client, IoClass::Repair, IoClass::Background, IoClass::Scrub];
        let mut waits: Vec<_> = classes
            .iter()
            .flat_map(|&class| (0..400).map(move |_| class))
            .map(|class| (class, Box::pin(queue.admit(class, 256 << 10))))
            .collect();
        for (_, wait) in &mut waits {
            assert!(poll(wait.as_mut()).is_pending());
        }
        drop(held);
        let mut counts = [0usize; 4];
        for _ in 0..450 {
            let served = waits.iter_mut().position(|(_, wait)| {
                // The admission is dropped at once: the next waiter goes.
                poll(wait.as_mut()).is_ready()
            });
            let (class, _) = waits.remove(served.expect("somebody has been admitted"));
            counts[shared_index(class).unwrap()] += 1;
        }
        // Of what was granted; some are granted and not yet seen, hence the tolerance.
        for (count, weight) in counts.into_iter().zip(WEIGHTS) {
            let expected = 450 * weight / 90;
            assert!(count.abs_diff(expected) <= 90, "{counts:?} for weights {WEIGHTS:?}");
        }
        assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > counts[3], "{counts:?}");
    }

    #[test]
    fn a_dropped_wait_passes_its_place_on() {
        let queue = ClassQueue::default();
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

//! Wakes tasks that wait for something to change.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{collections::VecDeque, rc::Rc};

/// Wakes one waiting task, or all of them.
///
/// [`Notify::notify_one`] without anyone waiting is remembered, once, for the next who waits. The usual loop is safe:
/// look at the state, and when it is not what you need, `notified().await` and look again.
#[derive(Debug, Default)]
pub struct Notify {
    /// A `notify_one` that nobody has taken.
    token: Cell<bool>,
    /// Counts `notify_all`, so that a `Notified` made before one completes although it was not polled yet.
    rounds: Cell<u64>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    woken: Cell<Woken>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Woken {
    #[default]
    No,
    One,
    All,
}

impl Notify {
    /// One that nobody waits for yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { token: Cell::new(false), rounds: Cell::new(0), waiters: RefCell::new(VecDeque::new()) }
    }

    /// Wakes the task that has waited longest; with nobody waiting, the next who waits does not.
    pub fn notify_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        match waiter {
            Some(waiter) => waiter.wake(Woken::One),
            None => self.token.set(true),
        }
    }

    /// Wakes every task that waits now, and completes every [`Notified`] made before. Nothing is remembered.
    pub fn notify_all(&self) {
        self.rounds.set(self.rounds.get().wrapping_add(1));
        let waiters = self.waiters.take();
        for waiter in waiters {
            waiter.wake(Woken::All);
        }
    }

    /// Waits for the next notification.
    ///
    /// # Cancel safety
    /// Safe: when it is dropped after `notify_one` chose it, the next in line is woken instead.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, round: self.rounds.get(), waiter: None }
    }
}

impl Waiter {
    fn wake(&self, woken: Woken) {
        self.woken.set(woken);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The future of [`Notify::notified`].
#[derive(Debug)]
#[must_use = "a wait does nothing until it is awaited"]
pub struct Notified<'notify> {
    notify: &'notify Notify,
    round: u64,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify;
        if let Some(waiter) = &self.waiter {
            if waiter.woken.get() == Woken::No {
                waiter.waker.replace(Some(context.waker().clone()));
                return Poll::Pending;
            }
            self.waiter = None;
            return Poll::Ready(());
        }
        if notify.rounds.get() != self.round || notify.token.take() {
            return Poll::Ready(());
        }
        let waiter =
            Rc::new(Waiter { woken: Cell::default(), waker: RefCell::new(Some(context.waker().clone())) });
        notify.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        self.waiter = Some(waiter);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        match waiter.woken.get() {
            Woken::No => self.notify.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter)),
            Woken::One => self.notify.notify_one(),
            Woken::All => {}
        }
    }
}

//! Permits for a bounded number of things at once.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{collections::VecDeque, rc::Rc};

/// Lends permits, first come, first served; the queue of those who wait is bounded too. A clone is another handle.
#[derive(Clone, Debug)]
pub struct Semaphore {
    inner: Rc<Inner>,
}

/// The queue of a [`Semaphore`] is full: pass the refusal on to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{waiters_max} already wait for a permit: ask again later")]
pub struct TooManyWaiters {
    /// The bound of the queue.
    pub waiters_max: usize,
}

#[derive(Debug)]
struct Inner {
    free: Cell<usize>,
    total: usize,
    waiters_max: usize,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    count: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Semaphore {
    /// Lends up to `permits` at once, to at most `waiters_max` waiting tasks.
    #[must_use]
    pub fn new(permits: usize, waiters_max: usize) -> Self {
        let waiters = RefCell::default();
        Self { inner: Rc::new(Inner { free: Cell::new(permits), total: permits, waiters_max, waiters }) }
    }

    /// Takes `count` permits if they are free and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, count: usize) -> Option<Permit> {
        let free = self.inner.free.get();
        if free < count || !self.inner.waiters.borrow().is_empty() {
            return None;
        }
        self.inner.free.set(free - count);
        Some(Permit { inner: Rc::clone(&self.inner), count })
    }

    /// Waits for `count` permits.
    ///
    /// # Errors
    /// When the queue is full.
    ///
    /// # Panics
    /// When `count` is above the total: it would wait for ever.
    ///
    /// # Cancel safety
    /// Safe: permits granted to a dropped wait go to the next in line.
    pub async fn acquire(&self, count: usize) -> Result<Permit, TooManyWaiters> {
        assert!(count <= self.inner.total, "{count} permits of {}", self.inner.total);
        if let Some(permit) = self.try_acquire(count) {
            return Ok(permit);
        }
        let waiters_max = self.inner.waiters_max;
        if self.inner.waiters.borrow().len() >= waiters_max {
            return Err(TooManyWaiters { waiters_max });
        }
        let waiter = Rc::new(Waiter { count, granted: Cell::new(false), waker: RefCell::new(None) });
        self.inner.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        Ok(Acquiring { inner: &self.inner, waiter }.await)
    }

    /// Permits free now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.inner.free.get()
    }

    /// Tasks waiting now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.waiters.borrow().len()
    }
}

impl Inner {
    fn release(&self, count: usize) {
        self.free.set(self.free.get() + count);
        self.grant();
    }

    /// Serves the queue from its front while there are permits; a large request is not overtaken by small ones.
    fn grant(&self) {
        loop {
            let waiter = {
                let mut waiters = self.waiters.borrow_mut();
                match waiters.front() {
                    Some(front) if front.count <= self.free.get() => waiters.pop_front(),
                    _ => None,
                }
            };
            let Some(waiter) = waiter else { return };
            self.free.set(self.free.get() - waiter.count);
            waiter.granted.set(true);
            let waker = waiter.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A loan from a [`Semaphore`], returned when dropped.
#[derive(Debug)]
#[must_use = "a permit dropped at once protects nothing"]
pub struct Permit {
    inner: Rc<Inner>,
    count: usize,
}

impl Permit {
    /// How many permits it is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.release(self.count);
    }
}

struct Acquiring<'semaphore> {
    inner: &'semaphore Rc<Inner>,
    waiter: Rc<Waiter>,
}

impl Future for Acquiring<'_> {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        if self.waiter.granted.take() {
            return Poll::Ready(Permit { inner: Rc::clone(self.inner), count: self.waiter.count });
        }
        self.waiter.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        if self.waiter.granted.take() {
            self.inner.release(self.waiter.count);
            return;
        }
        self.inner.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        // A large request at the front may have held up smaller ones behind it.
        self.inner.grant();
    }
}

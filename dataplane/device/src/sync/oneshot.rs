//! One value, once, from one task to another.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::rc::Rc;

/// The two ends of a new channel.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let inner =
        Rc::new(Inner { value: RefCell::new(None), waker: RefCell::new(None), ends: Cell::new(Ends::Both) });
    (Sender { inner: Rc::clone(&inner) }, Receiver { inner })
}

/// The sender went away without sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer will never come: its sender was dropped")]
pub struct Dropped;

#[derive(Debug)]
struct Inner<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    ends: Cell<Ends>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Both,
    NoSender,
    NoReceiver,
}

/// The end that sends.
#[derive(Debug)]
pub struct Sender<T> {
    inner: Rc<Inner<T>>,
}

impl<T> Sender<T> {
    /// Hands `value` to the receiver.
    ///
    /// # Errors
    /// The value, when the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.inner.ends.get() == Ends::NoReceiver {
            return Err(value);
        }
        self.inner.value.replace(Some(value));
        Ok(())
        // Dropping `self` wakes the receiver.
    }

    /// Whether the receiver is gone, so that the answer need not be worked out.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.ends.get() == Ends::NoReceiver
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.inner.ends.get() == Ends::Both {
            self.inner.ends.set(Ends::NoSender);
        }
        let waker = self.inner.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end that waits: a future of the value.
#[derive(Debug)]
#[must_use = "a wait does nothing until it is awaited"]
pub struct Receiver<T> {
    inner: Rc<Inner<T>>,
}

impl<T> Receiver<T> {
    /// The value, if it is there.
    #[must_use]
    pub fn try_recv(&mut self) -> Option<T> {
        self.inner.value.take()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(value) = self.inner.value.take() {
            return Poll::Ready(Ok(value));
        }
        if self.inner.ends.get() == Ends::NoSender {
            return Poll::Ready(Err(Dropped));
        }
        self.inner.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.inner.ends.set(Ends::NoReceiver);
        self.inner.waker.take();
    }
}

//! Counts those inside, and waits until they have left.

use core::cell::Cell;
use std::rc::Rc;

use super::Notify;

/// Lets tasks in until it is closed; closing waits for the last to leave. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    inside: Cell<usize>,
    closed: Cell<bool>,
    left: Notify,
}

impl Gate {
    /// An open gate with nobody inside.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes in; `None` when the gate is closed.
    #[must_use]
    pub fn enter(&self) -> Option<Pass> {
        if self.inner.closed.get() {
            return None;
        }
        self.inner.inside.set(self.inner.inside.get() + 1);
        Some(Pass { inner: Rc::clone(&self.inner) })
    }

    /// Lets nobody in any more and waits until everyone has left.
    ///
    /// # Cancel safety
    /// Safe: the gate stays closed, and closing can be awaited again.
    pub async fn close(&self) {
        self.inner.closed.set(true);
        while self.inner.inside.get() > 0 {
            self.inner.left.notified().await;
        }
    }

    /// How many are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inner.inside.get()
    }

    /// Whether the gate was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.closed.get()
    }
}

/// Leaves the [`Gate`] when dropped.
#[derive(Debug)]
#[must_use = "a pass dropped at once has already left"]
pub struct Pass {
    inner: Rc<Inner>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.inner.inside.set(self.inner.inside.get() - 1);
        if self.inner.inside.get() == 0 {
            self.inner.left.notify_all();
        }
    }
}

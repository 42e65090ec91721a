//! The tasks of a shard, so that they can be ended with it.

use core::{
    cell::{Cell, RefCell},
    future::Future,
};
use std::{collections::HashMap, rc::Rc};

use glommio::{Task, TaskQueueHandle};
use nova_units::TaskClass;

use crate::{
    runnable::Runnable,
    slice::{Slice, Sliced},
};

/// Every task that has not ended. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: RefCell<HashMap<u64, Task<()>>>,
    next: Cell<u64>,
    closed: Cell<bool>,
    slice: Slice,
    runnable: Runnable,
}

impl Tasks {
    /// Starts a task of this class. After [`Tasks::end_all`] nothing starts any more.
    pub(crate) fn spawn(
        &self,
        queue: TaskQueueHandle,
        class: TaskClass,
        task: impl Future<Output = ()> + 'static,
    ) {
        if self.inner.closed.get() {
            return;
        }
        let number = self.inner.next.get();
        self.inner.next.set(number + 1);
        let ended = Ended { inner: Rc::clone(&self.inner), number };
        let sliced = Sliced::new(self.inner.slice.clone(), self.inner.runnable.clone(), class, task);
        let wrapped = self.inner.runnable.counted(async move {
            sliced.await;
            drop(ended);
        });
        let handle = glommio::spawn_local_into(wrapped, queue).expect("the queues live as long as the shard");
        // It runs at the earliest when we yield, so it is listed before it can end.
        self.inner.running.borrow_mut().insert(number, handle);
    }

    /// Which of them can run.
    pub(crate) fn runnable(&self) -> &Runnable {
        &self.inner.runnable
    }

    /// How many have not ended.
    pub(crate) fn running(&self) -> usize {
        self.inner.running.borrow().len()
    }

    /// Drops every task where it waits, and waits until it is dropped.
    pub(crate) async fn end_all(&self) {
        self.inner.closed.set(true);
        // glommio drops a cancelled task in a turn that no waker announces.
        let _awake = self.inner.runnable.hold();
        let running = self.inner.running.take();
        for task in running.into_values() {
            task.cancel().await;
        }
    }
}

/// Takes a task off the list when it ends, or is dropped.
#[derive(Debug)]
struct Ended {
    inner: Rc<Inner>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let handle = self.inner.running.borrow_mut().remove(&self.number);
        if let Some(handle) = handle {
            // Dropping the handle would cancel the task that is running this.
            handle.detach();
        }
    }
}

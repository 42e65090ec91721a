//! How many tasks of a shard can run now.
//!
//! glommio does not tell. A driver that wants to sleep in the ring of the shard has to know, for a task that can run
//! must not wait for a completion. So every task wakes through a waker of ours, which counts it on its way to
//! glommio's.

use core::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Wake,
    time::Instant,
};

/// The driver is called this often while tasks run all the time.
const DRIVER_EVERY: Duration = Duration::from_micros(100);

/// Counts tasks that were woken, or are new, and have not been polled since. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runnable(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    runnable: AtomicUsize,
    driver: Mutex<Driver>,
}

#[derive(Debug, Default)]
struct Driver {
    /// Set while it waits.
    waker: Option<Waker>,
    waits_since: Option<Instant>,
    is_called: bool,
}

impl Count {
    fn add(&self) {
        self.runnable.fetch_add(1, Ordering::AcqRel);
    }

    /// The last one leaves the core to the driver.
    fn take(&self) {
        if self.runnable.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.call_driver();
        }
    }

    fn call_driver(&self) {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        driver.is_called = true;
        let waker = driver.waker.take();
        drop(driver);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Runnable {
    /// Whether there is such a task.
    pub(crate) fn any(&self) -> bool {
        self.0.runnable.load(Ordering::Acquire) > 0
    }

    /// Ends [`Runnable::idle_or_due`].
    pub(crate) fn call_driver(&self) {
        self.0.call_driver();
    }

    /// For the driver: waits until no task can run, or [`DRIVER_EVERY`] has passed and [`Runnable::note_time`] heard.
    pub(crate) async fn idle_or_due(&self) {
        poll_fn(|context| {
            let mut driver = self.0.driver.lock().unwrap_or_else(PoisonError::into_inner);
            if core::mem::take(&mut driver.is_called) || !self.any() {
                driver.waker = None;
                driver.waits_since = None;
                return Poll::Ready(());
            }
            driver.waker = Some(context.waker().clone());
            driver.waits_since.get_or_insert_with(Instant::now);
            Poll::Pending
        })
        .await;
    }

    /// Calls the driver when it has waited for long.
    pub(crate) fn note_time(&self, now: Instant) {
        let driver = self.0.driver.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due =
            driver.waits_since.is_some_and(|since| now.saturating_duration_since(since) >= DRIVER_EVERY);
        drop(driver);
        if is_due {
            self.0.call_driver();
        }
    }

    /// Counts as a task that can run until it is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.0.add();
        Hold(self.clone())
    }

    /// The task, counted from now on.
    pub(crate) fn counted<F: Future>(&self, task: F) -> Counted<F> {
        self.0.add();
        let state = Arc::new(State {
            count: Arc::clone(&self.0),
            is_counted: AtomicBool::new(true),
            executor: Mutex::new(None),
        });
        Counted { waker: Waker::from(Arc::clone(&state)), state, task: Box::pin(task) }
    }
}

/// Keeps a shard awake.
#[derive(Debug)]
pub(crate) struct Hold(Runnable);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.take();
    }
}

#[derive(Debug)]
struct State {
    count: Arc<Count>,
    is_counted: AtomicBool,
    /// What glommio gave at the last poll.
    executor: Mutex<Option<Waker>>,
}

impl State {
    /// Counts the task unless it is counted; tells whether it was not.
    fn note(&self) -> bool {
        let is_new = !self.is_counted.swap(true, Ordering::AcqRel);
        if is_new {
            self.count.add();
        }
        is_new
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // One that is counted is on glommio's list already.
        if self.note()
            && let Some(executor) = &*self.executor.lock().unwrap_or_else(PoisonError::into_inner)
        {
            executor.wake_by_ref();
        }
    }
}

/// A task that is counted while it can run.
pub(crate) struct Counted<F> {
    state: Arc<State>,
    waker: Waker,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut executor = self.state.executor.lock().unwrap_or_else(PoisonError::into_inner);
            if !executor.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *executor = Some(context.waker().clone());
            }
        }
        let this = &mut *self;
        // It counts while it runs, and what wakes it from within counts apart.
        let was_counted = this.state.is_counted.swap(false, Ordering::AcqRel);
        let polled = this.task.as_mut().poll(&mut Context::from_waker(&this.waker));
        if was_counted {
            this.state.count.take();
        }
        polled
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        // Whoever still holds its waker wakes nobody.
        self.state.executor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.state.is_counted.swap(true, Ordering::AcqRel) {
            self.state.count.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use nova_device::sync::Notify;

    #[test]
    fn a_task_counts_from_its_wake_to_its_next_poll() {
        let (runnable, bell) = (Runnable::default(), Notify::new());
        let mut task = runnable.counted(async {
            bell.notified().await;
            bell.notified().await;
        });
        assert!(runnable.any(), "new");
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(!runnable.any(), "it waits");
        bell.notify_all();
        bell.notify_all();
        assert!(runnable.any(), "woken, once");
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(!runnable.any(), "it waits again");
    }

    #[test]
    fn the_driver_runs_when_nobody_else_can_or_when_it_waited_for_long() {
        let runnable = Runnable::default();
        let mut task = runnable.counted(futures_lite::future::yield_now());
        let mut driver = Box::pin(runnable.idle_or_due());
        assert!(block_on(poll_once(&mut driver)).is_none(), "a task can run");
        runnable.note_time(Instant::now());
        assert!(block_on(poll_once(&mut driver)).is_none());
        runnable.note_time(Instant::now() + DRIVER_EVERY);
        assert!(block_on(poll_once(&mut driver)).is_some(), "it is due");
        let mut driver = Box::pin(runnable.idle_or_due());
        assert!(block_on(poll_once(&mut driver)).is_none());
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(block_on(poll_once(&mut driver)).is_none(), "it woke itself");
        assert!(block_on(poll_once(&mut task)).is_some());
        assert!(block_on(poll_once(&mut driver)).is_some(), "nobody can run");
    }

    #[test]
    fn a_task_that_wakes_itself_counts() {
        let runnable = Runnable::default();
        let mut task = runnable.counted(futures_lite::future::yield_now());
        assert!(block_on(poll_once(&mut task)).is_none());
        assert!(runnable.any());
    }

    #[test]
    fn a_dropped_task_counts_no_more_whenever_it_is_dropped() {
        let (runnable, bell) = (Runnable::default(), Notify::new());
        drop(runnable.counted(bell.notified()));
        assert!(!runnable.any(), "before it ran");
        let mut task = runnable.counted(bell.notified());
        assert!(block_on(poll_once(&mut task)).is_none());
        let waker = task.waker.clone();
        drop(task);
        waker.wake();
        assert!(!runnable.any(), "while it waited, and woken afterwards");
    }
}

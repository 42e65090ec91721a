//! How long one class of tasks runs before another may.
//!
//! glommio would do this with a timer in its ring. In 0.9.0 that loses wake-ups: when the timer has fired between the
//! arming and the first task (the thread was descheduled for that long), the executor takes it that no task was
//! ready, and goes to sleep although some are. With a timer of 250 us on a busy machine that happened once in some
//! ten thousand wake-ups, and ended a shard that waited for nothing else. So that timer is set to an hour (docs/adr/0029), and
//! the tasks of a shard look at the time themselves, each time one of them gives way.

use core::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{rc::Rc, time::Instant};

use nova_units::TaskClass;

use crate::runnable::Runnable;

/// A class that has run for this long lets the others run, if they have something to do.
pub const SLICE_MAX: Duration = Duration::from_micros(250);

/// Which class runs, and since when. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    running: Rc<Cell<Option<(TaskClass, Instant)>>>,
}

impl Slice {
    /// Since when this class runs: from now on, unless it does already.
    fn began(&self, class: TaskClass) -> Instant {
        match self.running.get() {
            Some((running, began)) if running == class => began,
            _ => Instant::now(),
        }
    }

    /// Notes that a task of this class has given way; true when its class should too.
    fn is_used_up(&self, class: TaskClass, polled_at: Instant, now: Instant) -> bool {
        let began = match self.running.get() {
            Some((running, began)) if running == class => began,
            _ => polled_at,
        };
        let used_up = now.saturating_duration_since(began) >= SLICE_MAX;
        self.running.set(if used_up { None } else { Some((class, began)) });
        used_up
    }
}

/// A task that keeps to the slice of its class.
pub(crate) struct Sliced<F> {
    slice: Slice,
    runnable: Runnable,
    class: TaskClass,
    task: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Sliced<F> {
    pub(crate) fn new(slice: Slice, runnable: Runnable, class: TaskClass, task: F) -> Self {
        Self { slice, runnable, class, task: Box::pin(task) }
    }
}

impl<F: Future<Output = ()>> Future for Sliced<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let began = self.slice.began(self.class);
        let polled = self.task.as_mut().poll(context);
        let now = Instant::now();
        self.runnable.note_time(now);
        if self.slice.is_used_up(self.class, began, now) {
            give_way();
        }
        polled
    }
}

/// Ends the turn of the running task queue after this task.
fn give_way() {
    let executor = glommio::executor();
    let give_way = pin!(executor.yield_task_queue_now());
    // The first poll marks the queue. Nobody needs the second, so nobody is woken for it.
    let _ = give_way.poll(&mut Context::from_waker(Waker::noop()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_uses_up_its_slice_over_several_tasks() {
        let slice = Slice::default();
        let began = Instant::now();
        assert!(!slice.is_used_up(TaskClass::Client, began, Instant::now()));
        while began.elapsed() < SLICE_MAX {
            core::hint::spin_loop();
        }
        assert!(
            slice.is_used_up(TaskClass::Client, Instant::now(), Instant::now()),
            "what came before counts"
        );
        assert!(!slice.is_used_up(TaskClass::Client, Instant::now(), Instant::now()), "a new slice begins");
    }

    #[test]
    fn another_class_begins_a_slice_of_its_own() {
        let slice = Slice::default();
        let began = Instant::now();
        assert!(!slice.is_used_up(TaskClass::Client, began, Instant::now()));
        while began.elapsed() < SLICE_MAX {
            core::hint::spin_loop();
        }
        assert!(!slice.is_used_up(TaskClass::Wal, Instant::now(), Instant::now()));
    }
}

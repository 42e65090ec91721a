//! The task that turns the ring, and where a shard sleeps.
//!
//! It sleeps in the ring of the shard, not in glommio's: one system call submits what is new and waits for what comes.
//! glommio would link three rings and set two timers for every sleep, and forward our completions through an eventfd
//! (docs/adr/0017). What wakes a shard is therefore all in that ring: disks, sockets, doorbells and timers.

use core::{cell::Cell, time::Duration};
use std::{rc::Rc, time::Instant};

use nova_device::uring::Reactor;

use crate::runnable::Runnable;

/// Tells the driver to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Rc<Cell<bool>>);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.set(true);
    }

    fn is_set(&self) -> bool {
        self.0.get()
    }
}

/// A shard sleeps at most this long; see [`keep_awake`].
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Turns the ring until told to stop. With nothing to do it looks again for `spin`, then sleeps.
///
/// It waits while tasks can run, and runs when none can or when it is due: a queue that is always active would first
/// have to use as much of the core as its shares allow before glommio lets a lesser one run.
pub(crate) async fn drive(reactor: Reactor, runnable: Runnable, spin: Duration, stop: Stop) {
    let mut idle_since: Option<Instant> = None;
    while !stop.is_set() {
        let mut spins =
            || spin > Duration::ZERO && idle_since.get_or_insert_with(Instant::now).elapsed() < spin;
        if runnable.any() || spins() {
            reactor.submit();
        } else {
            reactor.wait(SLEEP_MAX);
        }
        let collected = reactor.collect();
        if collected > 0 || runnable.any() {
            idle_since = None;
            runnable.idle_or_due().await;
        } else {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// Bounds what it costs when no queue is active although tasks could run: glommio then sleeps in its own ring until its next
/// timer, which is this. While a queue is active it is never due: the executor does not look (docs/adr/0029).
pub(crate) async fn keep_awake(runnable: Runnable) {
    loop {
        glommio::timer::sleep(SLEEP_MAX).await;
        runnable.call_driver();
    }
}

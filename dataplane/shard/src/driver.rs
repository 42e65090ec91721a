//! The task that turns the ring.

use core::{cell::Cell, time::Duration};
use std::{io, rc::Rc, time::Instant};

use nova_device::uring::Reactor;

use crate::park;

/// Tells driver and parker to end.
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

/// Turns the ring until told to stop. With nothing to do it gives way to other tasks for `spin`, then sleeps.
pub(crate) async fn drive(reactor: Reactor, spin: Duration, stop: Stop) {
    let mut idle_since: Option<Instant> = None;
    while !stop.is_set() {
        if reactor.turn() > 0 {
            idle_since = None;
            glommio::executor().yield_task_queue_now().await;
            continue;
        }
        if spin > Duration::ZERO && idle_since.get_or_insert_with(Instant::now).elapsed() < spin {
            glommio::executor().yield_task_queue_now().await;
            continue;
        }
        if reactor.prepare_park() {
            reactor.new_work().await;
            reactor.unpark();
            idle_since = None;
        } else {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// A shard sleeps at most this long; see [`keep_awake`].
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Bounds what a wake-up lost inside the executor costs (see [`crate::slice`]); fifty turns a second of an idle shard
/// cost nothing that can be measured.
pub(crate) async fn keep_awake() {
    loop {
        glommio::timer::sleep(SLEEP_MAX).await;
    }
}

/// Wakes the driver when the ring signals. The ring signals only while the driver sleeps, so this costs nothing while
/// there is work.
pub(crate) async fn listen(reactor: Reactor, stop: Stop) -> io::Result<()> {
    while !stop.is_set() {
        park::readable(reactor.event()).await?;
        reactor.clear_event();
        reactor.notify();
    }
    Ok(())
}

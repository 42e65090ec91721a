//! Wakes the machine when a deadline passes, and closes what nobody uses.

use core::time::Duration;
use std::rc::Rc;

use futures_lite::future::or;
use nova_device::{Clock, Shard};
use novabulk_transfer::Input;

use super::Wire;

pub(super) async fn keep<S: Shard>(wire: Rc<Wire<S>>) {
    let mut drained = false;
    while !wire.is_closed() {
        let now = wire.shard.clock().now();
        if wire.machine.borrow().next_timer().is_some_and(|timer| timer <= now) {
            wire.on(Input::Tick);
        }
        let (asked, serving) = {
            let machine = wire.machine.borrow();
            (machine.asked_count(), machine.serving_count())
        };
        let idle_at = wire.last_used.get().max(wire.last_heard.get()) + wire.idle_timeout;
        if !drained && idle_at <= now && asked + serving == 0 {
            drained = true;
            wire.on(Input::Drain);
        }
        // Either of them may have closed the connection, and then nothing more is notified.
        if wire.is_closed() {
            return;
        }
        let idle_at = if drained { None } else { Some(idle_at.max(now + Duration::from_secs(1))) };
        let timer = wire.machine.borrow().next_timer();
        let next = timer.into_iter().chain(idle_at).min().unwrap_or(Duration::MAX);
        wire.armed.set(next);
        let moved = or(wire.timer_moved.notified(), wire.changed.notified());
        if next == Duration::MAX {
            moved.await;
        } else {
            or(wire.shard.clock().sleep_until(next), moved).await;
        }
    }
}

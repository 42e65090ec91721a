//! Waiting for the other side of a ring.

use std::os::fd::BorrowedFd;

use nova_device::sync::Notify;
use nova_device::{Clock, Shard};
use nova_ring::{LOOK_AGAIN, PeerBroken, Receiver};

/// A shard that can wait for a descriptor of somebody else.
pub(crate) trait Doorbells: Shard {
    /// Ends when `fd` is readable.
    async fn readable(&self, fd: BorrowedFd<'_>);
}

/// Waits until `changed` was notified, or [`LOOK_AGAIN`] has passed.
pub(crate) async fn wait_for_change<S: Shard>(shard: &S, changed: &Notify) {
    let clock = shard.clock();
    futures_lite::future::or(changed.notified(), clock.sleep_until(clock.now() + LOOK_AGAIN)).await;
}

/// Waits until there may be a slot, `changed` was notified, or [`LOOK_AGAIN`] has passed: a doorbell that a dying peer
/// never rang costs no more than that.
pub(crate) async fn wait_for_slots<S: Doorbells>(
    shard: &S,
    receiver: &mut Receiver,
    changed: &Notify,
) -> Result<(), PeerBroken> {
    if !receiver.prepare_sleep()? {
        return Ok(());
    }
    let bell = shard.readable(receiver.doorbell());
    futures_lite::future::or(bell, wait_for_change(shard, changed)).await;
    receiver.awake();
    receiver.drain_doorbell();
    Ok(())
}

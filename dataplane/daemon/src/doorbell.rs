//! Waiting for the other side of a ring.

use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::time::Duration;

use nova_device::sync::Notify;
use nova_device::{Clock, Shard};
use nova_ring::{LOOK_AGAIN, PeerBroken, Receiver, Socket};

/// A shard that can wait for a descriptor of somebody else.
pub(crate) trait Doorbells: Shard {
    /// Ends when `fd` is readable. It may be closed meanwhile.
    fn readable(&self, fd: BorrowedFd<'_>) -> impl Future<Output = ()> + use<Self>;
}

/// The doorbell of one peer. The wait for it stays with the kernel while the shard does other things: to begin and
/// cancel one for every answer would cost more than the answer.
pub(crate) struct Bell<S: Doorbells> {
    shard: S,
    rings: Option<Pin<Box<dyn Future<Output = ()>>>>,
    looked_at: Duration,
}

impl<S: Doorbells> Bell<S> {
    pub(crate) fn new(shard: &S) -> Self {
        Self { shard: shard.clone(), rings: None, looked_at: Duration::ZERO }
    }

    /// Whether the peer is gone, asked at most every [`LOOK_AGAIN`].
    pub(crate) fn is_gone(&mut self, socket: &Socket) -> bool {
        let now = self.shard.clock().now();
        if now.saturating_sub(self.looked_at) < LOOK_AGAIN {
            return false;
        }
        self.looked_at = now;
        socket.is_gone()
    }

    /// Waits until `changed` was notified, or [`LOOK_AGAIN`] has passed.
    pub(crate) async fn wait_for_change(&self, changed: &Notify) {
        let clock = self.shard.clock();
        futures_lite::future::or(changed.notified(), clock.sleep_until(clock.now() + LOOK_AGAIN)).await;
    }

    /// Waits until there may be a slot, `changed` was notified, or [`LOOK_AGAIN`] has passed: a doorbell that a dying
    /// peer never rang costs no more than that.
    pub(crate) async fn wait_for_slots(
        &mut self,
        receiver: &mut Receiver,
        changed: &Notify,
    ) -> Result<(), PeerBroken> {
        if !receiver.prepare_sleep()? {
            return Ok(());
        }
        let mut rings = match self.rings.take() {
            Some(rings) => rings,
            None => Box::pin(self.shard.readable(receiver.doorbell())),
        };
        let rang = async {
            rings.as_mut().await;
            true
        };
        let other = async {
            self.wait_for_change(changed).await;
            false
        };
        let rang = futures_lite::future::or(rang, other).await;
        receiver.awake();
        if rang {
            receiver.drain_doorbell();
        } else {
            self.rings = Some(rings);
        }
        Ok(())
    }
}

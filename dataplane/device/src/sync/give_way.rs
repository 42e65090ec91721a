//! A pause for others.

use core::{future::poll_fn, task::Poll};

/// Lets other ready tasks run once before this one goes on. A task that computes calls it at least every 250 us of
/// work (256 KiB of hashing, 512 KiB of sealing), so that urgent requests do not wait behind it.
///
/// # Cancel safety
/// Safe.
pub async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

//! Waiting for the other side of a ring.

use std::os::fd::OwnedFd;

use nova_ring::Receiver;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets a task wait for the doorbell of `receiver`.
#[expect(
    deprecated,
    reason = "its successor is unsafe because a type may lie about its descriptor; an OwnedFd does not"
)]
pub(crate) fn watch(receiver: &Receiver) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(receiver.doorbell().try_clone_to_owned()?, Interest::READABLE)
}

//! The seams between the data plane and the machine: [`Disk`], [`Lane`], [`Clock`], [`Shard`] and [`Peers`].
//!
//! Storage and links are written once, generic over these traits, with static dispatch. They run on a real shard
//! ([`uring`]: files, devices and sockets through one `io_uring`), in memory under a seeded executor with virtual
//! time ([`mem`]), and on either of them behind injected faults ([`faulty`]). [`sync`] has what tasks of one
//! thread need to wait for each other.
#![allow(
    unsafe_code,
    reason = "submission queue entries point at memory that the operation owns until it completes"
)]
#![expect(async_fn_in_trait, reason = "a shard is one thread: futures are !Send on purpose")]

mod disk;
pub mod faulty;
mod lane;
pub mod mem;
mod peers;
mod shard;
pub mod sync;
pub mod uring;

pub use disk::{Disk, DiskError, Done, Durability, Position};
pub use lane::{CONNECT_TIMEOUT, Lane, LaneError, Listener, check_room};
pub use peers::{Handler, Incoming, PeerError, Peers, Reply, Request, Served};
pub use shard::{Clock, Shard};

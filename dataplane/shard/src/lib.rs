//! One glommio executor per core with its own `io_uring`: task queues, poll loop, sleep.
//!
//! glommio gives the executor, pinning and task queues with shares of the core. Disks, sockets and timers go through
//! the [`Reactor`](nova_device::uring::Reactor) of the shard, which one driver task turns: it spins for a configured
//! while when there is nothing to do, then sleeps in it until the ring, a timer or a task of the shard has something.
//!
//! ```no_run
//! use nova_device::{Clock, Shard};
//! use nova_shard::{ShardOptions, run};
//!
//! let booted = run(ShardOptions::default(), async |shard| {
//!     for line in shard.describe() {
//!         println!("{line}");
//!     }
//!     shard.clock().now()
//! });
//! assert!(booted.is_ok());
//! ```
#![forbid(unsafe_code)]

mod driver;
mod mailbox;
mod queues;
mod run;
mod runnable;
mod shard;
mod slice;
mod tasks;

pub use mailbox::{Full, Mailbox};
pub use run::{BrokenDisks, ShardError, ShardOptions, run};
pub use shard::{BLOCKING_MAX, DISKS_OPENED_MAX, OpenDiskError, RealShard};
pub use slice::SLICE_MAX;

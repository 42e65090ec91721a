//! The real machine: files, devices and TCP through one `io_uring` per shard.
//!
//! A [`Reactor`] belongs to the thread that made it. An operation owns its buffer, its file and its place in the
//! queue of its device from submission to completion; the future that waits for it owns none of them, so dropping the
//! future never frees memory the kernel still writes to. Somebody has to turn the reactor: the driver task of a
//! shard, or [`Reactor::run`] in tools and tests.

mod classes;
mod clock;
mod create;
mod disk;
mod file;
mod lane;
mod operation;
mod plain_file;
mod reactor;
mod slots;
mod watch;

pub use classes::{DiskLimits, IoShares};
pub use clock::RealClock;
pub use create::{CreateError, CreateOptions, Filled, Progress, create_disk};
pub use disk::{DiskFacts, OpenDisk, OpenError, UringDisk};
pub use lane::{NOTSENT_LOWAT_BYTES, TcpLane, TcpListener};
pub use plain_file::PlainFile;
pub use reactor::{IN_FLIGHT_MAX, Reactor, ReactorError, Registration, RingMode};
pub use watch::Watch;

//! The seams to time and to the executor.

use core::{future::Future, time::Duration};

use nova_buf::Pool;
use nova_units::{DiskIndex, PeerAddr, TaskClass, Timestamp};

use crate::{Disk, Lane, LaneError};

/// Time that never goes back, for timeouts and leases.
pub trait Clock: 'static {
    /// Time since the host booted, suspended time included; or virtual time.
    fn now(&self) -> Duration;

    /// The calendar of this host, for dates that people read. It may jump: nothing is decided by it that must hold.
    fn calendar(&self) -> Timestamp;

    /// Waits until `now()` is `at` or later; at once when it is.
    ///
    /// # Cancel safety
    /// Safe: a dropped wait leaves nothing behind.
    async fn sleep_until(&self, at: Duration);
}

/// One core and all it owns. A clone is another handle to the same shard.
pub trait Shard: Clone + 'static {
    /// Its disks.
    type Disk: Disk;
    /// Its connections.
    type Lane: Lane;
    /// Its time.
    type Clock: Clock;

    /// The disk with this index.
    ///
    /// # Panics
    /// When the shard has no such disk: the configuration was checked at start.
    fn disk(&self, index: DiskIndex) -> &Self::Disk;

    /// The clock.
    fn clock(&self) -> &Self::Clock;

    /// The buffers.
    fn pool(&self) -> &Pool;

    /// Opens a connection; gives up after 5 seconds.
    ///
    /// # Errors
    /// When the peer refuses, does not answer, or this host has no sockets left.
    async fn connect(&self, to: PeerAddr) -> Result<Self::Lane, LaneError>;

    /// 64 random bits, for jitter and identifiers; not for keys.
    fn random(&self) -> u64;

    /// Fills `out` with bytes fit for keys and salts: of the kernel, or seeded in the simulator.
    fn fill_secret(&self, out: &mut [u8]);

    /// Runs `task` beside the caller until it ends. Tasks of a shard never run at the same time.
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static);
}

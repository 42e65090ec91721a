//! One simulated host.

use core::{
    cell::RefCell,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::rc::Rc;

use nova_buf::{HugePages, Pool, PoolOptions};
use nova_units::{DiskIndex, PeerAddr, TaskClass, Timestamp};

use super::{MemDisk, MemLane, MemListener, world};
use crate::{Clock, LaneError, Shard};

/// Which life of a host: one that starts again gets a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) usize);

/// How a host begins.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Its address in the simulated network.
    pub address: IpAddr,
    /// Its disks, by index.
    pub disks: Vec<MemDisk>,
    /// Size of its pool in bytes.
    pub pool_bytes: u64,
    /// What its clock shows when the world is at time zero: hosts booted at different times.
    pub clock_offset: Duration,
    /// How much too fast its clock runs, in parts per million; negative is too slow.
    pub clock_drift_ppm: i32,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            disks: Vec::new(),
            pool_bytes: 16 << 20,
            clock_offset: Duration::ZERO,
            clock_drift_ppm: 0,
        }
    }
}

/// How a host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// The process dies: its peers see their connections reset; what its disks have in their caches stays.
    Process,
    /// The host loses power: what was not flushed survives by chance, sector by sector; peers may hear nothing.
    Power,
}

/// A simulated host with one shard.
#[derive(Clone, Debug)]
pub struct MemShard {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Rc<world::Inner>,
    id: HostId,
    address: IpAddr,
    disks: Vec<MemDisk>,
    clock: MemClock,
    pool: Pool,
    rng: RefCell<fastrand::Rng>,
}

impl MemShard {
    pub(super) fn new(world: Rc<world::Inner>, id: HostId, options: HostOptions, seed: u64) -> Self {
        let HostOptions { address, disks, pool_bytes, clock_offset, clock_drift_ppm } = options;
        let pool = Pool::new(PoolOptions { bytes: pool_bytes, huge: HugePages::Never })
            .expect("a test machine has memory for the pool of a simulated host");
        let clock = MemClock { world: Rc::clone(&world), offset: clock_offset, drift_ppm: clock_drift_ppm };
        let rng = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { inner: Rc::new(Inner { world, id, address, disks, clock, pool, rng }) }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.inner.address
    }

    /// Its disks.
    #[must_use]
    pub fn disks(&self) -> &[MemDisk] {
        &self.inner.disks
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.inner.world.is_alive(self.inner.id)
    }

    /// Takes connections on a port of this host.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn listen(&self, port: u16) -> MemListener {
        let at = SocketAddr::new(self.inner.address, port);
        MemListener::bind(Rc::clone(&self.inner.world), self.inner.id, at)
    }

    pub(super) fn id(&self) -> HostId {
        self.inner.id
    }
}

impl Shard for MemShard {
    type Disk = MemDisk;
    type Lane = MemLane;
    type Clock = MemClock;

    fn disk(&self, index: DiskIndex) -> &MemDisk {
        &self.inner.disks[usize::from(index.0)]
    }

    fn clock(&self) -> &MemClock {
        &self.inner.clock
    }

    fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    async fn connect(&self, to: PeerAddr) -> Result<MemLane, LaneError> {
        MemLane::connect(&self.inner.world, self.inner.id, self.inner.address, to.0).await
    }

    fn random(&self) -> u64 {
        self.inner.rng.borrow_mut().u64(..)
    }

    fn fill_secret(&self, out: &mut [u8]) {
        self.inner.rng.borrow_mut().fill(out);
    }

    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.inner.world.spawn(self.inner.id, Box::pin(task));
    }
}

/// Virtual time as one host sees it.
#[derive(Clone, Debug)]
pub struct MemClock {
    world: Rc<world::Inner>,
    offset: Duration,
    drift_ppm: i32,
}

/// What the calendar says when a world begins.
const CALENDAR_BEGINS: Timestamp = Timestamp(1_767_225_600_000);
const MILLION: i128 = 1_000_000;

impl MemClock {
    /// What the clock shows at a time of the world.
    fn shown_at(&self, world: Duration) -> Duration {
        self.offset + scale(world, MILLION + i128::from(self.drift_ppm), MILLION)
    }

    /// A time of the world at which the clock shows about `shown`.
    fn world_at(&self, shown: Duration) -> Duration {
        scale(shown.saturating_sub(self.offset), MILLION, MILLION + i128::from(self.drift_ppm))
    }
}

fn scale(time: Duration, times: i128, over: i128) -> Duration {
    let nanos = i128::try_from(time.as_nanos()).expect("96 bits of nanoseconds fit") * times / over;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Clock for MemClock {
    fn now(&self) -> Duration {
        self.shown_at(self.world.now())
    }

    fn calendar(&self) -> Timestamp {
        // The hosts of a world are set alike; only their uptimes differ.
        let right = CALENDAR_BEGINS.after(self.world.now());
        Timestamp(right.0.saturating_add_signed(self.world.calendar_ms.get()))
    }

    async fn sleep_until(&self, at: Duration) {
        let mut target = self.world_at(at);
        while self.now() < at {
            self.world.sleep_until(target).await;
            // Division rounds down: the clock may be a nanosecond short of `at`.
            target = target.max(self.world.now()) + Duration::from_nanos(1);
        }
    }
}

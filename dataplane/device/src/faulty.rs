//! Faults around any disk or lane, the real ones too.
//!
//! The disks and lanes in memory have faults of their own, down to torn sectors. These wrappers are coarser and go
//! around anything: they answer with errors, wait, flip bits on the way and break connections, by a seed.

use core::{
    cell::{Cell, RefCell},
    time::Duration,
};

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::IoClass;

use crate::{
    Clock, Disk, DiskError, Done, Durability, Lane, LaneError, Position,
    mem::{Chance, Latency},
};

/// What the device answers to a request it cannot do.
const EIO: i32 = 5;

/// What a broken connection answers.
const ECONNRESET: i32 = 104;

/// What goes wrong with a wrapped disk. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultyDiskOptions {
    /// A read fails with EIO.
    pub read_error: Chance,
    /// A write fails with EIO before it reaches the disk; the disk has failed for good.
    pub write_error: Chance,
    /// A flush fails with EIO before it reaches the disk; the disk has failed for good.
    pub flush_error: Chance,
    /// One bit of what a read returns is flipped; what is stored stays right.
    pub read_flip: Chance,
    /// A request waits before it starts.
    pub delay: Chance,
    /// How long it waits.
    pub delay_by: Option<Latency>,
}

/// A disk with faults.
#[derive(Debug)]
pub struct FaultyDisk<D, C> {
    inner: D,
    clock: C,
    options: Cell<FaultyDiskOptions>,
    rng: RefCell<fastrand::Rng>,
    failed: Cell<bool>,
}

impl<D: Disk, C: Clock> FaultyDisk<D, C> {
    /// Puts faults around `inner`.
    pub fn new(inner: D, clock: C, seed: u64, options: FaultyDiskOptions) -> Self {
        let rng = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { inner, clock, options: Cell::new(options), rng, failed: Cell::new(false) }
    }

    /// Changes what goes wrong from now on. A disk that has failed stays so.
    pub fn set_options(&self, options: FaultyDiskOptions) {
        self.options.set(options);
    }

    /// The disk inside.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn hits(&self, chance: Chance) -> bool {
        chance.hits(&mut self.rng.borrow_mut())
    }

    async fn hold_up(&self) {
        let options = self.options.get();
        hold_up(&self.clock, &self.rng, options.delay, options.delay_by).await;
    }

    fn fail(&self, position: Position) -> DiskError {
        self.failed.set(true);
        DiskError::Io { position, errno: EIO }
    }

    fn check(&self) -> Result<(), DiskError> {
        if self.failed.get() { Err(DiskError::Failed) } else { Ok(()) }
    }
}

async fn hold_up<C: Clock>(clock: &C, rng: &RefCell<fastrand::Rng>, delay: Chance, by: Option<Latency>) {
    let held_up = delay.hits(&mut rng.borrow_mut());
    let time = match by {
        Some(by) if held_up => by.draw(&mut rng.borrow_mut()),
        _ => Duration::ZERO,
    };
    if time > Duration::ZERO {
        clock.sleep_until(clock.now() + time).await;
    }
}

impl<D: Disk, C: Clock> Disk for FaultyDisk<D, C> {
    async fn read(&self, class: IoClass, at: Position, into: DmaBuf) -> Done<()> {
        self.hold_up().await;
        if let Err(error) = self.check() {
            return (Err(error), into);
        }
        let options = self.options.get();
        if self.hits(options.read_error) {
            return (Err(DiskError::Io { position: at, errno: EIO }), into);
        }
        let (result, mut into) = self.inner.read(class, at, into).await;
        if result.is_ok() && self.hits(options.read_flip) {
            let mut rng = self.rng.borrow_mut();
            let byte = rng.usize(0..into.len());
            into[byte] ^= 1 << rng.u8(0..8);
        }
        (result, into)
    }

    async fn write(
        &self,
        class: IoClass,
        at: Position,
        from: SharedBuf,
        durability: Durability,
    ) -> Result<(), DiskError> {
        self.hold_up().await;
        self.check()?;
        if self.hits(self.options.get().write_error) {
            return Err(self.fail(at));
        }
        self.inner.write(class, at, from, durability).await
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.hold_up().await;
        self.check()?;
        if self.hits(self.options.get().flush_error) {
            return Err(self.fail(Position(0)));
        }
        self.inner.flush().await
    }

    async fn discard(&self, at: Position, bytes: u64) -> Result<(), DiskError> {
        self.check()?;
        self.inner.discard(at, bytes).await
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

/// What goes wrong with a wrapped lane. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultyLaneOptions {
    /// A send or a receive finds the connection broken, and so does everything after it.
    pub reset: Chance,
    /// One bit of what a receive returns is flipped, as by a bad switch that fixes up its checksums.
    pub receive_flip: Chance,
    /// A send or a receive waits before it starts.
    pub delay: Chance,
    /// How long it waits.
    pub delay_by: Option<Latency>,
}

/// A lane with faults.
#[derive(Debug)]
pub struct FaultyLane<L, C> {
    inner: L,
    clock: C,
    options: FaultyLaneOptions,
    rng: RefCell<fastrand::Rng>,
    broken: Cell<bool>,
}

impl<L: Lane, C: Clock> FaultyLane<L, C> {
    /// Puts faults around `inner`.
    pub fn new(inner: L, clock: C, seed: u64, options: FaultyLaneOptions) -> Self {
        let rng = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { inner, clock, options, rng, broken: Cell::new(false) }
    }

    /// The lane inside.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// Waits when that is drawn, and breaks when that is drawn.
    async fn meet_fate(&self) -> Result<(), LaneError> {
        hold_up(&self.clock, &self.rng, self.options.delay, self.options.delay_by).await;
        if !self.broken.get() && self.options.reset.hits(&mut self.rng.borrow_mut()) {
            self.broken.set(true);
            // The peer sees the stream end; when it is broken already there is nobody to tell.
            let _ = self.inner.shutdown().await;
        }
        if self.broken.get() { Err(LaneError::Broken { errno: ECONNRESET }) } else { Ok(()) }
    }

    fn flip(&self, bytes: &mut [u8]) {
        let mut rng = self.rng.borrow_mut();
        if !bytes.is_empty() && self.options.receive_flip.hits(&mut rng) {
            let byte = rng.usize(0..bytes.len());
            bytes[byte] ^= 1 << rng.u8(0..8);
        }
    }
}

impl<L: Lane, C: Clock> Lane for FaultyLane<L, C> {
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        self.meet_fate().await?;
        self.inner.send(head, body).await
    }

    async fn recv_behind(
        &self,
        into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        if let Err(error) = self.meet_fate().await {
            return (Err(error), into);
        }
        let (result, mut into) = self.inner.recv_behind(into, filled, min).await;
        if let Ok(count) = result {
            self.flip(&mut into[filled..filled + count]);
        }
        (result, into)
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        self.inner.shutdown().await
    }
}

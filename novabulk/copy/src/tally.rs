//! How far a copy is, and what keeps it from being faster.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use nova_device::{Clock as _, Shard as _};
use nova_shard::RealShard;
use rustix::time::{ClockId, clock_gettime};

/// Failures that are kept in words.
const FAILURES_KEPT: usize = 100;
/// A core that is used this much is what limits, in hundredths.
const BUSY_PERCENT: u128 = 85;

/// Totals of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files, directories and links that were found and are to be copied.
    pub entries: u64,
    /// Files that the target did not have so.
    pub files_total: u64,
    /// Files copied.
    pub files: u64,
    /// Bytes of the files that the target did not have so.
    pub bytes_total: u64,
    /// Bytes that are there: sent, or from an earlier attempt.
    pub bytes: u64,
    /// Files that were the same already.
    pub same: u64,
    /// Entries removed at the target.
    pub removed: u64,
    /// Entries of a kind that is not copied.
    pub skipped: u64,
    /// Bytes that an earlier attempt had brought.
    pub bytes_resumed: u64,
    /// Bytes sent, repeated ones included.
    pub bytes_sent: u64,
    /// Blocks that arrived other than they left, and were sent again.
    pub repaired: u64,
    /// Entries that failed.
    pub failed: u64,
}

/// What a copy waits for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing was moved yet.
    Nothing,
    /// The file system that is read.
    SourceDisk,
    /// The connections, or the credit that the other end gives.
    Link,
    /// The file system that is written.
    TargetDisk,
    /// The core that this end runs on.
    Core,
    /// The rate that was asked for.
    Rate,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::SourceDisk => "source disk",
            Self::Link => "link",
            Self::TargetDisk => "target disk",
            Self::Core => "CPU",
            Self::Rate => "--limit",
        })
    }
}

/// Where workers have waited, since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) source_disk: Duration,
    pub(crate) link: Duration,
    pub(crate) target_disk: Duration,
    pub(crate) rate: Duration,
}

/// How far a copy is: written by the driver, read by whoever shows it.
#[derive(Debug)]
pub struct Tally {
    shard: RealShard,
    counts: Cell<Counts>,
    waits: Cell<Waits>,
    failures: RefCell<Vec<String>>,
    removals: RefCell<Vec<String>>,
    stopped: Cell<bool>,
    core_at: Cell<(Duration, Duration)>,
    core_percent: Cell<u128>,
}

impl Tally {
    /// Of a copy that begins now.
    #[must_use]
    pub fn new(shard: &RealShard) -> Self {
        Self {
            shard: shard.clone(),
            counts: Cell::default(),
            waits: Cell::default(),
            failures: RefCell::default(),
            removals: RefCell::default(),
            stopped: Cell::new(false),
            core_at: Cell::new((shard.clock().now(), core_time())),
            core_percent: Cell::new(0),
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// The first failures, in words.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.failures.borrow().clone()
    }

    /// Names that were removed at the target, or would be; the first of them.
    #[must_use]
    pub fn removals(&self) -> Vec<String> {
        self.removals.borrow().clone()
    }

    /// Asks the driver to end as soon as it can.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// What the copy waited for most since the last time this was asked.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.measure_core();
        let waits = self.waits.take();
        let Waits { source_disk, link, target_disk, rate } = waits;
        if self.core_percent.get() >= BUSY_PERCENT {
            return Limit::Core;
        }
        let longest = [
            (source_disk, Limit::SourceDisk),
            (link, Limit::Link),
            (target_disk, Limit::TargetDisk),
            (rate, Limit::Rate),
        ];
        let longest = longest.into_iter().max_by_key(|(wait, _)| *wait).expect("four of them");
        if longest.0.is_zero() { Limit::Nothing } else { longest.1 }
    }

    fn measure_core(&self) {
        let (now, used) = (self.shard.clock().now(), core_time());
        let (before, used_before) = self.core_at.replace((now, used));
        let passed = now.saturating_sub(before).as_micros();
        let percent = used.saturating_sub(used_before).as_micros() * 100 / passed.max(1);
        self.core_percent.set(percent);
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(crate) fn wait(&self, change: impl FnOnce(&mut Waits)) {
        let mut waits = self.waits.get();
        change(&mut waits);
        self.waits.set(waits);
    }

    pub(crate) fn fail(&self, text: impl Into<String>) {
        self.count(|counts| counts.failed += 1);
        keep(&self.failures, text.into());
    }

    pub(crate) fn remove(&self, text: String) {
        self.count(|counts| counts.removed += 1);
        keep(&self.removals, text);
    }
}

fn keep(list: &RefCell<Vec<String>>, text: String) {
    let mut list = list.borrow_mut();
    if list.len() < FAILURES_KEPT {
        list.push(text);
    }
}

/// What this thread has computed so far: a shard is one thread.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

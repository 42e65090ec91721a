//! How far a long operation is, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counted by the operation, read by anyone at any time.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    last_answer_us: AtomicU64,
    longest_stall_us: AtomicU64,
    slowest_us: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files done: published, or whole on the local disk.
    pub files: u64,
    /// Bytes done: durable on every replica, or received and verified, or of a hole.
    pub bytes: u64,
    /// Files that failed.
    pub failed: u64,
    /// Longest time without any answer from the data plane while something was in flight.
    pub longest_stall: Duration,
    /// Longest time one request took to be answered.
    pub slowest: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_answer_us: AtomicU64::new(0),
            longest_stall_us: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// How far it is now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            longest_stall: Duration::from_micros(self.longest_stall_us.load(Ordering::Relaxed)),
            slowest: Duration::from_micros(self.slowest_us.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn file_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The data plane answered for so many bytes of a request sent at `sent`.
    pub(crate) fn answered(&self, bytes: u64, sent: Instant) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let us = |at: Instant| {
            u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
        };
        let now = us(Instant::now());
        let last = self.last_answer_us.swap(now, Ordering::Relaxed);
        self.slowest_us.fetch_max(now.saturating_sub(us(sent)), Ordering::Relaxed);
        // The stall began with the last answer, or later when nothing was in flight then.
        self.longest_stall_us.fetch_max(now.saturating_sub(last.max(us(sent))), Ordering::Relaxed);
    }

    /// Bytes of a hole: there was nothing to move.
    pub(crate) fn passed(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of a file that has to start again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

//! What may go wrong, and how often.

use core::time::Duration;

use super::Chance;

/// A range of delays, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Between `min` and `max` microseconds.
    #[must_use]
    pub const fn micros(min: u64, max: u64) -> Self {
        Self { min: Duration::from_micros(min), max: Duration::from_micros(max) }
    }

    pub(crate) fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        let span = self.max.saturating_sub(self.min).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX - 1);
        self.min + Duration::from_nanos(rng.u64(0..=span))
    }
}

/// The faults of one disk. The default has none, only latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// How long a read or a write takes; a flush, and the sync of a synced write, takes as long again.
    pub latency: Latency,
    /// A request takes `slow_by` longer.
    pub slow: Chance,
    /// How much longer.
    pub slow_by: Duration,
    /// A read fails with EIO, and so does every later read of its first page until that page is written.
    pub read_error: Chance,
    /// A write fails with EIO: the disk has failed; any part of the write may be stored.
    pub write_error: Chance,
    /// A flush fails with EIO: the disk has failed; unflushed writes may be lost although reads saw them.
    pub flush_error: Chance,
    /// A write fails for lack of space below a preallocated device: the disk has failed.
    pub no_space: Chance,
    /// A write is acknowledged and never stored.
    pub lost_write: Chance,
    /// A flush, or the sync of a synced write, is acknowledged and makes nothing durable.
    pub lost_flush: Chance,
    /// A write is acknowledged and stored at a wrong position.
    pub misdirected_write: Chance,
    /// A read brings what is stored at another position.
    pub misdirected_read: Chance,
    /// One bit of a write flips on its way to the device: in memory behind the last check, or on the bus.
    pub write_flip: Chance,
    /// One bit of a stored page in the range of a read flips before the read, and stays flipped.
    pub rot: Chance,
    /// An error of a write or a flush does not end the disk: the next request is answered as if nothing had been, and
    /// what was not flushed is forgotten by the cache without a word, as kernels do it.
    pub forgives: bool,
    /// Whether an unflushed 512-byte sector survives a power cut.
    pub sector_survives: Chance,
}

impl DiskFaults {
    /// Nothing goes wrong; latency of a fast device.
    pub const NONE: Self = Self {
        latency: Latency::micros(10, 100),
        slow: Chance::NEVER,
        slow_by: Duration::ZERO,
        read_error: Chance::NEVER,
        write_error: Chance::NEVER,
        flush_error: Chance::NEVER,
        no_space: Chance::NEVER,
        lost_write: Chance::NEVER,
        lost_flush: Chance::NEVER,
        misdirected_write: Chance::NEVER,
        misdirected_read: Chance::NEVER,
        write_flip: Chance::NEVER,
        rot: Chance::NEVER,
        forgives: false,
        sector_survives: Chance::percent(50),
    };
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self::NONE
    }
}

/// The faults of the network. The default has none, only latency. Bandwidth is not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetFaults {
    /// How long bytes are under way in one direction.
    pub latency: Latency,
    /// A send breaks its connection instead, for both ends.
    pub reset: Chance,
    /// A send is under way `delay_by` longer; what follows on the same lane waits behind it.
    pub delay: Chance,
    /// How much longer.
    pub delay_by: Duration,
    /// An attempt to connect is refused.
    pub refuse: Chance,
}

impl NetFaults {
    /// Nothing goes wrong; latency of one switch.
    pub const NONE: Self = Self {
        latency: Latency::micros(20, 200),
        reset: Chance::NEVER,
        delay: Chance::NEVER,
        delay_by: Duration::ZERO,
        refuse: Chance::NEVER,
    };
}

impl Default for NetFaults {
    fn default() -> Self {
        Self::NONE
    }
}

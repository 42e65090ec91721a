//! How a device is laid out and how its store behaves.

use crate::error::StoreError;
use core::time::Duration;
use nova_units::{DeviceId, MIB};
use novafs_format::{Geometry, PAGE, SUPERBLOCK_AREA_BYTES};

/// Smallest device: enough for tests and nothing else.
pub const DEVICE_BYTES_MIN: u64 = 16 * MIB;
/// Smallest log: eight of its largest records.
pub const WAL_BYTES_MIN: u64 = MIB;
/// Slots of a device: 128 MiB each, smaller on devices that would have fewer than 64 of them.
pub const SLOT_LOG2_MAX: u8 = 27;
/// Largest stored bytes of a unit, padding included, that ride in the log unless something else is said: beyond it, the
/// second write costs more than the first one saves (measured, docs/adr/0021).
pub const INLINE_UNIT_BYTES_MAX: usize = 8 << 10;
const SLOT_LOG2_MIN: u8 = 18;
const SLOTS_WANTED: u64 = 64;

/// How to lay out a device.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Id of the device: 128 random bits, never used before.
    pub device: DeviceId,
    /// Size of the log's ring, a multiple of 4 KiB; `None` takes 1/64 of the device, between 1 MiB and 1 GiB.
    pub wal_bytes: Option<u64>,
    /// Size of the metadata area, a multiple of 4 KiB; `None` takes 1/32 of the device. Half of it is always kept
    /// free, so that any checkpoint fits: about one page for every 30 units.
    pub meta_bytes: Option<u64>,
}

impl FormatOptions {
    /// Defaults for a device with this id.
    #[must_use]
    pub const fn new(device: DeviceId) -> Self {
        Self { device, wal_bytes: None, meta_bytes: None }
    }

    /// Where everything goes on a device of `bytes`.
    ///
    /// # Errors
    /// [`StoreError::Layout`] says what does not fit.
    pub fn geometry(&self, bytes: u64) -> Result<Geometry, StoreError> {
        let wrong = |reason| StoreError::Layout { bytes, reason };
        let page = PAGE as u64;
        let device_bytes = bytes - bytes % page;
        if device_bytes < DEVICE_BYTES_MIN {
            return Err(wrong("the smallest device is 16 MiB"));
        }
        let up = |bytes: u64| bytes.next_multiple_of(64 << 10);
        let wal_bytes =
            self.wal_bytes.unwrap_or_else(|| up((device_bytes / 64).clamp(WAL_BYTES_MIN, 1024 * MIB)));
        let meta_bytes = self.meta_bytes.unwrap_or_else(|| up((device_bytes / 32).max(MIB)));
        if wal_bytes < WAL_BYTES_MIN || !wal_bytes.is_multiple_of(page) {
            return Err(wrong("the log is at least 1 MiB, in pages of 4 KiB"));
        }
        if meta_bytes < 16 * page || !meta_bytes.is_multiple_of(page) {
            return Err(wrong("the metadata area is at least 64 KiB, in pages of 4 KiB"));
        }
        let wal_position = SUPERBLOCK_AREA_BYTES;
        let meta_position = wal_position + wal_bytes;
        let ends = SUPERBLOCK_AREA_BYTES + meta_bytes + 2 * MIB;
        let room = device_bytes.checked_sub(meta_position + ends);
        let room = room.ok_or_else(|| wrong("log and metadata leave no room for data"))?;
        let slot_log2 = (SLOT_LOG2_MIN..=SLOT_LOG2_MAX).rev().find(|log2| room >> log2 >= SLOTS_WANTED);
        let slot_log2 = slot_log2.unwrap_or(SLOT_LOG2_MIN);
        // Slots begin at a multiple of 1 MiB: erase blocks and stripes of devices are aligned to that.
        let slots_position = (meta_position + meta_bytes).next_multiple_of(MIB);
        let slots = (device_bytes - SUPERBLOCK_AREA_BYTES - slots_position) >> slot_log2;
        let slot_count = u32::try_from(slots).map_err(|_| wrong("it has too many slots"))?;
        if slot_count < 4 {
            return Err(wrong("log and metadata leave no room for data"));
        }
        Ok(Geometry {
            device_bytes,
            wal_position,
            wal_bytes,
            meta_position,
            meta_bytes,
            slots_position,
            slot_count,
            slot_log2,
        })
    }
}

/// How an open store behaves.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Clean tree pages kept in memory; one is about 5 KiB there.
    pub cache_pages: usize,
    /// Bodies that wait for their cells to be written; the next append waits.
    pub appends_in_flight_max: usize,
    /// Appends that wait for that; the next one is refused.
    pub appends_waiting_max: usize,
    /// A checkpoint begins when the log has grown to this share of its ring, in percent.
    pub checkpoint_wal_percent: u64,
    /// A checkpoint begins when this many changes wait for it.
    pub checkpoint_changes: usize,
    /// A checkpoint begins when this long ago a block was cut or deleted: their cells are free only after it.
    pub reclaim_after: Duration,
    /// Bodies of entries whose units are all at most this long ride in the log; 0: none does.
    pub inline_unit_bytes_max: usize,
    /// Bytes of such bodies that memory holds until they are moved to their cells; beyond it, bodies go to their cells
    /// at once.
    pub inline_held_bytes_max: usize,
    /// Whether the device is told of slots that have become empty. A preallocated file keeps its space in any case.
    pub discard: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache_pages: 4096,
            appends_in_flight_max: 256,
            appends_waiting_max: 4096,
            checkpoint_wal_percent: 40,
            checkpoint_changes: 100_000,
            reclaim_after: Duration::from_secs(2),
            inline_unit_bytes_max: INLINE_UNIT_BYTES_MAX,
            inline_held_bytes_max: 8 << 20,
            discard: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_of_device_has_a_valid_layout() {
        let options = FormatOptions::new(DeviceId(1));
        for bytes in [16 * MIB, 64 * MIB, 64 * MIB + 5000, 1 << 30, 10 << 30, 8 << 40] {
            let geometry = options.geometry(bytes).unwrap();
            assert_eq!(geometry.check(), Ok(()), "{bytes}");
            let slots = u64::from(geometry.slot_count) << geometry.slot_log2;
            assert!(slots * 100 >= bytes * 75, "{bytes} bytes give {slots}");
        }
        assert_eq!(options.geometry(8 << 40).unwrap().slot_log2, 27);
        assert!(options.geometry(MIB).is_err());
        let greedy = FormatOptions { wal_bytes: Some(15 * MIB), ..options };
        assert!(matches!(greedy.geometry(16 * MIB), Err(StoreError::Layout { .. })));
    }
}

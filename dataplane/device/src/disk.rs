//! The seam to a block device.

use core::fmt;

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::{IoClass, PAGE_BYTES};

/// A place on a device: a byte offset from its start, a multiple of 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place `bytes` further on.
    ///
    /// # Panics
    /// Past the end of 64 bits, which no device reaches.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.checked_add(bytes).expect("no device has 2^64 bytes"))
    }

    /// Whether this is the start of a page.
    #[must_use]
    pub const fn is_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_BYTES)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{:#x}", self.0)
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// When the device has it, perhaps in a cache that a power cut empties; a later flush makes it durable.
    Cached,
    /// When it survives a power cut.
    Synced,
}

/// Why a disk request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The device could not do it. After a read, another replica can answer and this place needs repair; after a
    /// write or a flush, the device has failed for good.
    #[error(
        "device error at {position} (errno {errno}): read another replica; replace the device if it wrote"
    )]
    Io {
        /// Where.
        position: Position,
        /// The kernel's answer.
        errno: i32,
    },
    /// An earlier write or flush failed. What the device holds is unknown, so it is never used again.
    #[error("the device failed earlier and is not trusted again: replace it")]
    Failed,
    /// The request reaches past the end of the device.
    #[error("{bytes} bytes at {position} reach past the end of a device of {disk_bytes} bytes")]
    OutOfRange {
        /// Where the request starts.
        position: Position,
        /// How long it is.
        bytes: u64,
        /// Size of the device.
        disk_bytes: u64,
    },
    /// The file system or the thin volume below ran out of space, which a preallocated device should never do.
    #[error("no space left below a preallocated device: give the volume what it promises")]
    NoSpace,
}

/// The result of a request that fills a buffer; the buffer always comes back.
pub type Done<T> = (Result<T, DiskError>, DmaBuf);

/// A block device, or a preallocated file that stands for one.
///
/// Positions and lengths are multiples of 4096; anything else is a mistake of the caller and panics.
///
/// # Cancel safety
/// Dropping a future of this trait does not stop the device: a dropped write may or may not happen, and its buffer
/// returns to the pool when the device is done with it.
pub trait Disk: 'static {
    /// Fills all of `into` with the bytes at `at`.
    async fn read(&self, class: IoClass, at: Position, into: DmaBuf) -> Done<()>;

    /// Writes all of `from` to `at`.
    ///
    /// # Errors
    /// After any error but [`DiskError::OutOfRange`] the device is failed for good.
    async fn write(
        &self,
        class: IoClass,
        at: Position,
        from: SharedBuf,
        durability: Durability,
    ) -> Result<(), DiskError>;

    /// Makes every write durable that completed before this call.
    ///
    /// # Errors
    /// After any error the device is failed for good.
    async fn flush(&self) -> Result<(), DiskError>;

    /// Tells the device that `bytes` at `at` are not needed any more. A hint: their contents are unspecified after.
    ///
    /// # Errors
    /// When the range is not on the device, or the device has failed.
    async fn discard(&self, at: Position, bytes: u64) -> Result<(), DiskError> {
        check_range(at, bytes, self.bytes())
    }

    /// Usable size in bytes, a multiple of 4096.
    fn bytes(&self) -> u64;
}

/// Asserts alignment and checks that a request lies on the device.
///
/// # Panics
/// When `at` or `bytes` is not a multiple of 4096, or `bytes` is zero.
pub(crate) fn check_range(at: Position, bytes: u64, disk_bytes: u64) -> Result<(), DiskError> {
    assert!(
        at.is_aligned() && bytes.is_multiple_of(PAGE_BYTES) && bytes > 0,
        "unaligned: {bytes} bytes at {at}"
    );
    match at.0.checked_add(bytes) {
        Some(end) if end <= disk_bytes => Ok(()),
        _ => Err(DiskError::OutOfRange { position: at, bytes, disk_bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_is_in_range_and_the_next_is_not() {
        assert_eq!(check_range(Position(4096), 4096, 8192), Ok(()));
        let error = check_range(Position(8192), 4096, 8192).unwrap_err();
        assert_eq!(error, DiskError::OutOfRange { position: Position(8192), bytes: 4096, disk_bytes: 8192 });
        assert!(check_range(Position(u64::MAX - 4095), 4096, 8192).is_err());
    }

    #[test]
    #[should_panic(expected = "unaligned")]
    fn half_a_page_is_a_mistake() {
        let _ = check_range(Position(0), 2048, 8192);
    }
}

//! The shared area: bytes that the other side may change at any time.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::memory::Mapping;

/// A range that does not lie in the area. From a slot of the peer it is the peer's fault: answer Invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {}..{} lie outside the shared area of {area_bytes} bytes", range.start, range.end)]
pub struct OutOfArena {
    /// The range that was asked for.
    pub range: Range<u64>,
    /// Bytes of the area.
    pub area_bytes: u64,
}

/// The area of an attachment. There is no way to borrow its bytes: they are copied in and out, each once, because the
/// other side may write or punch holes into them meanwhile. Copies see some mix of old and new bytes, never a fault.
#[derive(Clone, Debug)]
pub struct ArenaView {
    base: NonNull<u8>,
    bytes: usize,
    /// Keeps the memory mapped.
    #[cfg_attr(not(test), expect(dead_code, reason = "held for its Drop"))]
    mapping: Arc<Mapping>,
}

// SAFETY: all access is by bounded copies into and out of private memory; the mapping lives as long as the Arc.
unsafe impl Send for ArenaView {}
// SAFETY: as above; concurrent copies race only on bytes that are never borrowed.
unsafe impl Sync for ArenaView {}

impl ArenaView {
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize, bytes: usize) -> Self {
        Self { base: mapping.at(offset, bytes), bytes, mapping: Arc::clone(mapping) }
    }

    #[cfg(test)]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Bytes of the area.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).expect("usize fits 64 bits")
    }

    /// Where `count` bytes at `offset` begin, when all of them lie inside.
    fn place(&self, offset: u64, count: usize) -> Result<NonNull<u8>, OutOfArena> {
        let outside = || OutOfArena {
            range: offset..offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
            area_bytes: self.bytes(),
        };
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(count).ok_or_else(outside)?;
        if end > self.bytes {
            return Err(outside());
        }
        // SAFETY: `start <= end <= bytes`, and `new` checked that these bytes lie in the mapping.
        Ok(unsafe { self.base.add(start) })
    }

    /// Whether `count` bytes at `offset` lie inside.
    ///
    /// # Errors
    /// [`OutOfArena`] when they do not.
    pub fn check(&self, offset: u64, count: u64) -> Result<(), OutOfArena> {
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.bytes());
        if inside {
            return Ok(());
        }
        Err(OutOfArena { range: offset..offset.saturating_add(count), area_bytes: self.bytes() })
    }

    /// Copies `into.len()` bytes at `offset` out of the area.
    ///
    /// # Errors
    /// [`OutOfArena`]; nothing was copied.
    pub fn copy_out(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfArena> {
        let from = self.place(offset, into.len())?;
        // SAFETY: `place` bounded the source inside the live mapping; `into` is private memory, so they do not
        // overlap. Another process may write the source meanwhile: any bytes are valid u8, and none is read twice.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `from` to `offset` of the area.
    ///
    /// # Errors
    /// [`OutOfArena`]; nothing was copied.
    pub fn copy_in(&self, offset: u64, from: &[u8]) -> Result<(), OutOfArena> {
        let into = self.place(offset, from.len())?;
        // SAFETY: `place` bounded the target inside the live, writable mapping; `from` is private memory and the
        // mapping is only reached through raw pointers, so no reference is invalidated.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), from.len()) };
        Ok(())
    }
}

//! Compaction: slots of which few cells are in use are emptied, so that they can take cells of another class (Spec C.2:
//! what was written is moved, never combined).
//!
//! A unit is moved as a repair would: written to a new cell, made durable by a record in the log, and the old cell is
//! free after the next checkpoint. So readers wait for nothing, and a loss of power leaves one of the two.

use crate::commit::Fact;
use crate::core::Core;
use crate::error::{ReadError, StoreError};
use crate::scrub::following;
use crate::store::Store;
use nova_device::Shard;
use nova_device::sync::join_all;
use nova_units::{BlockId, GroupId, IoClass, UnitIndex};
use novafs_format::{Key, LogEntry, UnitRecord};

/// Units that are looked up in one step, and at most a tree page more.
const STEP_UNITS: usize = 256;
/// Units on their way to another cell at once: they share a flush, and hold at most 1 MiB of buffers.
const MOVES_TOGETHER: usize = 16;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Slots that are empty now and were not.
    pub slots: usize,
    /// Units that were moved.
    pub units: u64,
    /// Their stored bytes, padding included.
    pub bytes: u64,
}

/// Slots that are being emptied; used again when this is dropped.
struct Closed<'a, S: Shard> {
    core: &'a Core<S>,
    slots: Vec<usize>,
}

impl<S: Shard> Closed<'_, S> {
    /// Ends it; answers how many slots are empty.
    fn end(&mut self) -> usize {
        let mut state = self.core.state.borrow_mut();
        let closed = self.slots.len();
        closed - self.slots.drain(..).filter(|slot| state.slots.reopen(*slot)).count()
    }
}

impl<S: Shard> Drop for Closed<'_, S> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S: Shard> Store<S> {
    /// Whether few slots are empty, and [`Store::compact`] could empty some.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.core.check_usable().is_ok() && self.core.state.borrow().slots.are_sparse()
    }

    /// Empties slots of which at most half is in use, as long as the others of their class can take that in, and then
    /// makes a checkpoint. Reads the tree once, however many slots there are; goes in the background class. What cannot
    /// be moved now, because it is prepared or its bytes are bad, keeps its slot in use.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`], [`StoreError::Busy`], or what the tree could not be read for.
    ///
    /// # Cancel safety
    /// Safe: what was moved by then stays moved.
    pub async fn compact(&self) -> Result<Compacted, StoreError> {
        self.core.check_usable()?;
        let slots = self.core.state.borrow_mut().slots.close_sparse();
        let mut done = Compacted::default();
        if slots.is_empty() {
            return Ok(done);
        }
        let mut closed = Closed { core: &self.core, slots };
        let groups: Vec<GroupId> = self.core.state.borrow().groups.keys().copied().collect();
        for group in groups {
            if !self.empty_closed(group, &mut done).await? {
                break;
            }
        }
        // It forgets the old cells.
        self.core.checkpoint_now().await?;
        done.slots = closed.end();
        drop(closed);
        self.core.count(|counters| {
            counters.slots_emptied += done.slots as u64;
            counters.bytes_compacted += done.bytes;
        });
        Ok(done)
    }

    /// Moves what a group has in closed slots; false when there is no room left to move anything to.
    async fn empty_closed(&self, group: GroupId, done: &mut Compacted) -> Result<bool, StoreError> {
        let last = Key::unit(group, BlockId(u64::MAX), UnitIndex(u16::MAX));
        let mut from = Some((BlockId(0), UnitIndex(0)));
        while let Some((block, unit)) = from {
            let first = Key::unit(group, block, unit);
            let records = self.units_between(first, last, STEP_UNITS, IoClass::Background).await?;
            let end = records.last().map(|record| (record.sealed.block, record.sealed.unit));
            from =
                end.filter(|_| records.len() >= STEP_UNITS).and_then(|(block, unit)| following(block, unit));
            let inside = |record: &&UnitRecord| self.core.state.borrow().slots.is_closed(record.cell);
            let inside: Vec<_> = records.iter().filter(inside).collect();
            for together in inside.chunks(MOVES_TOGETHER) {
                let moves = together.iter().map(|record| self.move_unit(group, record));
                for moved in join_all(moves).await {
                    match moved {
                        Ok(bytes) => {
                            done.units += u64::from(bytes > 0);
                            done.bytes += bytes;
                        }
                        Err(StoreError::Full { .. }) => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(true)
    }

    /// Moves a unit to a cell of another slot; answers how many bytes, 0 when it is another version by now or bad.
    async fn move_unit(&self, group: GroupId, seen: &UnitRecord) -> Result<u64, StoreError> {
        let (block, unit) = (seen.sealed.block, seen.sealed.unit);
        let found = match self.read(group, block, unit, IoClass::Background).await {
            Ok(found) => found,
            // Scrub finds it, and repair puts it elsewhere.
            Err(ReadError::Corrupt { .. } | ReadError::Unreadable { .. }) => None,
            Err(ReadError::Store(error)) => return Err(error),
        };
        let Some(found) = found.filter(|found| found.record == *seen) else { return Ok(0) };
        let bytes = found.body.len() as u64;
        let entry = LogEntry::Units(vec![seen.sealed]);
        let moved =
            self.place(group, seen.commit, &entry, Some(found.body.freeze()), Fact::Compaction).await?;
        Ok(if moved { bytes } else { 0 })
    }
}

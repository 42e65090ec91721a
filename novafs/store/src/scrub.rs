//! Scrub: what lies on the device is read again and compared with what it should be, whether anybody asks for it or
//! not. Nobody waits for it: it takes no lock, goes in its own I/O class, and a step ends after 1 MiB.

use crate::commit::{Fact, Op};
use crate::core::{Core, yield_now};
use crate::error::{ReadError, StoreError};
use crate::slots::Purpose;
use crate::state::Prepared;
use crate::store::{Store, check_body};
use nova_buf::SharedBuf;
use nova_device::sync::oneshot;
use nova_device::{Disk as _, DiskError, Position, Shard};
use nova_units::{BlockId, CommitPoint, GroupId, IoClass, Seq, TaskClass, UnitIndex};
use novafs_format::{
    BlockRecord, Cell, Key, LogEntry, PAGE, SUPERBLOCK_COPIES, ScrubMark, SealedUnit, UnitRecord,
    superblock_positions,
};
use std::rc::Rc;

/// Stored bytes that one step reads, unless a single unit has more.
const STEP_BYTES: usize = 1 << 20;
/// Units that one step looks up, and at most a tree page more.
const STEP_UNITS: usize = 32;

/// A part of a group that was read and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What the group was committed up to when its units were looked up.
    pub commit: Seq,
    /// Its committed units from where the step began, in order.
    pub records: Vec<UnitRecord>,
    /// Of these, those whose stored bytes cannot be read, or are not those that were sealed.
    pub bad: Vec<UnitRecord>,
    /// Stored bytes that were read, padding included.
    pub bytes: u64,
    /// The unit with which the next step begins; `None`: that was the rest of the group.
    pub next: Option<(BlockId, UnitIndex)>,
}

/// Units and fences of a part of a group, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What the group was committed up to at that moment.
    pub commit: Seq,
    /// Committed units, in order.
    pub records: Vec<UnitRecord>,
    /// Fences and deletions of the blocks of the part, in order.
    pub fences: Vec<(BlockId, BlockRecord)>,
    /// The unit with which the rest of the part begins, when there is more.
    pub next: Option<(BlockId, UnitIndex)>,
}

/// The unit behind this one in the order of keys, if there can be one.
pub(crate) fn following(block: BlockId, unit: UnitIndex) -> Option<(BlockId, UnitIndex)> {
    match unit.0.checked_add(1) {
        Some(unit) => Some((block, UnitIndex(unit))),
        None => Some((BlockId(block.0.checked_add(1)?), UnitIndex(0))),
    }
}

impl<S: Shard> Store<S> {
    /// Reads units of a group from `from` on, at most about 1 MiB of them, and checks page checksums and digests; the
    /// metadata pages that lead to them are read from the device and checked too. A metadata page that is bad there and
    /// good in memory is written again.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] when a metadata page is damaged, [`StoreError::Read`] when the device does not answer
    /// at all.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn verify(&self, group: GroupId, from: (BlockId, UnitIndex)) -> Result<Verified, StoreError> {
        self.core.check_usable()?;
        let pin = self.core.pin();
        let verified = self.core.verify_units(group, from).await;
        drop(pin);
        self.core.release_freed();
        verified
    }

    /// Reads all copies of the superblock and writes those anew that are not as they should be; answers how many.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Busy`].
    ///
    /// # Cancel safety
    /// Safe: the good copies are not touched.
    pub async fn verify_superblocks(&self) -> Result<usize, StoreError> {
        self.core.check_usable()?;
        self.core.verify_superblocks().await
    }

    /// How far the scrub is, as last told by [`Store::set_scrub_mark`], in this opening or an earlier one.
    #[must_use]
    pub fn scrub_mark(&self) -> ScrubMark {
        self.core.scrub.get()
    }

    /// Remembers how far the scrub is. It reaches the device with the next superblock: that of a checkpoint, or of
    /// [`Store::save_scrub_mark`].
    pub fn set_scrub_mark(&self, mark: ScrubMark) {
        self.core.scrub.set(mark);
    }

    /// Makes the mark durable now.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Busy`], [`StoreError::Closed`].
    pub async fn save_scrub_mark(&self) -> Result<(), StoreError> {
        self.core.check_usable()?;
        self.core.change_superblock(|_| {}).await
    }

    /// Committed units of a group between two places, both included, at most `limit` of them, with the fences of the
    /// blocks they cover: all of one moment.
    ///
    /// # Errors
    /// [`StoreError::Metadata`], [`StoreError::Read`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list(
        &self,
        group: GroupId,
        from: (BlockId, UnitIndex),
        to: (BlockId, UnitIndex),
        limit: usize,
    ) -> Result<Listing, StoreError> {
        self.core.check_usable()?;
        let limit = limit.max(1);
        let pin = self.core.pin();
        // Nothing is awaited before the look-up has taken its state: commit, fences and units are of one moment.
        let (commit, mut fences) = {
            let state = self.core.state.borrow();
            let found = state.groups.get(&group);
            let commit = found.map_or(Seq(0), |group| group.commit.seq);
            let blocks = found.into_iter().flat_map(|group| group.blocks.range(from.0..=to.0));
            (commit, blocks.map(|(block, record)| (*block, *record)).take(limit + 1).collect::<Vec<_>>())
        };
        let keys = (Key::unit(group, from.0, from.1), Key::unit(group, to.0, to.1));
        let records = self.core.records_between(keys.0, keys.1, limit + 1, IoClass::Background).await;
        drop(pin);
        self.core.release_freed();
        let mut records = records?;
        let mut next = None;
        if records.len() > limit {
            let first = records[limit].sealed;
            next = Some((first.block, first.unit));
            records.truncate(limit);
        }
        if fences.len() > limit {
            let first = (fences[limit].0, UnitIndex(0));
            next = Some(next.map_or(first, |next| next.min(first)));
            fences.truncate(limit);
        }
        if let Some(next) = next {
            records.retain(|record| (record.sealed.block, record.sealed.unit) < next);
            // The fence of a block that goes on behind `next` belongs to both parts.
            fences.retain(|(block, _)| (*block, UnitIndex(0)) <= next);
        }
        Ok(Listing { commit, records, fences, next })
    }

    /// Puts back a committed version that is missing here, or older here, although the group's log up to `seen` is
    /// here: what a comparison with other members found. Never over something newer, never into a deleted block, and
    /// not when the block was cut since `seen`: then it answers `false`.
    ///
    /// # Errors
    /// As [`Store::append`]; it may use the space that clients cannot.
    pub async fn restore(
        &self,
        group: GroupId,
        record: SealedUnit,
        commit: CommitPoint,
        body: SharedBuf,
        seen: Seq,
    ) -> Result<bool, StoreError> {
        let entry = LogEntry::Units(vec![record]);
        check_body(&entry, Some(&body))?;
        let _permit = self.appends.acquire(1).await.map_err(|_| StoreError::Busy)?;
        self.core.check_usable()?;
        let cells = self.take_cells(&entry, Purpose::Repair).await?;
        let writes = self.core.write_cells(&entry, &cells, &body, IoClass::Repair);
        let placed = Prepared { at: commit, entry: Rc::new(entry), cells: cells.into() };
        // A task of its own: the cell is given back only after the device has ended its write, also when this future
        // is dropped.
        let (sender, done) = oneshot::channel();
        let core = Rc::clone(&self.core);
        self.core.shard.spawn(TaskClass::Repair, async move {
            writes.finished().await;
            let op = Op::Install { group, placed, writes, fact: Fact::Backfill, seen: Some(seen) };
            let _ = sender.send(core.submit(op).await);
        });
        let changed = done.await.unwrap_or(Err(StoreError::Closed))?;
        self.core.count(|counters| counters.units_installed += u64::from(changed));
        Ok(changed)
    }
}

impl<S: Shard> Core<S> {
    async fn verify_units(
        self: &Rc<Self>,
        group: GroupId,
        from: (BlockId, UnitIndex),
    ) -> Result<Verified, StoreError> {
        let (first, last) =
            (Key::unit(group, from.0, from.1), Key::unit(group, BlockId(u64::MAX), UnitIndex(u16::MAX)));
        // Nothing is awaited in between: the commit point is that of the units.
        let commit = self.state.borrow().groups.get(&group).map_or(Seq(0), |group| group.commit.seq);
        let mut records = self.records_between(first, last, STEP_UNITS, IoClass::Scrub).await?;
        let complete = records.len() < STEP_UNITS;
        let mut bytes = 0;
        let fit = records.iter().take_while(|record| {
            bytes += record.sealed.padded_bytes();
            bytes <= STEP_BYTES
        });
        let count = fit.count().max(1).min(records.len());
        let next = if complete && count == records.len() {
            None
        } else {
            let last = records[count - 1].sealed;
            following(last.block, last.unit)
        };
        records.truncate(count);
        // Memory would vouch for what rides in the log, and scrub is to see the device.
        self.settle(&records).await?;
        let bad = self.verify_bodies(&records).await?;
        let bytes = records.iter().map(|record| record.sealed.padded_bytes() as u64).sum();
        self.count(|counters| {
            counters.units_verified += records.len() as u64;
            counters.bytes_verified += bytes;
        });
        Ok(Verified { commit, records, bad, bytes, next })
    }

    /// The units whose bytes are not what they should be. Cells that lie behind each other are read as one.
    async fn verify_bodies(&self, records: &[UnitRecord]) -> Result<Vec<UnitRecord>, StoreError> {
        let behind = |one: &UnitRecord, next: &UnitRecord| {
            one.cell.position + one.sealed.padded_bytes() as u64 == next.cell.position
        };
        let mut bad = Vec::new();
        for run in records.chunk_by(behind) {
            if self.is_sound(run).await? {
                continue;
            }
            // One bad unit does not hide the others.
            for record in run {
                if run.len() == 1 || !self.is_sound(core::slice::from_ref(record)).await? {
                    bad.push(*record);
                }
            }
            yield_now().await;
        }
        Ok(bad)
    }

    async fn is_sound(&self, run: &[UnitRecord]) -> Result<bool, StoreError> {
        let places: Vec<(SealedUnit, CommitPoint, Cell)> =
            run.iter().map(|record| (record.sealed, record.commit, record.cell)).collect();
        let bytes = run.iter().map(|record| record.sealed.padded_bytes()).sum();
        let stored = match self.read_run_checked(&places, bytes, IoClass::Scrub).await {
            Ok(stored) => stored,
            Err(ReadError::Unreadable { source: source @ DiskError::Failed, .. }) => {
                return Err(StoreError::Read(source));
            }
            Err(ReadError::Store(error)) => return Err(error),
            Err(ReadError::Corrupt { .. } | ReadError::Unreadable { .. }) => return Ok(false),
        };
        let mut rest = &stored[..];
        for record in run {
            let (body, tail) = rest.split_at(record.sealed.padded_bytes());
            if record.sealed.compute_digest(body) != record.sealed.digest {
                return Ok(false);
            }
            rest = tail;
        }
        Ok(true)
    }

    async fn verify_superblocks(&self) -> Result<usize, StoreError> {
        let _turn = self.superblock_turn.acquire(1).await.map_err(|_| StoreError::Busy)?;
        let superblock = self.state.borrow().superblock;
        let mut bad = 0;
        for position in superblock_positions(superblock.geometry.device_bytes) {
            let wanted = superblock.encode(position);
            let page = self.shard.pool().take(PAGE).await;
            let (read, mut page) = self.disk().read(IoClass::Scrub, Position(position), page).await;
            if let Err(source @ DiskError::Failed) = read {
                return Err(StoreError::Read(source));
            }
            if read.is_ok() && page[..] == wanted[..] {
                continue;
            }
            bad += 1;
            page.copy_from_slice(&wanted);
            // The same number and the same bytes: copies that are good keep their quorum all the while.
            self.write(IoClass::Repair, position, page.freeze()).await?;
        }
        assert!(bad <= SUPERBLOCK_COPIES, "there are no more copies");
        if bad > 0 {
            self.flush().await?;
            self.count(|counters| counters.pages_rewritten += bad as u64);
        }
        Ok(bad)
    }
}

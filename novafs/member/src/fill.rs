//! Entries and pages for members that lag: read back here, stored there.

use std::rc::Rc;
use std::time::Duration;

use nova_buf::{DmaBuf, SharedBuf};
use nova_device::sync::join_all;
use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, IoClass, Seq, UNIT_LOG2_MAX, UnitIndex};
use novafs_format::{Cut, LogEntry};
use novafs_replica::message::{BODY_BYTES_MAX, FENCES_MAX, UNITS_MAX};
use novafs_replica::{
    Answer, BlockFence, Loaded, Message, SavedGroup, ScanFrom, StoreFault, Stored, Versioned,
};
use novafs_store::{ReadError, StoreError};

use crate::drive::{StoredResult, fault, read_fault};
use crate::{Member, read, record};

/// How long another member may take to send an entry whose bytes are bad here.
const ENTRY_DEADLINE: Duration = Duration::from_millis(2_000);
/// A deleted block is fenced with this generation.
const DELETED: Generation = Generation(u32::MAX);
/// Bad copies of a group that are looked for once more before a joiner is emptied: it may be who has them.
const LAST_LOOKS_MAX: usize = 64;
/// Stored bytes of a unit at most.
const UNIT_BYTES_MAX: usize = 1 << UNIT_LOG2_MAX;

/// One body out of many units. Copies: members that lag are no hot path.
///
/// It holds one buffer, taken before any unit is read, and each unit's own buffer goes back once it is copied. One
/// that held a buffer for every unit until the last could need more than the shard has, and wait for ever.
struct Gathered {
    body: DmaBuf,
    filled: usize,
}

impl Gathered {
    fn new(body: DmaBuf) -> Self {
        Self { body, filled: 0 }
    }

    /// Appends a unit's stored bytes; false when there is no room for them.
    fn take(&mut self, stored: &[u8]) -> bool {
        let end = self.filled + stored.len();
        let Some(place) = self.body.get_mut(self.filled..end) else { return false };
        place.copy_from_slice(stored);
        self.filled = end;
        true
    }

    /// What was taken; `None` when that is nothing.
    fn finish(mut self) -> Option<SharedBuf> {
        self.body.truncate(self.filled);
        (self.filled > 0).then(|| self.body.freeze())
    }
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// The first entry behind `after`, with its bytes.
    pub(crate) async fn load(self: &Rc<Self>, group: GroupId, after: Seq) -> StoredResult {
        let Some(entries) = self.store.entries_after(group, after, 1) else {
            return Ok(Stored::Loaded(Loaded::Gone));
        };
        let Some((at, entry)) = entries.into_iter().next() else { return Ok(Stored::Loaded(Loaded::End)) };
        if entry.units().is_empty() {
            return Ok(Stored::Loaded(Loaded::Entry { at, entry, body: None }));
        }
        match self.store.read_prepared(group, at, IoClass::Repair).await {
            Ok(Some(body)) => {
                let body = Some(body.freeze());
                return Ok(Stored::Loaded(Loaded::Entry { at, entry, body }));
            }
            // Committed by now, perhaps replaced.
            Ok(None) => {}
            Err(error) => {
                let fetched = self.fetch_entry(group, at, &entry).await.ok_or_else(|| read_fault(&error))?;
                return Ok(Stored::Loaded(Loaded::Entry { at, entry, body: Some(fetched) }));
            }
        }
        self.load_committed(group, at, &entry).await
    }

    async fn load_committed(
        self: &Rc<Self>,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
    ) -> StoredResult {
        let mut units = Vec::new();
        let mut gathered = Gathered::new(self.shard.pool().take(entry.body_bytes()).await);
        for sealed in entry.units() {
            match self.read_for_peer(group, sealed.block, sealed.unit).await {
                Ok(Some((found, body))) if found.commit == at && gathered.take(&body) => {
                    units.push(found.sealed);
                }
                Ok(_) => {}
                // An entry cannot say that a unit of it is lost: a page can.
                Err(StoreFault::Corrupt) if self.is_lost(group, sealed.block, sealed.unit) => {
                    return Ok(Stored::Loaded(Loaded::Gone));
                }
                Err(fault) => return Err(fault),
            }
        }
        let body = gathered.finish();
        let entry = if units.is_empty() {
            let block = entry.units().first().map_or(BlockId(0), |unit| unit.block);
            LogEntry::Fence { block, generation: Generation(0) }
        } else {
            LogEntry::Units(units)
        };
        Ok(Stored::Loaded(Loaded::Entry { at, entry, body }))
    }

    /// A prepared entry whose bytes are bad here, from a member that follows.
    async fn fetch_entry(&self, group: GroupId, at: CommitPoint, entry: &LogEntry) -> Option<SharedBuf> {
        let epoch = self.position(group)?.0;
        for peer in self.other_members(group) {
            let message = Message::Fetch { group, epoch, after: Seq(at.seq.0 - 1) };
            if let Some((Answer::Entry { at: found_at, entry: found }, Some(body))) =
                self.ask(peer, &message, None, ENTRY_DEADLINE).await
                && found_at == at
                && found == *entry
            {
                return Some(body);
            }
        }
        self.gather_entry(group, entry).await
    }

    /// The bytes of an entry unit by unit: of a host that is no member, only bytes of a known digest are taken.
    async fn gather_entry(&self, group: GroupId, entry: &LogEntry) -> Option<SharedBuf> {
        let mut gathered = Gathered::new(self.shard.pool().take(entry.body_bytes()).await);
        for sealed in entry.units() {
            let stored = self.copy_of(group, sealed).await?;
            if !gathered.take(&stored) {
                return None;
            }
        }
        gathered.finish()
    }

    /// A committed unit; a bad copy is repaired beside, and asked for again later.
    async fn read_for_peer(
        self: &Rc<Self>,
        group: GroupId,
        block: BlockId,
        unit: UnitIndex,
    ) -> Result<Option<(Versioned, DmaBuf)>, StoreFault> {
        match self.store.read(group, block, unit, IoClass::Repair).await {
            Ok(found) => Ok(found.map(|found| (read::versioned(&found.record), found.body))),
            Err(error) => {
                if let ReadError::Corrupt { block, unit, .. } | ReadError::Unreadable { block, unit, .. } =
                    error
                {
                    self.repair_later(group, block, unit);
                }
                Err(read_fault(&error))
            }
        }
    }

    /// A page of the group for a joiner.
    pub(crate) async fn scan(self: &Rc<Self>, group: GroupId, from: ScanFrom) -> StoredResult {
        let after = match from {
            ScanFrom::Start => {
                self.repair_known(group, LAST_LOOKS_MAX).await;
                return Ok(self.scan_fences(group, None));
            }
            ScanFrom::FencesAfter(block) => return Ok(self.scan_fences(group, Some(block))),
            ScanFrom::Units => None,
            ScanFrom::UnitsAfter(block, unit) => Some((block, unit)),
        };
        let records = self.store.scan(group, after, UNITS_MAX).await.map_err(|error| fault(&error))?;
        let complete = records.len() < UNITS_MAX;
        let (mut units, mut lost, mut next) = (Vec::new(), Vec::new(), None);
        let wanted = records.iter().take(UNITS_MAX).map(|record| record.sealed.padded_bytes()).sum();
        let room = BODY_BYTES_MAX.min(UNIT_BYTES_MAX.max(wanted));
        let mut gathered = Gathered::new(self.shard.pool().take(room).await);
        for record in &records {
            let place = (record.sealed.block, record.sealed.unit);
            // A newer version than the record's is as good; one that is gone by now is left out.
            match self.read_for_peer(group, place.0, place.1).await {
                Ok(Some((unit, body))) => {
                    if !gathered.take(&body) {
                        break;
                    }
                    units.push(unit);
                }
                Ok(None) => {}
                // The rest of the page does not wait for what nobody has.
                Err(StoreFault::Corrupt) if self.is_lost(group, place.0, place.1) => {
                    lost.push(read::versioned(record));
                }
                Err(fault) => return Err(fault),
            }
            next = Some(ScanFrom::UnitsAfter(place.0, place.1));
        }
        let all = records.last().map(|record| ScanFrom::UnitsAfter(record.sealed.block, record.sealed.unit));
        if complete && next == all {
            next = None;
        }
        let body = gathered.finish();
        Ok(Stored::Scanned { units, body, lost, fences: Vec::new(), next })
    }

    fn is_lost(&self, group: GroupId, block: BlockId, unit: UnitIndex) -> bool {
        self.health.borrow().is_lost((group, block, unit), self.shard.clock().now())
    }

    fn scan_fences(&self, group: GroupId, after: Option<BlockId>) -> Stored<SharedBuf> {
        let fences: Vec<_> = self
            .store
            .fences(group)
            .into_iter()
            .filter(|(block, _)| after.is_none_or(|after| *block > after))
            .map(|(block, record)| {
                let generation = if record.deleted { DELETED } else { record.fence };
                BlockFence { block, generation, cut: record.cut }
            })
            .take(FENCES_MAX)
            .collect();
        let next = match fences.last() {
            Some(fence) if fences.len() == FENCES_MAX => ScanFrom::FencesAfter(fence.block),
            _ => ScanFrom::Units,
        };
        Stored::Scanned { units: Vec::new(), body: None, lost: Vec::new(), fences, next: Some(next) }
    }

    /// Forgets a group's data; its log goes on behind `through`.
    pub(crate) async fn empty(
        &self,
        group: GroupId,
        saved: SavedGroup,
        through: Seq,
    ) -> Result<(), StoreError> {
        self.store.drop_group(group).await?;
        self.health.borrow_mut().fill_begins(group);
        let mut record = record::to_record(saved);
        record.commit = through;
        self.store.set_group(group, record).await
    }

    /// Stores a page that a primary sent.
    pub(crate) async fn put_page(
        &self,
        group: GroupId,
        fences: Vec<BlockFence>,
        units: Vec<Versioned>,
        body: Option<SharedBuf>,
        lost: Vec<Versioned>,
    ) -> Result<(), StoreError> {
        let long_ago = CommitPoint { epoch: Epoch(0), seq: Seq(0) };
        let mut installs = Vec::new();
        for BlockFence { block, generation, cut } in fences {
            if generation == DELETED {
                installs.push((long_ago, LogEntry::Delete { block }, None));
            } else if generation > Generation(0) {
                installs.push((long_ago, LogEntry::Fence { block, generation }, None));
            }
            if cut != Cut::default() {
                // The units that it took are not in the pages; what is left of it is when it was.
                let from_unit = UnitIndex(u16::MAX);
                installs.push((long_ago, LogEntry::Trim { block, from_unit, cut }, None));
            }
        }
        let count = (units.len() + lost.len()) as u64;
        let last = units.iter().chain(&lost).map(|unit| (unit.sealed.block, unit.sealed.unit)).max();
        self.health.borrow_mut().filled(group, count, last);
        for unit in lost {
            // The record stands for bytes that nobody has: zeros never match its sums, so a read of it fails until it
            // is repaired, and a hole is never made of it.
            let mut nothing = self.shard.pool().take(unit.sealed.padded_bytes()).await;
            nothing.fill(0);
            let place = (group, unit.sealed.block, unit.sealed.unit);
            self.health.borrow_mut().note_bad(place, self.shard.clock().now());
            // One after another: a page of them would need more buffers than a shard has.
            let entry = LogEntry::Units(vec![unit.sealed]);
            self.store.install(group, unit.commit, &entry, Some(nothing.freeze())).await?;
        }
        let mut offset = 0;
        for unit in units {
            let end = offset + unit.sealed.padded_bytes();
            let stored = body.as_ref().map(|body| body.slice(offset..end));
            installs.push((unit.commit, LogEntry::Units(vec![unit.sealed]), stored));
            offset = end;
        }
        let installed =
            installs.iter().map(|(at, entry, stored)| self.store.install(group, *at, entry, stored.clone()));
        for result in join_all(installed).await {
            result?;
        }
        Ok(())
    }
}

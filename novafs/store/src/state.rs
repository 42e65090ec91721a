//! What a device holds, in memory: groups, changes over the tree, the free-space maps. Everything here is
//! synchronous; replay and the running store change it through the same functions.

use crate::inline::{InlineBody, Inlined};
use crate::overlay::{Overlay, Seen};
use crate::pages::Pages;
use crate::ring::Ring;
use crate::slots::Slots;
use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, Seq, UnitIndex};
use novafs_format::{
    BlockRecord, Cell, GroupRecord, Key, LogEntry, Root, SealedUnit, StoredGroup, Superblock, UnitRecord,
    Value, WalRecord,
};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Committed entries that each group keeps in memory for members that come back soon.
pub(crate) const RECENT_ENTRIES_MAX: usize = 1024;

/// An entry that is durable and not committed.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) at: CommitPoint,
    pub(crate) entry: Rc<LogEntry>,
    pub(crate) cells: Rc<[Cell]>,
}

impl Prepared {
    pub(crate) fn record(&self, group: GroupId) -> WalRecord {
        WalRecord::Append { group, at: self.at, entry: (*self.entry).clone(), cells: self.cells.to_vec() }
    }

    /// The record of an entry whose bodies lie behind it in the log.
    pub(crate) fn inline_record(&self, group: GroupId) -> WalRecord {
        WalRecord::Inline { group, at: self.at, entry: (*self.entry).clone(), cells: self.cells.to_vec() }
    }

    fn record_bytes(&self) -> usize {
        24 + self.entry.encoded_bytes() + 8 * self.cells.len()
    }
}

/// A group on this device.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) record: GroupRecord,
    /// Entry the group is committed and applied up to.
    pub(crate) commit: CommitPoint,
    /// Commit point that the log on the device knows.
    pub(crate) commit_logged: Seq,
    /// Number of the newest entry that was taken in, durable or on its way.
    pub(crate) newest: Seq,
    /// Entries up to here become visible as soon as they are durable.
    pub(crate) commit_wanted: Seq,
    pub(crate) prepared: VecDeque<Prepared>,
    pub(crate) recent: VecDeque<(CommitPoint, Rc<LogEntry>)>,
    pub(crate) blocks: BTreeMap<BlockId, BlockRecord>,
    /// Its record differs from the one in the tree.
    pub(crate) changed: bool,
}

impl Group {
    pub(crate) fn stored(&self) -> StoredGroup {
        let record = GroupRecord { commit: self.commit.seq, ..self.record };
        StoredGroup { record, commit_epoch: self.commit.epoch }
    }

    /// Newest entry that is durable.
    pub(crate) fn last(&self) -> CommitPoint {
        self.prepared.back().map_or(self.commit, |prepared| prepared.at)
    }

    /// Newest prepared entry that changes the unit.
    pub(crate) fn newer_prepared(&self, block: BlockId, unit: UnitIndex) -> Option<CommitPoint> {
        let touches = |entry: &LogEntry| match entry {
            LogEntry::Units(units) => units.iter().any(|sealed| (sealed.block, sealed.unit) == (block, unit)),
            LogEntry::Trim { block: of, from_unit, .. } => *of == block && *from_unit <= unit,
            LogEntry::Delete { block: of } => *of == block,
            LogEntry::Fence { .. } => false,
        };
        self.prepared.iter().rev().find(|prepared| touches(&prepared.entry)).map(|prepared| prepared.at)
    }
}

/// What a freeze parts from what comes later.
#[derive(Debug)]
pub(crate) struct Parted {
    /// Changes to write to the tree.
    pub(crate) overlay: Rc<Overlay>,
    /// Cells to free after the checkpoint.
    pub(crate) retired: Vec<Cell>,
    /// Records that must go to the log again because the log before them is released.
    pub(crate) carried: Vec<WalRecord>,
    /// Bodies in that log that are to be moved to their cells.
    pub(crate) bodies: Vec<Rc<InlineBody>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) superblock: Superblock,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) active: Overlay,
    pub(crate) frozen: Option<Rc<Overlay>>,
    /// Cells that lost their unit since the last freeze; free once a checkpoint has forgotten them.
    pub(crate) retired: Vec<Cell>,
    /// Bodies that are in the log and not in their cells.
    pub(crate) inlined: Inlined,
    pub(crate) root: Option<Root>,
    /// Pages of the tree under `root`; while a checkpoint is made, others are in use too.
    pub(crate) tree_pages: usize,
    pub(crate) slots: Slots,
    pub(crate) pages: Pages,
    pub(crate) ring: Ring,
    pub(crate) next_batch: u64,
    /// Log space that the prepared entries would take again after a checkpoint.
    pub(crate) prepared_bytes: usize,
}

impl State {
    pub(crate) fn new(superblock: Superblock) -> Self {
        let geometry = superblock.geometry;
        Self {
            superblock,
            groups: BTreeMap::new(),
            active: Overlay::default(),
            frozen: None,
            retired: Vec::new(),
            inlined: Inlined::default(),
            root: superblock.root,
            tree_pages: 0,
            slots: Slots::new(&geometry),
            pages: Pages::new(&geometry),
            ring: Ring::new(&geometry, superblock.wal_head_position),
            next_batch: superblock.wal_head_batch,
            prepared_bytes: 0,
        }
    }

    /// Looks a key up in the changes since the last checkpoint. `Err` means: ask the tree.
    pub(crate) fn see(&self, key: &Key) -> Result<Option<Value>, ()> {
        for overlay in [Some(&self.active), self.frozen.as_deref()].into_iter().flatten() {
            match overlay.see(key) {
                Seen::Value(value) => return Ok(Some(*value)),
                Seen::Gone => return Ok(None),
                Seen::Beneath => {}
            }
        }
        Err(())
    }

    /// Whether a checkpoint may free space: it replaces or removes units, or has done so already.
    pub(crate) fn may_free_space(&self) -> bool {
        self.frozen.is_some() || !self.retired.is_empty() || !self.active.is_empty()
    }

    /// A durable entry joins its group's tail.
    pub(crate) fn prepare(&mut self, group: GroupId, prepared: Prepared) {
        self.prepared_bytes += prepared.record_bytes();
        let entry = self.groups.entry(group).or_default();
        entry.newest = entry.newest.max(prepared.at.seq);
        entry.changed = true;
        entry.prepared.push_back(prepared);
        self.apply_committed(group);
    }

    /// Raises what is committed; entries that are durable by now become visible at once.
    pub(crate) fn commit(&mut self, group: GroupId, seq: Seq) {
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.commit_wanted = entry.commit_wanted.max(seq.min(entry.newest));
            self.apply_committed(group);
        }
    }

    fn apply_committed(&mut self, group: GroupId) {
        loop {
            let Some(entry) = self.groups.get_mut(&group) else { return };
            let wanted = entry.commit_wanted;
            let Some(prepared) = entry.prepared.pop_front_if(|prepared| prepared.at.seq <= wanted) else {
                return;
            };
            entry.commit = prepared.at;
            entry.changed = true;
            self.prepared_bytes -= prepared.record_bytes();
            self.apply(group, prepared.at, &prepared.entry, &prepared.cells);
            let recent = &mut self.groups.get_mut(&group).expect("it was there above").recent;
            if recent.len() == RECENT_ENTRIES_MAX {
                recent.pop_front();
            }
            recent.push_back((prepared.at, prepared.entry));
        }
    }

    /// Makes a committed entry visible.
    fn apply(&mut self, group: GroupId, at: CommitPoint, entry: &LogEntry, cells: &[Cell]) {
        match entry {
            LogEntry::Units(units) => {
                for (sealed, cell) in units.iter().zip(cells) {
                    self.put_unit(group, UnitRecord { sealed: *sealed, commit: at, cell: *cell });
                }
            }
            LogEntry::Trim { block, from_unit, cut } => {
                self.active.trim(group, *block, *from_unit, &mut self.retired);
                self.change_block(group, *block, at, |record| {
                    if cut.is_later_than(&record.cut) {
                        record.cut = *cut;
                    }
                });
            }
            LogEntry::Fence { block, generation } => {
                self.change_block(group, *block, at, |record| record.fence = record.fence.max(*generation));
            }
            LogEntry::Delete { block } => {
                self.active.trim(group, *block, UnitIndex(0), &mut self.retired);
                self.change_block(group, *block, at, |record| {
                    record.deleted = true;
                    record.fence = Generation(u32::MAX);
                });
            }
        }
    }

    fn put_unit(&mut self, group: GroupId, record: UnitRecord) {
        let key = Key::unit(group, record.sealed.block, record.sealed.unit);
        let replaced = self.active.put(key, Value::Unit(record));
        self.retired.extend(replaced);
    }

    fn change_block(
        &mut self,
        group: GroupId,
        block: BlockId,
        at: CommitPoint,
        change: impl FnOnce(&mut BlockRecord),
    ) {
        let entry = self.groups.entry(group).or_default();
        let record = entry.blocks.entry(block).or_default();
        change(record);
        record.at = record.at.max(at);
        self.active.put(Key::block(group, block), Value::Block(*record));
    }

    /// A committed fact that came out of order: units only where nothing newer is known. `beneath` says for each
    /// unit of the entry which version the tree has.
    ///
    /// A unit that was cut off leaves nothing that would be newer. Who installs sees to it that the fact is no older
    /// than what this group's log has told: a primary fills a joiner with what is committed only.
    pub(crate) fn install(
        &mut self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        cells: &[Cell],
        beneath: &[Option<CommitPoint>],
    ) -> bool {
        self.groups.entry(group).or_default();
        let LogEntry::Units(units) = entry else {
            self.apply(group, at, entry, cells);
            return true;
        };
        let mut installed = false;
        for ((sealed, cell), beneath) in units.iter().zip(cells).zip(beneath) {
            let newest = self.newest(group, sealed, *beneath);
            if newest.is_some_and(|newest| newest > at) || self.is_deleted(group, sealed.block) {
                self.retired.push(*cell);
            } else {
                self.put_unit(group, UnitRecord { sealed: *sealed, commit: at, cell: *cell });
                installed = true;
            }
        }
        installed
    }

    /// The same versions in other cells, where they still are the committed ones.
    pub(crate) fn repair(
        &mut self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        cells: &[Cell],
        beneath: &[Option<CommitPoint>],
    ) -> bool {
        let mut repaired = false;
        for ((sealed, cell), beneath) in entry.units().iter().zip(cells).zip(beneath) {
            if self.newest(group, sealed, *beneath) == Some(at) {
                self.put_unit(group, UnitRecord { sealed: *sealed, commit: at, cell: *cell });
                repaired = true;
            } else {
                self.retired.push(*cell);
            }
        }
        repaired
    }

    /// The entry that wrote the committed version of a unit; the tree has `beneath`.
    fn newest(
        &self,
        group: GroupId,
        sealed: &SealedUnit,
        beneath: Option<CommitPoint>,
    ) -> Option<CommitPoint> {
        match self.see(&Key::unit(group, sealed.block, sealed.unit)) {
            Ok(Some(Value::Unit(record))) => Some(record.commit),
            Ok(_) => None,
            Err(()) => beneath,
        }
    }

    /// Whether a block of the entry's units was cut at or before one of them by an entry behind `seen`, or whether that
    /// is no longer known.
    pub(crate) fn cut_since(&self, group: GroupId, seen: Seq, entry: &LogEntry) -> bool {
        let Some(group) = self.groups.get(&group) else { return true };
        let oldest = group.recent.front().map_or(group.commit.seq.next(), |(at, _)| at.seq);
        let cuts = |cut: &LogEntry| match cut {
            LogEntry::Trim { block, from_unit, .. } => {
                entry.units().iter().any(|unit| unit.block == *block && unit.unit >= *from_unit)
            }
            LogEntry::Delete { block } => entry.units().iter().any(|unit| unit.block == *block),
            LogEntry::Units(_) | LogEntry::Fence { .. } => false,
        };
        seen.next() < oldest || group.recent.iter().any(|(at, recent)| at.seq > seen && cuts(recent))
    }

    pub(crate) fn is_deleted(&self, group: GroupId, block: BlockId) -> bool {
        self.groups
            .get(&group)
            .and_then(|group| group.blocks.get(&block))
            .is_some_and(|record| record.deleted)
    }

    /// Voids the prepared entries above a number.
    pub(crate) fn discard(&mut self, group: GroupId, above: Seq) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        entry.changed = true;
        while let Some(prepared) = entry.prepared.pop_back_if(|prepared| prepared.at.seq > above) {
            self.prepared_bytes -= prepared.record_bytes();
            self.retired.extend_from_slice(&prepared.cells);
        }
    }

    /// Takes a group's new record. A commit number beyond the group's log moves the log's start there: the member
    /// was filled from others.
    pub(crate) fn set_group(&mut self, group: GroupId, record: GroupRecord) {
        let entry = self.groups.entry(group).or_default();
        entry.record = record;
        entry.changed = true;
        if record.commit > entry.last().seq {
            entry.commit = CommitPoint { epoch: record.epoch, seq: record.commit };
            entry.newest = entry.newest.max(record.commit);
            entry.commit_wanted = entry.commit_wanted.max(record.commit);
            entry.commit_logged = record.commit;
            entry.recent.clear();
            for prepared in core::mem::take(&mut entry.prepared) {
                self.prepared_bytes -= prepared.record_bytes();
                self.retired.extend_from_slice(&prepared.cells);
            }
        } else {
            self.commit(group, record.commit);
        }
    }

    /// Forgets a group with all it has.
    pub(crate) fn drop_group(&mut self, group: GroupId) {
        if let Some(entry) = self.groups.remove(&group) {
            for prepared in entry.prepared {
                self.prepared_bytes -= prepared.record_bytes();
                self.retired.extend_from_slice(&prepared.cells);
            }
        }
        self.active.drop_group(group, &mut self.retired);
    }

    /// Parts what is to be written to the tree from what comes later.
    pub(crate) fn freeze(&mut self) -> Parted {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let mut carried = Vec::new();
        for (id, group) in &mut self.groups {
            if core::mem::take(&mut group.changed) {
                self.active.put(Key::group(*id), Value::Group(group.stored()));
            }
            group.commit_logged = group.commit.seq;
            carried.extend(group.prepared.iter().map(|prepared| prepared.record(*id)));
        }
        let frozen = Rc::new(core::mem::take(&mut self.active));
        self.frozen = Some(Rc::clone(&frozen));
        let retired = core::mem::take(&mut self.retired);
        Parted { overlay: frozen, retired, carried, bodies: self.inlined.freeze() }
    }

    /// A group as the tree has it.
    pub(crate) fn load_group(&mut self, id: GroupId, stored: StoredGroup) {
        let group = self.groups.entry(id).or_default();
        let seq = stored.record.commit;
        group.record = stored.record;
        group.commit = CommitPoint { epoch: Epoch(stored.commit_epoch.0), seq };
        (group.commit_logged, group.newest, group.commit_wanted) = (seq, seq, seq);
    }
}

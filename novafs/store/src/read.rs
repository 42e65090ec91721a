//! Reading committed units.

use crate::core::Core;
use crate::error::{ReadError, StoreError};
use crate::inline::InlineBody;
use nova_buf::{DmaBuf, SharedBuf};
use nova_device::{Disk as _, Position, Shard};
use nova_units::{BlockId, CommitPoint, GroupId, IoClass, PageSum, UnitIndex};
use novafs_format::{Cell, ENTRY_BODY_BYTES_MAX, Key, LogEntry, PAGE, Place, SealedUnit, UnitRecord, Value};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::rc::Rc;

/// Times stored bytes are read before they count as damaged: a read that went astray is not rot.
const READ_TRIES: usize = 2;

/// A unit and its stored bytes.
#[derive(Debug)]
pub struct Found {
    /// The committed version.
    pub record: UnitRecord,
    /// Its stored bytes, padded to 4 KiB; every page's checksum matches.
    pub body: DmaBuf,
    /// A newer version is prepared here, or a cut of the block: whether it is committed only the primary knows.
    pub newer_prepared: Option<CommitPoint>,
}

/// Neighbouring units and their stored bytes.
#[derive(Debug)]
pub struct Run {
    /// The committed versions, in order; units that were never written are missing.
    pub records: Vec<UnitRecord>,
    /// Their stored bytes, each padded to 4 KiB, one behind the other; every page's checksum matches.
    pub body: DmaBuf,
    /// The newest prepared entry that changes a unit of the run.
    pub newer_prepared: Option<CommitPoint>,
    /// First unit that was asked for and left out because the run reached 1 MiB.
    pub next: Option<UnitIndex>,
}

impl<S: Shard> Core<S> {
    pub(crate) async fn find(&self, key: &Key, class: IoClass) -> Result<Option<Value>, StoreError> {
        let (seen, root) = {
            let state = self.state.borrow();
            (state.see(key), state.root)
        };
        match seen {
            Ok(value) => Ok(value),
            Err(()) => self.tree_get(root, key, class).await,
        }
    }

    pub(crate) async fn read_unit(
        &self,
        group: GroupId,
        block: BlockId,
        unit: UnitIndex,
        class: IoClass,
    ) -> Result<Option<Found>, ReadError> {
        let newer_prepared =
            self.state.borrow().groups.get(&group).and_then(|group| group.newer_prepared(block, unit));
        let found = self.find(&Key::unit(group, block, unit), class).await?;
        let Some(Value::Unit(record)) = found else { return Ok(None) };
        let body = self.read_stored(&[(record.sealed, record.commit, record.cell)], class).await?;
        Ok(Some(Found { record, body, newer_prepared }))
    }

    /// Writes a committed unit's bytes once more into the cell it has; false when that is another version by now.
    pub(crate) async fn write_again(
        &self,
        group: GroupId,
        sealed: &SealedUnit,
        commit: CommitPoint,
        body: SharedBuf,
    ) -> Result<bool, StoreError> {
        // While it is pinned the cell is not given to another unit.
        let pin = self.pin();
        let found = self.find(&Key::unit(group, sealed.block, sealed.unit), IoClass::Repair).await?;
        let same = match found {
            Some(Value::Unit(record)) if record.sealed == *sealed && record.commit == commit => {
                Some(record.cell)
            }
            _ => None,
        };
        if let Some(cell) = same {
            self.write(IoClass::Repair, cell.position, body).await?;
            self.flush().await?;
        }
        drop(pin);
        self.release_freed();
        Ok(same.is_some())
    }

    pub(crate) async fn read_units(
        &self,
        group: GroupId,
        block: BlockId,
        units: Range<u16>,
        class: IoClass,
    ) -> Result<Run, ReadError> {
        let newer_prepared = {
            let state = self.state.borrow();
            let newest = |group: &crate::state::Group| {
                units.clone().filter_map(|unit| group.newer_prepared(block, UnitIndex(unit))).max()
            };
            state.groups.get(&group).filter(|group| !group.prepared.is_empty()).and_then(newest)
        };
        let mut records = Vec::new();
        let mut next = None;
        if units.len() == 1 {
            // Most small reads: one look-up, where a range would gather what lies over the tree.
            let key = Key::unit(group, block, UnitIndex(units.start));
            if let Some(Value::Unit(record)) = self.find(&key, class).await? {
                records.push(record);
            }
        } else if let Some(last) = units.end.checked_sub(1).filter(|last| units.start <= *last) {
            let from = Key::unit(group, block, UnitIndex(units.start));
            let to = Key::unit(group, block, UnitIndex(last));
            let mut bytes = 0;
            for record in self.records_between(from, to, usize::from(last - units.start) + 1, class).await? {
                bytes += record.sealed.padded_bytes();
                if bytes > ENTRY_BODY_BYTES_MAX {
                    next = Some(record.sealed.unit);
                    break;
                }
                records.push(record);
            }
        }
        let places: Vec<_> =
            records.iter().map(|record| (record.sealed, record.commit, record.cell)).collect();
        let body = self.read_stored(&places, class).await?;
        Ok(Run { records, body, newer_prepared, next })
    }

    /// Stored bytes of an entry that is prepared, or was until just now.
    pub(crate) async fn read_entry_body(
        &self,
        entry: &LogEntry,
        at: CommitPoint,
        cells: &[Cell],
        class: IoClass,
    ) -> Result<DmaBuf, ReadError> {
        let places: Vec<_> =
            entry.units().iter().zip(cells).map(|(sealed, cell)| (*sealed, at, *cell)).collect();
        self.read_stored(&places, class).await
    }

    /// Committed units between two keys of one group, both included, in order; at least `limit` of them if there are.
    pub(crate) async fn records_between(
        &self,
        from: Key,
        to: Key,
        limit: usize,
        class: IoClass,
    ) -> Result<Vec<UnitRecord>, StoreError> {
        // What lies over the tree is copied in the turn that takes the root: together they are one state.
        let mut over: BTreeMap<Key, Option<UnitRecord>> = BTreeMap::new();
        let mut cut = to;
        let (root, active_hidden, frozen) = {
            let state = self.state.borrow();
            let edges = (Bound::Included(from), Bound::Included(to));
            for overlay in [state.frozen.as_deref(), Some(&state.active)].into_iter().flatten() {
                let mut taken = 0;
                for (key, value) in overlay.values(edges.0, edges.1) {
                    if let Value::Unit(record) = value {
                        over.insert(*key, Some(*record));
                        taken += 1;
                    }
                    if taken > limit {
                        cut = cut.min(*key);
                        break;
                    }
                }
            }
            (state.root, state.active.hidden_between(&from, &to), state.frozen.clone())
        };
        let hides = |ranges: &[(Key, Key)], key: &Key| {
            let index = ranges.partition_point(|(_, end)| end < key);
            ranges.get(index).is_some_and(|(start, _)| start <= key)
        };
        let frozen_hidden =
            frozen.as_deref().map(|frozen| frozen.hidden_between(&from, &to)).unwrap_or_default();
        // A value of the frozen overlay may be hidden by the active one.
        if let Some(frozen) = &frozen {
            let state = self.state.borrow();
            over.retain(|key, value| {
                let from_frozen = frozen.values(Bound::Included(*key), Bound::Included(*key)).next();
                let only_frozen = from_frozen.is_some_and(
                    |(_, frozen)| matches!((frozen, &value), (Value::Unit(a), Some(b)) if a == b),
                );
                !(only_frozen
                    && hides(&active_hidden, key)
                    && state.active.values(Bound::Included(*key), Bound::Included(*key)).next().is_none())
            });
        }
        let mut start = from;
        loop {
            let (items, complete) = self.tree_range(root, start, cut, limit, class).await?;
            let last = items.last().map(|(key, _)| *key);
            for (key, value) in items {
                let Value::Unit(record) = value else { continue };
                if !over.contains_key(&key) && !hides(&active_hidden, &key) && !hides(&frozen_hidden, &key) {
                    over.insert(key, Some(record));
                }
            }
            let until = if complete { cut } else { last.unwrap_or(cut) };
            let known = over.range(from..=until).filter(|(_, record)| record.is_some()).count();
            if complete || known >= limit {
                return Ok(over.range(from..=until).filter_map(|(_, record)| *record).collect());
            }
            start = match until.place {
                Place::Unit(block, UnitIndex(unit)) if unit < u16::MAX => {
                    Key::unit(until.group, block, UnitIndex(unit + 1))
                }
                Place::Unit(BlockId(block), _) => Key::unit(until.group, BlockId(block + 1), UnitIndex(0)),
                Place::Group | Place::Block(_) => until,
            };
        }
    }

    /// Reads and checks stored bytes; cells that lie behind each other go out as one read. What rides in the log is in
    /// memory.
    async fn read_stored(
        &self,
        places: &[(SealedUnit, CommitPoint, Cell)],
        class: IoClass,
    ) -> Result<DmaBuf, ReadError> {
        let total: usize = places.iter().map(|(sealed, ..)| sealed.padded_bytes()).sum();
        // Taken before anything is awaited: what does not ride now lies in its cell.
        let riding: BTreeMap<u64, Rc<InlineBody>> = {
            let state = self.state.borrow();
            let body =
                |(.., cell): &(_, _, Cell)| Some((cell.position, Rc::clone(state.inlined.get(*cell)?)));
            places.iter().filter_map(body).collect()
        };
        let runs = places.chunk_by(|(sealed, _, cell), (_, _, next)| {
            cell.position + sealed.padded_bytes() as u64 == next.position
                && !riding.contains_key(&cell.position)
                && !riding.contains_key(&next.position)
        });
        let mut whole: Option<DmaBuf> = None;
        let mut filled = 0;
        for run in runs {
            let bytes: usize = run.iter().map(|(sealed, ..)| sealed.padded_bytes()).sum();
            let rides = riding.get(&run[0].2.position);
            if bytes == total && rides.is_none() {
                return self.read_run_checked(run, bytes, class).await;
            }
            // The larger buffer first, as everywhere: whoever holds a small one waits for no other.
            if whole.is_none() {
                whole = Some(self.shard.pool().take(total).await);
            }
            let whole = whole.as_mut().expect("taken above");
            if let Some(body) = rides {
                self.count(|counters| counters.units_read += 1);
                if let Some(error) = check_run(run, body.bytes()) {
                    return Err(error);
                }
                whole[filled..filled + bytes].copy_from_slice(body.bytes());
            } else {
                let part = self.read_run_checked(run, bytes, class).await?;
                whole[filled..filled + bytes].copy_from_slice(&part);
            }
            filled += bytes;
        }
        match whole {
            Some(mut whole) => {
                whole.set_page_sums(page_sums(places));
                Ok(whole)
            }
            None => {
                let mut nothing = self.shard.pool().take(PAGE).await;
                nothing.set_len(0);
                Ok(nothing)
            }
        }
    }

    pub(crate) async fn read_run_checked(
        &self,
        run: &[(SealedUnit, CommitPoint, Cell)],
        bytes: usize,
        class: IoClass,
    ) -> Result<DmaBuf, ReadError> {
        let (first, first_commit, cell) = run[0];
        let mut buffer = self.shard.pool().take(bytes).await;
        let mut error = None;
        for _ in 0..READ_TRIES {
            let (result, back) = self.disk().read(class, Position(cell.position), buffer).await;
            buffer = back;
            error = match result {
                Ok(()) => check_run(run, &buffer),
                Err(source) => {
                    let (block, unit) = (first.block, first.unit);
                    Some(ReadError::Unreadable { block, unit, commit: first_commit, source })
                }
            };
            if error.is_none() {
                break;
            }
        }
        self.count(|counters| {
            counters.units_read += run.len() as u64;
            counters.units_corrupt += u64::from(error.is_some());
        });
        match error {
            None => {
                buffer.set_page_sums(page_sums(run));
                Ok(buffer)
            }
            Some(error) => Err(error),
        }
    }
}

/// What the pages of units that were checked sum up to.
fn page_sums(checked: &[(SealedUnit, CommitPoint, Cell)]) -> Rc<[PageSum]> {
    let mut sums = Vec::with_capacity(checked.iter().map(|(sealed, ..)| sealed.stored_pages()).sum());
    for (sealed, ..) in checked {
        sums.extend(sealed.page_sums());
    }
    sums.into()
}

fn check_run(run: &[(SealedUnit, CommitPoint, Cell)], stored: &[u8]) -> Option<ReadError> {
    let mut rest = stored;
    for (sealed, commit, _) in run {
        let (body, tail) = rest.split_at(sealed.padded_bytes());
        if let Err(bad) = sealed.check_pages(body) {
            return Some(ReadError::Corrupt {
                block: bad.block,
                unit: bad.unit,
                commit: *commit,
                page: bad.page,
            });
        }
        rest = tail;
    }
    None
}

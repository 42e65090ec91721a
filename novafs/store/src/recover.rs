//! Opening a device: superblocks, tree, log.

use crate::core::Core;
use crate::error::StoreError;
use crate::options::OpenOptions;
use crate::state::{Prepared, State};
use nova_device::{Disk as _, DiskError, Position, Shard};
use nova_units::{CommitPoint, DiskIndex, GroupId, IoClass, Seq};
use novafs_format::{
    BatchPlace, Cell, FormatError, Key, LogEntry, PAGE, Place, Root, SUPERBLOCK_QUORUM, SealedUnit,
    Superblock, TreePage, Value, WalRecord, decode_batch, decode_batch_header, superblock_positions,
};
use std::rc::Rc;

/// Batches of two openings are this far apart in number, so that none of the earlier one can follow one of the later.
const NUMBERS_PER_OPENING: u64 = 1 << 16;
/// Times a page is read before it counts as bad.
const READ_TRIES: usize = 2;
/// Bytes read at once while the ring is searched.
const SEARCH_BYTES: usize = 256 << 10;

/// Something that recovery could not settle alone: other members of the group know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspect {
    /// A log batch that was durable cannot be read: it has rotted. Any group may have lost entries, commit points or
    /// promises of epochs in it.
    LostBatch {
        /// Its number.
        number: u64,
    },
    /// The newest log batch is damaged. Most likely a power cut came before it was durable and nobody was told that
    /// it was; it may also have rotted.
    DamagedTail {
        /// Its number.
        number: u64,
    },
    /// An entry of the newest log batch was dropped because its bodies are not there, with the same two reasons.
    DroppedEntry {
        /// The group.
        group: GroupId,
        /// Its place.
        at: CommitPoint,
    },
    /// Entries behind a lost batch do not follow the ones before it, and were dropped.
    Gap {
        /// The group.
        group: GroupId,
        /// Last number before the gap.
        after: Seq,
    },
}

/// Reads the four copies and takes the highest number that a quorum agrees on.
pub(crate) async fn read_superblock<S: Shard>(shard: &S, index: DiskIndex) -> Result<Superblock, StoreError> {
    let disk = shard.disk(index);
    let bytes = disk.bytes();
    let mut copies: Vec<Superblock> = Vec::new();
    let mut first_error = None;
    let mut version_error = None;
    for position in superblock_positions(bytes) {
        let page = shard.pool().take(PAGE).await;
        let (result, page) = disk.read(IoClass::Wal, Position(position), page).await;
        let decoded = match result {
            Ok(()) => Superblock::decode(&page, position),
            Err(_) => Err(FormatError::Short),
        };
        match decoded {
            Ok(superblock) => copies.push(superblock),
            Err(error @ FormatError::Version { .. }) => version_error = Some(error),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    copies.sort_by_key(|copy| core::cmp::Reverse(copy.number));
    let agreed =
        copies.iter().find(|copy| copies.iter().filter(|other| other == copy).count() >= SUPERBLOCK_QUORUM);
    match agreed {
        Some(superblock) if superblock.geometry.device_bytes == bytes - bytes % PAGE as u64 => {
            Ok(*superblock)
        }
        Some(superblock) => Err(StoreError::Resized { bytes, formatted: superblock.geometry.device_bytes }),
        None => Err(StoreError::NoSuperblock {
            quorum: SUPERBLOCK_QUORUM,
            valid: copies.len(),
            source: version_error.or(first_error).unwrap_or(FormatError::Checksum { what: "superblock" }),
        }),
    }
}

/// Brings a device's state into memory. What recovery decided is not on the device yet: the first checkpoint writes
/// it, before anything is served.
pub(crate) async fn recover<S: Shard>(
    shard: S,
    index: DiskIndex,
    options: OpenOptions,
) -> Result<(Core<S>, Vec<Suspect>), StoreError> {
    let superblock = read_superblock(&shard, index).await?;
    let core = Core::new(shard, index, options, State::new(superblock));
    core.walk_tree().await?;
    let suspects = core.replay().await?;
    Ok((core, suspects))
}

impl<S: Shard> Core<S> {
    /// Visits the whole tree: which pages and cells it uses, and which groups and blocks there are.
    async fn walk_tree(&self) -> Result<(), StoreError> {
        let mut stack: Vec<Root> = self.state.borrow().root.into_iter().collect();
        while let Some(at) = stack.pop() {
            if !self.state.borrow_mut().pages.mark(at.position) {
                return Err(misplaced(at.position, "tree page"));
            }
            let page = self.load_page(at, IoClass::Wal).await?;
            let mut state = self.state.borrow_mut();
            state.tree_pages += 1;
            match &*page {
                TreePage::Branch(children) => {
                    let level = at.level - 1;
                    stack.extend(children.iter().rev().map(|child| Root {
                        position: child.position,
                        crc: child.crc,
                        level,
                    }));
                }
                TreePage::Leaf(items) => {
                    for (key, value) in items {
                        match (key.place, value) {
                            (Place::Group, Value::Group(stored)) => state.load_group(key.group, *stored),
                            (Place::Block(block), Value::Block(record)) => {
                                state.groups.entry(key.group).or_default().blocks.insert(block, *record);
                            }
                            (_, Value::Unit(record)) => {
                                if !state.slots.mark(record.cell) {
                                    return Err(misplaced(record.cell.position, "cell"));
                                }
                            }
                            _ => unreachable!("decode checks that values fit their keys"),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn replay(&self) -> Result<Vec<Suspect>, StoreError> {
        let geometry = self.state.borrow().superblock.geometry;
        let mut suspects = Vec::new();
        let mut number = self.state.borrow().next_batch;
        let mut position = self.state.borrow().superblock.wal_head_position;
        let mut held: Option<Vec<Logged>> = None;
        loop {
            let (mut found, mut damaged) = (None, false);
            for at in [position, geometry.wal_position] {
                match self.read_batch(at, number).await? {
                    Found::Batch(records, bytes) => {
                        found = Some((at, records, bytes));
                        break;
                    }
                    Found::Damaged => damaged = true,
                    Found::Nothing => {}
                }
            }
            if found.is_none()
                && let Some((at, later)) = self.find_later_batch(number).await?
            {
                suspects.extend((number..later).map(|number| Suspect::LostBatch { number }));
                number = later;
                position = at;
                continue;
            }
            let Some((at, records, bytes)) = found else {
                if damaged {
                    suspects.push(Suspect::DamagedTail { number });
                }
                break;
            };
            // The batch before was durable: this one was only written after its flush.
            if let Some(records) = held.replace(records) {
                self.replay_records(records, &mut suspects).await?;
            }
            let pages = (bytes / PAGE) as u64;
            self.state.borrow_mut().ring.follow(at, pages);
            position = self.state.borrow().ring.tail_position();
            number += 1;
        }
        if let Some(records) = held {
            let records = self.keep_whole(records, &mut suspects).await?;
            self.replay_records(records, &mut suspects).await?;
        }
        self.state.borrow_mut().next_batch = number + NUMBERS_PER_OPENING;
        Ok(suspects)
    }

    async fn read_pages(&self, at: u64, bytes: usize) -> Result<nova_buf::DmaBuf, DiskError> {
        let buffer = self.shard.pool().take(bytes).await;
        let (result, buffer) = self.disk().read(IoClass::Wal, Position(at), buffer).await;
        result.map(|()| buffer)
    }

    async fn read_batch(&self, at: u64, number: u64) -> Result<Found, StoreError> {
        let geometry = self.state.borrow().superblock.geometry;
        let place = BatchPlace { salt: self.salt, number, position: at };
        let mut damaged = false;
        for _ in 0..READ_TRIES {
            let Ok(head) = self.read_pages(at, PAGE).await else {
                damaged = true;
                continue;
            };
            let header = match decode_batch_header(&head) {
                Ok(header) if header.place == place => header,
                _ => continue,
            };
            damaged = true;
            let total = header.bytes + header.body_bytes;
            if at + total as u64 > geometry.wal_position + geometry.wal_bytes {
                continue;
            }
            let Ok(bytes) = self.read_pages(at, header.bytes).await else { continue };
            if let Ok(records) = decode_batch(&bytes, place) {
                let mut bodies = at + header.bytes as u64;
                let logged = |record: WalRecord| {
                    let first = bodies;
                    bodies += record.inline_bytes() as u64;
                    Logged { record, bodies: first }
                };
                return Ok(Found::Batch(records.into_iter().map(logged).collect(), total));
            }
        }
        Ok(if damaged { Found::Damaged } else { Found::Nothing })
    }

    /// Looks through the whole ring for the lowest whole batch above `number` of the same opening.
    async fn find_later_batch(&self, number: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let geometry = self.state.borrow().superblock.geometry;
        let mut candidates = Vec::new();
        let end = geometry.wal_position + geometry.wal_bytes;
        let mut at = geometry.wal_position;
        while at < end {
            let bytes = SEARCH_BYTES.min(usize::try_from(end - at).unwrap_or(SEARCH_BYTES));
            // What cannot be read holds no whole batch.
            if let Ok(buffer) = self.read_pages(at, bytes).await {
                for (page, position) in buffer.chunks_exact(PAGE).zip((at..).step_by(PAGE)) {
                    let Ok(header) = decode_batch_header(page) else { continue };
                    let later = number + 1..number + NUMBERS_PER_OPENING;
                    let place = BatchPlace { salt: self.salt, position, ..header.place };
                    if place == header.place && later.contains(&place.number) {
                        candidates.push((place.number, position));
                    }
                }
            }
            at += bytes as u64;
        }
        candidates.sort_unstable();
        for (number, position) in candidates {
            if let Found::Batch(..) = self.read_batch(position, number).await? {
                return Ok(Some((position, number)));
            }
        }
        Ok(None)
    }

    /// Of the last batch, drops entries whose bodies did not reach their cells, and entries of the same group above.
    async fn keep_whole(
        &self,
        records: Vec<Logged>,
        suspects: &mut Vec<Suspect>,
    ) -> Result<Vec<Logged>, StoreError> {
        let mut kept = Vec::with_capacity(records.len());
        let mut broken: Vec<GroupId> = Vec::new();
        for Logged { record, bodies } in records {
            let whole = match &record {
                WalRecord::Append { group, at, cells, .. } if self.is_carried(*group, *at, cells) => true,
                WalRecord::Append { group, entry, cells, .. } => {
                    !broken.contains(group) && self.bodies_are_there(entry, cells).await
                }
                WalRecord::Inline { group, entry, .. } => {
                    !broken.contains(group) && self.are_there(inline_places(entry, bodies)).await
                }
                WalRecord::Install { entry, cells, .. } | WalRecord::Repair { entry, cells, .. } => {
                    self.bodies_are_there(entry, cells).await
                }
                _ => true,
            };
            match record {
                WalRecord::Append { group, at, .. } | WalRecord::Inline { group, at, .. } if !whole => {
                    broken.push(group);
                    suspects.push(Suspect::DroppedEntry { group, at });
                }
                WalRecord::Install { group, at, .. } if !whole => {
                    suspects.push(Suspect::DroppedEntry { group, at });
                }
                // The unit still has the cell whose bytes are bad: that is found again by whoever reads it.
                WalRecord::Repair { .. } if !whole => {}
                record => kept.push(Logged { record, bodies }),
            }
        }
        Ok(kept)
    }

    /// Whether a checkpoint that did not complete only carried this entry over: it is known already, and its bodies may
    /// still ride in the log from before, and not have been moved.
    fn is_carried(&self, group: GroupId, at: CommitPoint, cells: &[Cell]) -> bool {
        let state = self.state.borrow();
        let Some(group) = state.groups.get(&group) else { return false };
        let same = |known: &Prepared| known.at == at && *known.cells == *cells;
        at.seq <= group.commit.seq || group.prepared.iter().any(same)
    }

    async fn bodies_are_there(&self, entry: &LogEntry, cells: &[Cell]) -> bool {
        let places = entry.units().iter().zip(cells);
        self.are_there(places.map(|(sealed, cell)| (*sealed, cell.position))).await
    }

    async fn are_there(&self, places: impl IntoIterator<Item = (SealedUnit, u64)>) -> bool {
        for (sealed, position) in places {
            let mut whole = false;
            for _ in 0..READ_TRIES {
                let body = self.read_pages(position, sealed.padded_bytes()).await;
                whole |= body.is_ok_and(|body| sealed.check_pages(&body).is_ok());
            }
            if !whole {
                return false;
            }
        }
        true
    }

    async fn replay_records(
        &self,
        records: Vec<Logged>,
        suspects: &mut Vec<Suspect>,
    ) -> Result<(), StoreError> {
        for Logged { record, bodies } in records {
            let rides = matches!(record, WalRecord::Inline { .. });
            match record {
                WalRecord::Append { group, at, entry, cells }
                | WalRecord::Inline { group, at, entry, cells } => {
                    let newest = self.state.borrow().groups.get(&group).map_or(Seq(0), |group| group.newest);
                    // Carried over by a checkpoint that did not complete.
                    if at.seq <= newest {
                        continue;
                    }
                    if at.seq != newest.next() {
                        let gap = Suspect::Gap { group, after: newest };
                        if !suspects.contains(&gap) {
                            suspects.push(gap);
                        }
                        continue;
                    }
                    self.mark_cells(&cells)?;
                    if rides {
                        let mut state = self.state.borrow_mut();
                        for ((sealed, position), cell) in inline_places(&entry, bodies).zip(&cells) {
                            state.inlined.insert_found(sealed, *cell, position);
                        }
                    }
                    let prepared = Prepared { at, entry: Rc::new(entry), cells: cells.into() };
                    self.state.borrow_mut().prepare(group, prepared);
                }
                WalRecord::Commit { group, seq } => self.state.borrow_mut().commit(group, seq),
                WalRecord::Discard { group, above } => {
                    let mut state = self.state.borrow_mut();
                    state.discard(group, above);
                    if let Some(group) = state.groups.get_mut(&group) {
                        group.newest = group.last().seq;
                    }
                }
                WalRecord::Group { group, record } => self.state.borrow_mut().set_group(group, record),
                WalRecord::Drop { group } => self.state.borrow_mut().drop_group(group),
                WalRecord::Install { group, at, entry, cells } => {
                    self.mark_cells(&cells)?;
                    let beneath = self.commits_in_tree(group, &entry).await?;
                    self.state.borrow_mut().install(group, at, &entry, &cells, &beneath);
                }
                WalRecord::Repair { group, at, entry, cells } => {
                    self.mark_cells(&cells)?;
                    let beneath = self.commits_in_tree(group, &entry).await?;
                    self.state.borrow_mut().repair(group, at, &entry, &cells, &beneath);
                }
            }
        }
        Ok(())
    }

    fn mark_cells(&self, cells: &[Cell]) -> Result<(), StoreError> {
        let mut state = self.state.borrow_mut();
        match cells.iter().find(|cell| !state.slots.mark(**cell)) {
            Some(cell) => Err(misplaced(cell.position, "cell")),
            None => Ok(()),
        }
    }

    /// Which version of each unit of an entry the tree has.
    pub(crate) async fn commits_in_tree(
        &self,
        group: GroupId,
        entry: &LogEntry,
    ) -> Result<Vec<Option<CommitPoint>>, StoreError> {
        let root = self.state.borrow().root;
        let mut commits = Vec::with_capacity(entry.units().len());
        for sealed in entry.units() {
            let key = Key::unit(group, sealed.block, sealed.unit);
            let found = self.tree_get(root, &key, IoClass::Repair).await?;
            commits.push(match found {
                Some(Value::Unit(record)) => Some(record.commit),
                _ => None,
            });
        }
        Ok(commits)
    }
}

/// A record and where the bodies that ride with it begin.
struct Logged {
    record: WalRecord,
    bodies: u64,
}

/// Where the body of each unit of an entry lies when the first one lies at `bodies`.
fn inline_places(entry: &LogEntry, bodies: u64) -> impl Iterator<Item = (SealedUnit, u64)> {
    entry.units().iter().scan(bodies, |next, sealed| {
        let at = *next;
        *next += sealed.padded_bytes() as u64;
        Some((*sealed, at))
    })
}

enum Found {
    /// With its length on the device.
    Batch(Vec<Logged>, usize),
    /// The batch with the right number, but not whole.
    Damaged,
    Nothing,
}

fn misplaced(position: u64, what: &'static str) -> StoreError {
    StoreError::Metadata { position, source: FormatError::Misplaced { what } }
}

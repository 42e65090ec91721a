//! The store of one device: what members of replica groups ask of it.

use crate::commit::{CellWrites, Fact, Op};
use crate::core::{Core, Counters};
use crate::error::{ReadError, StoreError};
use crate::inline::copy_bodies;
use crate::options::{FormatOptions, OpenOptions};
use crate::read::{Found, Run};
use crate::recover::{Suspect, read_superblock, recover};
use crate::slots::{Purpose, Reservation, bytes_of, count};
use crate::state::{Prepared, State};
use core::time::Duration;
use nova_buf::{DmaBuf, SharedBuf};
use nova_device::sync::{Semaphore, oneshot};
use nova_device::{Clock as _, Disk as _, Durability, Shard};
use nova_units::{
    BlockId, CommitPoint, DeviceId, DiskIndex, Epoch, Generation, GroupId, Incarnation, IoClass, MountNonce,
    MountTrail, Seq, TaskClass, UnitIndex,
};
use novafs_format::{
    BlockRecord, Cell, CellClass, GroupRecord, Key, LogEntry, SealedUnit, Superblock, UnitRecord,
};
use std::ops::Range;
use std::rc::Rc;

/// How often, and how long apart, an append looks for space that slow readers still hold: 5 seconds.
const SPACE_TRIES_MAX: usize = 500;
const SPACE_TRY_INTERVAL: Duration = Duration::from_millis(10);

/// A device, open.
#[derive(Debug)]
pub struct Store<S: Shard> {
    pub(crate) core: Rc<Core<S>>,
    /// Bounds the bodies on their way.
    pub(crate) appends: Semaphore,
    /// One entry at a time finds its place, in the order of asking, even when it must wait for a checkpoint to free
    /// space.
    placing: Semaphore,
}

/// An open store, and what opening it brought to light.
#[derive(Debug)]
pub struct Opened<S: Shard> {
    /// The store.
    pub store: Rc<Store<S>>,
    /// Id of the device.
    pub device: DeviceId,
    /// How often the device was opened, this time included; it rises before anything is served.
    pub mount_counter: u64,
    /// Its life as a member; 0 when it was never given one.
    pub incarnation: Incarnation,
    /// Its mounts since the last that the controllers confirmed; the newest is this one.
    pub trail: MountTrail,
    /// What recovery could not settle alone.
    pub suspects: Vec<Suspect>,
}

/// A group as the device holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The group.
    pub group: GroupId,
    /// Epoch the member works in.
    pub epoch: Epoch,
    /// The member's whole record, with the commit number of now.
    pub record: GroupRecord,
    /// Committed up to here.
    pub commit_seq: Seq,
    /// Newest durable entry.
    pub last: CommitPoint,
    /// Durable entries above `commit_seq`, in order, without their bodies.
    pub prepared: Vec<(CommitPoint, LogEntry)>,
}

/// How full a device is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Room for units on an empty device.
    pub bytes_total: u64,
    /// Room left for clients, at best; the share kept for repair is not in it.
    pub bytes_free: u64,
    /// Metadata pages there are.
    pub meta_pages_total: u64,
    /// Metadata pages in use.
    pub meta_pages_used: u64,
    /// Size of the log's ring.
    pub wal_bytes_total: u64,
    /// Part of it that replay would read.
    pub wal_bytes_used: u64,
}

/// What a superblock says of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The device.
    pub device: DeviceId,
    /// Its life as a member; 0 until the controllers gave it one.
    pub incarnation: Incarnation,
}

impl<S: Shard> Store<S> {
    /// Lays out a device. Everything on it is gone.
    ///
    /// # Errors
    /// [`StoreError::Layout`] when it is too small for the options, [`StoreError::DeviceFailed`].
    pub async fn format(shard: &S, disk: DiskIndex, options: FormatOptions) -> Result<(), StoreError> {
        let geometry = options.geometry(shard.disk(disk).bytes())?;
        let mut salt = [0; 8];
        shard.fill_secret(&mut salt);
        let superblock = Superblock {
            number: 1,
            device: options.device,
            salt: u64::from_le_bytes(salt),
            geometry,
            wal_head_position: geometry.wal_position,
            wal_head_batch: 1,
            ..Superblock::default()
        };
        let core = Core::new(shard.clone(), disk, OpenOptions::default(), State::new(superblock));
        core.write_superblock(&superblock).await
    }

    /// Which device it is, and in which life, as its superblock says. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NoSuperblock`] when it is not a NovaFS device or from a later version, [`StoreError::Resized`].
    pub async fn look(shard: &S, disk: DiskIndex) -> Result<Looked, StoreError> {
        let superblock = read_superblock(shard, disk).await?;
        Ok(Looked { device: superblock.device, incarnation: superblock.incarnation })
    }

    /// Opens a device: recovers its state, gives this mount a number and a nonce, and makes all of it durable.
    ///
    /// # Errors
    /// [`StoreError::NoSuperblock`] when it is not a NovaFS device or from a later version, [`StoreError::Resized`],
    /// [`StoreError::Metadata`] when its tree is damaged, [`StoreError::DeviceFailed`], [`StoreError::Read`].
    pub async fn open(shard: S, disk: DiskIndex, options: OpenOptions) -> Result<Opened<S>, StoreError> {
        let (core, suspects) = recover(shard, disk, options).await?;
        let core = Rc::new(core);
        core.shard.spawn(TaskClass::Wal, Rc::clone(&core).run_log());
        let mut nonce = [0; 8];
        core.shard.fill_secret(&mut nonce);
        let opened = core
            .make_checkpoint(|superblock| {
                superblock.mount_counter += 1;
                superblock.trail.begin(MountNonce(u64::from_le_bytes(nonce)));
            })
            .await;
        if let Err(error) = opened {
            core.fail_now();
            return Err(error);
        }
        core.shard.spawn(TaskClass::Background, Rc::clone(&core).run_checkpoints());
        let superblock = core.state.borrow().superblock;
        let in_flight = options.appends_in_flight_max.max(1);
        let appends = Semaphore::new(in_flight, options.appends_waiting_max);
        Ok(Opened {
            store: Rc::new(Self { core, appends, placing: Semaphore::new(1, in_flight) }),
            device: superblock.device,
            mount_counter: superblock.mount_counter,
            incarnation: superblock.incarnation,
            trail: superblock.trail,
            suspects,
        })
    }

    /// Every group on the device.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupState> {
        self.core.state.borrow().groups.iter().map(|(id, group)| group_state(*id, group)).collect()
    }

    /// Ids of every group on the device, ascending.
    #[must_use]
    pub fn group_ids(&self) -> Vec<GroupId> {
        self.core.state.borrow().groups.keys().copied().collect()
    }

    /// The first group on the device with this id or a higher one.
    #[must_use]
    pub fn next_group(&self, from: GroupId) -> Option<GroupId> {
        self.core.state.borrow().groups.range(from..).next().map(|(id, _)| *id)
    }

    /// One group, if the device has it.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<GroupState> {
        self.core.state.borrow().groups.get(&group).map(|state| group_state(group, state))
    }

    /// Remembers a group's record; durable on return. A `commit` beyond the group's log moves the start of the log
    /// there and voids what is prepared: the member was filled from others. A lower one changes nothing.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// A dropped call may or may not take effect.
    pub async fn set_group(&self, group: GroupId, record: GroupRecord) -> Result<(), StoreError> {
        self.core.check_usable()?;
        {
            let mut state = self.core.state.borrow_mut();
            let entry = state.groups.entry(group).or_default();
            entry.newest = entry.newest.max(record.commit);
        }
        self.core.submit(Op::Group { group, record }).await.map(drop)
    }

    /// Gives the device a new life as a member; durable on return.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    pub async fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.core.check_usable()?;
        self.core.change_superblock(|superblock| superblock.incarnation = incarnation).await
    }

    /// The controllers confirmed the mount of now: the device forgets those before it. Durable on return; when nothing
    /// was to be forgotten, nothing is written.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// A dropped call may or may not take effect.
    pub async fn settle_mount(&self) -> Result<(), StoreError> {
        self.core.check_usable()?;
        if self.core.state.borrow().superblock.trail.is_settled() {
            return Ok(());
        }
        self.core.change_superblock(|superblock| superblock.trail.settle()).await
    }

    /// Forgets a group and all its blocks; durable on return. The member starts empty.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    pub async fn drop_group(&self, group: GroupId) -> Result<(), StoreError> {
        self.core.check_usable()?;
        self.core.submit(Op::Drop { group }).await?;
        self.core.ask_checkpoint_if_none();
        Ok(())
    }

    /// Keeps room for an entry with units of these stored sizes, in bytes, padding not needed.
    ///
    /// # Errors
    /// [`StoreError::Full`]; nothing is written.
    pub fn reserve(&self, stored_bytes: impl IntoIterator<Item = u32>) -> Result<Reservation, StoreError> {
        self.core.check_usable()?;
        let pages = |bytes: u32| {
            (bytes as usize).div_ceil(novafs_format::PAGE).clamp(1, novafs_format::UNIT_PAGES_MAX)
        };
        let counts = count(stored_bytes.into_iter().map(|bytes| CellClass::for_pages(pages(bytes))));
        let full = StoreError::Full { needed_bytes: bytes_of(&counts) };
        let reserved = {
            let state = self.core.state.borrow();
            if has_metadata_room(&state) { state.slots.reserve(counts) } else { None }
        };
        reserved.ok_or_else(|| {
            self.reclaim();
            full
        })
    }

    /// Writes one entry of a group's log: its bodies to cells, its record to the log; small bodies ride in the log and
    /// are moved to their cells later. Durable on return, prepared, not visible. With [`Durability::Cached`] it returns when the device has it, before the flush that follows.
    ///
    /// `body` holds the stored bytes of all units in order, each padded to 4 KiB; their checksums are the caller's
    /// to check. A body that goes to its cells is not copied.
    ///
    /// # Errors
    /// [`StoreError::NotNext`] when the entry does not follow the group's newest, [`StoreError::BadEntry`],
    /// [`StoreError::Full`] and [`StoreError::TooMuchPrepared`]: nothing was written.
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// A dropped call takes effect once it was queued, that is when it was polled and did not wait for its turn.
    pub async fn append(
        &self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        body: Option<SharedBuf>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        check_body(entry, body.as_ref())?;
        let _permit = self.appends.acquire(1).await.map_err(|_| StoreError::Busy)?;
        let place = self.placing.acquire(1).await.map_err(|_| StoreError::Busy)?;
        self.core.check_usable()?;
        {
            let state = self.core.state.borrow();
            let expected = state.groups.get(&group).map_or(Seq(0), |group| group.newest).next();
            if at.seq != expected {
                return Err(StoreError::NotNext { group, at, expected });
            }
            let prepared_max =
                usize::try_from(state.superblock.geometry.wal_bytes / 16).unwrap_or(usize::MAX);
            if state.prepared_bytes > prepared_max {
                return Err(StoreError::TooMuchPrepared);
            }
        }
        let cells = self.take_cells(entry, Purpose::Client).await?;
        self.core.state.borrow_mut().groups.entry(group).or_default().newest = at.seq;
        drop(place);
        let bodies = match &body {
            Some(body) if self.core.board(entry) => copy_bodies(entry, body),
            _ => Vec::new(),
        };
        let writes = match &body {
            Some(body) if bodies.is_empty() => self.core.write_cells(entry, &cells, body, IoClass::Client),
            _ => Rc::default(),
        };
        self.core.count(|counters| {
            counters.appends += 1;
            counters.body_bytes += entry.body_bytes() as u64;
            counters.inline_bytes += bodies.iter().map(|body| body.len() as u64).sum::<u64>();
        });
        let prepared = Prepared { at, entry: Rc::new(entry.clone()), cells: cells.into() };
        self.core.submit(Op::Append { group, prepared, writes, bodies, durability }).await.map(drop)
    }

    /// Everything of the group up to `seq` is committed: durable entries become visible at once, entries on their way
    /// as soon as they are durable. The log learns it with its next batch. Entries that come later are not meant.
    pub fn commit(&self, group: GroupId, seq: Seq) {
        let mut state = self.core.state.borrow_mut();
        state.commit(group, seq);
        let due = self.core.checkpoint_is_due(&state);
        drop(state);
        self.core.forget_superseded();
        self.core.reclaim_later();
        if due {
            self.core.ask_checkpoint_if_none();
        }
    }

    /// Voids the prepared entries above `seq`, a tail that a new primary lacks; durable on return. The next entry is
    /// the one behind `seq`, or behind what is committed.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    pub async fn discard_above(&self, group: GroupId, seq: Seq) -> Result<(), StoreError> {
        self.core.check_usable()?;
        let above = {
            let mut state = self.core.state.borrow_mut();
            let Some(entry) = state.groups.get_mut(&group) else { return Ok(()) };
            let above = seq.max(entry.commit_wanted).max(entry.commit.seq).min(entry.newest);
            entry.newest = above;
            above
        };
        self.core.submit(Op::Discard { group, above }).await.map(drop)
    }

    /// The committed version of a unit; `None` when it was never written or is gone.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] and [`ReadError::Unreadable`]: another member has it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(
        &self,
        group: GroupId,
        block: BlockId,
        unit: UnitIndex,
        class: IoClass,
    ) -> Result<Option<Found>, ReadError> {
        self.core.check_usable()?;
        let pin = self.core.pin();
        let found = self.core.read_unit(group, block, unit, class).await;
        drop(pin);
        self.core.release_freed();
        found
    }

    /// The committed versions of neighbouring units, as many as 1 MiB holds; adjacent cells go out as one read.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] and [`ReadError::Unreadable`] name the first bad unit; read the others one by one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read_run(
        &self,
        group: GroupId,
        block: BlockId,
        units: Range<u16>,
        class: IoClass,
    ) -> Result<Run, ReadError> {
        self.core.check_usable()?;
        let pin = self.core.pin();
        let run = self.core.read_units(group, block, units, class).await;
        drop(pin);
        self.core.release_freed();
        run
    }

    /// The bodies of a prepared entry, concatenated and padded, for a new primary that proposes its tail again. `None`
    /// when nothing is prepared there.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_prepared(
        &self,
        group: GroupId,
        at: CommitPoint,
        class: IoClass,
    ) -> Result<Option<DmaBuf>, ReadError> {
        self.core.check_usable()?;
        let pin = self.core.pin();
        let prepared = {
            let state = self.core.state.borrow();
            let of = state.groups.get(&group);
            of.and_then(|group| group.prepared.iter().find(|prepared| prepared.at == at).cloned())
        };
        let Some(prepared) = prepared else { return Ok(None) };
        let body = self.core.read_entry_body(&prepared.entry, at, &prepared.cells, class).await;
        drop(pin);
        self.core.release_freed();
        body.map(Some)
    }

    /// Puts the committed version of a unit into a new cell, for the bytes in its cell are bad. Only while it is the
    /// committed version: when it was replaced or cut off meanwhile, the answer is `false`. When no cell is left at
    /// all, it is written again where it is: what is there is bad already.
    ///
    /// # Errors
    /// As [`Store::append`]; repair may use the space that clients cannot.
    pub async fn repair(
        &self,
        group: GroupId,
        record: SealedUnit,
        commit: CommitPoint,
        body: SharedBuf,
    ) -> Result<bool, StoreError> {
        let entry = LogEntry::Units(vec![record]);
        match self.place(group, commit, &entry, Some(body.clone()), Fact::Repair).await {
            Err(StoreError::Full { .. }) => {}
            done => return done,
        }
        // A task of its own: were this future dropped, the cell could be given to another unit while the device
        // still writes.
        let (sender, written) = oneshot::channel();
        let core = Rc::clone(&self.core);
        self.core.shard.spawn(TaskClass::Repair, async move {
            let _ = sender.send(core.write_again(group, &record, commit, body).await);
        });
        written.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes in a committed entry out of order, for back-fill: units where nothing newer is here, trims, fences and
    /// deletes as they are. Durable and visible on return; answers whether anything changed.
    ///
    /// A unit that was cut off leaves nothing behind that would be newer: the caller brings only what is no older than
    /// the trims this device has committed.
    ///
    /// # Errors
    /// As [`Store::append`]; it may use the space that clients cannot.
    pub async fn install(
        &self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        body: Option<SharedBuf>,
    ) -> Result<bool, StoreError> {
        self.place(group, at, entry, body, Fact::Backfill).await
    }

    pub(crate) async fn place(
        &self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        body: Option<SharedBuf>,
        fact: Fact,
    ) -> Result<bool, StoreError> {
        check_body(entry, body.as_ref())?;
        let _permit = self.appends.acquire(1).await.map_err(|_| StoreError::Busy)?;
        self.core.check_usable()?;
        let cells = self.take_cells(entry, fact.purpose()).await?;
        let writes = self.write_cells(entry, &cells, body.as_ref(), fact.class());
        let placed = Prepared { at, entry: Rc::new(entry.clone()), cells: cells.into() };
        let changed = self.core.submit(Op::Install { group, placed, writes, fact, seen: None }).await?;
        let installed = if fact == Fact::Compaction || !changed { 0 } else { entry.units().len() as u64 };
        self.core.count(|counters| counters.units_installed += installed);
        Ok(changed)
    }

    /// Entries of a group's log behind `seq`, prepared ones included, at most `limit`. `None`: the log in memory does
    /// not reach back that far; [`Store::scan`] instead.
    #[must_use]
    pub fn entries_after(
        &self,
        group: GroupId,
        seq: Seq,
        limit: usize,
    ) -> Option<Vec<(CommitPoint, LogEntry)>> {
        let state = self.core.state.borrow();
        let group = state.groups.get(&group)?;
        let oldest = group.recent.front().map_or(group.commit.seq.next(), |(at, _)| at.seq);
        if seq.next() < oldest {
            return None;
        }
        let recent = group.recent.iter().map(|(at, entry)| (*at, entry));
        let prepared = group.prepared.iter().map(|prepared| (prepared.at, &prepared.entry));
        let behind = recent.chain(prepared).filter(|(at, _)| at.seq > seq).take(limit);
        Some(behind.map(|(at, entry)| (at, (**entry).clone())).collect())
    }

    /// Puts units whose bodies still ride in the log where their records say that they are, for whoever is going to look
    /// there. Not durable there on return: until the next checkpoint the log vouches for them.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// Safe: what was begun goes on.
    pub async fn settle(&self, records: &[UnitRecord]) -> Result<(), StoreError> {
        self.core.check_usable()?;
        self.core.settle(records).await
    }

    /// Committed units of a group in key order, behind `after`: at least `limit` if there are that many, and at most a
    /// tree page more.
    ///
    /// # Errors
    /// [`StoreError::Metadata`], [`StoreError::Read`].
    pub async fn scan(
        &self,
        group: GroupId,
        after: Option<(BlockId, UnitIndex)>,
        limit: usize,
    ) -> Result<Vec<UnitRecord>, StoreError> {
        self.core.check_usable()?;
        let from = match after {
            None => Key::unit(group, BlockId(0), UnitIndex(0)),
            Some((block, UnitIndex(unit))) if unit < u16::MAX => Key::unit(group, block, UnitIndex(unit + 1)),
            Some((BlockId(block), _)) => match block.checked_add(1) {
                Some(block) => Key::unit(group, BlockId(block), UnitIndex(0)),
                None => return Ok(Vec::new()),
            },
        };
        let to = Key::unit(group, BlockId(u64::MAX), UnitIndex(u16::MAX));
        self.units_between(from, to, limit.max(1), IoClass::Background).await
    }

    /// Committed units between two keys of one group, both included: at least `limit` if there are that many.
    pub(crate) async fn units_between(
        &self,
        from: Key,
        to: Key,
        limit: usize,
        class: IoClass,
    ) -> Result<Vec<UnitRecord>, StoreError> {
        self.core.check_usable()?;
        let pin = self.core.pin();
        let records = self.core.records_between(from, to, limit, class).await;
        drop(pin);
        self.core.release_freed();
        records
    }

    /// Lowest generation that may still write the block, if it was ever fenced; the highest there is when the block
    /// was deleted.
    #[must_use]
    pub fn fence_of(&self, group: GroupId, block: BlockId) -> Option<Generation> {
        self.block_of(group, block).map(|record| record.fence).filter(|fence| *fence > Generation(0))
    }

    /// What is known of a block besides its units: fence, deletion, latest cut.
    #[must_use]
    pub fn block_of(&self, group: GroupId, block: BlockId) -> Option<BlockRecord> {
        self.core.state.borrow().groups.get(&group)?.blocks.get(&block).copied()
    }

    /// Fences, deletions and cuts of a group's blocks, in order of blocks.
    #[must_use]
    pub fn fences(&self, group: GroupId) -> Vec<(BlockId, BlockRecord)> {
        let state = self.core.state.borrow();
        let blocks = state.groups.get(&group).map(|group| group.blocks.iter());
        blocks.into_iter().flatten().map(|(block, record)| (*block, *record)).collect()
    }

    /// Brings the tree up to what is committed now and releases the log behind it.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`] or what kept the checkpoint from completing.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.core.check_usable()?;
        self.core.checkpoint_now().await
    }

    /// How full the device is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.core.state.borrow();
        let page = novafs_format::PAGE as u64;
        Usage {
            bytes_total: state.slots.bytes_total(),
            bytes_free: if has_metadata_room(&state) { state.slots.bytes_free() } else { 0 },
            meta_pages_total: state.pages.total() as u64,
            meta_pages_used: state.pages.used() as u64,
            wal_bytes_total: state.ring.pages() * page,
            wal_bytes_used: state.ring.used() * page,
        }
    }

    /// What happened since the store was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters.get()
    }

    /// Whether a write or a flush failed: nothing but replacing the device helps.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.core.has_failed()
    }

    /// Makes everything durable and stops. Calls after it answer [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.core.check_usable()?;
        let done = self.core.checkpoint_now().await;
        self.stop();
        self.core.discards.finished().await;
        done
    }

    fn stop(&self) {
        self.core.closed.set(true);
        self.core.queue.work.notify_all();
        self.core.checkpoints.wake.notify_all();
    }

    /// Cells for the units of an entry. When there are none, but a checkpoint may free some, waits for one.
    pub(crate) async fn take_cells(
        &self,
        entry: &LogEntry,
        purpose: Purpose,
    ) -> Result<Vec<Cell>, StoreError> {
        let classes: Vec<_> =
            entry.units().iter().map(|unit| CellClass::for_pages(unit.stored_pages())).collect();
        if classes.is_empty() {
            return Ok(Vec::new());
        }
        let take = || {
            let mut state = self.core.state.borrow_mut();
            if purpose == Purpose::Client && !has_metadata_room(&state) {
                return None;
            }
            state.slots.take(&classes, purpose)
        };
        if let Some(cells) = take() {
            return Ok(cells);
        }
        // Compaction makes a checkpoint of its own when it is done.
        let may_wait = purpose != Purpose::Compaction;
        if may_wait && (self.core.state.borrow().may_free_space() || self.core.pins.hold_space()) {
            self.core.checkpoint_now().await?;
            for _ in 0..SPACE_TRIES_MAX {
                if let Some(cells) = take() {
                    return Ok(cells);
                }
                if !self.core.pins.hold_space() {
                    break;
                }
                let clock = self.core.shard.clock();
                clock.sleep_until(clock.now() + SPACE_TRY_INTERVAL).await;
                self.core.release_freed();
            }
        }
        Err(StoreError::Full { needed_bytes: classes.iter().map(|class| class.bytes()).sum() })
    }

    fn write_cells(
        &self,
        entry: &LogEntry,
        cells: &[Cell],
        body: Option<&SharedBuf>,
        class: IoClass,
    ) -> Rc<CellWrites> {
        match body {
            Some(body) => self.core.write_cells(entry, cells, body, class),
            None => Rc::default(),
        }
    }

    /// Space may come back with the next checkpoint.
    fn reclaim(&self) {
        if self.core.state.borrow().may_free_space() {
            self.core.ask_checkpoint_if_none();
        }
    }
}

impl<S: Shard> Drop for Store<S> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn group_state(group: GroupId, state: &crate::state::Group) -> GroupState {
    let record = state.stored().record;
    GroupState {
        group,
        epoch: record.epoch,
        record,
        commit_seq: record.commit,
        last: state.last(),
        prepared: state.prepared.iter().map(|prepared| (prepared.at, (*prepared.entry).clone())).collect(),
    }
}

pub(crate) fn check_body(entry: &LogEntry, body: Option<&SharedBuf>) -> Result<(), StoreError> {
    entry.check().map_err(|_| StoreError::BadEntry { reason: "a field of it has a value it cannot have" })?;
    if body.map_or(0, |body| body.len()) == entry.body_bytes() {
        Ok(())
    } else {
        Err(StoreError::BadEntry { reason: "the body is not as long as its units" })
    }
}

/// Half of the metadata area stays free, so that a checkpoint can always write a whole new tree beside the old one.
fn has_metadata_room(state: &State) -> bool {
    /// Fewest entries a new leaf has, when the worst comes to the worst.
    const LEAF_ENTRIES_MIN: usize = 8;
    let pending = state.active.len() + state.frozen.as_ref().map_or(0, |frozen| frozen.len());
    state.tree_pages + pending / LEAF_ENTRIES_MIN + 4 <= state.pages.total() / 2
}

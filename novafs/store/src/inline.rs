//! Small bodies ride in the log and are moved to their cells later (Spec C.2 step 5: moved, never combined).
//!
//! Such a body costs no write of its own when it comes, and none at all when its unit is replaced or cut off before it
//! is moved. Its cell is taken when it comes, so there is always room for it. Until it is moved, memory answers for it:
//! a checkpoint moves all that came before it, ahead of the superblock that gives the log behind them free.

use crate::core::Core;
use crate::error::StoreError;
use crate::options::OpenOptions;
use nova_buf::{DmaBuf, SharedBuf};
use nova_device::sync::oneshot;
use nova_device::{Disk as _, Position, Shard};
use nova_units::{IoClass, TaskClass};
use novafs_format::{Cell as UnitCell, LogEntry, PAGE, SealedUnit, UnitRecord};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of bodies that the log holds at most, and half of its ring: what opening a device may have to move.
const INLINE_LOG_BYTES_MAX: usize = 64 << 20;
/// Neighbouring cells are written together up to this size.
const MOVE_BYTES_MAX: usize = 64 << 10;
/// Times a body is read from the log before it counts as damaged: a read that went astray is not rot.
const READ_TRIES: usize = 2;

/// A unit's body that is in the log and, as far as is known, not in its cell.
#[derive(Debug)]
pub(crate) struct InlineBody {
    sealed: SealedUnit,
    cell: UnitCell,
    bytes: Source,
    /// It is in its cell by now, or cannot be.
    moved: Cell<bool>,
    /// Its unit was replaced, cut off or discarded.
    superseded: Cell<bool>,
}

#[derive(Debug)]
enum Source {
    Memory(Rc<[u8]>),
    /// Replay found it at this position.
    Log(u64),
}

impl InlineBody {
    /// The body.
    ///
    /// # Panics
    /// When it is one that replay found: those are moved before anything is served.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Source::Memory(bytes) => bytes,
            Source::Log(position) => {
                panic!("the body at {position:#x} was not moved when the device was opened")
            }
        }
    }

    /// Whether `next` follows both where it is and where it goes.
    fn is_followed_by(&self, next: &Self) -> bool {
        let padded = self.sealed.padded_bytes() as u64;
        let adjacent = self.cell.position + padded == next.cell.position;
        match (&self.bytes, &next.bytes) {
            (Source::Memory(_), Source::Memory(_)) => adjacent,
            (Source::Log(at), Source::Log(next)) => adjacent && at + padded == *next,
            _ => false,
        }
    }
}

/// All bodies that ride, by the position of their cell, and what they take.
#[derive(Debug, Default)]
pub(crate) struct Inlined {
    bodies: BTreeMap<u64, Rc<InlineBody>>,
    /// In memory, those that wait for the log included.
    held_bytes: usize,
    /// Waiting for the log.
    waiting_bytes: usize,
    /// In the log since the last freeze.
    log_bytes: usize,
    /// In the log before it: free when the checkpoint under way is complete.
    old_log_bytes: usize,
    /// How many of the retired cells were looked through for bodies.
    retired_seen: usize,
}

impl Inlined {
    /// Whether an entry's bodies ride; if so, they are counted as waiting for the log.
    pub(crate) fn board(
        &mut self,
        entry: &LogEntry,
        options: &OpenOptions,
        batch_bytes: usize,
        wal_bytes: u64,
    ) -> bool {
        let units = entry.units();
        let bytes = entry.body_bytes();
        let record_bytes = 24 + entry.encoded_bytes() + 8 * units.len();
        let small = units.iter().all(|unit| unit.padded_bytes() <= options.inline_unit_bytes_max);
        // Commit points may fill the other half; what does not get into the next batch would wait for two flushes.
        let fits = record_bytes + bytes + PAGE <= batch_bytes / 2
            && self.waiting_bytes + bytes <= batch_bytes / 4 * 3;
        let log_max = usize::try_from(wal_bytes / 2).unwrap_or(usize::MAX).min(INLINE_LOG_BYTES_MAX);
        let has_room = self.log_bytes + self.old_log_bytes + self.waiting_bytes + bytes <= log_max
            && self.held_bytes + bytes <= options.inline_held_bytes_max;
        let rides = !units.is_empty() && small && fits && has_room;
        if rides {
            self.waiting_bytes += bytes;
            self.held_bytes += bytes;
        }
        rides
    }

    /// Bodies have been given their place in the log.
    pub(crate) fn depart(&mut self, bytes: usize) {
        self.waiting_bytes -= bytes;
        self.log_bytes += bytes;
    }

    /// A durable body, in memory.
    pub(crate) fn insert(&mut self, sealed: SealedUnit, cell: UnitCell, bytes: Rc<[u8]>) {
        self.put(sealed, cell, Source::Memory(bytes));
    }

    /// A durable body that replay found in the log.
    pub(crate) fn insert_found(&mut self, sealed: SealedUnit, cell: UnitCell, position: u64) {
        self.log_bytes += sealed.padded_bytes();
        self.put(sealed, cell, Source::Log(position));
    }

    fn put(&mut self, sealed: SealedUnit, cell: UnitCell, bytes: Source) {
        let (moved, superseded) = (Cell::new(false), Cell::new(false));
        let body = InlineBody { sealed, cell, bytes, moved, superseded };
        let before = self.bodies.insert(cell.position, Rc::new(body));
        assert!(before.is_none(), "a cell has one body: {cell:?}");
    }

    /// The body whose cell this is, while it rides.
    pub(crate) fn get(&self, cell: UnitCell) -> Option<&Rc<InlineBody>> {
        self.bodies.get(&cell.position)
    }

    /// The bodies whose cells are among those retired since it was last asked. Readers may still look at them.
    pub(crate) fn take_superseded(&mut self, retired: &[UnitCell]) -> Vec<Rc<InlineBody>> {
        let new = &retired[self.retired_seen..];
        self.retired_seen = retired.len();
        if self.bodies.is_empty() {
            return Vec::new();
        }
        let found: Vec<_> = new.iter().filter_map(|cell| self.get(*cell).cloned()).collect();
        found.iter().for_each(|body| body.superseded.set(true));
        found
    }

    /// Those that something refers to.
    fn live(&self) -> Vec<Rc<InlineBody>> {
        let live = |body: &&Rc<InlineBody>| !body.moved.get() && !body.superseded.get();
        self.bodies.values().filter(live).cloned().collect()
    }

    /// What a checkpoint that begins now has to move.
    pub(crate) fn freeze(&mut self) -> Vec<Rc<InlineBody>> {
        assert_eq!(self.old_log_bytes, 0, "one checkpoint at a time");
        self.old_log_bytes = core::mem::take(&mut self.log_bytes);
        self.retired_seen = 0;
        self.live()
    }

    /// The log before the last freeze is free.
    pub(crate) fn release_log(&mut self) {
        self.old_log_bytes = 0;
    }

    pub(crate) fn forget(&mut self, body: &Rc<InlineBody>) {
        let position = body.cell.position;
        if self.bodies.get(&position).is_some_and(|known| Rc::ptr_eq(known, body)) {
            self.bodies.remove(&position);
            if let Source::Memory(bytes) = &body.bytes {
                self.held_bytes -= bytes.len();
            }
        }
    }

    /// Whether the log holds so many bodies that it is time for a checkpoint.
    pub(crate) const fn fills_log(&self) -> bool {
        self.log_bytes >= INLINE_LOG_BYTES_MAX / 2
    }
}

/// A copy of the body of each unit of an entry: buffers of the pool are for what is on its way.
pub(crate) fn copy_bodies(entry: &LogEntry, body: &SharedBuf) -> Vec<Rc<[u8]>> {
    let mut rest = &body[..];
    let mut copies = Vec::with_capacity(entry.units().len());
    for sealed in entry.units() {
        let (first, tail) = rest.split_at(sealed.padded_bytes());
        copies.push(Rc::from(first));
        rest = tail;
    }
    copies
}

impl<S: Shard> Core<S> {
    /// Lets go of the bodies whose units are gone, as soon as no reader looks at them.
    pub(crate) fn forget_superseded(&self) {
        let bodies = {
            let state = &mut *self.state.borrow_mut();
            state.inlined.take_superseded(&state.retired)
        };
        if !bodies.is_empty() {
            self.pins.retire(crate::pins::Freed { bodies, ..Default::default() });
            self.release_freed();
        }
    }

    /// Moves bodies while memory holds many of them.
    pub(crate) fn sweep_if_due(self: &Rc<Self>) {
        let held = self.state.borrow().inlined.held_bytes;
        if held < self.options.inline_held_bytes_max / 2 || self.sweeping.replace(true) {
            return;
        }
        let core = Rc::clone(self);
        self.shard.spawn(TaskClass::Background, async move {
            // While it is pinned, none of their cells is given to another unit.
            let pin = core.pin();
            let bodies = core.state.borrow().inlined.live();
            // A failure marks the device.
            let _ = core.move_to_cells(bodies).await;
            drop(pin);
            core.release_freed();
            core.sweeping.set(false);
        });
    }

    /// Moves what of these units still rides: after it, they lie where their records say.
    pub(crate) async fn settle(self: &Rc<Self>, records: &[UnitRecord]) -> Result<(), StoreError> {
        let bodies: Vec<_> = {
            let state = self.state.borrow();
            records.iter().filter_map(|record| state.inlined.get(record.cell).cloned()).collect()
        };
        if bodies.is_empty() {
            return Ok(());
        }
        // A task of its own: were this future dropped, a cell could be given to another unit while the device still
        // writes.
        let (pin, core) = (self.pin(), Rc::clone(self));
        let (sender, moved) = oneshot::channel();
        self.shard.spawn(TaskClass::Background, async move {
            let outcome = core.move_to_cells(bodies).await;
            drop(pin);
            core.release_freed();
            let _ = sender.send(outcome);
        });
        moved.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes bodies to their cells; not flushed. Whoever calls it has pinned the cells, or knows that they are in use
    /// until it is done, and does not drop it half way. Two may move the same body: they write the same bytes.
    pub(crate) async fn move_to_cells(&self, mut bodies: Vec<Rc<InlineBody>>) -> Result<(), StoreError> {
        bodies.sort_unstable_by_key(|body| body.cell.position);
        let mut rest = &bodies[..];
        while let Some(first) = rest.first() {
            if first.moved.get() {
                rest = &rest[1..];
                continue;
            }
            let mut bytes = 0;
            let behind = rest.windows(2).take_while(|pair| {
                bytes += pair[0].sealed.padded_bytes();
                pair[0].is_followed_by(&pair[1])
                    && !pair[1].moved.get()
                    && bytes + pair[1].sealed.padded_bytes() <= MOVE_BYTES_MAX
            });
            let (run, tail) = rest.split_at(1 + behind.count());
            rest = tail;
            if let Some(buffer) = self.gather(run).await {
                self.move_run(run, buffer).await?;
                continue;
            }
            for body in run {
                // One that is not whole does not keep the others. Its cell has what it had before: that fails the sums
                // of whoever reads it, and is repaired like any bad cell.
                match self.gather(core::slice::from_ref(body)).await {
                    Some(buffer) => self.move_run(core::slice::from_ref(body), buffer).await?,
                    None => {
                        self.count(|counters| counters.units_corrupt += 1);
                        body.moved.set(true);
                        self.state.borrow_mut().inlined.forget(body);
                    }
                }
            }
        }
        Ok(())
    }

    /// The bodies of a run, one behind the other, if all of them are whole.
    async fn gather(&self, run: &[Rc<InlineBody>]) -> Option<DmaBuf> {
        let bytes = run.iter().map(|body| body.sealed.padded_bytes()).sum();
        let mut buffer = self.shard.pool().take(bytes).await;
        for _ in 0..READ_TRIES {
            let mut filled = 0;
            let mut read = Ok(());
            if let Source::Log(position) = run[0].bytes {
                (read, buffer) = self.disk().read(IoClass::Background, Position(position), buffer).await;
            } else {
                for body in run {
                    let bytes = body.bytes();
                    buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
                    filled += bytes.len();
                }
            }
            let mut rest = &buffer[..];
            let whole = run.iter().all(|body| {
                let (first, tail) = rest.split_at(body.sealed.padded_bytes());
                rest = tail;
                body.sealed.check_pages(first).is_ok()
            });
            if read.is_ok() && whole {
                return Some(buffer);
            }
        }
        None
    }

    async fn move_run(&self, run: &[Rc<InlineBody>], buffer: DmaBuf) -> Result<(), StoreError> {
        let bytes = buffer.len() as u64;
        self.write(IoClass::Background, run[0].cell.position, buffer.freeze()).await?;
        let mut state = self.state.borrow_mut();
        for body in run {
            body.moved.set(true);
            state.inlined.forget(body);
        }
        drop(state);
        self.count(|counters| counters.moved_bytes += bytes);
        Ok(())
    }
}

//! Group commit: one batch of the log is on its way, the next one gathers meanwhile.
//!
//! The cells of an append are written as soon as it is asked for, unless its bodies ride in the log. A batch takes the entries that wait, writes its
//! log pages beside their cells, waits for all of them, flushes once, and then answers. Its log pages are written
//! only after the flush of the batch before: after a power cut only the last batch in the log can therefore name
//! cells that were not written.

use crate::core::Core;
use crate::error::StoreError;
use crate::inline::InlineBody;
use crate::slots::Purpose;
use crate::state::{Parted, Prepared};
use nova_buf::SharedBuf;
use nova_device::sync::{Notify, oneshot};
use nova_device::{Durability, Shard};
use nova_units::{GroupId, IoClass, Seq, TaskClass};
use novafs_format::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BatchPlace, BatchWriter, Cell as UnitCell, GroupRecord,
};
use novafs_format::{LogEntry, PAGE, WalRecord};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Operations that one batch takes at most.
const BATCH_OPS_MAX: usize = 1024;

/// The writes of one entry's cells.
#[derive(Debug, Default)]
pub(crate) struct CellWrites {
    left: Cell<usize>,
    done: Notify,
}

impl CellWrites {
    pub(crate) async fn finished(&self) {
        while self.left.get() > 0 {
            self.done.notified().await;
        }
    }
}

/// Why a committed unit comes out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Another member had it and this one did not.
    Backfill,
    /// Its bytes were bad here.
    Repair,
    /// The slot of its cell is being emptied.
    Compaction,
}

impl Fact {
    pub(crate) const fn purpose(self) -> Purpose {
        match self {
            Self::Backfill | Self::Repair => Purpose::Repair,
            Self::Compaction => Purpose::Compaction,
        }
    }

    pub(crate) const fn class(self) -> IoClass {
        match self {
            Self::Backfill | Self::Repair => IoClass::Repair,
            Self::Compaction => IoClass::Background,
        }
    }
}

/// What waits for the log.
#[derive(Debug)]
pub(crate) enum Op {
    Append {
        group: GroupId,
        prepared: Prepared,
        writes: Rc<CellWrites>,
        /// What rides in the log, a body for each unit; else empty.
        bodies: Vec<Rc<[u8]>>,
        durability: Durability,
    },
    Discard {
        group: GroupId,
        above: Seq,
    },
    Group {
        group: GroupId,
        record: GroupRecord,
    },
    Drop {
        group: GroupId,
    },
    Install {
        group: GroupId,
        placed: Prepared,
        writes: Rc<CellWrites>,
        fact: Fact,
        /// Void when one of the units' blocks was cut by an entry behind this one.
        seen: Option<Seq>,
    },
    /// Carried over from the log before a checkpoint.
    Carry(WalRecord),
}

impl Op {
    fn record(&self) -> WalRecord {
        match self {
            Self::Append { group, prepared, bodies, .. } if !bodies.is_empty() => {
                prepared.inline_record(*group)
            }
            Self::Append { group, prepared, .. } => prepared.record(*group),
            Self::Discard { group, above } => WalRecord::Discard { group: *group, above: *above },
            Self::Group { group, record } => WalRecord::Group { group: *group, record: *record },
            Self::Drop { group } => WalRecord::Drop { group: *group },
            Self::Install { group, placed, fact, .. } => {
                let (group, at) = (*group, placed.at);
                let (entry, cells) = ((*placed.entry).clone(), placed.cells.to_vec());
                match fact {
                    Fact::Backfill => WalRecord::Install { group, at, entry, cells },
                    Fact::Repair | Fact::Compaction => WalRecord::Repair { group, at, entry, cells },
                }
            }
            Self::Carry(record) => record.clone(),
        }
    }

    /// Log space that this entry takes again with every checkpoint until it is committed.
    fn carried_bytes(&self, record_bytes: usize) -> usize {
        match self {
            Self::Append { .. } => record_bytes,
            _ => 0,
        }
    }

    fn writes(&self) -> Option<&Rc<CellWrites>> {
        match self {
            Self::Append { writes, .. } | Self::Install { writes, .. } => Some(writes),
            _ => None,
        }
    }
}

/// An operation and who waits for it. The answer says whether an install changed anything.
#[derive(Debug)]
pub(crate) struct Queued {
    op: Op,
    answer: Option<oneshot::Sender<Result<bool, StoreError>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: RefCell<VecDeque<Queued>>,
    /// Carried records go first: they may use the space that is kept for them.
    carried: RefCell<VecDeque<WalRecord>>,
    pub(crate) freeze: RefCell<Option<oneshot::Sender<Frozen>>>,
    carry_done: RefCell<Option<oneshot::Sender<()>>>,
    head: Cell<Option<(u64, u64)>>,
    /// A batch is on its way.
    busy: Cell<bool>,
    pub(crate) work: Notify,
    pub(crate) idle: Notify,
}

/// What a checkpoint takes from the log's side: the changes to write, the cells to free, the bodies to move, and when
/// the log behind the freeze holds all that is carried over.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) overlay: Rc<crate::overlay::Overlay>,
    pub(crate) retired: Vec<UnitCell>,
    pub(crate) bodies: Vec<Rc<InlineBody>>,
    pub(crate) carried: oneshot::Receiver<()>,
}

impl Queue {
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy.get() && self.waiting.borrow().is_empty() && self.carried.borrow().is_empty()
    }

    /// First batch since the last freeze: position and number.
    pub(crate) fn head(&self) -> Option<(u64, u64)> {
        self.head.get()
    }
}

impl<S: Shard> Core<S> {
    /// Queues an operation; the receiver resolves when it is durable.
    pub(crate) fn enqueue(&self, op: Op) -> oneshot::Receiver<Result<bool, StoreError>> {
        let (answer, receiver) = oneshot::channel();
        self.queue.waiting.borrow_mut().push_back(Queued { op, answer: Some(answer) });
        self.queue.work.notify_one();
        receiver
    }

    /// Queues and waits.
    pub(crate) async fn submit(&self, op: Op) -> Result<bool, StoreError> {
        match self.enqueue(op).await {
            Ok(answer) => answer,
            Err(_) if self.has_failed() => Err(StoreError::DeviceFailed),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Starts to write the cells of an entry; adjacent cells go out as one write.
    pub(crate) fn write_cells(
        self: &Rc<Self>,
        entry: &LogEntry,
        cells: &[UnitCell],
        body: &SharedBuf,
        class: IoClass,
    ) -> Rc<CellWrites> {
        let writes = Rc::new(CellWrites::default());
        let mut offset = 0;
        let mut run: Option<(u64, usize, usize)> = None;
        let mut runs = Vec::new();
        for (sealed, cell) in entry.units().iter().zip(cells) {
            let bytes = sealed.padded_bytes();
            run = match run {
                Some((at, start, length)) if at + length as u64 == cell.position => {
                    Some((at, start, length + bytes))
                }
                _ => {
                    runs.extend(run);
                    Some((cell.position, offset, bytes))
                }
            };
            offset += bytes;
        }
        runs.extend(run);
        writes.left.set(runs.len());
        for (at, start, length) in runs {
            let (core, writes, part) =
                (Rc::clone(self), Rc::clone(&writes), body.slice(start..start + length));
            self.shard.spawn(TaskClass::Client, async move {
                // A failure marks the device; the batch sees it there.
                let _ = core.write(class, at, part).await;
                writes.left.set(writes.left.get() - 1);
                writes.done.notify_all();
            });
        }
        writes
    }

    /// The task that owns the log.
    pub(crate) async fn run_log(self: Rc<Self>) {
        loop {
            let notified = self.queue.work.notified();
            if self.has_failed() {
                self.refuse_all();
                return;
            }
            if self.closed.get() && self.queue.is_idle() && self.queue.freeze.borrow().is_none() {
                return;
            }
            self.freeze_if_asked();
            let Some(batch) = self.compose() else {
                self.queue.idle.notify_all();
                notified.await;
                continue;
            };
            self.queue.busy.set(true);
            let outcome = self.commit_batch(batch).await;
            self.queue.busy.set(false);
            if outcome.is_err() {
                self.refuse_all();
                return;
            }
            self.forget_superseded();
            self.sweep_if_due();
            self.reclaim_later();
        }
    }

    fn refuse_all(&self) {
        let waiting = core::mem::take(&mut *self.queue.waiting.borrow_mut());
        for queued in waiting {
            if let Some(answer) = queued.answer {
                let _ = answer.send(Err(StoreError::DeviceFailed));
            }
        }
        self.queue.carried.borrow_mut().clear();
        self.queue.carry_done.take();
        self.queue.freeze.take();
        self.queue.idle.notify_all();
    }

    fn freeze_if_asked(&self) {
        let Some(asked) = self.queue.freeze.take() else { return };
        assert!(self.queue.carried.borrow().is_empty(), "a checkpoint waits for what it carried");
        self.forget_superseded();
        let Parted { overlay, retired, carried: records, bodies } = self.state.borrow_mut().freeze();
        self.queue.head.set(None);
        let (done, carried) = oneshot::channel();
        if records.is_empty() {
            let _ = done.send(());
        } else {
            self.queue.carried.borrow_mut().extend(records);
            self.queue.carry_done.replace(Some(done));
        }
        let _ = asked.send(Frozen { overlay, retired, bodies, carried });
    }

    /// Takes from the queue what one batch can hold. `None`: nothing waits, or there is no room before the next
    /// checkpoint, which is then asked for.
    fn compose(&self) -> Option<Batch> {
        let mut writer = BatchWriter::default();
        let bytes_max = self.batch_bytes_max();
        let mut batch = Batch::default();
        let mut carried = self.queue.carried.borrow_mut();
        while let Some(record) = carried.front() {
            if writer.padded_bytes_with(record) > bytes_max {
                break;
            }
            writer.push(record);
            batch
                .ops
                .extend(carried.pop_front().map(|record| Queued { op: Op::Carry(record), answer: None }));
        }
        batch.ends_carry = !batch.ops.is_empty() && carried.is_empty();
        let carrying = !batch.ops.is_empty();
        drop(carried);
        let mut state = self.state.borrow_mut();
        let mut waiting = self.queue.waiting.borrow_mut();
        let room = |state: &crate::state::State, bytes: usize, kept: usize| {
            let pages = |bytes: usize| bytes.div_ceil(PAGE) as u64;
            // A checkpoint carries what is prepared into the log again; a crash in the middle of it, and the
            // checkpoint of the next open, may do that a second time before anything is released.
            let spare = 4 * pages(bytes_max) + 4 * pages(kept) + 4;
            state.ring.used() + pages(bytes) + spare <= state.ring.pages()
        };
        let mut kept = state.prepared_bytes;
        let mut blocked = false;
        if !carrying && !waiting.is_empty() {
            // Commit points ride along: they need no batch of their own.
            for (id, group) in &state.groups {
                if group.commit.seq > group.commit_logged {
                    let record = WalRecord::Commit { group: *id, seq: group.commit.seq };
                    if writer.padded_bytes_with(&record) > bytes_max / 2 {
                        break;
                    }
                    writer.push(&record);
                    batch.commits.push((*id, group.commit.seq));
                }
            }
            while let Some(queued) = waiting.front() {
                if let Op::Install { group, placed, seen: Some(seen), .. } = &queued.op
                    && state.cut_since(*group, *seen, &placed.entry)
                {
                    // Before it is in the log: replay does not ask again.
                    state.retired.extend_from_slice(&placed.cells);
                    let answer = waiting.pop_front().and_then(|queued| queued.answer);
                    let _ = answer.map(|answer| answer.send(Ok(false)));
                    continue;
                }
                let record = queued.op.record();
                let with = writer.padded_bytes_with(&record);
                let full = with > bytes_max || batch.ops.len() == BATCH_OPS_MAX;
                kept += queued.op.carried_bytes(record.encoded_bytes());
                blocked = !room(&state, with, kept);
                if full || blocked {
                    break;
                }
                writer.push(&record);
                if let Op::Append { bodies, .. } = &queued.op {
                    batch.bodies.extend_from_slice(bodies);
                    state.inlined.depart(record.inline_bytes());
                }
                batch.ops.extend(waiting.pop_front());
            }
        }
        let wants_checkpoint = blocked || self.checkpoint_is_due(&state);
        let made = if batch.ops.is_empty() {
            None
        } else {
            let pages = (writer.padded_bytes() / PAGE) as u64;
            let position = state.ring.push(pages).expect("room was checked, or kept for what is carried");
            batch.place = BatchPlace { salt: self.salt, number: state.next_batch, position };
            state.next_batch += 1;
            if self.queue.head.get().is_none() {
                self.queue.head.set(Some((position, batch.place.number)));
            }
            batch.writer = writer;
            Some(batch)
        };
        drop(state);
        if wants_checkpoint {
            self.ask_checkpoint_if_none();
        }
        made
    }

    /// Whether the bodies of an entry ride in the log; they are counted then.
    pub(crate) fn board(&self, entry: &LogEntry) -> bool {
        let batch_bytes = self.batch_bytes_max();
        let state = &mut *self.state.borrow_mut();
        let wal_bytes = state.superblock.geometry.wal_bytes;
        state.inlined.board(entry, &self.options, batch_bytes, wal_bytes)
    }

    pub(crate) fn batch_bytes_max(&self) -> usize {
        let wal_bytes = self.state.borrow().superblock.geometry.wal_bytes;
        BATCH_BYTES_MAX.min(usize::try_from(wal_bytes / 16).unwrap_or(BATCH_BYTES_MAX)) / PAGE * PAGE
    }

    async fn commit_batch(&self, batch: Batch) -> Result<(), StoreError> {
        let Batch { ops, commits, writer, bodies, place, ends_carry } = batch;
        let bytes = writer.padded_bytes();
        let mut buffer = self.shard.pool().take(bytes).await;
        let records = writer.finish(place);
        let mut filled = 0;
        for part in core::iter::once(&records[..]).chain(bodies.iter().map(|body| &body[..])) {
            buffer[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        assert_eq!(filled, bytes, "records and the bodies that they announce");
        self.write(IoClass::Wal, place.position, buffer.freeze()).await?;
        for queued in &ops {
            if let Some(writes) = queued.op.writes() {
                writes.finished().await;
            }
        }
        self.check_not_failed()?;
        let mut ops = ops;
        for queued in &mut ops {
            if let (Op::Append { durability: Durability::Cached, .. }, answer @ Some(_)) =
                (&queued.op, &mut queued.answer)
            {
                let _ = answer.take().map(|answer| answer.send(Ok(true)));
            }
        }
        self.flush().await?;
        self.check_not_failed()?;
        self.count(|counters| {
            counters.batches += 1;
            counters.log_bytes += bytes as u64;
        });
        for (group, seq) in commits {
            if let Some(group) = self.state.borrow_mut().groups.get_mut(&group) {
                group.commit_logged = group.commit_logged.max(seq);
            }
        }
        for Queued { op, answer } in ops {
            let changed = self.apply(op).await;
            if let Some(answer) = answer {
                let _ = answer.send(changed);
            }
        }
        if ends_carry && let Some(done) = self.queue.carry_done.take() {
            let _ = done.send(());
        }
        Ok(())
    }

    fn check_not_failed(&self) -> Result<(), StoreError> {
        if self.has_failed() { Err(StoreError::DeviceFailed) } else { Ok(()) }
    }

    async fn apply(&self, op: Op) -> Result<bool, StoreError> {
        match op {
            Op::Append { group, prepared, bodies, .. } => {
                let mut state = self.state.borrow_mut();
                let places = prepared.entry.units().iter().zip(prepared.cells.iter());
                for ((sealed, cell), bytes) in places.zip(bodies) {
                    state.inlined.insert(*sealed, *cell, bytes);
                }
                state.prepare(group, prepared);
            }
            Op::Discard { group, above } => self.state.borrow_mut().discard(group, above),
            Op::Group { group, record } => self.state.borrow_mut().set_group(group, record),
            Op::Drop { group } => self.state.borrow_mut().drop_group(group),
            Op::Install { group, placed, fact, seen, .. } => {
                return self.apply_install(group, placed, fact, seen).await;
            }
            Op::Carry(_) => {}
        }
        Ok(true)
    }

    /// Compares with what the tree has, and applies in the same turn, so that nothing newer can slip from memory into
    /// the tree in between.
    async fn apply_install(
        &self,
        group: GroupId,
        placed: Prepared,
        fact: Fact,
        seen: Option<Seq>,
    ) -> Result<bool, StoreError> {
        let Prepared { at, entry, cells } = placed;
        let _pin = self.pin();
        loop {
            let checkpoint = self.state.borrow().superblock.checkpoint;
            let beneath = self.commits_in_tree(group, &entry).await;
            let mut state = self.state.borrow_mut();
            let beneath = match beneath {
                Ok(_) if state.superblock.checkpoint != checkpoint => continue,
                Ok(beneath) => beneath,
                Err(error) => {
                    state.retired.extend_from_slice(&cells);
                    return Err(error);
                }
            };
            if seen.is_some_and(|seen| state.cut_since(group, seen, &entry)) {
                // Replay comes to the cut after this, as the log has it.
                state.retired.extend_from_slice(&cells);
                return Ok(false);
            }
            return Ok(match fact {
                Fact::Backfill => state.install(group, at, &entry, &cells, &beneath),
                Fact::Repair | Fact::Compaction => state.repair(group, at, &entry, &cells, &beneath),
            });
        }
    }
}

#[derive(Debug, Default)]
struct Batch {
    ops: Vec<Queued>,
    commits: Vec<(GroupId, Seq)>,
    writer: BatchWriter,
    /// What lies behind the records.
    bodies: Vec<Rc<[u8]>>,
    place: BatchPlace,
    ends_carry: bool,
}

const _: () =
    assert!(BATCH_HEADER_BYTES + 24 + 16 + 256 * (160 + 8) <= 64 << 10, "a record fits the smallest batch");

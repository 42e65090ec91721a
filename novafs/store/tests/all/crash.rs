//! Power is cut at every step of short workloads, and recovery must end in a state that the steps allow.

use crate::rig::{GROUP, MIB, Rig, append, at, body, cut, entry, expect_unit};
use nova_device::mem::{DiskImage, KillMode, MemShard};
use nova_device::{Durability, Shard as _};
use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, IoClass, Seq, TaskClass, UnitIndex};
use novafs_format::{Cut, GroupRecord, LogEntry};
use novafs_store::Store;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

type Name = (u64, u16, u64, u32);

#[derive(Clone, Debug)]
enum Step {
    /// Entries of units, all asked for at once; numbers follow each other.
    Append(Vec<Vec<Name>>),
    /// An entry without a body.
    Mark(LogEntry),
    Commit(u64),
    Discard(u64),
    Epoch(u64),
    Checkpoint,
    /// Everything committed is moved to its cell.
    Settle,
}

/// What a step leaves behind: the log, how far it is certainly committed, the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    log: Vec<(LogEntry, Vec<Name>)>,
    commit_asked: u64,
    commit_durable: u64,
    epoch: u64,
}

impl Expected {
    /// Every state that a power cut during `step` may leave, the last one being that after the step.
    fn after(&self, step: &Step) -> Vec<Self> {
        let mut states = vec![self.clone()];
        let mut next = self.clone();
        match step {
            Step::Append(entries) => {
                for names in entries {
                    next.log.push((entry(names).0, names.clone()));
                    states.push(next.clone());
                }
            }
            Step::Mark(entry) => next.log.push((entry.clone(), Vec::new())),
            Step::Commit(seq) => next.commit_asked = *seq,
            Step::Discard(above) => next.log.truncate(usize::try_from(*above).unwrap()),
            Step::Epoch(epoch) => next.epoch = *epoch,
            Step::Settle => {}
            Step::Checkpoint => next.commit_durable = self.commit_asked,
        }
        states.push(next);
        states
    }

    /// Fence and latest cut of each block when the whole log is committed.
    fn fences(&self) -> BTreeMap<BlockId, (Generation, Cut)> {
        let mut fences = BTreeMap::<BlockId, (Generation, Cut)>::new();
        for (entry, _) in &self.log {
            match *entry {
                LogEntry::Units(_) => {}
                LogEntry::Trim { block, cut, .. } => fences.entry(block).or_default().1 = cut,
                LogEntry::Fence { block, generation } => fences.entry(block).or_default().0 = generation,
                LogEntry::Delete { block } => fences.entry(block).or_default().0 = Generation(u32::MAX),
            }
        }
        fences
    }

    /// Units there are when the whole log is committed.
    fn units(&self) -> BTreeMap<(u64, u16), Name> {
        let mut units = BTreeMap::new();
        for (entry, names) in &self.log {
            units.extend(names.iter().map(|name| ((name.0, name.1), *name)));
            match entry {
                LogEntry::Trim { block, from_unit, .. } => {
                    units.retain(|(of, unit), _| *of != block.0 || *unit < from_unit.0);
                }
                LogEntry::Delete { block } => units.retain(|(of, _), _| *of != block.0),
                LogEntry::Units(_) | LogEntry::Fence { .. } => {}
            }
        }
        units
    }
}

async fn perform(store: &Rc<Store<MemShard>>, shard: &MemShard, next_seq: u64, step: &Step) {
    match step {
        Step::Append(entries) => {
            let left = Rc::new(std::cell::Cell::new(entries.len()));
            let done = Rc::new(nova_device::sync::Notify::new());
            for (names, seq) in entries.iter().cloned().zip(next_seq..) {
                let (store, shard, left, done) = (store.clone(), shard.clone(), left.clone(), done.clone());
                let (entry, stored) = entry(&names);
                let body = body(&shard, &stored);
                // Polled here once, so that they are queued in the order of their numbers.
                let mut append = Box::pin(async move {
                    store.append(GROUP, at(seq), &entry, Some(body), Durability::Synced).await
                });
                let polled = futures_poll(&mut append).await;
                let task_shard = shard.clone();
                task_shard.spawn(TaskClass::Client, async move {
                    match polled {
                        Some(result) => result.unwrap(),
                        None => append.await.unwrap(),
                    }
                    left.set(left.get() - 1);
                    done.notify_all();
                });
            }
            while left.get() > 0 {
                done.notified().await;
            }
        }
        Step::Mark(entry) => {
            store.append(GROUP, at(next_seq), entry, None, Durability::Synced).await.unwrap();
        }
        Step::Commit(seq) => store.commit(GROUP, Seq(*seq)),
        Step::Discard(above) => store.discard_above(GROUP, Seq(*above)).await.unwrap(),
        Step::Epoch(epoch) => {
            let record =
                GroupRecord { epoch: Epoch(*epoch), promised: Epoch(*epoch), ..GroupRecord::default() };
            store.set_group(GROUP, record).await.unwrap();
        }
        Step::Checkpoint => store.checkpoint().await.unwrap(),
        Step::Settle => {
            let records = store.scan(GROUP, None, 10_000).await.unwrap();
            store.settle(&records).await.unwrap();
        }
    }
}

/// Polls a future once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// What a device says of the group, in terms of the workload.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    epoch: Epoch,
    commit: Seq,
    last: CommitPoint,
    prepared: Vec<(CommitPoint, LogEntry)>,
}

fn see(store: &Store<MemShard>) -> Seen {
    match store.group(GROUP) {
        Some(state) => {
            Seen { epoch: state.epoch, commit: state.commit_seq, last: state.last, prepared: state.prepared }
        }
        None => Seen { epoch: Epoch(0), commit: Seq(0), last: CommitPoint::default(), prepared: Vec::new() },
    }
}

fn matches(seen: &Seen, allowed: &Expected) -> bool {
    let length = allowed.log.len() as u64;
    let behind = allowed.log.iter().zip(1..).skip(usize::try_from(seen.commit.0).unwrap());
    seen.last.seq.0 == length
        && (allowed.commit_durable..=allowed.commit_asked).contains(&seen.commit.0)
        && seen.epoch.0 == allowed.epoch
        && seen
            .prepared
            .iter()
            .map(|(point, entry)| (*point, entry))
            .eq(behind.map(|((entry, _), seq)| (at(seq), entry)))
}

async fn check_units(store: Rc<Store<MemShard>>, allowed: Expected) {
    store.commit(GROUP, Seq(allowed.log.len() as u64));
    let units = allowed.units();
    for name in units.values() {
        expect_unit(&store, GROUP, *name).await;
    }
    let scanned = store.scan(GROUP, None, 10_000).await.unwrap();
    let scanned: Vec<_> =
        scanned.iter().map(|record| (record.sealed.block.0, record.sealed.unit.0)).collect();
    assert_eq!(scanned, units.into_keys().collect::<Vec<_>>());
    let fences = store.fences(GROUP).into_iter().map(|(block, record)| (block, (record.fence, record.cut)));
    assert_eq!(fences.collect::<BTreeMap<_, _>>(), allowed.fences());
}

/// Recovers an image, twice, and checks that both end in the same allowed state.
fn check_image(image: &DiskImage, allowed: &[Expected], context: &str) {
    let mut rig = Rig::with_image(1, image.clone());
    let opened = rig.try_open().unwrap_or_else(|error| panic!("{context}: {error}"));
    let first = see(&opened.store);
    let Some(state) = allowed.iter().find(|allowed| matches(&first, allowed)) else {
        panic!("{context}: {first:?} is none of {allowed:#?}, suspects {:?}", opened.suspects);
    };
    let usage = opened.store.usage();
    drop(opened);
    rig.restart(KillMode::Power);
    let opened = rig.try_open().unwrap_or_else(|error| panic!("{context}, second time: {error}"));
    assert_eq!(see(&opened.store), first, "{context}: the second recovery differs");
    assert_eq!(opened.suspects, [], "{context}: the first recovery settled everything");
    assert_eq!(opened.store.usage().bytes_free, usage.bytes_free, "{context}: cells leaked");
    rig.run(check_units(opened.store, state.clone()));
}

/// Events before a step, and the states that a cut during it may leave.
type Span = (usize, Vec<Expected>);

fn enumerate(seed: u64, steps: &[Step]) -> usize {
    enumerate_on(Rig::new(seed, 16 * MIB), seed, steps)
}

fn enumerate_on(rig: Rig, seed: u64, steps: &[Step]) -> usize {
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    disk.start_trace();
    let spans: Rc<RefCell<Vec<Span>>> = Rc::default();
    let (log, steps) = (spans.clone(), steps.to_vec());
    rig.run(async move {
        let mut expected = Expected::default();
        for step in &steps {
            let states = expected.after(step);
            log.borrow_mut().push((disk.trace_len(), states.clone()));
            let next_seq = expected.log.len() as u64 + 1;
            perform(&store, &shard, next_seq, step).await;
            expected = states.into_iter().next_back().unwrap();
        }
        log.borrow_mut().push((disk.trace_len(), vec![expected]));
    });
    let trace = rig.disk.trace().unwrap();
    let spans = spans.take();
    let mut images = 0;
    for events in 0..=trace.len() {
        // Steps that wrote nothing begin at the same event: any of their states may be found.
        let last = spans.partition_point(|(start, _)| *start <= events) - 1;
        let first = spans.partition_point(|(start, _)| *start < spans[last].0);
        let allowed: Vec<Expected> =
            spans[first..=last].iter().flat_map(|(_, states)| states.iter().cloned()).collect();
        let mut rng = fastrand::Rng::with_seed(seed << 32 | events as u64);
        for policy in 0..10 {
            let image = trace.crash_image(events, |_, _| match policy {
                0 => false,
                1 => true,
                2 => rng.bool(),
                3..=5 => rng.u8(..) < 230,
                6 | 7 => rng.u8(..) < 26,
                _ => rng.bool(),
            });
            check_image(&image, &allowed, &format!("seed {seed}, event {events}, policy {policy}"));
            images += 1;
        }
    }
    images
}

#[test]
fn appends_alone_and_together() {
    let images = enumerate(
        21,
        &[
            Step::Append(vec![vec![(1, 0, 1, 65_536), (1, 1, 2, 5000)]]),
            Step::Commit(1),
            Step::Append(vec![vec![(1, 0, 3, 9000)], vec![(2, 0, 1, 100)], vec![(2, 1, 1, 65_536)]]),
            Step::Append(vec![vec![(1, 1, 4, 70), (3, 0, 1, 70), (3, 1, 1, 70)]]),
        ],
    );
    assert!(images > 100, "{images} images");
}

#[test]
fn checkpoints_between_prepared_and_committed() {
    let images = enumerate(
        22,
        &[
            Step::Append(vec![vec![(1, 0, 1, 30_000)], vec![(1, 1, 1, 300)], vec![(1, 2, 1, 300)]]),
            Step::Commit(2),
            Step::Checkpoint,
            Step::Append(vec![vec![(1, 0, 2, 8000)]]),
            Step::Commit(4),
            Step::Checkpoint,
            Step::Append(vec![vec![(1, 0, 3, 100)]]),
        ],
    );
    assert!(images > 200, "{images} images");
}

/// Bodies that ride, alone, beside others and replaced before they are moved; prepared while the log below them is given
/// free; discarded after they were carried over; moved one by one and by a checkpoint.
fn riding_steps() -> Vec<Step> {
    vec![
        Step::Append(vec![
            vec![(1, 0, 1, 3000)],
            vec![(1, 1, 2, 9000), (1, 2, 3, 100)],
            vec![(1, 3, 4, 65_536)],
        ]),
        Step::Commit(2),
        Step::Append(vec![vec![(1, 0, 5, 3000)], vec![(1, 1, 6, 9000)]]),
        Step::Commit(4),
        Step::Settle,
        Step::Append(vec![
            vec![(1, 0, 7, 4096)],
            vec![(2, 0, 1, 100), (2, 1, 2, 5000)],
            vec![(2, 2, 3, 100)],
        ]),
        Step::Commit(6),
        Step::Checkpoint,
        Step::Discard(7),
        Step::Append(vec![vec![(2, 2, 4, 8192)]]),
        Step::Commit(7),
        Step::Checkpoint,
        Step::Append(vec![vec![(2, 2, 5, 100)]]),
        Step::Commit(9),
        Step::Settle,
        Step::Checkpoint,
        Step::Checkpoint,
    ]
}

#[test]
fn bodies_that_ride_in_the_log_and_are_moved() {
    let images = enumerate(27, &riding_steps());
    assert!(images > 400, "{images} images");
}

#[test]
fn bodies_that_are_moved_as_soon_as_they_come() {
    let mut rig = Rig::new(28, 16 * MIB);
    // Half of it is reached by nearly every append.
    rig.options.inline_held_bytes_max = 24_576;
    let images = enumerate_on(rig, 28, &riding_steps());
    assert!(images > 400, "{images} images");
}

#[test]
fn the_same_bodies_in_their_cells_at_once() {
    let images = enumerate_on(Rig::new(29, 16 * MIB).by_reference(), 29, &riding_steps());
    assert!(images > 400, "{images} images");
}

#[test]
fn discards_epochs_trims_and_deletes() {
    let images = enumerate(
        23,
        &[
            Step::Epoch(3),
            Step::Append(vec![
                vec![(1, 0, 1, 5000), (1, 1, 1, 5000)],
                vec![(2, 0, 1, 100)],
                vec![(2, 1, 1, 100)],
            ]),
            Step::Commit(1),
            Step::Discard(2),
            Step::Append(vec![vec![(2, 1, 9, 9000)]]),
            Step::Epoch(4),
            Step::Mark(LogEntry::Trim { block: BlockId(1), from_unit: UnitIndex(1), cut: cut(2) }),
            Step::Mark(LogEntry::Fence { block: BlockId(1), generation: Generation(3) }),
            Step::Commit(5),
            Step::Checkpoint,
            Step::Mark(LogEntry::Delete { block: BlockId(2) }),
            Step::Commit(6),
            Step::Checkpoint,
            Step::Append(vec![vec![(4, 0, 1, 65_536)]]),
        ],
    );
    assert!(images > 200, "{images} images");
}

#[test]
fn what_was_cut_off_and_written_again_is_there_once_and_nothing_else_comes_back() {
    let trim = |from_unit, counter| LogEntry::Trim {
        block: BlockId(1),
        from_unit: UnitIndex(from_unit),
        cut: cut(counter),
    };
    let images = enumerate(
        26,
        &[
            Step::Append(vec![
                vec![(1, 0, 1, 65_536), (1, 1, 2, 5000)],
                vec![(1, 2, 3, 9000), (1, 3, 4, 100)],
            ]),
            Step::Commit(2),
            Step::Checkpoint,
            // Cut above a tree that has the units, and written again before the cut is committed.
            Step::Mark(trim(1, 5)),
            Step::Append(vec![vec![(1, 2, 6, 300)], vec![(1, 0, 7, 5000)]]),
            Step::Commit(4),
            Step::Mark(LogEntry::Fence { block: BlockId(1), generation: Generation(2) }),
            Step::Commit(6),
            Step::Checkpoint,
            // Cut twice, deeper and then less deep.
            Step::Mark(trim(0, 8)),
            Step::Append(vec![vec![(1, 3, 9, 70)]]),
            Step::Mark(trim(3, 10)),
            Step::Append(vec![vec![(2, 0, 1, 8000)]]),
            Step::Commit(9),
            Step::Checkpoint,
            Step::Mark(LogEntry::Delete { block: BlockId(2) }),
            Step::Commit(11),
            Step::Append(vec![vec![(1, 0, 11, 100)]]),
        ],
    );
    assert!(images > 300, "{images} images");
}

#[test]
fn a_power_cut_during_recovery_changes_nothing() {
    let rig = Rig::new(24, 16 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    disk.start_trace();
    rig.run(async move {
        for seq in 1..=6 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 6000)]).await.unwrap();
            store.commit(GROUP, Seq(seq.saturating_sub(2)));
        }
    });
    let trace = rig.disk.trace().unwrap();
    let mut rng = fastrand::Rng::with_seed(24);
    for _ in 0..8 {
        let events = trace.len() - rng.usize(0..6);
        let image = trace.crash_image(events, |_, _| rng.bool());
        let reference = Rig::with_image(2, image.clone());
        let expected = see(&reference.try_open().unwrap().store);
        let recovering = Rig::with_image(3, image);
        recovering.disk.start_trace();
        recovering.try_open().unwrap();
        let recovery = recovering.disk.trace().unwrap();
        for events in 0..=recovery.len() {
            let again = Rig::with_image(4, recovery.crash_image(events, |_, _| rng.bool()));
            assert_eq!(
                see(&again.try_open().unwrap().store),
                expected,
                "cut after {events} events of the recovery"
            );
        }
    }
}

#[test]
fn a_damaged_batch_in_the_middle_of_the_log_is_reported_and_not_passed_over_in_silence() {
    let mut rig = Rig::new(25, 16 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    let other = GroupId(8);
    let damaged = rig.run(async move {
        let mut before = 0;
        for seq in 1..=5 {
            if seq == 3 {
                before = disk.counters().writes;
                disk.start_trace();
            }
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 100)]).await.unwrap();
            if seq == 3 {
                assert_eq!(disk.counters().writes, before + 1, "records and bodies in one");
            }
        }
        append(&store, &shard, other, at(1), &[(1, 0, 1, 100)]).await.unwrap();
        let trace = disk.trace().unwrap();
        // The first write is the batch of entry 3.
        let submitted = trace.events().iter().filter_map(|event| match event {
            nova_device::mem::TraceEvent::Submitted { at, .. } => Some(at.0),
            _ => None,
        });
        submitted.take(1).min().unwrap()
    });
    rig.disk.flip_bit(damaged + 100, 1);
    rig.restart(KillMode::Power);
    let opened = rig.try_open().unwrap();
    use novafs_store::Suspect;
    assert!(matches!(opened.suspects[0], Suspect::LostBatch { .. }), "{:?}", opened.suspects);
    assert!(opened.suspects.contains(&Suspect::Gap { group: GROUP, after: Seq(2) }), "{:?}", opened.suspects);
    let store = opened.store;
    assert_eq!(store.group(GROUP).unwrap().last, at(2), "what follows a gap is not kept");
    assert_eq!(store.group(other).unwrap().last, at(1), "other groups keep theirs");
    rig.run(async move {
        store.commit(GROUP, Seq(2));
        expect_unit(&store, GROUP, (2, 0, 1, 100)).await;
        assert!(store.read(GROUP, BlockId(3), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
    });
}

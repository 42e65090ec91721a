//! Writers, readers and checkpoints at the same time, on a device so small that cells are soon used again.

use crate::rig::{MIB, Rig, append, at, unit};
use nova_device::mem::{Chance, DiskFaults};
use nova_device::{Clock as _, Shard as _};
use nova_units::{BlockId, GroupId, IoClass, Seq, TaskClass, UnitIndex};
use novafs_store::OpenOptions;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const GROUPS: u32 = 3;
const ROUNDS: u64 = 80;

#[test]
fn a_read_never_sees_a_cell_that_was_given_away() {
    for seed in 61..63 {
        read_beside_writers(seed, 20_000, 8 << 20);
    }
}

#[test]
fn a_read_never_sees_a_cell_that_a_body_was_not_moved_to() {
    for (seed, held_bytes_max) in [(63, 8 << 20), (64, 64 << 10), (65, 0)] {
        read_beside_writers(seed, 3000, held_bytes_max);
    }
}

fn read_beside_writers(seed: u64, bytes: u32, inline_held_bytes_max: usize) {
    let mut rig = Rig::new(seed, 16 * MIB);
    rig.options = OpenOptions {
        cache_pages: 4,
        checkpoint_wal_percent: 10,
        inline_held_bytes_max,
        ..OpenOptions::default()
    };
    let store = rig.open();
    let (filler, shard) = (store.clone(), rig.shard.clone());
    rig.run(async move {
        let mut seq = 0;
        while filler.usage().bytes_free > 3 * MIB {
            seq += 1;
            append(&filler, &shard, GroupId(90), at(seq), &[(seq, 0, 1, 20_000), (seq, 1, 1, 20_000)])
                .await
                .unwrap();
        }
        filler.commit(GroupId(90), Seq(seq));
        filler.checkpoint().await.unwrap();
    });
    // Some requests take so long that whole checkpoints pass by.
    let slow_by = Duration::from_millis(300);
    rig.disk.set_faults(DiskFaults { slow: Chance::percent(1), slow_by, ..DiskFaults::NONE });
    let busy = Rc::new(Cell::new(0));
    let committed: Rc<RefCell<Vec<u64>>> = Rc::new(RefCell::new(vec![0; GROUPS as usize]));
    for group in 0..GROUPS {
        let (store, shard, busy, committed) =
            (store.clone(), rig.shard.clone(), busy.clone(), committed.clone());
        busy.set(busy.get() + 1);
        rig.shard.spawn(TaskClass::Client, async move {
            for seq in 1..=ROUNDS {
                let units: Vec<_> = (0..6).map(|index| (1, index, seq, bytes)).collect();
                append(&store, &shard, GroupId(group), at(seq), &units).await.unwrap();
                store.commit(GroupId(group), Seq(seq));
                committed.borrow_mut()[group as usize] = seq;
            }
            busy.set(busy.get() - 1);
        });
    }
    let reads = Rc::new(Cell::new(0_u64));
    for reader in 0..6 {
        let (store, committed, reads) = (store.clone(), committed.clone(), reads.clone());
        let mut rng = fastrand::Rng::with_seed(seed << 8 | reader);
        let (busy, shard) = (busy.clone(), rig.shard.clone());
        rig.shard.spawn(TaskClass::Client, async move {
            while busy.get() > 0 {
                let (group, index) = (rng.u32(..GROUPS), rng.u16(..6));
                let before = committed.borrow()[group as usize];
                let found =
                    store.read(GroupId(group), BlockId(1), UnitIndex(index), IoClass::Client).await.unwrap();
                let after = committed.borrow()[group as usize];
                let counter = found.as_ref().map_or(0, |found| found.record.sealed.counter);
                assert!((before..=after).contains(&counter), "{before} <= {counter} <= {after}");
                if let Some(found) = found {
                    assert!(*found.body == *unit(1, index, counter, bytes).1);
                }
                let scanned = store.scan(GroupId(group), None, 3).await.unwrap();
                assert!(scanned.len() >= 3 || before == 0);
                assert!(
                    scanned.windows(2).all(|pair| pair[0].commit == pair[1].commit),
                    "one state, not two mixed"
                );
                reads.set(reads.get() + 1);
                // What is in memory is answered without a wait: without this one nobody else would run.
                let clock = shard.clock();
                clock.sleep_until(clock.now() + Duration::from_micros(rng.u64(1..300))).await;
            }
        });
    }
    assert!(rig.world.run_until(Duration::from_secs(60), || busy.get() == 0), "writers are stuck");
    let counters = store.counters();
    assert!(counters.checkpoints >= 3 && reads.get() > 100, "{counters:?}, {} reads", reads.get());
    assert_eq!(counters.units_corrupt, 0);
    assert_eq!(counters.inline_bytes > 0, bytes < 4096 && inline_held_bytes_max > 0, "{counters:?}");
}

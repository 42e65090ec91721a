//! Small bodies ride in the log: one write when they come, none when they are replaced in time, and their cells later.

use crate::rig::{GROUP, MIB, Rig, append, at, body, cut, entry, expect_unit, unit};
use nova_device::mem::{KillMode, TraceEvent};
use nova_device::{Durability, Position};
use nova_units::{BlockId, IoClass, Seq, UnitIndex};
use novafs_format::{LogEntry, UnitRecord};
use novafs_store::{ReadError, Store, StoreError, Suspect};

/// Positions and lengths of what was written since the trace began.
fn written(rig: &Rig) -> Vec<(u64, usize)> {
    let submitted = |event: &TraceEvent| match event {
        TraceEvent::Submitted { at, pages, .. } => Some((at.0, *pages)),
        _ => None,
    };
    rig.disk.trace().unwrap().events().iter().filter_map(submitted).collect()
}

async fn record_of(store: &Store<nova_device::mem::MemShard>, block: u64) -> UnitRecord {
    let found = store.read(GROUP, BlockId(block), UnitIndex(0), IoClass::Client).await.unwrap();
    found.unwrap().record
}

#[test]
fn a_small_body_comes_with_its_record_and_goes_to_its_cell_with_the_checkpoint() {
    let mut rig = Rig::new(71, 64 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        let before = disk.counters();
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 4096), (1, 1, 2, 9000)]).await.unwrap();
        let after = disk.counters();
        assert_eq!((after.writes - before.writes, after.flushes - before.flushes), (1, 1));
        store.commit(GROUP, Seq(1));
        expect_unit(&store, GROUP, (1, 0, 1, 4096)).await;
        let run = store.read_run(GROUP, BlockId(1), 0..9, IoClass::Client).await.unwrap();
        assert!(*run.body == *entry(&[(1, 0, 1, 4096), (1, 1, 2, 9000)]).1);
        assert_eq!(disk.counters().reads, after.reads, "memory answers");
        store.checkpoint().await.unwrap();
        assert_eq!(store.counters().moved_bytes, 4 * 4096);
        let before = disk.counters().reads;
        expect_unit(&store, GROUP, (1, 1, 2, 9000)).await;
        assert_eq!(disk.counters().reads - before, 2, "from its cell, by each of the two ways to read it");
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { expect_unit(&store, GROUP, (1, 0, 1, 4096)).await });
}

#[test]
fn what_is_replaced_cut_off_or_discarded_in_time_is_never_written_to_a_cell() {
    let mut rig = Rig::new(72, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=30 {
            append(&store, &shard, GROUP, at(seq), &[(1, 0, seq, 4096)]).await.unwrap();
        }
        append(&store, &shard, GROUP, at(31), &[(1, 1, 31, 4096)]).await.unwrap();
        let trim = LogEntry::Trim { block: BlockId(1), from_unit: UnitIndex(1), cut: cut(32) };
        store.append(GROUP, at(32), &trim, None, Durability::Synced).await.unwrap();
        append(&store, &shard, GROUP, at(33), &[(2, 0, 1, 4096)]).await.unwrap();
        store.commit(GROUP, Seq(32));
        store.discard_above(GROUP, Seq(32)).await.unwrap();
        let free = store.usage().bytes_free;
        store.checkpoint().await.unwrap();
        let counters = store.counters();
        assert_eq!((counters.inline_bytes, counters.moved_bytes), (32 * 4096, 4096), "the last version");
        assert_eq!(store.usage().bytes_free, free + 31 * 4096, "the cells of the others are free");
        expect_unit(&store, GROUP, (1, 0, 30, 4096)).await;
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { expect_unit(&store, GROUP, (1, 0, 30, 4096)).await });
}

#[test]
fn neighbours_go_to_their_cells_together() {
    let rig = Rig::new(73, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let moving = std::rc::Rc::clone(&store);
    rig.run(async move {
        for seq in 1..=16 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 4096)]).await.unwrap();
        }
        store.commit(GROUP, Seq(16));
    });
    rig.disk.start_trace();
    rig.run(async move {
        let records = moving.scan(GROUP, None, 100).await.unwrap();
        moving.settle(&records).await.unwrap();
        assert_eq!(moving.counters().moved_bytes, 16 * 4096);
        moving.settle(&records).await.unwrap();
        assert_eq!(moving.counters().moved_bytes, 16 * 4096, "once");
    });
    assert_eq!(written(&rig).iter().map(|(_, pages)| *pages).collect::<Vec<_>>(), [16]);
}

#[test]
fn memory_and_log_are_bounded_and_the_rest_goes_to_its_cells_at_once() {
    let mut rig = Rig::new(74, 64 * MIB);
    rig.options.inline_held_bytes_max = 64 << 10;
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=400 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 3000)]).await.unwrap();
            store.commit(GROUP, Seq(seq));
        }
        let counters = store.counters();
        assert!(counters.inline_bytes > 200 * 4096 && counters.moved_bytes > 150 * 4096, "{counters:?}");
        for block in 1..=400 {
            expect_unit(&store, GROUP, (block, 0, 1, 3000)).await;
        }
    });
    // Nothing is moved when nothing may ride; nor does an entry with one large unit.
    let rig = Rig::new(75, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 3000), (1, 1, 2, 65_536)]).await.unwrap();
        store.commit(GROUP, Seq(1));
        store.checkpoint().await.unwrap();
        assert_eq!((store.counters().inline_bytes, store.counters().moved_bytes), (0, 0));
    });
}

#[test]
fn many_at_once_never_stall_and_the_log_goes_round() {
    let rig = Rig::new(76, 16 * MIB);
    let store = rig.open();
    let left = std::rc::Rc::new(std::cell::Cell::new(32));
    for group in 0..32 {
        use nova_device::Shard as _;
        let (store, shard, left) = (store.clone(), rig.shard.clone(), left.clone());
        rig.shard.spawn(nova_units::TaskClass::Client, async move {
            let group = nova_units::GroupId(group);
            for seq in 1..=60 {
                append(&store, &shard, group, at(seq), &[(1, 0, seq, 4096)]).await.unwrap();
                store.commit(group, Seq(seq));
            }
            left.set(left.get() - 1);
        });
    }
    assert!(rig.world.run_until(std::time::Duration::from_secs(120), || left.get() == 0), "stalled");
    // 1,920 bodies through a log of 256 pages.
    let counters = store.counters();
    assert!(counters.inline_bytes > 300 * 4096, "{counters:?}");
    assert!(counters.moved_bytes < counters.inline_bytes, "{counters:?}");
    rig.run(async move {
        for group in 0..32 {
            expect_unit(&store, nova_units::GroupId(group), (1, 0, 60, 4096)).await;
        }
    });
}

#[test]
fn a_body_is_taken_only_while_there_is_a_cell_that_it_can_go_to() {
    let mut rig = Rig::new(77, 16 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let last = rig.run(async move {
        let mut seq = 1;
        // Most of the device in large pieces, then small ones until nothing is left.
        let mut bytes = 65_536;
        loop {
            match append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, bytes)]).await {
                Ok(()) => store.commit(GROUP, Seq(seq)),
                Err(StoreError::Full { .. }) if bytes == 65_536 => {
                    bytes = 4096;
                    continue;
                }
                Err(StoreError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            seq += 1;
            if bytes == 65_536 && store.usage().bytes_free < MIB {
                bytes = 4096;
            }
        }
        assert!(store.counters().inline_bytes > 0);
        assert!(matches!(store.reserve([4096]), Err(StoreError::Full { .. })));
        seq - 1
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move {
        store.commit(GROUP, Seq(last));
        let records = store.scan(GROUP, None, 10_000).await.unwrap();
        assert_eq!(records.len() as u64, last, "each of them found its cell");
        for record in records {
            expect_unit(&store, GROUP, (record.sealed.block.0, 0, 1, record.sealed.stored_bytes)).await;
        }
    });
}

#[test]
fn a_body_that_rots_in_the_middle_of_the_log_costs_its_unit_and_is_repaired() {
    for breaks in [false, true] {
        let mut rig = Rig::new(78, 64 * MIB);
        let (store, shard) = (rig.open(), rig.shard.clone());
        rig.disk.start_trace();
        rig.run(async move {
            for seq in 1..=5 {
                append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 9000)]).await.unwrap();
            }
        });
        // A page of records, three of the body.
        let batch = written(&rig)[2];
        assert_eq!(batch.1, 4);
        if breaks {
            rig.disk.break_page(Position(batch.0 + 8192));
        } else {
            rig.disk.flip_bit(batch.0 + 8192 + 77, 3);
        }
        rig.restart(KillMode::Power);
        let store = rig.open();
        assert_eq!(store.group(GROUP).unwrap().last, at(5));
        let shard = rig.shard.clone();
        rig.run(async move {
            store.commit(GROUP, Seq(5));
            for block in [1, 2, 4, 5] {
                expect_unit(&store, GROUP, (block, 0, 1, 9000)).await;
            }
            let error = store.read(GROUP, BlockId(3), UnitIndex(0), IoClass::Client).await.unwrap_err();
            assert!(matches!(error, ReadError::Corrupt { block: BlockId(3), .. }), "{error:?}");
            let (sealed, stored) = unit(3, 0, 1, 9000);
            assert_eq!(store.repair(GROUP, sealed, at(3), body(&shard, &stored)).await, Ok(true));
            expect_unit(&store, GROUP, (3, 0, 1, 9000)).await;
        });
    }
}

#[test]
fn a_rotten_body_behind_the_newest_batch_is_reported() {
    let mut rig = Rig::new(79, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.disk.start_trace();
    rig.run(async move {
        for seq in 1..=2 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 100)]).await.unwrap();
        }
    });
    let newest = written(&rig)[1];
    rig.disk.flip_bit(newest.0 + 4096 + 60, 1);
    rig.restart(KillMode::Power);
    let opened = rig.try_open().unwrap();
    assert_eq!(opened.suspects, [Suspect::DroppedEntry { group: GROUP, at: at(2) }]);
    assert_eq!(opened.store.group(GROUP).unwrap().last, at(1));
    drop(opened);
    rig.restart(KillMode::Power);
    assert_eq!(rig.open().group(GROUP).unwrap().last, at(1), "it stays dropped");
}

#[test]
fn scrub_sees_cells_and_not_memory() {
    let rig = Rig::new(80, 64 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 9000)]).await.unwrap();
        append(&store, &shard, GROUP, at(2), &[(2, 0, 1, 9000)]).await.unwrap();
        store.commit(GROUP, Seq(2));
        let start = (BlockId(0), UnitIndex(0));
        let verified = store.verify(GROUP, start).await.unwrap();
        assert_eq!((verified.records.len(), verified.bad.len()), (2, 0));
        disk.flip_bit(record_of(&store, 2).await.cell.position + 5000, 1);
        let verified = store.verify(GROUP, start).await.unwrap();
        assert_eq!(verified.bad, [record_of_bad(&verified.records, 2)]);
    });
}

fn record_of_bad(records: &[UnitRecord], block: u64) -> UnitRecord {
    *records.iter().find(|record| record.sealed.block == BlockId(block)).unwrap()
}

#[test]
fn what_is_prepared_is_read_while_it_rides_and_after_it_was_carried_over() {
    let mut rig = Rig::new(81, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let units = [(1, 0, 1, 9000), (1, 1, 2, 100)];
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &units).await.unwrap();
        for _ in 0..2 {
            let stored = store.read_prepared(GROUP, at(1), IoClass::Client).await.unwrap().unwrap();
            assert!(*stored == *entry(&units).1);
            store.checkpoint().await.unwrap();
        }
        assert_eq!(store.counters().moved_bytes, 4 * 4096);
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move {
        let stored = store.read_prepared(GROUP, at(1), IoClass::Client).await.unwrap().unwrap();
        assert!(*stored == *entry(&units).1);
    });
}

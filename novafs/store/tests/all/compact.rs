//! Slots of which little is in use are emptied, beside whatever else goes on.

use crate::rig::{GROUP, MIB, Rig, append, at, body, cut, entry, expect_unit, unit};
use nova_device::mem::{KillMode, MemShard};
use nova_device::{Clock as _, Durability, Shard as _};
use nova_units::{BlockId, IoClass, Seq, TaskClass, UnitIndex};
use novafs_format::LogEntry;
use novafs_store::{Compacted, Store, StoreError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const DEVICE: u64 = 16 * MIB;
const SMALL: u32 = 4096;
const LARGE: u32 = 65_536;
/// Of the units of a block of small units, those from here on are cut off.
const KEPT: u16 = 4;

/// Fills the device with small units, 32 in a block, and then cuts all but four off every block. Answers how many
/// blocks there are, and the next number of the log.
async fn scatter(store: &Store<MemShard>, shard: &MemShard) -> (u64, u64) {
    let (mut seq, mut blocks) = (1, 0);
    loop {
        let names: Vec<_> = (0..32).map(|unit| (blocks + 1, unit, 1, SMALL)).collect();
        match append(store, shard, GROUP, at(seq), &names).await {
            Ok(()) => store.commit(GROUP, Seq(seq)),
            Err(StoreError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        (seq, blocks) = (seq + 1, blocks + 1);
    }
    for block in 1..=blocks {
        let entry = LogEntry::Trim { block: BlockId(block), from_unit: UnitIndex(KEPT), cut: cut(2) };
        store.append(GROUP, at(seq), &entry, None, Durability::Synced).await.unwrap();
        store.commit(GROUP, Seq(seq));
        seq += 1;
    }
    store.checkpoint().await.unwrap();
    (blocks, seq)
}

async fn check(store: &Store<MemShard>, blocks: u64) {
    for block in 1..=blocks {
        for unit in 0..KEPT {
            expect_unit(store, GROUP, (block, unit, 1, SMALL)).await;
        }
    }
}

/// Compacts until nothing is to be done; what was done in all.
async fn compact_all(store: &Store<MemShard>) -> Compacted {
    let mut all = Compacted::default();
    while store.wants_compaction() {
        let done = store.compact().await.unwrap();
        assert!(done.slots > 0, "a pass empties something when all is committed: {done:?}");
        all = Compacted {
            slots: all.slots + done.slots,
            units: all.units + done.units,
            bytes: all.bytes + done.bytes,
        };
    }
    all
}

#[test]
fn room_scattered_over_slots_of_one_class_is_made_room_for_any() {
    let mut rig = Rig::new(41, DEVICE);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let blocks = rig.run(async move {
        let (blocks, seq) = scatter(&store, &shard).await;
        let free = store.usage().bytes_free;
        assert!(free > 8 * MIB, "{free} bytes are free, in cells of 4 KiB");
        let large = |block| [(block, 0, 1, LARGE)];
        let refused = append(&store, &shard, GROUP, at(seq), &large(1_000)).await;
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
        let done = compact_all(&store).await;
        assert!(done.slots > 4 && done.bytes == done.units * u64::from(SMALL), "{done:?}");
        assert_eq!(store.counters().slots_emptied, done.slots as u64);
        assert!(
            done.bytes <= done.slots as u64 * 128 * 1024,
            "a slot of 256 KiB that is emptied is half empty"
        );
        for next in 0..20 {
            append(&store, &shard, GROUP, at(seq + next), &large(1_000 + next)).await.unwrap();
            store.commit(GROUP, Seq(seq + next));
        }
        check(&store, blocks).await;
        blocks
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { check(&store, blocks).await });
}

#[test]
fn a_loss_of_power_at_any_step_of_a_compaction_loses_nothing() {
    let rig = Rig::new(43, DEVICE);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let blocks = rig.run(async move {
        let (blocks, _) = scatter(&store, &shard).await;
        store.close().await.unwrap();
        blocks
    });
    let image = rig.disk.image();
    let mut cuts = 0;
    for micros in (0..).map(|step| step * 150) {
        let mut rig = Rig::with_image(micros, image.clone());
        let (store, shard) = (rig.open(), rig.shard.clone());
        let task = Rc::clone(&store);
        let ended = rig.run(async move {
            let done = Rc::new(Cell::new(false));
            let flag = Rc::clone(&done);
            shard.spawn(TaskClass::Background, async move {
                task.compact().await.unwrap();
                flag.set(true);
            });
            let clock = shard.clock();
            clock.sleep_until(clock.now() + Duration::from_micros(micros)).await;
            done.get()
        });
        drop(store);
        rig.restart(KillMode::Power);
        let store = rig.try_open().unwrap().store;
        rig.run(async move { check(&store, blocks).await });
        cuts += 1;
        if ended {
            break;
        }
    }
    assert!(cuts > 10, "{cuts} cuts: the compaction was over too soon to be cut off");
}

#[test]
fn what_is_bad_or_prepared_stays_where_it_is_and_everything_else_moves() {
    let rig = Rig::new(47, DEVICE);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        let (blocks, seq) = scatter(&store, &shard).await;
        let find = |block| store.read(GROUP, BlockId(block), UnitIndex(0), IoClass::Client);
        let bad = find(1).await.unwrap().unwrap().record;
        disk.flip_bit(bad.cell.position + 100, 1);
        // Prepared beside it: its cell is in a slot that may be emptied.
        append(&store, &shard, GROUP, at(seq), &[(2, 0, 2, SMALL)]).await.unwrap();
        let free = store.usage().bytes_free;
        let done = store.compact().await.unwrap();
        assert!(done.slots > 0, "{done:?}");
        assert_eq!(store.usage().bytes_free, free, "no cell is lost, and none is won");
        assert!(find(1).await.is_err(), "a bad copy is repaired, and not carried about");
        let (sealed, stored) = unit(1, 0, 1, SMALL);
        assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(true));
        store.commit(GROUP, Seq(seq));
        expect_unit(&store, GROUP, (2, 0, 2, SMALL)).await;
        for block in (1..=blocks).filter(|block| *block != 2) {
            expect_unit(&store, GROUP, (block, 0, 1, SMALL)).await;
        }
    });
}

#[test]
fn a_unit_that_is_replaced_while_it_is_moved_is_the_new_one() {
    let rig = Rig::new(53, DEVICE);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let (blocks, mut seq) = scatter(&store, &shard).await;
        let (task, ended) = (Rc::clone(&store), Rc::new(Cell::new(false)));
        let flag = Rc::clone(&ended);
        shard.spawn(TaskClass::Background, async move {
            task.compact().await.unwrap();
            flag.set(true);
        });
        let mut replaced = 0;
        for block in 1..=blocks {
            let (sent, bytes) = entry(&[(block, 0, 2, SMALL)]);
            match store.append(GROUP, at(seq), &sent, Some(body(&shard, &bytes)), Durability::Synced).await {
                Ok(()) => store.commit(GROUP, Seq(seq)),
                Err(StoreError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            (seq, replaced) = (seq + 1, block);
            if ended.get() {
                break;
            }
        }
        assert!(replaced > 1 && ended.get(), "{replaced} of {blocks} were replaced meanwhile");
        store.checkpoint().await.unwrap();
        for block in 1..=blocks {
            let version = if block <= replaced { 2 } else { 1 };
            expect_unit(&store, GROUP, (block, 0, version, SMALL)).await;
        }
    });
}

//! What is deleted gives its space back, soon and without being asked for it.

use crate::rig::{GROUP, MIB, Rig, append, at, expect_unit};
use nova_device::mem::KillMode;
use nova_device::{Clock as _, Durability, Shard as _};
use nova_units::{BlockId, GroupId, Seq};
use novafs_format::LogEntry;
use novafs_store::{Held, OpenOptions, Store, StoreError};
use std::rc::Rc;
use std::time::Duration;

async fn delete(store: &Store<nova_device::mem::MemShard>, seq: u64, block: u64) {
    let entry = LogEntry::Delete { block: BlockId(block) };
    store.append(GROUP, at(seq), &entry, None, Durability::Synced).await.unwrap();
    store.commit(GROUP, Seq(seq));
}

#[test]
fn free_space_returns_in_a_while_after_a_delete_and_one_checkpoint_serves_many() {
    let rig = Rig::new(61, 32 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let before = store.usage().bytes_free;
        for seq in 1..=40 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 65_536), (seq, 1, 1, 9_000)]).await.unwrap();
            store.commit(GROUP, Seq(seq));
        }
        let full = store.usage().bytes_free;
        assert!(before - full >= 40 * 65_536);
        let checkpoints = store.counters().checkpoints;
        for block in 1..=40 {
            delete(&store, 40 + block, block).await;
        }
        assert_eq!(store.usage().bytes_free, full, "cells are free only after a checkpoint");
        let clock = shard.clock();
        clock.sleep_until(clock.now() + OpenOptions::default().reclaim_after + Duration::from_secs(1)).await;
        assert_eq!(store.usage().bytes_free, before);
        let made = store.counters().checkpoints - checkpoints;
        assert!((1..=2).contains(&made), "{made} checkpoints for 40 deletes");
        assert!(store.counters().bytes_discarded > 0, "{:?}", store.counters());
    });
}

#[test]
fn a_device_filled_to_the_last_cell_restarts_takes_deletes_and_is_empty_again() {
    let mut rig = Rig::new(62, 16 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let (empty, last) = rig.run(async move {
        let (empty, mut seq) = (store.usage().bytes_free, 1);
        loop {
            match append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 65_536)]).await {
                Ok(()) => store.commit(GROUP, Seq(seq)),
                Err(StoreError::Full { .. }) => return (empty, seq - 1),
                Err(error) => panic!("{error}"),
            }
            seq += 1;
        }
    });
    rig.restart(KillMode::Power);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        store.commit(GROUP, Seq(last));
        for block in 1..=last {
            delete(&store, last + block, block).await;
        }
    });
    // The power goes before any checkpoint has forgotten the cells.
    rig.restart(KillMode::Power);
    let (store, shard2) = (rig.open(), rig.shard.clone());
    drop(shard);
    rig.run(async move {
        let shard = shard2;
        let everything = Seq(2 * last);
        store.commit(GROUP, everything);
        store.checkpoint().await.unwrap();
        assert_eq!(store.usage().bytes_free, empty);
        assert_eq!(store.held_blocks(GROUP, BlockId(0)..=BlockId(u64::MAX), 10).await.unwrap().blocks, []);
        for seq in 2 * last + 1..=3 * last {
            append(&store, &shard, GROUP, at(seq), &[(10_000 + seq, 0, 1, 65_536)]).await.unwrap();
            store.commit(GROUP, Seq(seq));
            expect_unit(&store, GROUP, (10_000 + seq, 0, 1, 65_536)).await;
        }
    });
}

#[test]
fn held_blocks_are_listed_in_pages_whether_they_are_in_the_tree_or_above_it() {
    let rig = Rig::new(63, 32 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let blocks: Vec<u64> = (1..=30).map(|index| index * 7).collect();
        for (seq, block) in (1..).zip(&blocks) {
            let units: Vec<_> = (0..20).map(|unit| (*block, unit, 1, 100)).collect();
            append(&store, &shard, GROUP, at(seq), &units).await.unwrap();
            append(&store, &shard, GroupId(8), at(seq), &[(1000 + seq, 0, 1, 30)]).await.unwrap();
            store.commit(GROUP, Seq(seq));
            store.commit(GroupId(8), Seq(seq));
            if seq == 15 {
                store.checkpoint().await.unwrap();
            }
        }
        delete(&store, 31, blocks[3]).await;
        delete(&store, 32, blocks[20]).await;
        let expected: Vec<BlockId> = blocks
            .iter()
            .enumerate()
            .filter(|(index, _)| ![3, 20].contains(index))
            .map(|(_, block)| BlockId(*block))
            .collect();
        let whole = |store: Rc<Store<_>>, limit: usize| async move {
            let (mut from, mut found) = (BlockId(0), Vec::<BlockId>::new());
            loop {
                let page = store.held_blocks(GROUP, from..=BlockId(u64::MAX), limit).await.unwrap();
                assert!(page.blocks.len() <= limit);
                found.extend(&page.blocks);
                let Some(last) = page.blocks.last().filter(|_| page.more) else { return found };
                from = BlockId(last.0 + 1);
            }
        };
        for limit in [1, 4, 28, 100] {
            assert_eq!(whole(Rc::clone(&store), limit).await, expected, "in pages of {limit}");
        }
        let some = store.held_blocks(GROUP, BlockId(7)..=BlockId(21), 10).await.unwrap();
        assert_eq!((some.blocks, some.more), (vec![BlockId(7), BlockId(14), BlockId(21)], false));
        assert_eq!(store.held(GROUP, BlockId(7)).await, Ok(Held { units: 20, bytes: 20 * 4096 }));
        assert_eq!(store.held(GROUP, BlockId(28)).await, Ok(Held::default()), "it was deleted");
    });
}

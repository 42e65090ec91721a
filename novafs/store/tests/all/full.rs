//! A device without room answers clearly, loses nothing, and gets room again by deleting.

use crate::rig::{GROUP, MIB, Rig, append, at, body, entry, expect_unit, unit};
use nova_device::Durability;
use nova_device::mem::KillMode;
use nova_units::{BlockId, IoClass, Seq, UnitIndex};
use novafs_format::LogEntry;
use novafs_store::StoreError;

#[test]
fn a_full_device_refuses_early_and_deleting_makes_room() {
    let mut rig = Rig::new(31, 16 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    let last = rig.run(async move {
        let mut seq = 1;
        loop {
            let written = disk.counters().writes;
            match append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 65_536), (seq, 1, 1, 65_536)]).await {
                Ok(()) => store.commit(GROUP, Seq(seq)),
                Err(StoreError::Full { needed_bytes: 131_072 }) => {
                    assert!(disk.counters().writes <= written + 16, "no body is written");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            seq += 1;
        }
        assert!(matches!(store.reserve([65_536, 65_536]), Err(StoreError::Full { .. })));
        assert!(store.usage().bytes_free < 2 * 131_072, "{:?}", store.usage());
        // Repair has its own share.
        let (sealed, stored) = unit(1, 0, 1, 65_536);
        assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(true));
        seq - 1
    });
    assert!(last > 80, "{last} entries of 128 KiB on 16 MiB");
    rig.restart(KillMode::Power);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        store.commit(GROUP, Seq(last));
        for block in 1..=last {
            expect_unit(&store, GROUP, (block, 1, 1, 65_536)).await;
        }
        let delete = LogEntry::Delete { block: BlockId(1) };
        store.append(GROUP, at(last + 1), &delete, None, Durability::Synced).await.unwrap();
        let delete = LogEntry::Delete { block: BlockId(2) };
        store.append(GROUP, at(last + 2), &delete, None, Durability::Synced).await.unwrap();
        store.commit(GROUP, Seq(last + 2));
        store.checkpoint().await.unwrap();
        append(&store, &shard, GROUP, at(last + 3), &[(900, 0, 1, 65_536)]).await.unwrap();
        store.commit(GROUP, Seq(last + 3));
        expect_unit(&store, GROUP, (900, 0, 1, 65_536)).await;
        assert!(store.read(GROUP, BlockId(1), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
    });
}

#[test]
fn a_bad_copy_is_repaired_where_it_is_when_no_cell_is_left() {
    let rig = Rig::new(33, 16 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 65_536)]).await.unwrap();
        store.commit(GROUP, Seq(1));
        let (sealed, stored) = unit(1, 0, 1, 65_536);
        // What joiners are filled with may take every cell there is.
        let mut block = 2;
        loop {
            let (other, bytes) = unit(block, 0, 1, 65_536);
            let entry = LogEntry::Units(vec![other]);
            if store.install(GROUP, at(1), &entry, Some(body(&shard, &bytes))).await.is_err() {
                break;
            }
            block += 1;
        }
        let found = store.read(GROUP, BlockId(1), UnitIndex(0), IoClass::Client).await.unwrap().unwrap();
        disk.flip_bit(found.record.cell.position + 9_000, 1);
        assert!(store.read(GROUP, BlockId(1), UnitIndex(0), IoClass::Client).await.is_err());
        assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(true));
        expect_unit(&store, GROUP, (1, 0, 1, 65_536)).await;
        assert_eq!(
            store.repair(GROUP, sealed, at(0), body(&shard, &stored)).await,
            Ok(false),
            "another version"
        );
    });
}

#[test]
fn room_that_is_reserved_stays_for_its_owner() {
    let rig = Rig::new(32, 16 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let mut kept = Vec::new();
        while let Ok(reservation) = store.reserve([65_536; 4]) {
            kept.push(reservation);
        }
        let refused = append(
            &store,
            &shard,
            GROUP,
            at(1),
            &[(1, 0, 1, 65_536), (1, 1, 1, 65_536), (1, 2, 1, 65_536), (1, 3, 1, 65_536)],
        )
        .await;
        assert!(matches!(refused, Err(StoreError::Full { .. })));
        drop(kept.pop());
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 65_536), (1, 1, 1, 65_536), (1, 2, 1, 65_536)])
            .await
            .unwrap();
    });
}

#[test]
fn the_log_goes_round_many_times_under_load() {
    let rig = Rig::new(33, 16 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        // Each entry takes about nine pages of a log of 256, and the cells are overwritten.
        for seq in 1..=80_u64 {
            let units: Vec<_> = (0..200).map(|index| (1, index, seq, 30)).collect();
            let (entry, stored) = entry(&units);
            store
                .append(GROUP, at(seq), &entry, Some(body(&shard, &stored)), Durability::Synced)
                .await
                .unwrap();
            store.commit(GROUP, Seq(seq));
        }
        assert!(store.counters().checkpoints > 4, "{:?}", store.counters());
        for index in 0..200 {
            expect_unit(&store, GROUP, (1, index, 80, 30)).await;
        }
    });
}

#[test]
fn what_is_prepared_is_bounded() {
    let rig = Rig::new(34, 16 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let mut seq = 0;
        let refused = loop {
            seq += 1;
            let units: Vec<_> = (0..8).map(|index| (seq, index, seq, 30)).collect();
            if let Err(error) = append(&store, &shard, GROUP, at(seq), &units).await {
                break error;
            }
        };
        assert_eq!(refused, StoreError::TooMuchPrepared);
        store.checkpoint().await.unwrap();
        store.checkpoint().await.unwrap();
        store.commit(GROUP, Seq(seq - 1));
        append(&store, &shard, GROUP, at(seq), &[(1, 0, 99, 30)]).await.unwrap();
    });
}

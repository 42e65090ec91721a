//! What was appended and committed comes back, here and after every kind of restart.

use crate::rig::{GROUP, MIB, Rig, append, at, body, cut, entry, expect_unit, unit};
use nova_device::Durability;
use nova_device::mem::KillMode;
use nova_units::{
    BlockId, DeviceId, DiskIndex, Epoch, Generation, GroupId, Incarnation, IoClass, MOUNT_TRAIL_MAX,
    MountNonce, Seq, UnitIndex,
};
use novafs_format::{GroupRecord, LogEntry};
use novafs_store::{FormatOptions, ReadError, Store, StoreError};

#[test]
fn prepared_is_not_visible_and_committed_is() {
    let rig = Rig::new(1, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(5, 0, 1, 65_536), (5, 1, 2, 10_000)]).await.unwrap();
        assert!(store.read(GROUP, BlockId(5), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
        store.commit(GROUP, Seq(1));
        expect_unit(&store, GROUP, (5, 0, 1, 65_536)).await;
        expect_unit(&store, GROUP, (5, 1, 2, 10_000)).await;
        append(&store, &shard, GROUP, at(2), &[(5, 0, 3, 4096)]).await.unwrap();
        let found = store.read(GROUP, BlockId(5), UnitIndex(0), IoClass::Client).await.unwrap().unwrap();
        assert_eq!((found.record.sealed.counter, found.newer_prepared), (1, Some(at(2))));
        assert!(store.read(GroupId(8), BlockId(5), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
    });
}

#[test]
fn a_body_of_one_mebibyte_goes_out_and_comes_back_in_one_request() {
    let rig = Rig::new(2, 64 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        let units: Vec<_> = (0..16).map(|index| (9, index, 1 + u64::from(index), 65_536)).collect();
        let before = disk.counters();
        append(&store, &shard, GROUP, at(1), &units).await.unwrap();
        let after = disk.counters();
        assert_eq!(after.writes - before.writes, 2, "one for the cells, one for the log");
        assert_eq!(after.flushes - before.flushes, 1);
        store.commit(GROUP, Seq(1));
        let before = disk.counters();
        let run = store.read_run(GROUP, BlockId(9), 0..2048, IoClass::Client).await.unwrap();
        assert_eq!(disk.counters().reads - before.reads, 1);
        assert_eq!((run.records.len(), run.body.len(), run.next), (16, 1 << 20, None));
        assert!(*run.body == *entry(&units).1);
        let empty = store.read_run(GROUP, BlockId(9), 100..100, IoClass::Client).await.unwrap();
        assert_eq!((empty.records.len(), empty.body.len()), (0, 0));
    });
}

#[test]
fn everything_acknowledged_survives_every_kind_of_restart() {
    for (seed, mode) in [(3, KillMode::Process), (4, KillMode::Power)] {
        let mut rig = Rig::new(seed, 64 * MIB);
        let (store, shard) = (rig.open(), rig.shard.clone());
        rig.run(async move {
            store.set_incarnation(Incarnation(3)).await.unwrap();
            for seq in 1..=20 {
                append(&store, &shard, GROUP, at(seq), &[(seq, 0, seq, 3000), (seq, 1, seq, 65_536)])
                    .await
                    .unwrap();
                store.commit(GROUP, Seq(seq - 1));
            }
        });
        rig.restart(mode);
        let opened = rig.try_open().unwrap();
        assert_eq!(
            (opened.device, opened.mount_counter, opened.incarnation),
            (DeviceId(42), 2, Incarnation(3))
        );
        assert_eq!(opened.suspects, []);
        let store = opened.store;
        let state = store.group(GROUP).unwrap();
        assert_eq!(state.last, at(20));
        assert!(state.commit_seq >= Seq(18), "commit points ride with the next batch: {}", state.commit_seq);
        rig.run(async move {
            store.commit(GROUP, Seq(20));
            for seq in 1..=20 {
                expect_unit(&store, GROUP, (seq, 0, seq, 3000)).await;
                expect_unit(&store, GROUP, (seq, 1, seq, 65_536)).await;
            }
        });
    }
}

#[test]
fn a_device_names_every_mount_since_the_last_that_was_confirmed() {
    for (seed, mode) in [(31, KillMode::Process), (32, KillMode::Power)] {
        let mut rig = Rig::new(seed, 64 * MIB);
        let opened = rig.try_open().unwrap();
        let first = opened.trail.newest();
        assert_eq!(opened.trail.as_slice(), [MountNonce(0), first], "it was never confirmed");
        rig.run(async move { opened.store.settle_mount().await }).unwrap();
        for unheard in 1..MOUNT_TRAIL_MAX {
            rig.restart(mode);
            let trail = rig.try_open().unwrap().trail;
            assert_eq!((trail.as_slice()[0], trail.as_slice().len()), (first, unheard + 1));
            assert!(!trail.as_slice()[..unheard].contains(&trail.newest()), "each has its own: {trail:?}");
        }
        rig.restart(mode);
        let opened = rig.try_open().unwrap();
        let full = opened.trail;
        assert_eq!((full.as_slice()[0], full.as_slice().len()), (first, MOUNT_TRAIL_MAX));
        rig.run(async move {
            opened.store.set_incarnation(Incarnation(3)).await.unwrap();
            opened.store.settle_mount().await.unwrap();
        });
        rig.restart(mode);
        let trail = rig.try_open().unwrap().trail;
        assert_eq!(trail.as_slice(), [full.newest(), trail.newest()], "those before it are forgotten");
    }
}

#[test]
fn a_checkpoint_moves_everything_into_the_tree_and_keeps_what_is_prepared() {
    let mut rig = Rig::new(5, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=300 {
            append(&store, &shard, GROUP, at(seq), &[(seq % 40, u16::try_from(seq).unwrap(), seq, 100)])
                .await
                .unwrap();
        }
        store.commit(GROUP, Seq(290));
        store.checkpoint().await.unwrap();
        assert!(store.usage().wal_bytes_used < 40_960, "{:?}", store.usage());
        expect_unit(&store, GROUP, (1, 1, 1, 100)).await;
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    let state = store.group(GROUP).unwrap();
    assert_eq!((state.commit_seq, state.last, state.prepared.len()), (Seq(290), at(300), 10));
    rig.run(async move {
        for seq in 1..=290 {
            expect_unit(&store, GROUP, (seq % 40, u16::try_from(seq).unwrap(), seq, 100)).await;
        }
        let body = store.read_prepared(GROUP, at(295), IoClass::Client).await.unwrap().unwrap();
        assert!(*body == *entry(&[(295 % 40, 295, 295, 100)]).1);
        let all = store.scan(GROUP, None, 1000).await.unwrap();
        assert_eq!(all.len(), 290);
        assert!(all.is_sorted_by_key(|record| (record.sealed.block, record.sealed.unit)));
        let mut paged = Vec::new();
        loop {
            let after = paged
                .last()
                .map(|record: &novafs_format::UnitRecord| (record.sealed.block, record.sealed.unit));
            let page = store.scan(GROUP, after, 7).await.unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all);
    });
}

#[test]
fn trim_fence_and_delete_hold_over_tree_and_restart() {
    let mut rig = Rig::new(6, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=4 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 9000), (seq, 1, 2, 9000)]).await.unwrap();
        }
        store.commit(GROUP, Seq(4));
        store.checkpoint().await.unwrap();
        let used = store.usage().bytes_free;
        for (seq, entry) in [
            (5, LogEntry::Trim { block: BlockId(1), from_unit: UnitIndex(1), cut: cut(4) }),
            (6, LogEntry::Fence { block: BlockId(2), generation: Generation(4) }),
            (7, LogEntry::Delete { block: BlockId(3) }),
        ] {
            store.append(GROUP, at(seq), &entry, None, Durability::Synced).await.unwrap();
        }
        append(&store, &shard, GROUP, at(8), &[(1, 1, 5, 100)]).await.unwrap();
        store.commit(GROUP, Seq(8));
        check_trimmed(&store).await;
        assert_eq!(store.usage().bytes_free, used - 4096);
        store.checkpoint().await.unwrap();
        check_trimmed(&store).await;
        assert_eq!(store.usage().bytes_free, used - 4096 + 3 * 16_384, "the cells came back");
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { check_trimmed(&store).await });
}

#[test]
fn a_repair_does_not_bring_back_what_was_cut_off_or_replaced_meanwhile() {
    let mut rig = Rig::new(12, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 9000), (1, 1, 2, 9000)]).await.unwrap();
        store.commit(GROUP, Seq(1));
        let repair = async |unit_index, counter| {
            let (sealed, stored) = unit(1, unit_index, counter, 9000);
            store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await.unwrap()
        };
        assert!(repair(1, 2).await, "still the committed version");
        let trim = LogEntry::Trim { block: BlockId(1), from_unit: UnitIndex(1), cut: cut(3) };
        store.append(GROUP, at(2), &trim, None, Durability::Synced).await.unwrap();
        append(&store, &shard, GROUP, at(3), &[(1, 0, 4, 100)]).await.unwrap();
        assert!(repair(1, 2).await, "prepared is not yet visible");
        store.commit(GROUP, Seq(3));
        for _ in 0..2 {
            assert!(!repair(1, 2).await && !repair(0, 1).await);
            store.checkpoint().await.unwrap();
        }
        assert!(!repair(1, 2).await && !repair(0, 1).await, "and this one stays in the log");
        assert!(store.read(GROUP, BlockId(1), UnitIndex(1), IoClass::Client).await.unwrap().is_none());
        expect_unit(&store, GROUP, (1, 0, 4, 100)).await;
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move {
        store.commit(GROUP, Seq(3));
        assert!(store.read(GROUP, BlockId(1), UnitIndex(1), IoClass::Client).await.unwrap().is_none());
        expect_unit(&store, GROUP, (1, 0, 4, 100)).await;
        assert_eq!(store.block_of(GROUP, BlockId(1)).map(|record| record.cut), Some(cut(3)));
    });
}

async fn check_trimmed(store: &Store<nova_device::mem::MemShard>) {
    expect_unit(store, GROUP, (1, 0, 1, 9000)).await;
    expect_unit(store, GROUP, (1, 1, 5, 100)).await;
    expect_unit(store, GROUP, (2, 0, 1, 9000)).await;
    assert!(store.read(GROUP, BlockId(3), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
    assert_eq!(store.fence_of(GROUP, BlockId(2)), Some(Generation(4)));
    assert_eq!(store.fence_of(GROUP, BlockId(3)), Some(Generation(u32::MAX)));
    assert_eq!(store.fence_of(GROUP, BlockId(1)), None);
    assert_eq!(store.scan(GROUP, None, 100).await.unwrap().len(), 6);
}

#[test]
fn a_discarded_tail_is_gone_and_its_numbers_are_given_again() {
    let mut rig = Rig::new(7, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=5 {
            append(&store, &shard, GROUP, at(seq), &[(1, 0, seq, 500)]).await.unwrap();
        }
        store.commit(GROUP, Seq(2));
        store.discard_above(GROUP, Seq(3)).await.unwrap();
        let refused = append(&store, &shard, GROUP, at(6), &[(1, 0, 9, 500)]).await;
        assert_eq!(refused, Err(StoreError::NotNext { group: GROUP, at: at(6), expected: Seq(4) }));
        append(&store, &shard, GROUP, at(4), &[(1, 0, 40, 500)]).await.unwrap();
        store.commit(GROUP, Seq(4));
        let entries = store.entries_after(GROUP, Seq(2), 10).unwrap();
        assert_eq!(entries.iter().map(|(at, _)| at.seq.0).collect::<Vec<_>>(), [3, 4]);
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    assert_eq!(store.group(GROUP).unwrap().last, at(4));
    rig.run(async move {
        store.commit(GROUP, Seq(4));
        expect_unit(&store, GROUP, (1, 0, 40, 500)).await;
    });
}

#[test]
fn group_records_and_dropped_groups_are_remembered() {
    let mut rig = Rig::new(8, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    let record = GroupRecord { epoch: Epoch(4), promised: Epoch(5), commit: Seq(100), role: 3 };
    rig.run(async move {
        store.set_group(GROUP, record).await.unwrap();
        append(&store, &shard, GROUP, at(101), &[(1, 0, 1, 500)]).await.unwrap();
        append(&store, &shard, GroupId(9), at(1), &[(2, 0, 1, 500)]).await.unwrap();
        store.commit(GroupId(9), Seq(1));
        store.checkpoint().await.unwrap();
        store.drop_group(GroupId(9)).await.unwrap();
        assert!(store.read(GroupId(9), BlockId(2), UnitIndex(0), IoClass::Client).await.unwrap().is_none());
        store.checkpoint().await.unwrap();
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    assert_eq!(store.groups().iter().map(|group| group.group).collect::<Vec<_>>(), [GROUP]);
    let state = store.group(GROUP).unwrap();
    assert_eq!((state.record, state.last), (record, at(101)));
}

#[test]
fn rot_is_found_and_repair_heals_it() {
    let mut rig = Rig::new(9, 64 * MIB).by_reference();
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 20_000), (1, 1, 1, 500)]).await.unwrap();
        store.commit(GROUP, Seq(1));
        let found = store.read(GROUP, BlockId(1), UnitIndex(0), IoClass::Client).await.unwrap().unwrap();
        disk.flip_bit(found.record.cell.position + 5000, 3);
        let error = store.read(GROUP, BlockId(1), UnitIndex(0), IoClass::Client).await.unwrap_err();
        assert!(
            matches!(error, ReadError::Corrupt { block: BlockId(1), unit: UnitIndex(0), page: 1, .. }),
            "{error:?}"
        );
        assert!(store.read_run(GROUP, BlockId(1), 0..2, IoClass::Client).await.is_err());
        assert_eq!(store.counters().units_corrupt, 2);
        let (sealed, stored) = unit(1, 0, 1, 20_000);
        assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(true));
        expect_unit(&store, GROUP, (1, 0, 1, 20_000)).await;
        append(&store, &shard, GROUP, at(2), &[(1, 0, 2, 700)]).await.unwrap();
        store.commit(GROUP, Seq(2));
        assert_eq!(
            store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await,
            Ok(false),
            "never over something newer"
        );
        store.checkpoint().await.unwrap();
        assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(false));
        expect_unit(&store, GROUP, (1, 0, 2, 700)).await;
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { expect_unit(&store, GROUP, (1, 0, 2, 700)).await });
}

#[test]
fn a_failed_write_ends_the_device_for_good() {
    let rig = Rig::new(10, 64 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 500)]).await.unwrap();
        disk.fail();
        assert_eq!(
            append(&store, &shard, GROUP, at(2), &[(1, 1, 1, 500)]).await,
            Err(StoreError::DeviceFailed)
        );
        assert!(store.has_failed());
        assert_eq!(store.checkpoint().await, Err(StoreError::DeviceFailed));
        assert_eq!(
            append(&store, &shard, GROUP, at(2), &[(1, 1, 1, 500)]).await,
            Err(StoreError::DeviceFailed)
        );
    });
}

#[test]
fn an_unformatted_and_a_resized_device_are_refused_with_a_reason() {
    let rig = Rig::with_image(11, nova_device::mem::DiskImage::zeroed(64 * MIB));
    assert!(matches!(rig.try_open().unwrap_err(), StoreError::NoSuperblock { valid: 0, .. }));
    let rig = Rig::new(12, 64 * MIB);
    let mut larger = nova_device::mem::DiskImage::zeroed(128 * MIB);
    for page in 0..16 {
        let position = nova_device::Position(page * 4096);
        larger.set_page(position, &rig.disk.image().page(position));
    }
    let error = Rig::with_image(13, larger).try_open().unwrap_err();
    assert_eq!(error, StoreError::Resized { bytes: 128 * MIB, formatted: 64 * MIB });
    let shard = rig.shard.clone();
    let options = FormatOptions { wal_bytes: Some(4096), ..FormatOptions::new(DeviceId(1)) };
    let error = rig.run(async move { Store::format(&shard, DiskIndex(0), options).await }).unwrap_err();
    assert!(matches!(error, StoreError::Layout { .. }));
}

#[test]
fn many_appends_at_once_share_a_flush() {
    let rig = Rig::new(14, 64 * MIB);
    let (store, disk) = (rig.open(), rig.disk.clone());
    let before = disk.counters().flushes;
    let done = std::rc::Rc::new(std::cell::Cell::new(0));
    for group in 0..50 {
        use nova_device::Shard as _;
        let (store, shard, done) = (store.clone(), rig.shard.clone(), done.clone());
        rig.shard.spawn(nova_units::TaskClass::Client, async move {
            append(&store, &shard, GroupId(group), at(1), &[(1, 0, 1, 4096)]).await.unwrap();
            done.set(done.get() + 1);
        });
    }
    assert!(rig.world.run_until(std::time::Duration::from_secs(1), || done.get() == 50));
    assert!(disk.counters().flushes - before <= 3, "{} flushes", disk.counters().flushes - before);
}

#[test]
fn closing_makes_everything_durable_and_ends_the_tasks() {
    let mut rig = Rig::new(15, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        append(&store, &shard, GROUP, at(1), &[(1, 0, 1, 500)]).await.unwrap();
        store.commit(GROUP, Seq(1));
        store.close().await.unwrap();
        assert_eq!(append(&store, &shard, GROUP, at(2), &[(1, 0, 1, 500)]).await, Err(StoreError::Closed));
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    assert_eq!(store.group(GROUP).unwrap().commit_seq, Seq(1));
    rig.run(async move { expect_unit(&store, GROUP, (1, 0, 1, 500)).await });
}

#[test]
fn what_back_fill_brings_never_goes_over_something_newer() {
    let mut rig = Rig::new(16, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let record = GroupRecord { epoch: Epoch(2), commit: Seq(10), ..GroupRecord::default() };
        store.set_group(GROUP, record).await.unwrap();
        append(&store, &shard, GROUP, at(11), &[(1, 0, 11, 600), (1, 1, 11, 600)]).await.unwrap();
        store.commit(GROUP, Seq(11));
        // In memory and, after the checkpoint, in the tree: the newer version stays either way.
        for _ in 0..2 {
            let (old, stored) = entry(&[(1, 0, 3, 600), (2, 0, 3, 600)]);
            assert_eq!(store.install(GROUP, at(3), &old, Some(body(&shard, &stored))).await, Ok(true));
            expect_unit(&store, GROUP, (1, 0, 11, 600)).await;
            expect_unit(&store, GROUP, (2, 0, 3, 600)).await;
            store.checkpoint().await.unwrap();
        }
        let (older, stored) = entry(&[(2, 0, 2, 600)]);
        assert_eq!(store.install(GROUP, at(2), &older, Some(body(&shard, &stored))).await, Ok(false));
        let delete = LogEntry::Delete { block: BlockId(3) };
        store.install(GROUP, at(5), &delete, None).await.unwrap();
        let (dead, stored) = entry(&[(3, 0, 4, 600)]);
        assert_eq!(store.install(GROUP, at(4), &dead, Some(body(&shard, &stored))).await, Ok(false));
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    assert_eq!(store.group(GROUP).unwrap().commit_seq, Seq(11));
    rig.run(async move {
        expect_unit(&store, GROUP, (1, 0, 11, 600)).await;
        expect_unit(&store, GROUP, (2, 0, 3, 600)).await;
        assert_eq!(store.fence_of(GROUP, BlockId(3)), Some(Generation(u32::MAX)));
        assert_eq!(store.scan(GROUP, None, 10).await.unwrap().len(), 3);
    });
}

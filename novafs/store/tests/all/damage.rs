//! Damage to each part of a device is found, named, and survived where there is a second copy.

use crate::rig::{GROUP, MIB, Rig, append, at, body, expect_unit, unit};
use nova_device::Position;
use nova_device::mem::{Chance, DiskFaults, KillMode};
use nova_units::{BlockId, IoClass, Seq, UnitIndex};
use novafs_format::superblock_positions;
use novafs_store::{ReadError, StoreError, Suspect};

fn filled(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=5 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 9000)]).await.unwrap();
        }
        store.commit(GROUP, Seq(5));
        store.close().await.unwrap();
    });
    rig.restart(KillMode::Power);
    rig
}

#[test]
fn two_of_four_superblocks_are_enough_and_one_is_not() {
    for lost in 0..4 {
        let rig = filled(41);
        for (copy, position) in superblock_positions(64 * MIB).into_iter().enumerate() {
            if copy == lost || copy == (lost + 1) % 4 {
                rig.disk.flip_bit(position + 100, 2);
            }
        }
        let store = rig.open();
        rig.run(async move { expect_unit(&store, GROUP, (3, 0, 1, 9000)).await });
    }
    let rig = filled(42);
    for position in superblock_positions(64 * MIB).into_iter().skip(1) {
        rig.disk.flip_bit(position + 100, 2);
    }
    assert!(matches!(rig.try_open().unwrap_err(), StoreError::NoSuperblock { valid: 1, .. }));
}

#[test]
fn a_damaged_tree_is_an_error_and_never_an_empty_device() {
    let rig = filled(43);
    // Metadata lies behind superblocks and log.
    let meta = (64 << 10) + MIB;
    let image = rig.disk.image();
    let pages = (0..512).map(|page| meta + page * 4096);
    for position in pages.filter(|position| image.page(Position(*position))[4..6] == *b"NT") {
        rig.disk.flip_bit(position + 2000, 1);
    }
    let error = rig.try_open().unwrap_err();
    assert!(matches!(error, StoreError::Metadata { .. }), "{error:?}");
}

#[test]
fn a_cell_that_cannot_be_read_is_repaired() {
    let rig = filled(44);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        let read = || store.read(GROUP, BlockId(2), UnitIndex(0), IoClass::Client);
        let found = read().await.unwrap().unwrap();
        disk.break_page(Position(found.record.cell.position + 4096));
        let error = read().await.unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { block: BlockId(2), .. }), "{error:?}");
        let (sealed, stored) = unit(2, 0, 1, 9000);
        assert_eq!(store.repair(GROUP, sealed, at(2), body(&shard, &stored)).await, Ok(true));
        expect_unit(&store, GROUP, (2, 0, 1, 9000)).await;
    });
}

#[test]
fn a_write_that_was_lost_is_noticed_when_it_is_read() {
    let rig = filled(45).by_reference();
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        // A cell that an earlier version of the same unit once had, still intact: its checksums do not match.
        disk.set_faults(DiskFaults { lost_write: Chance::percent(100), ..DiskFaults::NONE });
        append(&store, &shard, GROUP, at(6), &[(2, 0, 2, 9000)]).await.unwrap();
        disk.set_faults(DiskFaults::NONE);
        store.commit(GROUP, Seq(6));
        let error = store.read(GROUP, BlockId(2), UnitIndex(0), IoClass::Client).await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { page: 0, .. }), "{error:?}");
    });
}

#[test]
fn the_newest_batch_rotten_is_reported() {
    let mut rig = filled(46);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    let log_page = rig.run(async move {
        append(&store, &shard, GROUP, at(6), &[(6, 0, 1, 100)]).await.unwrap();
        disk.start_trace();
        append(&store, &shard, GROUP, at(7), &[(7, 0, 1, 100)]).await.unwrap();
        let trace = disk.trace().unwrap();
        let written = trace.events().iter().filter_map(|event| match event {
            nova_device::mem::TraceEvent::Submitted { at, .. } => Some(at.0),
            _ => None,
        });
        written.min().unwrap()
    });
    rig.disk.flip_bit(log_page + 60, 1);
    rig.restart(KillMode::Power);
    let opened = rig.try_open().unwrap();
    assert!(matches!(opened.suspects[..], [Suspect::DamagedTail { .. }]), "{:?}", opened.suspects);
    assert_eq!(opened.store.group(GROUP).unwrap().last, at(6));
}

#[test]
fn a_rotten_body_of_the_newest_batch_is_reported() {
    let mut rig = filled(47).by_reference();
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    let cell = rig.run(async move {
        disk.start_trace();
        append(&store, &shard, GROUP, at(6), &[(6, 0, 1, 100)]).await.unwrap();
        let trace = disk.trace().unwrap();
        let written = trace.events().iter().filter_map(|event| match event {
            nova_device::mem::TraceEvent::Submitted { at, .. } => Some(at.0),
            _ => None,
        });
        written.max().unwrap()
    });
    rig.disk.flip_bit(cell + 60, 1);
    rig.restart(KillMode::Power);
    let opened = rig.try_open().unwrap();
    assert_eq!(opened.suspects, [Suspect::DroppedEntry { group: GROUP, at: at(6) }]);
    assert_eq!(opened.store.group(GROUP).unwrap().last, at(5));
    drop(opened);
    rig.restart(KillMode::Power);
    assert_eq!(rig.open().group(GROUP).unwrap().last, at(5), "it stays dropped");
}

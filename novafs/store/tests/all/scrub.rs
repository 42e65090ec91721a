//! Scrub: what is bad on the device is found without a read, what memory still has is put back, the place is kept.

use crate::rig::{GROUP, MIB, Rig, append, at, body, cut, entry, expect_unit, unit};
use nova_device::Position;
use nova_device::mem::{KillMode, MemShard};
use nova_units::{BlockId, GroupId, IoClass, Seq, Timestamp, UnitIndex};
use novafs_format::{LogEntry, ScrubMark, superblock_positions};
use novafs_store::{Store, StoreError};

const START: (BlockId, UnitIndex) = (BlockId(0), UnitIndex(0));
const END: (BlockId, UnitIndex) = (BlockId(u64::MAX), UnitIndex(u16::MAX));

/// All places of a group in the order in which scrub goes over them, and those that are bad.
async fn verify_all(store: &Store<MemShard>) -> (Vec<(u64, u16)>, Vec<(u64, u16)>) {
    let place = |record: &novafs_format::UnitRecord| (record.sealed.block.0, record.sealed.unit.0);
    let (mut all, mut bad, mut from) = (Vec::new(), Vec::new(), START);
    loop {
        let step = store.verify(GROUP, from).await.unwrap();
        assert!(step.bytes <= MIB, "a step is bounded");
        all.extend(step.records.iter().map(place));
        bad.extend(step.bad.iter().map(place));
        match step.next {
            Some(next) => from = next,
            None => return (all, bad),
        }
    }
}

#[test]
fn every_unit_is_gone_over_once_whether_in_memory_or_in_the_tree() {
    let rig = Rig::new(91, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let mut expected = Vec::new();
        for seq in 1..=30 {
            let units: Vec<_> = (0..4).map(|index| (seq, index, seq, 30_000 + u32::from(index))).collect();
            append(&store, &shard, GROUP, at(seq), &units).await.unwrap();
            store.commit(GROUP, Seq(seq));
            expected.extend(units.iter().map(|(block, index, ..)| (*block, *index)));
            if seq == 20 {
                store.checkpoint().await.unwrap();
            }
        }
        assert_eq!(verify_all(&store).await, (expected, vec![]));
        let counters = store.counters();
        assert_eq!((counters.units_verified, counters.bytes_verified), (120, 120 * 32_768));
        assert_eq!(store.verify(GroupId(8), START).await.unwrap(), novafs_store::Verified::default());
        assert_eq!((store.next_group(GroupId(0)), store.next_group(GroupId(8))), (Some(GROUP), None));
    });
}

#[test]
fn a_flipped_bit_and_a_page_that_cannot_be_read_are_found_one_by_one() {
    let rig = Rig::new(92, 64 * MIB);
    let (store, shard, disk) = (rig.open(), rig.shard.clone(), rig.disk.clone());
    rig.run(async move {
        // One run of adjacent cells: bad ones do not hide the others.
        let units: Vec<_> = (0..16).map(|index| (3, index, 1, 65_536)).collect();
        append(&store, &shard, GROUP, at(1), &units).await.unwrap();
        store.commit(GROUP, Seq(1));
        for (index, flip) in [(2, true), (9, false)] {
            let found = store.read(GROUP, BlockId(3), UnitIndex(index), IoClass::Client).await.unwrap();
            let position = found.unwrap().record.cell.position + 8192;
            if flip { disk.flip_bit(position + 77, 4) } else { disk.break_page(Position(position)) }
        }
        assert_eq!(verify_all(&store).await.1, [(3, 2), (3, 9)]);
        for index in [2, 9] {
            let (sealed, stored) = unit(3, index, 1, 65_536);
            assert_eq!(store.repair(GROUP, sealed, at(1), body(&shard, &stored)).await, Ok(true));
        }
        assert_eq!(verify_all(&store).await.1, []);
    });
}

#[test]
fn bytes_whose_checksums_are_right_and_whose_digest_is_not_are_bad() {
    let rig = Rig::new(93, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let (LogEntry::Units(mut units), stored) = entry(&[(3, 0, 1, 9000)]) else { unreachable!() };
        units[0].digest[5] ^= 1;
        let forged = LogEntry::Units(units);
        let body = Some(body(&shard, &stored));
        store.append(GROUP, at(1), &forged, body, nova_device::Durability::Synced).await.unwrap();
        store.commit(GROUP, Seq(1));
        assert!(store.read(GROUP, BlockId(3), UnitIndex(0), IoClass::Client).await.unwrap().is_some());
        assert_eq!(verify_all(&store).await.1, [(3, 0)]);
    });
}

#[test]
fn superblocks_and_metadata_pages_are_written_again_from_memory() {
    let mut rig = Rig::new(94, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=60 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 5000)]).await.unwrap();
        }
        store.commit(GROUP, Seq(60));
        store.close().await.unwrap();
    });
    rig.restart(KillMode::Process);
    let store = rig.open();
    let positions = superblock_positions(64 * MIB);
    for position in [positions[0], positions[3]] {
        rig.disk.flip_bit(position + 100, 2);
    }
    let meta = (64 << 10) + MIB;
    let image = rig.disk.image();
    let pages: Vec<u64> = (0..512)
        .map(|page| meta + page * 4096)
        .filter(|position| image.page(Position(*position))[4..6] == *b"NT")
        .collect();
    for position in &pages {
        rig.disk.flip_bit(position + 200, 1);
    }
    let (checked, count) = (std::rc::Rc::clone(&store), pages.len());
    rig.run(async move {
        assert_eq!(checked.verify_superblocks().await, Ok(2));
        assert_eq!(checked.verify_superblocks().await, Ok(0));
        assert_eq!(verify_all(&checked).await.0.len(), 60);
        let rewritten = checked.counters().pages_rewritten;
        assert!(rewritten >= 4 && rewritten <= 2 + count as u64, "{rewritten} of {count}");
        verify_all(&checked).await;
        assert_eq!(checked.counters().pages_rewritten, rewritten, "once");
    });
    drop(store);
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move { expect_unit(&store, GROUP, (60, 0, 1, 5000)).await });
}

#[test]
fn metadata_that_memory_does_not_have_is_an_error() {
    let mut rig = Rig::new(95, 64 * MIB);
    rig.options.cache_pages = 1;
    let (store, shard) = (rig.open(), rig.shard.clone());
    let checked = std::rc::Rc::clone(&store);
    rig.run(async move {
        for seq in 1..=60 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 5000)]).await.unwrap();
        }
        store.commit(GROUP, Seq(60));
        store.checkpoint().await.unwrap();
    });
    let image = rig.disk.image();
    let meta = (64 << 10) + MIB;
    for position in (0..512).map(|page| meta + page * 4096) {
        if image.page(Position(position))[4..6] == *b"NT" {
            rig.disk.flip_bit(position + 200, 1);
        }
    }
    rig.run(async move {
        let error = checked.verify(GROUP, START).await.unwrap_err();
        assert!(matches!(error, StoreError::Metadata { .. }), "{error:?}");
        assert!(!checked.has_failed(), "what it still has it serves");
    });
}

#[test]
fn the_place_of_the_scrub_survives_a_restart_with_a_checkpoint_or_by_itself() {
    let mark = |block| ScrubMark {
        started: Timestamp(1_000),
        next: (GroupId(3), BlockId(block), UnitIndex(9)),
        last_started: Timestamp(500),
        last_ended: Timestamp(600),
    };
    for (seed, with_checkpoint) in [(96, true), (97, false)] {
        let mut rig = Rig::new(seed, 64 * MIB);
        let store = rig.open();
        assert_eq!(store.scrub_mark(), ScrubMark::default());
        rig.run(async move {
            store.set_scrub_mark(mark(seed));
            if with_checkpoint {
                store.checkpoint().await.unwrap();
            } else {
                store.save_scrub_mark().await.unwrap();
            }
        });
        rig.restart(KillMode::Power);
        assert_eq!(rig.open().scrub_mark(), mark(seed));
    }
}

#[test]
fn a_list_is_of_one_moment_and_cut_where_it_is_too_long() {
    let rig = Rig::new(98, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        for seq in 1..=6 {
            append(&store, &shard, GROUP, at(seq), &[(seq, 0, 1, 100), (seq, 1, 1, 100)]).await.unwrap();
        }
        let fence = LogEntry::Fence { block: BlockId(2), generation: nova_units::Generation(4) };
        store.append(GROUP, at(7), &fence, None, nova_device::Durability::Synced).await.unwrap();
        store.commit(GROUP, Seq(7));
        let whole = store.list(GROUP, START, END, 100).await.unwrap();
        assert_eq!(
            (whole.commit, whole.records.len(), whole.fences.len(), whole.next),
            (Seq(7), 12, 1, None)
        );
        let part = store.list(GROUP, START, END, 3).await.unwrap();
        assert_eq!((part.records.len(), part.next), (3, Some((BlockId(2), UnitIndex(1)))));
        assert_eq!(part.fences.len(), 1);
        let rest = store.list(GROUP, part.next.unwrap(), (BlockId(4), UnitIndex(0)), 100).await.unwrap();
        assert_eq!(rest.records.len(), 4, "both ends are included");
    });
}

#[test]
fn a_version_is_put_back_only_where_nothing_newer_is_and_nothing_was_cut() {
    let mut rig = Rig::new(99, 64 * MIB);
    let (store, shard) = (rig.open(), rig.shard.clone());
    rig.run(async move {
        let units = [(5, 0, 1, 9000), (5, 1, 2, 9000), (5, 2, 3, 9000)];
        append(&store, &shard, GROUP, at(1), &units).await.unwrap();
        append(&store, &shard, GROUP, at(2), &[(5, 0, 4, 9000)]).await.unwrap();
        let trim = LogEntry::Trim { block: BlockId(5), from_unit: UnitIndex(2), cut: cut(1) };
        store.append(GROUP, at(3), &trim, None, nova_device::Durability::Synced).await.unwrap();
        store.commit(GROUP, Seq(3));
        // Lost behind the log's back.
        let lost = LogEntry::Trim { block: BlockId(5), from_unit: UnitIndex(1), cut: cut(1) };
        store.install(GROUP, at(0), &lost, None).await.unwrap();
        let restore = |name: (u64, u16, u64, u32), seq, seen| {
            let (sealed, stored) = unit(name.0, name.1, name.2, name.3);
            let (store, body) = (std::rc::Rc::clone(&store), body(&shard, &stored));
            async move { store.restore(GROUP, sealed, at(seq), body, Seq(seen)).await.unwrap() }
        };
        assert!(!restore((5, 0, 1, 9000), 1, 3).await, "a newer version is here");
        assert!(!restore((5, 2, 3, 9000), 1, 2).await, "it was cut since");
        assert!(restore((5, 1, 2, 9000), 1, 3).await);
        expect_unit(&store, GROUP, (5, 1, 2, 9000)).await;
    });
    rig.restart(KillMode::Power);
    let store = rig.open();
    rig.run(async move {
        expect_unit(&store, GROUP, (5, 1, 2, 9000)).await;
        assert!(store.read(GROUP, BlockId(5), UnitIndex(2), IoClass::Client).await.unwrap().is_none());
    });
}

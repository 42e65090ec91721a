//! Scrub: bad copies are found though nobody reads, and members notice what no checksum can see.

use std::time::Duration;

use nova_device::Shard;
use nova_units::{CommitPoint, Epoch, IoClass, NodeId, Seq, UnitIndex};
use novafs_format::{Cut, LogEntry};
use novafs_member::GroupHealth;
use novafs_replica::{Answer, Message, Report};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, configuration, seal};

fn cut_from(unit: u16) -> LogEntry {
    LogEntry::Trim { block: BLOCK, from_unit: UnitIndex(unit), cut: Cut::default() }
}

fn write(rig: &Rig, counter: u64, plains: &[&[u8]]) -> (LogEntry, Vec<u8>) {
    let (entry, stored) = seal(3, counter, plains);
    let message = Message::Write { group: GROUP, epoch: EPOCH, entry: entry.clone() };
    let (answer, _) = rig.ask(1, message, Some(stored.clone()));
    assert!(matches!(answer, Answer::Written { epoch: EPOCH, .. }), "{answer:?}");
    rig.world.run_for(Duration::from_millis(10));
    (entry, stored)
}

fn flip(rig: &Rig, node: u64, unit: u16) -> (u64, u8) {
    let locate = Message::Locate { group: GROUP, block: BLOCK, first: UnitIndex(unit), count: 1 };
    let (Answer::Located { cells, .. }, _) = rig.ask(node, locate, None) else { panic!("it is there") };
    let at = (cells[0].position + 2_000, 3);
    rig.disks[&NodeId(node)].flip_bit(at.0, at.1);
    at
}

fn health(rig: &Rig, node: u64) -> GroupHealth {
    let all = rig.members[&NodeId(node)].health();
    *all.iter().find(|health| health.group == GROUP).expect("it holds the group")
}

fn run(rig: &Rig, seconds: u64) {
    rig.world.run_for(Duration::from_secs(seconds));
}

/// Does something to a member's store behind the back of the group's log.
fn install(rig: &Rig, node: u64, at: u64, entry: LogEntry, stored: Option<Vec<u8>>) {
    let store = std::rc::Rc::clone(rig.members[&NodeId(node)].store());
    let shard = rig.edge_shard();
    let at = CommitPoint { epoch: Epoch(1), seq: Seq(at) };
    rig.world.run(&shard.clone(), async move {
        let body = stored.map(|bytes| {
            let mut body = shard.pool().try_take(bytes.len()).unwrap();
            body.copy_from_slice(&bytes);
            body.freeze()
        });
        store.install(GROUP, at, &entry, body).await.unwrap();
    });
}

#[test]
fn two_of_three_copies_that_rot_are_repaired_without_a_read() {
    let rig = Rig::scrubbing(11);
    let (_, stored) = write(&rig, 1, &[&[7; 20_000], b"short"]);
    flip(&rig, 2, 3);
    flip(&rig, 3, 3);
    run(&rig, 5);
    for node in [2, 3] {
        let member = &rig.members[&NodeId(node)];
        assert_eq!((member.counters().units_repaired, member.counters().reads), (1, 0), "host {node}");
        let repaired = Report::PageRepaired { group: GROUP, block: BLOCK, unit: UnitIndex(3) };
        assert!(member.reports().contains(&repaired));
        let (answer, body) = rig.read(node, 3, 2);
        assert!(matches!(answer, Answer::Units { .. }), "{answer:?}");
        assert_eq!(body, stored);
    }
    for node in 1..=3 {
        let found = health(&rig, node);
        assert_eq!((found.units, found.blocks, found.bad_units, found.risky_blocks), (2, 1, 0, 0));
        assert!(found.verified_since.0 != 0 && found.bytes_verified > 0);
        let counters = rig.members[&NodeId(node)].counters();
        assert!(counters.scrub_passes >= 1 && counters.compares > 0 && counters.differences_found == 0);
    }
}

#[test]
fn a_copy_that_nobody_can_repair_is_at_risk_until_it_is_good_again() {
    let rig = Rig::scrubbing(12);
    write(&rig, 1, &[&[7; 20_000]]);
    let flips: Vec<_> = (1..=3).map(|node| flip(&rig, node, 3)).collect();
    run(&rig, 5);
    for node in 1..=3 {
        assert_eq!((health(&rig, node).bad_units, health(&rig, node).risky_blocks), (1, 1), "host {node}");
    }
    // The medium recovers on one host: it helps the others.
    rig.disks[&NodeId(2)].flip_bit(flips[1].0, flips[1].1);
    run(&rig, 15);
    for node in 1..=3 {
        assert_eq!(health(&rig, node).bad_units, 0, "host {node}");
    }
    assert_eq!(health(&rig, 1).repaired + health(&rig, 3).repaired, 2);
}

#[test]
fn a_record_that_is_missing_is_taken_from_the_others() {
    let rig = Rig::scrubbing(13);
    let (_, stored) = write(&rig, 1, &[&[7; 20_000], b"short"]);
    install(&rig, 3, 0, cut_from(4), None);
    assert!(matches!(rig.read(3, 3, 2).0, Answer::Units { units } if units.len() == 1), "nobody notices");
    run(&rig, 5);
    let (answer, body) = rig.read(3, 3, 2);
    assert!(matches!(&answer, Answer::Units { units } if units.len() == 2), "{answer:?}");
    assert_eq!(body, stored);
    let counters = rig.members[&NodeId(3)].counters();
    assert_eq!((counters.differences_found, counters.differences_settled), (1, 1));
}

#[test]
fn a_record_that_is_old_is_replaced_by_the_newer_one() {
    let rig = Rig::scrubbing(14);
    let (old, old_stored) = write(&rig, 1, &[&[7; 20_000]]);
    let (_, stored) = write(&rig, 2, &[&[8; 20_000]]);
    // A write that the device lost, and the tree with it.
    install(&rig, 2, 0, cut_from(3), None);
    install(&rig, 2, 1, old, Some(old_stored));
    run(&rig, 5);
    let (answer, body) = rig.read(2, 3, 1);
    assert!(matches!(&answer, Answer::Units { units } if units[0].commit.seq == Seq(2)), "{answer:?}");
    assert_eq!(body, stored);
}

#[test]
fn a_deletion_that_one_missed_is_made_up_for_and_brings_nothing_back() {
    let rig = Rig::scrubbing(15);
    write(&rig, 1, &[&[7; 20_000]]);
    for node in [1, 2] {
        install(&rig, node, 1, LogEntry::Delete { block: BLOCK }, None);
    }
    run(&rig, 5);
    for node in 1..=3 {
        let store = std::rc::Rc::clone(rig.members[&NodeId(node)].store());
        let found = rig.world.run(&rig.edge_shard(), async move {
            store.read(GROUP, BLOCK, UnitIndex(3), IoClass::Client).await.unwrap().is_some()
        });
        assert!(!found, "host {node}");
    }
    assert_eq!(rig.members[&NodeId(3)].counters().differences_settled, 1);
}

#[test]
fn a_unit_that_only_one_has_is_disputed_and_kept() {
    let rig = Rig::scrubbing(16);
    write(&rig, 1, &[&[7; 20_000]]);
    for node in [1, 2] {
        install(&rig, node, 0, cut_from(3), None);
    }
    run(&rig, 5);
    for node in 1..=3 {
        assert_eq!(
            (health(&rig, node).disputed_units, health(&rig, node).risky_blocks),
            (1, 1),
            "host {node}"
        );
    }
    assert!(
        matches!(rig.read(3, 3, 1).0, Answer::Units { units } if units.len() == 1),
        "it keeps what it has"
    );
}

#[test]
fn a_group_that_was_left_is_dropped_and_filled_anew_when_it_comes_back() {
    let rig = Rig::scrubbing(17);
    write(&rig, 1, &[&[7; 20_000]]);
    let configure = |version, members: &[(u64, bool)]| {
        for (node, member) in &rig.members {
            member.configure(&configuration(*node, version, members));
        }
    };
    let third = &rig.members[&NodeId(3)];
    // Two are not enough to do without the third.
    configure(2, &[(1, false), (2, false)]);
    run(&rig, 30);
    assert_eq!(third.store().group_ids(), [GROUP]);
    configure(3, &[(1, false), (2, false), (4, false)]);
    run(&rig, 10);
    assert_eq!(third.store().group_ids(), [GROUP], "it may come back at once");
    run(&rig, 10);
    assert_eq!((third.store().group_ids(), third.counters().groups_left), (vec![], 1));
    configure(4, &[(1, false), (2, false), (3, true)]);
    run(&rig, 5);
    let ready = Report::JoinReady { group: GROUP, epoch: Epoch(4), node: NodeId(3) };
    assert!(rig.members[&NodeId(1)].reports().contains(&ready), "{}", third.describe(GROUP));
    let store = std::rc::Rc::clone(third.store());
    let found = rig.world.run(&rig.edge_shard(), async move {
        store.read(GROUP, BLOCK, UnitIndex(3), IoClass::Client).await.unwrap().is_some()
    });
    assert!(found);
}

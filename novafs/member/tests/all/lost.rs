//! A unit that is bad on every host holds up nothing else, and never becomes a hole.

use std::time::Duration;

use nova_units::{BlockId, Epoch, Generation, Incarnation, NodeId, UnitIndex};
use novafs_format::LogEntry;
use novafs_member::GroupHealth;
use novafs_replica::{Answer, Configuration, Message, Report, Role};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, seal, whole};

/// More entries than a store keeps in memory after their commit.
const ENTRIES: u32 = 1_100;
/// The unit that is lost, and its neighbours.
const LOST: u16 = 4;
const UNITS: [u16; 3] = [3, LOST, 5];

fn write(rig: &Rig, entry: LogEntry, stored: Option<Vec<u8>>) {
    let (answer, _) = rig.ask(1, Message::Write { group: GROUP, epoch: EPOCH, entry }, stored);
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
}

/// Host 3 is in another life; it joins in epoch 2 and is in sync from epoch 3 on.
fn with_new_host_3(node: NodeId, epoch: u64) -> Configuration {
    let mut changed = whole(node);
    changed.version = epoch;
    let group = changed.groups.get_mut(&GROUP).unwrap();
    group.epoch = Epoch(epoch);
    group.members[2].incarnation = Incarnation(2);
    if epoch == 2 {
        group.members[2].role = Role::Joining;
    }
    if node == NodeId(3) {
        changed.confirmed = Some(Incarnation(2));
    }
    changed
}

fn flip(rig: &Rig, node: u64) -> u64 {
    let locate = Message::Locate { group: GROUP, block: BLOCK, first: UnitIndex(LOST), count: 1 };
    let (Answer::Located { cells, .. }, _) = rig.ask(node, locate, None) else { panic!("it is there") };
    rig.disks[&NodeId(node)].flip_bit(cells[0].position + 2_000, 3);
    cells[0].position + 2_000
}

fn health(rig: &Rig, node: u64) -> GroupHealth {
    let all = rig.members[&NodeId(node)].health();
    *all.iter().find(|health| health.group == GROUP).expect("it holds the group")
}

fn read(rig: &Rig, node: u64, unit: u16) -> (Answer, Vec<u8>) {
    let first = UnitIndex(unit);
    rig.ask(node, Message::Read { group: GROUP, epoch: Epoch(3), block: BLOCK, first, count: 1 }, None)
}

/// Three units, the middle one bad on both hosts that have it; host 3 joins and is filled all the same.
fn fills_around_the_lost_unit(seed: u64, entries_behind: u32) -> Rig {
    let rig = Rig::scrubbing(seed);
    for (unit, counter) in UNITS.into_iter().zip(1..) {
        let (entry, stored) = seal(unit, counter, &[&[9; 20_000]]);
        write(&rig, entry, Some(stored));
    }
    for generation in (1..=entries_behind).map(Generation) {
        write(&rig, LogEntry::Fence { block: BlockId::new(0, 6), generation }, None);
    }
    let flipped = [1, 2].map(|node| flip(&rig, node));
    rig.configure(|node| with_new_host_3(node, 2));
    rig.world.run_for(Duration::from_secs(2));
    let ready = Report::JoinReady { group: GROUP, epoch: Epoch(2), node: NodeId(3) };
    assert!(!rig.members[&NodeId(1)].reports().contains(&ready), "whoever may have it is asked first");
    rig.world.run_for(Duration::from_secs(20));
    let said = rig.members[&NodeId(1)].reports();
    assert!(said.contains(&ready), "{said:?}: {}", rig.members[&NodeId(1)].describe(GROUP));
    assert!(rig.members[&NodeId(3)].counters().host.pages_filled > 0);
    let filled = health(&rig, 3);
    assert_eq!((filled.filled_units, filled.filled_to, filled.filling), (3, (BLOCK, UnitIndex(5)), false));

    rig.configure(|node| with_new_host_3(node, 3));
    rig.world.run_for(Duration::from_secs(15));
    for node in 1..=3 {
        let found = health(&rig, node);
        assert_eq!((found.bad_units, found.lost_units), (1, 1), "host {node}");
        assert_eq!(found.lost[0], Some((BLOCK, UnitIndex(LOST))), "host {node}");
        // Not a hole, which a file that was opened for writing would read as zeros.
        assert_eq!(read(&rig, node, LOST).0, Answer::Corrupt { unit: UnitIndex(LOST) }, "host {node}");
        for unit in [3, 5] {
            assert!(matches!(read(&rig, node, unit).0, Answer::Units { units } if units.len() == 1));
        }
    }
    // The medium of one host recovers: all are repaired from it.
    rig.disks[&NodeId(2)].flip_bit(flipped[1], 3);
    rig.world.run_for(Duration::from_secs(20));
    let (_, stored) = seal(LOST, 2, &[&[9; 20_000]]);
    for node in 1..=3 {
        assert_eq!((health(&rig, node).bad_units, health(&rig, node).lost_units), (0, 0), "host {node}");
        assert_eq!(read(&rig, node, LOST).1, stored, "host {node}");
    }
    rig
}

#[test]
fn a_page_with_a_unit_that_nobody_has_is_filled_around_it() {
    fills_around_the_lost_unit(31, ENTRIES);
}

#[test]
fn a_log_with_a_unit_that_nobody_has_is_left_for_pages() {
    fills_around_the_lost_unit(32, 0);
}

//! A lone survivor with a bad copy has it from hosts that were members.

use std::time::Duration;

use nova_units::{Epoch, NodeId, UnitIndex};
use novafs_replica::{Answer, Configuration, LocatedUnit, Message, Report, Role};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, seal, whole};

/// The group at `epoch`: host 1 is in sync, `joining` joins, the rest were members.
fn survived(node: NodeId, epoch: u64, joining: Option<u64>) -> Configuration {
    let mut changed = whole(node);
    changed.version = epoch;
    changed.node_lease_until = Duration::from_secs(1_000_000);
    let group = changed.groups.get_mut(&GROUP).unwrap();
    group.epoch = Epoch(epoch);
    group.frozen = true;
    group.members.retain(|member| member.node == NodeId(1) || Some(member.node.0) == joining);
    group.members.iter_mut().skip(1).for_each(|member| member.role = Role::Joining);
    group.former = (2..=3).map(NodeId).filter(|node| Some(node.0) != joining).collect();
    changed
}

fn locate(rig: &Rig, node: u64, unit: u16) -> LocatedUnit {
    let message = Message::Locate { group: GROUP, block: BLOCK, first: UnitIndex(unit), count: 1 };
    let (Answer::Located { cells, .. }, _) = rig.ask(node, message, None) else { panic!("it is there") };
    cells[0]
}

fn write(rig: &Rig, counter: u64) -> Vec<u8> {
    let (entry, stored) = seal(3, counter, &[&[7; 20_000]]);
    let (answer, _) = rig.ask(1, Message::Write { group: GROUP, epoch: EPOCH, entry }, Some(stored.clone()));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    rig.world.run_for(Duration::from_millis(10));
    stored
}

fn read(rig: &Rig) -> (Answer, Vec<u8>) {
    let (first, count) = (UnitIndex(3), 1);
    rig.ask(1, Message::Read { group: GROUP, epoch: Epoch(2), block: BLOCK, first, count }, None)
}

#[test]
fn a_bad_copy_is_repaired_from_a_host_that_was_a_member() {
    let rig = Rig::new(6);
    let stored = write(&rig, 1);
    rig.configure(|node| survived(node, 2, None));
    rig.world.run_for(Duration::from_secs(1));
    // One of the two has a bad copy too.
    for node in [1, 2] {
        rig.disks[&NodeId(node)].flip_bit(locate(&rig, node, 3).position + 5_000, 3);
    }
    assert_eq!(read(&rig).0, Answer::Corrupt { unit: UnitIndex(3) }, "not one wrong byte is served");
    rig.world.run_for(Duration::from_secs(1));
    let (answer, body) = read(&rig);
    assert!(matches!(answer, Answer::Units { .. }), "{answer:?}");
    assert_eq!(body, stored);
}

#[test]
fn a_host_that_was_a_member_gives_the_version_that_is_asked_for_or_none() {
    let rig = Rig::new(7);
    write(&rig, 1);
    // Host 3 misses the second version.
    rig.members[&NodeId(3)].configure(&survived(NodeId(3), 2, Some(2)));
    let (entry, stored) = seal(3, 2, &[&[8; 20_000]]);
    rig.tell(1, &Message::Write { group: GROUP, epoch: EPOCH, entry }, &stored);
    rig.world.run_for(Duration::from_millis(50));
    rig.configure(|node| survived(node, 3, Some(2)));
    rig.world.run_for(Duration::from_secs(3));
    let (answer, body) = rig.ask(3, copy(2), None);
    assert_eq!((answer, body.len()), (Answer::Absent, 0));
    let (answer, body) = rig.ask(3, copy(1), None);
    assert!(matches!(answer, Answer::Units { .. }), "{answer:?}");
    assert_ne!(body, stored);
}

fn copy(counter: u64) -> Message {
    let (entry, _) = seal(3, counter, &[&[0; 8]]);
    let generation = entry.units()[0].generation;
    Message::Copy { group: GROUP, block: BLOCK, unit: UnitIndex(3), generation, counter }
}

#[test]
fn a_prepared_entry_that_is_bad_reaches_a_joiner_from_a_host_that_was_a_member() {
    let rig = Rig::new(8);
    write(&rig, 1);
    let cell = locate(&rig, 1, 3);
    // Host 3 follows no more: what is written now is prepared on hosts 1 and 2, and committed nowhere.
    rig.members[&NodeId(3)].configure(&survived(NodeId(3), 2, None));
    let (entry, stored) = seal(4, 2, &[&[9; 20_000]]);
    rig.tell(1, &Message::Write { group: GROUP, epoch: EPOCH, entry }, &stored);
    rig.world.run_for(Duration::from_millis(50));
    rig.configure(|node| survived(node, 2, None));
    rig.world.run_for(Duration::from_secs(1));
    assert_eq!(rig.members[&NodeId(1)].position(GROUP).map(|at| at.1.0), Some(1), "not committed");
    // Cells of one class lie side by side.
    let next = cell.position + u64::from(cell.cell_bytes);
    rig.disks[&NodeId(1)].flip_bit(next + 5_000, 3);
    let before = rig.members[&NodeId(3)].store().usage().bytes_free;
    rig.configure(|node| survived(node, 3, Some(3)));
    rig.world.run_for(Duration::from_secs(3));
    let ready = Report::JoinReady { group: GROUP, epoch: Epoch(3), node: NodeId(3) };
    let said = rig.members[&NodeId(1)].reports();
    assert!(said.contains(&ready), "{said:?}: {}", rig.members[&NodeId(1)].describe(GROUP));
    assert!(rig.members[&NodeId(3)].store().usage().bytes_free < before, "it holds the entry");
}

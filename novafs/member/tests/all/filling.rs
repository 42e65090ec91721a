//! A joiner is filled from the other members.

use std::time::Duration;

use nova_units::{BlockId, Epoch, Generation, Incarnation, NodeId, UnitIndex};
use novafs_format::LogEntry;
use novafs_replica::{Answer, Configuration, Message, Report, Role};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, seal, whole};

/// Of the buffers that hold a unit such a pool has 44, and a message holds 128 of the units below.
const POOL_BYTES: u64 = 8 << 20;
/// More entries than a store keeps in memory after their commit.
const ENTRIES: u32 = 1_100;

fn write(rig: &Rig, entry: LogEntry, stored: Option<Vec<u8>>) {
    let (answer, _) = rig.ask(1, Message::Write { group: GROUP, epoch: EPOCH, entry }, stored);
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
}

/// Host 3 begins another life and joins.
fn joined_anew(node: NodeId) -> Configuration {
    let mut changed = whole(node);
    changed.version += 1;
    let group = changed.groups.get_mut(&GROUP).unwrap();
    group.epoch = Epoch(2);
    group.members[2].incarnation = Incarnation(2);
    group.members[2].role = Role::Joining;
    if node == NodeId(3) {
        changed.confirmed = Some(Incarnation(2));
    }
    changed
}

#[test]
fn a_host_with_few_buffers_fills_a_joiner_with_many_small_units() {
    let rig = Rig::with_pools(5, POOL_BYTES);
    for first in [0, 64, 128, 192] {
        let (entry, stored) = seal(first, u64::from(first) + 1, &[&[3; 6_000][..]; 64]);
        write(&rig, entry, Some(stored));
    }
    for generation in (1..=ENTRIES).map(Generation) {
        write(&rig, LogEntry::Fence { block: BlockId::new(0, 6), generation }, None);
    }
    rig.configure(joined_anew);
    rig.world.run_for(Duration::from_secs(3));
    let ready = Report::JoinReady { group: GROUP, epoch: Epoch(2), node: NodeId(3) };
    let said = rig.members[&NodeId(1)].reports();
    assert!(said.contains(&ready), "{said:?}: {}", rig.members[&NodeId(1)].describe(GROUP));
    assert!(rig.members[&NodeId(3)].counters().host.pages_filled > 0, "the log did not reach back");
    let locate = Message::Locate { group: GROUP, block: BLOCK, first: UnitIndex(0), count: 256 };
    let (Answer::Located { cells, .. }, _) = rig.ask(3, locate, None) else { panic!("it holds the group") };
    assert_eq!(cells.len(), 256);
}

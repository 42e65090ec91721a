//! Orphaned blocks leave every member, through the group's log.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use nova_units::{BlockId, NodeId};
use novafs_member::Collected;
use novafs_replica::{Answer, Message};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, seal};

fn collect(rig: &Rig, node: u64, range: RangeInclusive<BlockId>) -> Result<Collected, Answer> {
    let member = Rc::clone(&rig.members[&NodeId(node)]);
    // Any host can run the future; the member's own tasks are what it waits for.
    let edge = rig.edge_shard();
    rig.world.run(&edge, async move { member.collect(GROUP, range).await })
}

fn write(rig: &Rig, counter: u64) -> Answer {
    let (entry, stored) = seal(0, counter, &[&[7; 20_000], b"short"]);
    rig.ask(1, Message::Write { group: GROUP, epoch: EPOCH, entry }, Some(stored)).0
}

#[test]
fn a_range_is_deleted_on_every_member_and_ids_that_nobody_holds_cost_no_entry() {
    let rig = Rig::new(11);
    assert!(matches!(write(&rig, 1), Answer::Written { .. }));
    let around = BlockId(BLOCK.0 - 5)..=BlockId(BLOCK.0 + 16_000);
    let collected = collect(&rig, 1, around.clone());
    assert_eq!(collected, Ok(Collected { blocks: 1, bytes: 20_480 + 4096 }));
    rig.world.run_for(Duration::from_millis(50));
    for node in 1..=3 {
        let (answer, body) = rig.read(node, 0, 16);
        assert_eq!((answer, body), (Answer::Units { units: vec![] }, vec![]), "host {node}");
    }
    let committed = rig.members[&NodeId(1)].counters().host.entries_committed;
    assert_eq!(committed, 2, "the write and one delete for a range of 16,006 ids");
    assert_eq!(collect(&rig, 1, around), Ok(Collected::default()), "once more");
    assert_eq!(rig.members[&NodeId(1)].counters().host.entries_committed, committed);
    assert!(matches!(write(&rig, 2), Answer::Fenced { .. }), "its writer may not go on");
    // The cells are free once a checkpoint has forgotten them.
    rig.world.run_for(Duration::from_secs(3));
    for (node, member) in &rig.members {
        let usage = member.store().usage();
        let kept = usage.bytes_total - usage.bytes_free;
        assert!(kept <= usage.bytes_total / 25, "host {node} keeps {kept} of {}", usage.bytes_total);
    }
}

#[test]
fn only_the_primary_says_what_the_group_holds() {
    let rig = Rig::new(12);
    assert!(matches!(write(&rig, 1), Answer::Written { .. }));
    let refused = collect(&rig, 2, BLOCK..=BLOCK);
    assert_eq!(refused, Err(Answer::NotPrimary { primary: NodeId(1) }));
    rig.world.run_for(Duration::from_millis(50));
    assert!(matches!(rig.read(2, 0, 2).0, Answer::Units { units } if units.len() == 2));
}

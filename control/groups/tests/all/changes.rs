//! Each change on its own.

use std::collections::BTreeSet;

use nova_groups::{
    AddJoining, Admit, CreateGroups, Drop, DropMembers, FailDevice, Groups, Joining, NewGroup, Op, Outcome,
    Reinstate, ReinstateGroup, Role,
};
use nova_units::{Epoch, NodeId};

use crate::kit::{Region, secs};

fn drop_of(group: u32, epoch: u64, nodes: &[u64]) -> Op {
    Op::Drop(Drop { groups: vec![DropMembers { group, epoch, nodes: nodes.to_vec() }], rebuilt: false })
}

fn joining(group: u32, epoch: u64, node: u64) -> Vec<Joining> {
    vec![Joining { group, epoch, node, replaces: 0 }]
}

fn outcome(region: &mut Region, op: Op) -> Outcome {
    region.apply(op).groups[0].1
}

#[test]
fn groups_are_made_once_three_hosts_serve_and_never_again() {
    let mut region = Region::new(2, 6);
    assert_eq!(region.groups.iter().count(), 0, "two hosts are too few");
    region.observed.storage.insert(NodeId(3));
    region.start(3, 3000);
    region.settle();
    assert_eq!(region.groups.iter().count(), 6);
    assert!(region.groups.iter().all(|(_, group)| group.epoch == Epoch(1) && group.members.len() == 3));
    for host in 1..=3 {
        assert_eq!(region.groups.iter().filter(|(_, group)| group.primary == NodeId(host)).count(), 2);
    }
    assert!(region.round().is_empty());
    let unknown = NewGroup { nodes: vec![1, 2, 9], primary: 1 };
    let create = CreateGroups { namespace: String::new(), groups: vec![unknown] };
    assert!(region.apply(Op::CreateGroups(create)).refused.is_some(), "host 9 has no device");
}

#[test]
fn a_drop_is_compare_and_swap_on_the_epoch() {
    let mut region = Region::new(3, 1);
    assert_eq!(outcome(&mut region, drop_of(1, 7, &[2])), Outcome::Stale);
    assert_eq!(outcome(&mut region, drop_of(1, 1, &[2])), Outcome::Changed(Epoch(2)));
    assert_eq!(outcome(&mut region, drop_of(1, 1, &[3])), Outcome::Stale);
    assert!(matches!(outcome(&mut region, drop_of(1, 2, &[2])), Outcome::Refused(_)));
    assert_eq!(region.in_sync(1), [1, 3]);
    assert!(!region.group(1).frozen());
}

#[test]
fn the_last_in_sync_member_is_never_dropped_and_is_frozen() {
    let mut region = Region::new(3, 1);
    assert_eq!(region.group(1).primary, NodeId(1));
    assert_eq!(outcome(&mut region, drop_of(1, 1, &[1, 2])), Outcome::Changed(Epoch(2)));
    assert!(region.group(1).frozen());
    assert_eq!(region.group(1).primary, NodeId(3), "the primary went with the dropped");
    assert_eq!(region.group(1).last_writable.len(), 3, "all three held every acknowledged write");
    assert!(matches!(outcome(&mut region, drop_of(1, 2, &[3])), Outcome::Refused(_)));
}

#[test]
fn a_member_joins_and_is_admitted_one_epoch_each() {
    let mut region = Region::new(4, 1);
    outcome(&mut region, drop_of(1, 1, &[3]));
    let add = |epoch, node| Op::AddJoining(AddJoining { groups: joining(1, epoch, node) });
    let admit = |epoch, node| Op::Admit(Admit { groups: joining(1, epoch, node) });
    assert!(matches!(outcome(&mut region, add(2, 1)), Outcome::Refused(_)), "it is a member");
    assert_eq!(outcome(&mut region, add(2, 3)), Outcome::Changed(Epoch(3)));
    assert_eq!(region.group(1).member(NodeId(3)).unwrap().role, Role::Joining);
    assert_eq!(region.in_sync(1), [1, 2]);
    assert_eq!(outcome(&mut region, admit(2, 3)), Outcome::Stale, "it was ready in another epoch");
    assert!(matches!(outcome(&mut region, admit(3, 2)), Outcome::Refused(_)), "it is in sync");
    assert_eq!(outcome(&mut region, admit(3, 3)), Outcome::Changed(Epoch(4)));
    assert_eq!(region.in_sync(1), [1, 2, 3]);
    assert!(matches!(outcome(&mut region, add(4, 4)), Outcome::Refused(_)), "the group is full");
}

#[test]
fn only_a_member_of_the_last_writable_epoch_replaces_a_lone_survivor() {
    let mut region = Region::new(3, 1);
    let reinstate = |epoch, nodes: &[u64]| {
        Op::Reinstate(Reinstate { groups: vec![ReinstateGroup { group: 1, epoch, nodes: nodes.to_vec() }] })
    };
    outcome(&mut region, drop_of(1, 1, &[1]));
    assert!(matches!(outcome(&mut region, reinstate(2, &[1])), Outcome::Refused(_)), "it takes writes");
    outcome(&mut region, drop_of(1, 2, &[2]));
    assert!(matches!(outcome(&mut region, reinstate(3, &[1])), Outcome::Refused(_)), "it missed writes");
    assert_eq!(outcome(&mut region, reinstate(3, &[2])), Outcome::Changed(Epoch(4)));
    assert_eq!(region.in_sync(1), [2]);
    assert_eq!(region.group(1).primary, NodeId(2));
}

#[test]
fn a_member_that_began_to_join_is_no_longer_complete() {
    let mut region = Region::new(3, 1);
    outcome(&mut region, drop_of(1, 1, &[1, 2]));
    region.apply(Op::AddJoining(AddJoining { groups: joining(1, 2, 1) }));
    let complete: Vec<u64> = region.group(1).last_writable.iter().map(|(node, _)| node.0).collect();
    assert_eq!(complete, [2, 3], "host 1 throws its tail away when it joins");
}

#[test]
fn who_was_in_the_last_writable_epoch_joins_a_lone_survivor_first() {
    let mut region = Region::new(3, 1);
    let order = |lost: u64| {
        let mut region = Region::new(3, 1);
        outcome(&mut region, drop_of(1, 1, &[lost]));
        outcome(&mut region, drop_of(1, 2, &[5 - lost]));
        assert_eq!(region.group(1).former(), BTreeSet::from([NodeId(2), NodeId(3)]));
        region.pass(secs(4), &[1, 2, 3]);
        region.round();
        let joining = |node: u64| region.group(1).member(NodeId(node)).is_some();
        assert_eq!((joining(5 - lost), joining(lost)), (true, false), "{lost} left before the last writes");
        assert_eq!(region.group(1).former(), BTreeSet::from([NodeId(lost)]));
    };
    order(2);
    order(3);
    // It is not waited for.
    outcome(&mut region, drop_of(1, 1, &[2]));
    outcome(&mut region, drop_of(1, 2, &[3]));
    region.pass(secs(4), &[1, 2]);
    region.round();
    assert!(region.group(1).member(NodeId(2)).is_some());
}

#[test]
fn a_failed_device_leaves_every_group_that_has_another_copy() {
    let mut region = Region::new(3, 4);
    outcome(&mut region, drop_of(1, 1, &[2, 3]));
    let fail = FailDevice { device: 1_u128.to_be_bytes().to_vec(), reason: "write: EIO".into() };
    region.apply(Op::FailDevice(fail));
    assert_eq!(region.in_sync(1), [1], "the lone survivor stays");
    for group in 2..=4 {
        assert_eq!(region.in_sync(group), [2, 3]);
    }
    assert!(!region.groups.stores(NodeId(1)));
}

#[test]
fn a_snapshot_gives_the_same_groups_back() {
    let mut region = Region::new(4, 5);
    outcome(&mut region, drop_of(1, 1, &[1, 2]));
    outcome(&mut region, drop_of(2, 1, &[3]));
    region.apply(Op::FailDevice(FailDevice { device: 4_u128.to_be_bytes().to_vec(), reason: String::new() }));
    region.apply(Op::AddJoining(AddJoining { groups: joining(1, region.group(1).epoch.0, 1) }));
    let bytes = region.groups.encode_to_vec();
    assert_eq!(Groups::decode(&bytes).unwrap(), region.groups);
    for end in 0..bytes.len() {
        let _ = Groups::decode(&bytes[..end]);
    }
}

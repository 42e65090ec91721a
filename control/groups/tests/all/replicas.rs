//! Groups of two to five members, made where namespaces want them.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_groups::{
    CreateGroups, Drop, DropMembers, GATHER, NewGroup, Op, REPLACE_AFTER, REPLACE_FROZEN_AFTER, ReadyReport,
    Role,
};
use nova_units::{GroupId, NodeId, Replicas};

use crate::kit::{Region, secs};

const ONE: &[u64] = &[1];

fn replicas(count: u32) -> Replicas {
    Replicas::new(count).unwrap()
}

/// Every joining member becomes ready, and what follows is planned.
fn fill(region: &mut Region, running: &[u64]) {
    let ready = region.groups.iter().filter_map(|(group, it)| {
        let joiner = it.members.iter().find(|member| member.role == Role::Joining)?;
        Some(ReadyReport { reporter: it.primary, node: joiner.node, group, epoch: it.epoch })
    });
    region.observed.ready = ready.collect();
    region.pass(secs(1), running);
    region.settle();
    region.observed.ready.clear();
}

/// A group of two on hosts 1 and 2 of four, of which host 2 is lost.
fn lone_survivor() -> Region {
    let mut region = Region::with_replicas(&[ONE, ONE], 1, &[replicas(2)]);
    for host in [3, 4] {
        region.observed.storage.insert(NodeId(host));
        region.start(host, host * 1000);
    }
    region.settle();
    assert_eq!(region.in_sync(1), [1, 2]);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3, 4]);
    region.round();
    assert!(region.in_sync(1) == [1] && region.group(1).frozen());
    region.observed.silences.clear();
    region
}

#[test]
fn groups_are_made_for_each_number_of_copies_that_is_wanted_once_as_many_hosts_run() {
    let mut region = Region::with_replicas(&[ONE; 3], 4, &[Replicas::DEFAULT]);
    let count = |region: &Region, of: u32| {
        region.groups.iter().filter(|(_, group)| group.replicas == replicas(of)).count()
    };
    region.observed.replicas_wanted.extend([replicas(2), replicas(5)]);
    region.settle();
    assert_eq!([2, 3, 4, 5].map(|of| count(&region, of)), [4, 4, 0, 0], "three hosts hold no five copies");
    for host in [4, 5] {
        region.observed.storage.insert(NodeId(host));
        region.start(host, host * 1000);
    }
    region.settle();
    assert_eq!([2, 3, 4, 5].map(|of| count(&region, of)), [4, 4, 0, 4]);
    for (_, group) in region.groups.iter() {
        assert!(group.is_whole() || group.members.iter().any(|it| it.role == Role::Joining), "{group:?}");
    }
    // What nobody wants any more stays: it may hold blocks.
    region.observed.replicas_wanted = BTreeSet::from([Replicas::DEFAULT]);
    region.settle();
    assert_eq!(count(&region, 5), 4);
    let writable: Vec<GroupId> = region.groups.writable("hot", replicas(5)).collect();
    assert_eq!(writable.len(), 4);
    assert!(writable.iter().all(|id| region.groups.group(*id).unwrap().members.len() == 5));
    assert_eq!(region.groups.writable("hot", replicas(4)).count(), 0);
}

#[test]
fn every_device_holds_replicas_and_devices_that_come_later_get_groups_of_their_own() {
    let eight = &[1_u64; 8][..];
    let mut region = Region::with_replicas(&[eight; 3], 12, &[Replicas::DEFAULT]);
    assert_eq!(region.groups.iter().count(), 12, "as many as were wanted");
    region.observed.replicas_a_device = 3;
    region.settle();
    assert_eq!(region.groups.iter().count(), 24, "24 devices hold three replicas each");
    let held = |region: &Region, life| {
        region.groups.iter().filter(|(_, it)| it.homes.iter().any(|home| home.1 == life)).count()
    };
    let least = |region: &Region| {
        let lives: Vec<_> = region.groups.devices().map(|(_, device)| device.incarnation).collect();
        lives.into_iter().map(|life| held(region, life)).min().unwrap()
    };
    assert_eq!(least(&region), 3);
    for host in [4, 5] {
        region.observed.storage.insert(NodeId(host));
        region.start(host, host * 1000);
    }
    region.settle();
    assert_eq!(region.groups.iter().count(), 26);
    assert!(least(&region) >= 2, "the new ones hold what is new, and more moves to them");
    region.observed.groups_wanted = 40;
    region.settle();
    assert_eq!(region.groups.iter().count(), 40, "more are made when more are wanted");
}

#[test]
fn a_group_has_two_to_five_different_hosts() {
    let mut region = Region::with_replicas(&[ONE; 6], 0, &[]);
    let mut create = |nodes: &[u64]| {
        let groups = vec![NewGroup { nodes: nodes.to_vec(), primary: nodes[0] }];
        region.apply(Op::CreateGroups(CreateGroups { namespace: String::new(), groups })).refused
    };
    for nodes in [&[1][..], &[1, 1], &[1, 2, 3, 4, 5, 6]] {
        assert_eq!(create(nodes), Some("a group has two to five different hosts"));
    }
    for nodes in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 3, 4, 5]] {
        assert_eq!(create(nodes), None);
    }
    assert_eq!(region.group(1).replicas, replicas(2));
    assert_eq!(region.group(3).replicas, replicas(5));
}

#[test]
fn every_count_loses_hosts_down_to_one_and_is_filled_again() {
    for count in 2..=5 {
        let hosts: Vec<u64> = (1..=count.into()).collect();
        let mut region = Region::with_replicas(&vec![ONE; hosts.len()], 1, &[replicas(count)]);
        for lost in hosts.iter().rev().take(hosts.len() - 1) {
            let epoch = region.group(1).epoch.0;
            let drop =
                Drop { groups: vec![DropMembers { group: 1, epoch, nodes: vec![*lost] }], rebuilt: false };
            assert!(region.apply(Op::Drop(drop)).accepted());
            assert_eq!(region.group(1).frozen(), region.in_sync(1).len() < 2);
        }
        region.pass(secs(60), &hosts);
        region.settle();
        for _ in 1..count {
            fill(&mut region, &hosts);
        }
        assert_eq!(region.in_sync(1), hosts, "{count} copies");
        assert!(region.group(1).is_whole() && region.settle().is_empty());
    }
}

#[test]
fn a_lone_survivor_gets_another_host_when_the_lost_one_counts_as_failed_and_others_wait() {
    let mut region = lone_survivor();
    region.pass(REPLACE_FROZEN_AFTER - secs(1), &[1, 3, 4]);
    region.settle();
    assert_eq!(region.group(1).members.len(), 1, "host 2 may come back");
    region.pass(secs(2), &[1, 3, 4]);
    region.settle();
    assert_eq!(region.group(1).members.len(), 2);
    fill(&mut region, &[1, 3, 4]);
    assert!(region.group(1).is_whole() && !region.in_sync(1).contains(&2));

    // A group of three that lost one takes writes, and waits for it.
    let mut region = Region::new(4, 1);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3, 4]);
    region.round();
    region.observed.silences.clear();
    region.pass(REPLACE_AFTER - secs(2), &[1, 3, 4]);
    region.settle();
    assert!(!region.group(1).frozen() && region.group(1).members.len() == 2);
}

#[test]
fn in_a_storm_a_lone_survivor_waits() {
    let mut region = lone_survivor();
    region.observed.storm = true;
    region.pass(REPLACE_AFTER * 2, &[1, 3, 4]);
    region.settle();
    assert_eq!(region.group(1).members.len(), 1);
}

#[test]
fn a_host_that_lacks_a_tail_only_goes_before_one_that_is_filled_and_once() {
    let mut region = lone_survivor();
    region.pass(REPLACE_FROZEN_AFTER + secs(1), &[1, 3, 4]);
    region.settle();
    let joiner = region.group(1).members.iter().find(|it| it.role == Role::Joining).unwrap().node;
    assert_ne!(joiner, NodeId(2));
    // The device of host 2 kept its life; only its host was away.
    region.pass(Duration::from_millis(100), &[1, 2, 3, 4]);
    region.settle();
    assert!(region.group(1).member(joiner).is_some(), "it may be nearly done");
    region.observed.paging.insert((GroupId(1), joiner));
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).map(|it| it.role), Some(Role::Joining));
    assert!(region.group(1).member(joiner).is_none());
    // Now host 2 is filled with pages itself: nobody is better.
    region.observed.paging = BTreeSet::from([(GroupId(1), NodeId(2))]);
    assert!(region.settle().is_empty());
    fill(&mut region, &[1, 2, 3, 4]);
    assert_eq!(region.in_sync(1), [1, 2]);
    assert!(region.group(1).is_whole());
}

#[test]
fn a_drain_moves_replicas_of_every_count_while_the_groups_stay_whole() {
    let all = [2, 3, 4, 5].map(replicas);
    let mut region = Region::with_replicas(&[ONE; 6], 3, &all);
    let running = [1, 2, 3, 4, 5, 6];
    region.observed.draining.insert(NodeId(3));
    region.pass(secs(1), &running);
    region.settle();
    let held =
        |region: &Region| region.groups.iter().filter(|(_, it)| it.member(NodeId(3)).is_some()).count();
    assert!(held(&region) > 0);
    for _ in 0..30 {
        for (id, group) in region.groups.iter() {
            assert_eq!(group.in_sync().count(), group.replicas.count(), "{id}: {group:?}");
        }
        fill(&mut region, &running);
    }
    assert_eq!(held(&region), 0);
    assert_eq!(region.groups.iter().count(), 12);
}

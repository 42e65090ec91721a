//! Draining, balance and slow hosts: replicas move one by one, and a group is never less than whole.

use nova_groups::{
    AddJoining, Admit, Joining, MOVES_MAX, MOVES_TO_ONE_MAX, Op, ReadyReport, Role, SLOW_MOVES_AFTER,
};
use nova_units::NodeId;

use crate::kit::{Region, secs};

/// Every joining member becomes ready, and what follows is planned.
fn fill(region: &mut Region, running: &[u64]) {
    region.observed.ready = region
        .groups
        .iter()
        .filter_map(|(group, it)| {
            let joiner = it.members.iter().find(|member| member.role == Role::Joining)?;
            Some(ReadyReport { reporter: it.primary, node: joiner.node, group, epoch: it.epoch })
        })
        .collect();
    region.pass(secs(1), running);
    region.settle();
    region.observed.ready.clear();
}

fn held(region: &Region, host: u64) -> usize {
    region.groups.iter().filter(|(_, group)| group.member(NodeId(host)).is_some()).count()
}

fn joining(region: &Region) -> Vec<u64> {
    let joiners = region.groups.iter().flat_map(|(_, group)| group.members.clone());
    joiners.filter(|member| member.role == Role::Joining).map(|member| member.node.0).collect()
}

fn assert_whole(region: &Region) {
    for (id, group) in region.groups.iter() {
        assert_eq!(group.in_sync().count(), 3, "{id} was less than whole: {group:?}");
    }
}

#[test]
fn a_drained_host_is_emptied_while_every_group_stays_whole() {
    let mut region = Region::new(5, 20);
    assert_eq!(held(&region, 2), 12);
    region.observed.draining.insert(NodeId(2));
    let running = [1, 2, 3, 4, 5];
    region.pass(secs(1), &running);
    region.settle();
    let mut rounds = 0;
    while held(&region, 2) > 0 {
        assert_whole(&region);
        let joining = joining(&region);
        assert!(!joining.is_empty() && joining.len() <= MOVES_MAX, "{joining:?}");
        for host in running {
            assert!(joining.iter().filter(|node| **node == host).count() <= MOVES_TO_ONE_MAX);
        }
        fill(&mut region, &running);
        rounds += 1;
        assert!(rounds < 40, "it is never emptied");
    }
    assert_whole(&region);
    assert!(region.groups.iter().all(|(_, group)| group.primary != NodeId(2)));
    for _ in 0..10 {
        fill(&mut region, &running);
        assert_whole(&region);
    }
    let share = |region: &Region| (1..=5).map(|host| held(region, host)).collect::<Vec<_>>();
    let evenly = |held: usize, share: usize| held.abs_diff(share) <= 1;
    let others = share(&region);
    assert!(others[1] == 0 && [0, 2, 3, 4].iter().all(|index| evenly(others[*index], 15)), "{others:?}");
    // Taken back, it gets its share again.
    region.observed.draining.clear();
    for _ in 0..20 {
        fill(&mut region, &running);
        assert_whole(&region);
    }
    let all = share(&region);
    assert!(all.iter().all(|held| evenly(*held, 12)), "{all:?}");
    assert!(region.settle().is_empty(), "and then nothing moves any more");
}

#[test]
fn with_three_hosts_a_drain_moves_nothing_and_drops_nothing() {
    let mut region = Region::new(3, 4);
    region.observed.draining.insert(NodeId(1));
    region.pass(secs(1), &[1, 2, 3]);
    assert!(region.settle().is_empty());
    assert_whole(&region);
}

#[test]
fn a_new_empty_host_gets_its_share_a_few_at_a_time() {
    let mut region = Region::new(3, 8);
    region.observed.storage.insert(NodeId(4));
    region.start(4, 4000);
    let running = [1, 2, 3, 4];
    region.pass(secs(1), &running);
    region.settle();
    assert_eq!(joining(&region), [4; MOVES_TO_ONE_MAX]);
    for _ in 0..10 {
        fill(&mut region, &running);
        assert_whole(&region);
    }
    assert!(running.iter().all(|host| held(&region, *host) == 6));
}

#[test]
fn a_move_whose_target_dies_is_given_up_and_made_again_elsewhere() {
    let mut region = Region::new(5, 5);
    region.observed.draining.insert(NodeId(1));
    region.pass(secs(1), &[1, 2, 3, 4, 5]);
    region.settle();
    let (id, target) = region
        .groups
        .iter()
        .find_map(|(id, group)| Some((id, group.members.iter().find(|it| it.role == Role::Joining)?.node)))
        .unwrap();
    let others: Vec<u64> = (1..=5).filter(|host| NodeId(*host) != target).collect();
    for _ in 0..3 {
        for reporter in &others {
            region.report(*reporter, &[target.0]);
        }
        region.pass(std::time::Duration::from_millis(100), &others);
        region.round();
    }
    region.observed.silences.clear();
    region.pass(secs(10), &others);
    region.settle();
    for _ in 0..20 {
        fill(&mut region, &others);
    }
    let group = region.groups.group(id).unwrap();
    assert!(group.member(target).is_none() && group.member(NodeId(1)).is_none());
    assert_eq!(held(&region, 1), 0, "it is emptied onto those that are left");
}

#[test]
fn a_full_group_takes_a_joiner_only_for_a_member_that_leaves() {
    let mut region = Region::new(4, 1);
    let group = region.group(1).clone();
    let members: Vec<u64> = group.members.iter().map(|member| member.node.0).collect();
    let new = (1..=4).find(|host| !members.contains(host)).unwrap();
    let add = |epoch, replaces| {
        Op::AddJoining(AddJoining { groups: vec![Joining { group: 1, epoch, node: new, replaces }] })
    };
    assert!(!region.apply(add(1, 0)).accepted());
    assert!(!region.apply(add(1, new)).accepted(), "who leaves is a member");
    assert!(region.apply(add(1, members[1])).accepted());
    assert_eq!((region.in_sync(1).len(), region.group(1).members.len()), (3, 4));
    let admit = Op::Admit(Admit { groups: vec![Joining { group: 1, epoch: 2, node: new, replaces: 0 }] });
    assert!(region.apply(admit).accepted());
    let mut expected = vec![members[0], members[2], new];
    expected.sort_unstable();
    assert_eq!(region.in_sync(1), expected, "in one step");
}

#[test]
fn a_slow_host_is_no_primary_and_takes_no_replicas() {
    let mut region = Region::new(4, 8);
    region.pace_host(3, true);
    let running = [1, 2, 3, 4];
    region.pass(secs(1), &running);
    let before = held(&region, 3);
    region.settle();
    assert!(region.groups.iter().all(|(_, group)| group.primary != NodeId(3)));
    assert_eq!(held(&region, 3), before, "its copies stay");
    for host in [1, 2, 4] {
        let primaries = region.groups.iter().filter(|(_, group)| group.primary == NodeId(host)).count();
        assert!((2..=3).contains(&primaries), "host {host} is primary of {primaries}");
    }
    region.observed.draining.insert(NodeId(1));
    region.pass(secs(1), &running);
    region.settle();
    assert!(!joining(&region).contains(&3));
}

#[test]
fn a_host_that_stays_slow_is_emptied_while_every_group_stays_whole_and_where_nobody_can_take_it_nothing_moves()
 {
    let mut region = Region::new(4, 8);
    let running = [1, 2, 3, 4];
    region.pace_host(2, true);
    region.pass(secs(1), &running);
    region.settle();
    assert!(held(&region, 2) > 0 && joining(&region).is_empty(), "a moment moves primaries only");
    region.pass(SLOW_MOVES_AFTER, &running);
    region.settle();
    for _ in 0..20 {
        assert_whole(&region);
        fill(&mut region, &running);
    }
    assert_eq!(held(&region, 2), 0);
    assert_whole(&region);
    // It keeps up again, and gets its share.
    region.pace_host(2, false);
    for _ in 0..20 {
        region.settle();
        fill(&mut region, &running);
    }
    assert!(held(&region, 2) >= 5, "{}", held(&region, 2));

    let mut region = Region::new(3, 4);
    region.pace_host(2, true);
    region.pass(SLOW_MOVES_AFTER, &[1, 2, 3]);
    region.settle();
    assert_eq!((held(&region, 2), joining(&region).len()), (4, 0));
}

fn primaries(region: &Region, hosts: std::ops::RangeInclusive<u64>) -> Vec<usize> {
    let of = |host: u64| region.groups.iter().filter(|(_, group)| group.primary == NodeId(host)).count();
    hosts.map(of).collect()
}

#[test]
fn primaries_are_even_again_when_hosts_have_gone_and_come_back() {
    let mut region = Region::new(3, 12);
    let running = [1, 2, 3];
    assert_eq!(primaries(&region, 1..=3), [4, 4, 4]);
    for host in [2, 3] {
        region.start(host, host * 1000 + 1);
        region.settle();
        while region.groups.iter().any(|(_, group)| !group.is_whole()) {
            fill(&mut region, &running);
        }
    }
    let before = primaries(&region, 1..=3);
    assert!(before[0] >= 6 && before[2] == 0, "who stayed has most, who was just lost none: {before:?}");
    region.pass(secs(60), &running);
    let ops = region.settle();
    let few = |op: &Op| matches!(op, Op::MovePrimary(moved) if moved.groups.len() <= 4);
    assert!(ops.iter().all(few), "{ops:?}");
    assert_eq!(primaries(&region, 1..=3), [4, 4, 4]);
    assert_whole(&region);
    // Shares that cannot be even are left alone.
    let mut uneven = Region::new(3, 4);
    uneven.pass(secs(60), &running);
    assert!(uneven.settle().is_empty());
    region.pace_host(3, true);
    region.settle();
    assert_eq!(primaries(&region, 1..=3), [6, 6, 0], "a slow host gets none");
}

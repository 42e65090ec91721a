//! Devices come back: as they were, as old images, or all at once.

use nova_groups::{COLD_START_WAIT, COLD_START_WAIT_MAX, FailDevice, Mount, Op, Restart, Role};
use nova_units::{Incarnation, NodeId};

use crate::kit::{Region, secs};

fn incarnation(region: &Region, node: u64) -> Incarnation {
    region.groups.devices_of(NodeId(node)).next().unwrap().1.incarnation
}

/// The mount of a device that was heard of the one before it.
fn mount(node: u64, boot: u64, mount_counter: u64, incarnation: u64) -> Mount {
    Mount {
        node,
        boot,
        device: u128::from(node).to_be_bytes().to_vec(),
        mount_counter,
        incarnation,
        bytes_total: 9,
        trail: vec![nonce(node, mount_counter - 1), nonce(node, mount_counter)],
    }
}

/// As [`Region`] gives them.
fn nonce(node: u64, mount_counter: u64) -> u64 {
    node << 32 | mount_counter
}

fn restart(region: &mut Region, mount: Mount) -> (Incarnation, bool) {
    let answer = region.apply(Op::Restart(Restart { mounts: vec![mount], confirm: vec![] }));
    (answer.incarnated[0].incarnation, answer.incarnated[0].wipe)
}

#[test]
fn a_restarted_member_leaves_its_groups_and_joins_again() {
    let mut region = Region::new(3, 4);
    let life = incarnation(&region, 2);
    region.start(2, 2001);
    let first = region.round();
    assert!(matches!(first.as_slice(), [Op::Restart(restart)] if restart.confirm.is_empty()), "{first:?}");
    for group in 1..=4 {
        assert_eq!(region.in_sync(group), [1, 3]);
    }
    region.settle();
    assert_eq!(incarnation(&region, 2), life);
    for group in 1..=4 {
        let member = region.group(group).member(NodeId(2)).unwrap();
        assert_eq!((member.role, member.incarnation), (Role::Joining, life));
    }
}

#[test]
fn the_same_mount_told_again_changes_nothing() {
    let mut region = Region::new(3, 1);
    let life = incarnation(&region, 1);
    let before = region.groups.clone();
    assert_eq!(restart(&mut region, mount(1, 1000, 1, life.0)), (life, false));
    assert_eq!(restart(&mut region, mount(1, 1000, 1, 0)), (life, true), "it has not yet been emptied");
    assert_eq!(region.groups, before);
}

#[test]
fn an_old_image_of_a_device_is_a_new_life_and_starts_empty() {
    let mut region = Region::new(3, 1);
    let life = incarnation(&region, 1);
    let (renewed, wipe) = restart(&mut region, mount(1, 1001, 1, life.0));
    assert!(wipe && renewed > life, "the counter did not grow");
    assert_eq!(region.in_sync(1), [2, 3]);
    let (again, wipe) = restart(&mut region, mount(1, 1002, 9, life.0));
    assert!(wipe && again > renewed, "it believes in a life that is over");
    let (kept, wipe) = restart(&mut region, mount(1, 1003, 10, again.0));
    assert_eq!((kept, wipe), (again, false));
}

#[test]
fn an_old_image_is_a_new_life_however_often_it_started_unheard() {
    for starts in 1..12 {
        let mut region = Region::new(3, 1);
        let life = incarnation(&region, 1);
        let image = nonce(1, 1);
        assert_eq!(restart(&mut region, mount(1, 1001, 2, life.0)), (life, false));
        // Its own starts raised its counter above the known one. A full trail names the same start again.
        let trail = (0..starts.min(8)).map(|start| if start == 0 { image } else { 77 + start }).collect();
        let old = Mount { trail, ..mount(1, 1002, 1 + starts, life.0) };
        let (renewed, wipe) = restart(&mut region, old.clone());
        assert!(wipe && renewed > life, "after {starts} starts");
        assert!(region.groups.has_judged(&old));
        assert_eq!(restart(&mut region, old), (renewed, true), "and is judged once");
    }
}

#[test]
fn an_image_of_many_mounts_ago_is_judged_once_and_lives_on() {
    let mut region = Region::new(3, 1);
    let life = incarnation(&region, 1);
    for counter in 2..20 {
        assert_eq!(restart(&mut region, mount(1, 1000 + counter, counter, life.0)), (life, false));
    }
    let old = mount(1, 2000, 5, life.0);
    let (renewed, wipe) = restart(&mut region, old.clone());
    assert!(wipe && renewed > life);
    assert!(region.groups.has_judged(&old), "though its counter is far below the highest");
    assert_eq!(restart(&mut region, mount(1, 2001, 6, renewed.0)), (renewed, false));
    let (again, wipe) = restart(&mut region, mount(1, 2002, 20, life.0));
    assert!(wipe && again > renewed, "the device that the image was made of is of a life that is over");
}

#[test]
fn a_mount_that_was_taken_but_never_answered_costs_nothing() {
    let mut region = Region::new(3, 1);
    let life = incarnation(&region, 1);
    assert_eq!(restart(&mut region, mount(1, 1001, 2, life.0)), (life, false));
    let trail = [1, 2, 3].map(|counter| nonce(1, counter)).to_vec();
    let unheard = Mount { trail, ..mount(1, 1002, 3, life.0) };
    assert_eq!(restart(&mut region, unheard), (life, false));
}

#[test]
fn a_trail_with_too_many_mounts_is_refused() {
    let mut region = Region::new(3, 1);
    let before = region.groups.clone();
    let long = Mount { trail: vec![1; 9], ..mount(1, 1001, 2, 1) };
    let answer = region.apply(Op::Restart(Restart { mounts: vec![long], confirm: vec![] }));
    assert!(answer.refused.is_some() && answer.incarnated.is_empty(), "{answer:?}");
    assert_eq!(region.groups, before);
}

#[test]
fn a_cold_start_does_not_confirm_an_old_image_that_started_unheard() {
    let mut region = Region::new(3, 4);
    let life = incarnation(&region, 2);
    region.start(2, 2001);
    region.settle();
    region.pass(secs(60), &[]);
    for node in 1..=3 {
        region.start(node, node * 1000 + 7);
    }
    let report = region.observed.mounts.iter_mut().find(|report| report.node == NodeId(2)).unwrap();
    report.mounts[0].trail = vec![nonce(2, 1), 78, 79];
    let ops = region.round();
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert!(incarnation(&region, 2) > life);
    let groups: Vec<u32> = region.groups.iter().map(|(id, _)| id.0).collect();
    for group in groups {
        assert!(!region.in_sync(group).contains(&2), "{group}");
    }
}

#[test]
fn a_failed_device_stays_failed_over_every_later_mount() {
    let mut region = Region::new(3, 4);
    let life = incarnation(&region, 2);
    let device = 2_u128.to_be_bytes().to_vec();
    region.apply(Op::FailDevice(FailDevice { device, reason: "flush: EIO".into() }));
    for start in 1..4 {
        region.start(2, 2000 + start);
        region.pass(COLD_START_WAIT_MAX, &[1, 2, 3]);
        assert!(region.settle().is_empty(), "start {start} is not even looked at");
        let mount = mount(2, 2000 + start, 100 + start, life.0);
        let answer = region.apply(Op::Restart(Restart { mounts: vec![mount], confirm: vec![] }));
        assert!(answer.incarnated.is_empty(), "what it holds is not wiped either: {answer:?}");
        assert!(region.groups.devices_of(NodeId(2)).next().is_none());
    }
    // The same drive formatted anew is another device.
    let fresh = Mount { device: 77_u128.to_be_bytes().to_vec(), ..mount(2, 2009, 1, 0) };
    let (incarnation, wipe) = restart(&mut region, fresh);
    assert!(incarnation > life && wipe);
}

#[test]
fn a_device_moved_to_another_host_is_a_new_life() {
    let mut region = Region::new(3, 1);
    let life = incarnation(&region, 1);
    let (moved, wipe) = restart(&mut region, Mount { node: 9, ..mount(1, 9000, 5, life.0) });
    assert!(wipe && moved > life);
    assert_eq!(region.in_sync(1), [1, 2, 3], "host 1 has to fall silent before it leaves");
    assert!(!region.groups.stores(NodeId(1)));
}

#[test]
fn a_cold_start_confirms_the_in_sync_members_as_they_were() {
    let mut region = Region::new(3, 4);
    let epochs: Vec<u64> = region.groups.iter().map(|(_, group)| group.epoch.0).collect();
    region.pass(secs(60), &[]);
    region.start(1, 1001);
    assert!(region.round().is_empty(), "it waits for the others");
    region.pass(secs(1), &[1]);
    region.start(2, 2001);
    assert!(region.round().is_empty());
    region.pass(secs(1), &[1, 2]);
    region.start(3, 3001);
    assert_eq!(region.round().len(), 1);
    for (index, (_, group)) in region.groups.iter().enumerate() {
        assert_eq!(group.in_sync().count(), 3);
        assert_eq!(group.epoch.0, epochs[index] + 1, "under a new epoch, so that tails are aligned");
    }
    assert!(region.round().is_empty());
}

#[test]
fn a_cold_start_without_one_host_goes_on_after_the_wait() {
    let mut region = Region::new(3, 2);
    region.pass(secs(60), &[]);
    region.start(1, 1001);
    region.start(3, 3001);
    region.pass(COLD_START_WAIT - secs(1), &[1, 3]);
    assert!(region.round().is_empty());
    region.pass(secs(1), &[1, 3]);
    assert_eq!(region.round().len(), 1);
    assert_eq!((region.in_sync(1), region.in_sync(2)), (vec![1, 3], vec![1, 3]));
    region.start(2, 2001);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).unwrap().role, Role::Joining);
}

#[test]
fn a_restarted_lone_survivor_stays_in_sync() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2, 3]);
    region.report(2, &[1, 3]);
    region.report(3, &[1, 2]);
    region.pass(nova_groups::GATHER, &[1]);
    region.round();
    assert_eq!(region.in_sync(1), [1]);
    region.observed.silences.clear();
    region.pass(secs(5), &[]);
    region.start(1, 1001);
    assert_eq!(region.round().len(), 1, "there is nobody to wait for");
    assert_eq!(region.in_sync(1), [1]);
    assert!(region.group(1).frozen());
}

#[test]
fn a_restarted_host_does_not_take_over_from_others_that_were_heard_a_moment_ago() {
    let mut region = Region::new(3, 1);
    region.start(2, 2001);
    // The agents of 1 and 3 are slow: each beat comes just too late to count as running.
    for waited in 0..7 {
        region.pass(secs(2), &[1, 3]);
        region.pass(secs(4), &[2]);
        let over = secs(6 * (waited + 1)) >= COLD_START_WAIT_MAX;
        let ops = region.round();
        assert_eq!(ops.is_empty(), !over, "after {} s: {ops:?}", 6 * (waited + 1));
        if over {
            break;
        }
    }
    assert_eq!(region.in_sync(1), [2], "it holds every acknowledged write, and nobody else speaks up");
}

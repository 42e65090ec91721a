//! Hosts with several devices: each is a member of its own, and fails on its own.

use std::collections::BTreeSet;

use nova_groups::{DeviceState, FailDevice, Group, Op, ReadyReport, Role};
use nova_units::{DeviceId, NodeId};
use proptest::prelude::*;

use crate::kit::{Region, device, secs};

fn fail(region: &mut Region, id: u128) {
    region
        .apply(Op::FailDevice(FailDevice { device: id.to_be_bytes().to_vec(), reason: "write: EIO".into() }));
}

/// Every joining member becomes ready, until every group is whole and nothing moves any more.
fn heal(region: &mut Region, running: &[u64]) {
    for _ in 0..200 {
        region.pass(secs(30), running);
        region.settle();
        let joining =
            |group: &Group| group.members.iter().find(|it| it.role == Role::Joining).map(|it| it.node);
        region.observed.ready = region
            .groups
            .iter()
            .filter_map(|(group, it)| {
                Some(ReadyReport { reporter: it.primary, node: joining(it)?, group, epoch: it.epoch })
            })
            .collect();
        let changed = !region.settle().is_empty();
        region.observed.ready.clear();
        let whole = |group: &Group| group.members.len() == 3 && group.in_sync().count() == 3;
        if !changed && region.groups.iter().all(|(_, group)| whole(group)) {
            return;
        }
    }
    panic!("it never heals");
}

fn assert_apart_and_whole(region: &Region) {
    for (id, group) in region.groups.iter() {
        let hosts: BTreeSet<NodeId> = group.members.iter().map(|member| member.node).collect();
        assert_eq!((hosts.len(), group.in_sync().count()), (3, 3), "{id}: {group:?}");
        for member in &group.members {
            assert!(region.groups.device(member.node, member.incarnation).is_some(), "{id}: {member:?}");
        }
    }
}

#[test]
fn a_failed_device_moves_only_its_groups_and_its_sibling_takes_them() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (failed, sibling) = (device(1, 0), device(1, 1));
    let (lost, kept) = (region.on_device(failed), region.on_device(sibling));
    assert_eq!((lost.len(), kept.len()), (6, 6), "spread over both");
    let epochs: Vec<_> = kept.iter().map(|id| region.group(*id).epoch).collect();
    fail(&mut region, failed);
    for id in &lost {
        assert_eq!(region.in_sync(*id), [2, 3]);
    }
    // At once: nothing waits for a device that is never trusted again, and it is no flap of the host.
    region.pass(secs(1), &[1, 2, 3]);
    region.settle();
    for id in &lost {
        let joiner = region.group(*id).member(NodeId(1)).unwrap();
        assert_eq!((joiner.role, joiner.incarnation), (Role::Joining, region.life(sibling)));
    }
    heal(&mut region, &[1, 2, 3]);
    assert_apart_and_whole(&region);
    assert_eq!(region.on_device(sibling).len(), 12);
    for (id, epoch) in kept.iter().zip(epochs) {
        assert_eq!(region.group(*id).epoch, epoch, "group {id} was not touched");
    }
}

#[test]
fn a_device_that_does_not_keep_up_leaves_its_groups_and_the_host_keeps_the_others() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (hung, sound) = (device(1, 0), device(1, 1));
    let (lost, kept) = (region.on_device(hung), region.on_device(sound));
    let now = region.observed.now;
    for reporter in [2, 3] {
        region.observed.silences.push(nova_groups::SilenceReport {
            reporter: NodeId(reporter),
            boot: region.observed.heard[&NodeId(reporter)].boot,
            silent: NodeId(1),
            silent_boot: Some(region.observed.heard[&NodeId(1)].boot),
            device: Some(region.life(hung)),
            first: now,
            last: now,
        });
    }
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.settle();
    for id in &lost {
        assert_eq!(region.in_sync(*id), [2, 3]);
        assert!(region.group(*id).member(NodeId(1)).is_none(), "it is not asked again while that is said");
    }
    for id in &kept {
        assert_eq!(region.in_sync(*id), [1, 2, 3]);
    }
}

/// The host says of its own device that it hangs.
fn hangs(region: &mut Region, host: u64, id: u128) {
    let (now, boot) = (region.observed.now, region.observed.heard[&NodeId(host)].boot);
    region.observed.silences.push(nova_groups::SilenceReport {
        reporter: NodeId(host),
        boot,
        silent: NodeId(host),
        silent_boot: Some(boot),
        device: Some(region.life(id)),
        first: now,
        last: now,
    });
}

#[test]
fn a_host_that_says_its_device_hangs_leaves_the_groups_on_it_primary_or_not() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (hung, sound) = (device(1, 0), device(1, 1));
    let (lost, kept) = (region.on_device(hung), region.on_device(sound));
    assert!(lost.iter().any(|id| region.group(*id).primary == NodeId(1)));
    hangs(&mut region, 1, hung);
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.settle();
    for id in &lost {
        assert_eq!(region.in_sync(*id), [2, 3]);
        assert_ne!(region.group(*id).primary, NodeId(1));
        assert!(region.group(*id).member(NodeId(1)).is_none(), "it is not asked again while that is said");
    }
    for id in &kept {
        assert_eq!(region.in_sync(*id), [1, 2, 3]);
    }
}

#[test]
fn of_two_members_the_one_whose_device_hangs_goes_and_of_three_that_all_hang_none() {
    let mut region = Region::new(3, 1);
    let devices: Vec<u128> = (1..=3).map(|host| device(host, 0)).collect();
    for (host, id) in (1..).zip(&devices) {
        hangs(&mut region, host, *id);
    }
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.settle();
    assert_eq!(region.in_sync(1), [1, 2, 3], "it may be what all of them lie on");
    region.observed.silences.clear();
    region.report(1, &[3]);
    region.report(2, &[3]);
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [1, 2]);
    region.observed.silences.clear();
    let primary = region.group(1).primary.0;
    hangs(&mut region, primary, device(primary, 0));
    region.pass(nova_groups::GATHER, &[1, 2]);
    region.round();
    assert_eq!(region.in_sync(1), [3 - primary]);
}

#[test]
fn a_host_that_comes_back_without_a_device_rebuilds_its_groups_and_joins_the_others_again() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (broken, sound) = (device(2, 1), device(2, 0));
    let (lost, kept) = (region.on_device(broken), region.on_device(sound));
    region.pass(secs(1), &[1, 2, 3]);
    region.start_without(2, 2001, &[broken]);
    region.settle();
    let state = |region: &Region, id| region.groups.devices().find(|(it, _)| it.0 == id).unwrap().1.state;
    assert_eq!(state(&region, broken), DeviceState::Absent);
    for id in lost.iter().chain(&kept) {
        let joiner = region.group(*id).member(NodeId(2)).unwrap();
        assert_eq!((joiner.role, joiner.incarnation), (Role::Joining, region.life(sound)), "group {id}");
    }
    heal(&mut region, &[1, 2, 3]);
    assert_apart_and_whole(&region);
    // It is found again: it keeps its life, holds nothing that counts, and gets its share, built anew on it.
    let life = region.life(broken);
    region.start(2, 2002);
    heal(&mut region, &[1, 2, 3]);
    assert_eq!((region.life(broken), region.on_device(broken).len()), (life, 6));
    assert!(matches!(state(&region, broken), DeviceState::Mounted { .. }));
    assert_apart_and_whole(&region);
}

#[test]
fn a_restarted_host_joins_again_with_the_devices_that_held_its_replicas() {
    let mut region = Region::with_devices(&[&[4, 4, 4], &[4], &[4]], 9);
    let before: Vec<Vec<u32>> = (0..3).map(|index| region.on_device(device(1, index))).collect();
    assert!(before.iter().all(|groups| groups.len() == 3), "{before:?}");
    region.start(1, 1001);
    heal(&mut region, &[1, 2, 3]);
    let after: Vec<Vec<u32>> = (0..3).map(|index| region.on_device(device(1, index))).collect();
    assert_eq!(after, before);
}

#[test]
fn a_device_that_failed_is_not_asked_about_again_when_its_host_says_what_it_mounted() {
    let mut region = Region::with_devices(&[&[4, 4], &[4], &[4]], 4);
    fail(&mut region, device(1, 0));
    heal(&mut region, &[1, 2, 3]);
    let mounts = (0..2)
        .map(|index| {
            let id = device(1, index);
            let known = region.groups.devices().find(|(it, _)| it.0 == id).unwrap().1;
            nova_groups::Mount {
                node: 1,
                boot: 1000,
                device: id.to_be_bytes().to_vec(),
                mount_counter: known.mount_counter,
                incarnation: known.incarnation.0,
                bytes_total: known.bytes_total,
                trail: vec![known.mount.0],
            }
        })
        .collect();
    let first = region.observed.now;
    region.observed.mounts.push(nova_groups::MountReport { node: NodeId(1), mounts, first });
    assert!(region.round().is_empty(), "both were judged already");
}

/// Three hosts that hear nobody: of a group on the first device of host 1, that host is what is left.
fn lone_survivor() -> (Region, u32) {
    let mut region = Region::with_devices(&[&[4, 4], &[4], &[4]], 2);
    region.report(1, &[2, 3]);
    region.report(2, &[1, 3]);
    region.report(3, &[1, 2]);
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.round();
    region.observed.silences.clear();
    let id = region.on_device(device(1, 0))[0];
    (region, id)
}

#[test]
fn a_lone_survivor_whose_device_failed_gives_way_to_who_holds_every_acknowledged_write() {
    let (mut region, id) = lone_survivor();
    assert_eq!(region.in_sync(id), [1]);
    region.pass(secs(5), &[2, 3]);
    region.observed.heard.get_mut(&NodeId(1)).unwrap().last = region.observed.now;
    region.observed.failed.push((DeviceId(device(1, 0)), "write: EIO".into()));
    region.settle();
    assert_eq!(region.in_sync(id), [2, 3], "its host said that it stopped serving: no lease is waited for");
}

#[test]
fn a_lone_survivor_whose_device_turned_up_elsewhere_keeps_its_lease() {
    let (mut region, id) = lone_survivor();
    // A clone of the device is mounted on host 9, while host 1 serves the original and nobody has told it.
    let mount = nova_groups::Mount {
        node: 9,
        boot: 9000,
        device: device(1, 0).to_be_bytes().to_vec(),
        mount_counter: 7,
        incarnation: region.life(device(1, 0)).0,
        bytes_total: 4 << 30,
        trail: Vec::new(),
    };
    region.apply(Op::Restart(nova_groups::Restart { mounts: vec![mount], confirm: vec![] }));
    region.pass(secs(5), &[1, 2, 3]);
    region.settle();
    assert_eq!(region.in_sync(id), [1], "it may still be reading");
    region.pass(secs(31), &[2, 3]);
    region.settle();
    // Host 2 began to join the survivor meanwhile, and so lost its claim to hold everything.
    assert_eq!(region.in_sync(id), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn devices_of_any_sizes_get_their_share_and_no_group_two_on_one_host(
        hosts in prop::collection::vec(prop::collection::vec(1..5_u64, 1..4), 5..8),
        groups in 40..80_usize,
    ) {
        let sizes: Vec<&[u64]> = hosts.iter().map(Vec::as_slice).collect();
        let mut region = Region::with_devices(&sizes, groups);
        let running: Vec<u64> = (1..=hosts.len() as u64).collect();
        heal(&mut region, &running);
        assert_apart_and_whole(&region);
        let total: u64 = hosts.iter().flatten().sum();
        // A host holds a group once at most: one with more than a third of all cannot have its share.
        prop_assume!(hosts.iter().all(|sizes| sizes.iter().sum::<u64>() * 3 <= total));
        for (host, sizes) in (1..).zip(&hosts) {
            for (index, size) in (0..).zip(sizes) {
                let held = region.on_device(device(host, index)).len() as f64;
                let share = (3 * groups) as f64 * *size as f64 / total as f64;
                prop_assert!((held - share).abs() <= 2.0, "{size} of {total} GiB hold {held} replicas, {share} is the share");
            }
        }
    }

    #[test]
    fn a_lost_device_moves_only_its_groups(
        hosts in prop::collection::vec(prop::collection::vec(1..5_u64, 2..4), 4..7),
        lost in (0..4_usize, 0..2_u128),
    ) {
        let sizes: Vec<&[u64]> = hosts.iter().map(Vec::as_slice).collect();
        let mut region = Region::with_devices(&sizes, 30);
        let running: Vec<u64> = (1..=hosts.len() as u64).collect();
        heal(&mut region, &running);
        let id = device(lost.0 as u64 + 1, lost.1);
        let touched = region.on_device(id);
        let before = region.groups.clone();
        region.observed.failed.push((DeviceId(id), "write: EIO".into()));
        region.round();
        for (id, group) in region.groups.iter() {
            if touched.contains(&id.0) {
                prop_assert_eq!(group.in_sync().count(), 2);
            } else {
                prop_assert_eq!(Some(group), before.group(id));
            }
        }
        heal(&mut region, &running);
        assert_apart_and_whole(&region);
        prop_assert!(region.on_device(id).is_empty());
    }
}

fn forget(region: &mut Region, id: u128) -> Option<&'static str> {
    region.apply(Op::ForgetDevice(nova_groups::ForgetDevice { device: id.to_be_bytes().to_vec() })).refused
}

#[test]
fn a_device_is_forgotten_once_nothing_is_to_be_had_of_it() {
    let mut region = Region::with_devices(&[&[1, 1], &[1, 1], &[1, 1]], 6);
    let gone = device(2, 1);
    assert!(forget(&mut region, 77).is_some_and(|why| why.contains("no such device")));
    assert!(forget(&mut region, gone).is_some_and(|why| why.contains("serves")));
    let (before, life) = (region.on_device(gone).len(), region.life(gone));
    assert!(before > 0);
    region.start_without(2, 2001, &[gone]);
    region.settle();
    heal(&mut region, &[1, 2, 3]);
    assert!(region.groups.iter().all(|(_, group)| group.is_whole()));
    assert_eq!(forget(&mut region, gone), None);
    assert!(region.groups.all_devices_of(NodeId(2)).all(|(id, _)| id.0 != gone));
    assert!(forget(&mut region, gone).is_some());
    // Back again it is a device that nobody knows.
    region.start(2, 2002);
    region.settle();
    assert!(region.life(gone) > life);
}

#[test]
fn a_device_that_a_group_may_still_need_is_not_forgotten() {
    let mut region = Region::with_devices(&[&[4], &[4, 4], &[4]], 2);
    let holds = device(2, 0);
    assert!(!region.on_device(holds).is_empty());
    for (host, others) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
        region.report(host, &others);
    }
    region.pass(nova_groups::GATHER, &[1, 2, 3]);
    region.round();
    region.observed.silences.clear();
    assert!(region.groups.iter().all(|(_, group)| group.frozen()));
    region.start_without(2, 2001, &[holds]);
    region.round();
    assert!(!region.groups.devices_of(NodeId(2)).any(|(id, _)| id.0 == holds), "it is absent");
    assert!(forget(&mut region, holds).is_some_and(|why| why.contains("may still need")));
}

fn close(region: &mut Region, id: u128) -> Option<&'static str> {
    region.apply(Op::CloseDevice(nova_groups::CloseDevice { device: id.to_be_bytes().to_vec() })).refused
}

fn state(region: &Region, id: u128) -> DeviceState {
    region.groups.devices().find(|(known, _)| known.0 == id).unwrap().1.state
}

fn epochs(region: &Region) -> Vec<u64> {
    region.groups.iter().map(|(_, group)| group.epoch.0).collect()
}

#[test]
fn a_device_that_a_running_host_opens_disturbs_none_of_its_groups_and_gets_its_share() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let running = [1, 2, 3];
    fail(&mut region, device(1, 0));
    heal(&mut region, &running);
    assert_eq!(region.on_device(device(1, 1)).len(), 12);
    let before = epochs(&region);
    region.open(1, device(1, 2), 4);
    let ops = region.round();
    assert!(matches!(ops.as_slice(), [Op::Restart(restart)] if restart.confirm.is_empty()), "{ops:?}");
    assert_eq!(epochs(&region), before, "groups of its other device go on as they are");
    assert!(matches!(state(&region, device(1, 2)), DeviceState::Mounted { .. }));
    assert!(matches!(state(&region, device(1, 1)), DeviceState::Mounted { .. }));
    assert_eq!(region.groups.flaps(NodeId(1)), nova_groups::Flaps::default());
    // One group at a time is built anew on it, and has all its copies before the next one is.
    for _ in 0..6 {
        region.pass(secs(1), &running);
        region.settle();
        let short = region.groups.iter().filter(|(_, group)| group.in_sync().count() < 3).count();
        assert_eq!(short, 1);
        heal_one(&mut region);
    }
    region.pass(secs(1), &running);
    assert_eq!(region.settle(), [], "both have their share");
    assert_eq!((region.on_device(device(1, 1)).len(), region.on_device(device(1, 2)).len()), (6, 6));
    assert_eq!(region.groups.flaps(NodeId(1)).wait, std::time::Duration::ZERO);
    assert_apart_and_whole(&region);
}

/// The one that joins becomes ready; what is planned next waits.
fn heal_one(region: &mut Region) {
    region.observed.ready = region
        .groups
        .iter()
        .filter_map(|(group, it)| {
            let node = it.members.iter().find(|it| it.role == Role::Joining)?.node;
            Some(ReadyReport { reporter: it.primary, node, group, epoch: it.epoch })
        })
        .collect();
    region.round();
    region.observed.ready.clear();
}

#[test]
fn a_device_is_closed_only_while_its_groups_keep_two_copies_and_comes_back_in_its_life() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (closed, sibling) = (device(1, 0), device(1, 1));
    let lost = region.on_device(closed);
    let life = region.life(closed);
    // Another copy of its groups is away.
    region.report(1, &[2]);
    region.report(3, &[2]);
    region.pass(nova_groups::GATHER, &[1, 3]);
    region.settle();
    assert!(close(&mut region, closed).unwrap().contains("fewer than two copies"));
    region.observed.silences.clear();
    heal(&mut region, &[1, 2, 3]);

    let served = region.groups.devices().find(|(id, _)| id.0 == closed).unwrap().1.clone();
    assert_eq!(close(&mut region, closed), None);
    assert_eq!(state(&region, closed), DeviceState::Absent);
    assert_eq!(close(&mut region, closed), None, "twice is once");
    for id in &lost {
        assert_eq!(region.in_sync(*id), [2, 3]);
    }
    // Its host says what it said before, until it has closed it: that is no old image, and gives it no other life.
    let mounts = vec![crate::kit::mount(DeviceId(closed), &served)];
    assert!(region.groups.has_judged(&mounts[0]));
    let answer = region.apply(Op::Restart(nova_groups::Restart { mounts, confirm: vec![] }));
    assert!(answer.incarnated.is_empty() && region.life(closed) == life, "{answer:?}");
    assert_eq!(state(&region, closed), DeviceState::Absent);
    // Its sibling takes its groups at once.
    region.pass(secs(1), &[1, 2, 3]);
    region.settle();
    for id in &lost {
        assert_eq!(region.group(*id).member(NodeId(1)).unwrap().incarnation, region.life(sibling));
    }
    heal(&mut region, &[1, 2, 3]);
    // Opened again, it is the same device, and may serve.
    region.open(1, closed, 4);
    region.round();
    assert!(matches!(state(&region, closed), DeviceState::Mounted { .. }));
    assert_eq!(region.life(closed), life);
    assert_apart_and_whole(&region);
}

#[test]
fn a_slow_device_is_no_primary_and_its_sibling_is() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (slow, sound) = (device(1, 0), device(1, 1));
    let on_slow = region.on_device(slow);
    let leads = |region: &Region, ids: &[u32]| {
        ids.iter().filter(|id| region.group(**id).primary == NodeId(1)).count()
    };
    assert!(leads(&region, &on_slow) > 0);
    region.pace(slow, true);
    region.pass(secs(1), &[1, 2, 3]);
    region.settle();
    assert_eq!(leads(&region, &on_slow), 0);
    assert!(leads(&region, &region.on_device(sound)) > 0, "its host leads with the other one");
    assert_eq!(region.on_device(slow), on_slow, "a moment moves no copy");
    assert_apart_and_whole(&region);
    assert!(!region.groups.is_slow(NodeId(1)), "the host is not its device");
    region.pace(sound, true);
    assert!(region.groups.is_slow(NodeId(1)));
    region.start(1, 9000);
    region.settle();
    assert!(!region.groups.is_slow(NodeId(1)), "it begins anew with its start");
}

#[test]
fn a_device_that_stays_slow_is_emptied_onto_its_sibling_where_no_other_host_can_take_it() {
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4]], 12);
    let (slow, sound) = (device(1, 0), device(1, 1));
    region.pace(slow, true);
    region.pass(nova_groups::SLOW_MOVES_AFTER, &[1, 2, 3]);
    for left in (0..6).rev() {
        region.settle();
        let short = region.groups.iter().filter(|(_, group)| group.in_sync().count() < 3).count();
        assert_eq!((short, region.on_device(slow).len()), (1, left), "one at a time");
        heal_one(&mut region);
        region.pass(secs(1), &[1, 2, 3]);
    }
    region.settle();
    assert_eq!(region.on_device(sound).len(), 12);
    assert_apart_and_whole(&region);
    // With a fourth host they move there, and no group is short for it.
    let mut region = Region::with_devices(&[&[4, 4], &[4, 4], &[4, 4], &[4, 4]], 12);
    let slow = device(1, 0);
    let held = region.on_device(slow).len();
    region.pace(slow, true);
    region.pass(nova_groups::SLOW_MOVES_AFTER, &[1, 2, 3, 4]);
    region.settle();
    assert!(region.groups.iter().all(|(_, group)| group.in_sync().count() == 3) && held > 0);
    heal(&mut region, &[1, 2, 3, 4]);
    assert!(region.on_device(slow).is_empty());
}

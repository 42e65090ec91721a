//! Silence is judged, the lost leave, and they come back.

use std::time::Duration;

use nova_groups::{GATHER, HEARD_WITHIN, Op, REPLACE_AFTER, REPORT_FRESH, ReadyReport, Role};
use nova_units::{BootId, GroupId, NodeId, Timestamp};

use crate::kit::{Region, secs};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_silent_host_leaves_all_its_groups_in_one_command_after_gathering() {
    let mut region = Region::new(3, 6);
    region.report(1, &[2]);
    assert!(region.round().is_empty(), "others may report too");
    region.pass(GATHER / 2, &[1, 3]);
    region.report(3, &[2]);
    region.pass(GATHER / 2, &[1, 3]);
    let ops = region.round();
    assert!(matches!(ops.as_slice(), [Op::Drop(drop)] if drop.groups.len() == 6), "{ops:?}");
    for group in 1..=6 {
        assert_eq!(region.in_sync(group), [1, 3]);
        assert_ne!(region.group(group).primary, NodeId(2));
    }
    let primaries = |node| region.groups.iter().filter(|(_, group)| group.primary == NodeId(node)).count();
    assert_eq!((primaries(1), primaries(3)), (3, 3), "the lost host's primaries are shared out");
}

#[test]
fn one_reporter_is_enough_and_the_dead_primary_is_not_kept() {
    let mut region = Region::new(3, 1);
    assert_eq!(region.group(1).primary, NodeId(1));
    region.report(3, &[1]);
    region.pass(GATHER, &[2, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [2, 3]);
}

#[test]
fn a_host_that_hears_nobody_is_the_one_dropped() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2, 3]);
    region.pass(GATHER, &[1, 2, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [2, 3], "the larger connected set stays, primary or not");
}

#[test]
fn of_two_that_die_at_once_neither_is_kept_for_being_silent_about_the_other() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2, 3]);
    let goes_on = |region: &mut Region, time| {
        region.pass(time, &[1]);
        let now = region.observed.now;
        region.observed.silences.iter_mut().for_each(|report| report.last = now);
    };
    goes_on(&mut region, secs(1));
    assert!(region.settle().is_empty(), "it may be the one that hears nobody: heartbeats tell");
    goes_on(&mut region, HEARD_WITHIN);
    region.round();
    assert_eq!(region.in_sync(1), [1]);
    assert!(region.group(1).frozen());

    // It is: the others were heard since.
    let mut region = Region::new(3, 1);
    region.report(1, &[2, 3]);
    goes_on(&mut region, secs(1));
    assert!(region.settle().is_empty());
    region.pass(secs(0), &[1, 2, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [2, 3]);
}

#[test]
fn on_a_tie_the_primary_stays() {
    let mut region = Region::new(3, 3);
    region.report(1, &[2]);
    region.report(2, &[1]);
    region.pass(GATHER, &[1, 2, 3]);
    region.round();
    for group in 1..=3 {
        let primary = region.group(group).primary.0;
        assert!(region.in_sync(group).contains(&primary));
        assert_eq!(region.in_sync(group).len(), 2);
        assert!(region.in_sync(group).contains(&3), "host 3 hears both");
    }
}

#[test]
fn an_old_report_drops_nobody() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2]);
    region.pass(1001 * MS, &[1, 2, 3]);
    assert!(region.round().is_empty());
}

#[test]
fn a_dropped_host_joins_again_is_filled_and_counts() {
    let mut region = Region::new(3, 2);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    region.pass(secs(4), &[1, 3]);
    assert!(region.settle().is_empty(), "a silent host does not join");
    region.start(2, 2001);
    region.settle();
    for group in 1..=2 {
        let member = *region.group(group).member(NodeId(2)).unwrap();
        assert_eq!(member.role, Role::Joining);
        let ready = ReadyReport {
            reporter: region.group(group).primary,
            node: NodeId(2),
            group: GroupId(group),
            epoch: region.group(group).epoch,
        };
        region.observed.ready.push(ReadyReport { reporter: NodeId(2), ..ready });
        assert!(region.round().is_empty(), "only the primary's word counts");
        region.observed.ready = vec![ready];
        assert_eq!(region.round().len(), 1);
        assert_eq!(region.in_sync(group), [1, 2, 3]);
    }
}

#[test]
fn a_silent_joiner_is_dropped_again() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    region.pass(secs(1), &[1, 2, 3]);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).unwrap().role, Role::Joining);
    region.report(3, &[2]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    assert!(region.group(1).member(NodeId(2)).is_none());
}

#[test]
fn a_host_dropped_twice_in_ten_minutes_waits_before_it_joins() {
    let mut region = Region::new(3, 1);
    let drop_two = |region: &mut Region| {
        region.report(1, &[2]);
        region.pass(GATHER, &[1, 3]);
        region.round();
        assert!(region.group(1).member(NodeId(2)).is_none());
        region.observed.silences.clear();
    };
    drop_two(&mut region);
    region.pass(secs(60), &[1, 2, 3]);
    region.settle();
    assert!(region.group(1).member(NodeId(2)).is_some(), "after a single drop it joins at once");
    drop_two(&mut region);
    for wait in [60, 120, 240] {
        region.pass(secs(wait - 2), &[1, 2, 3]);
        assert!(region.settle().is_empty(), "it waits {wait} s");
        region.pass(secs(2), &[1, 2, 3]);
        region.settle();
        assert!(region.group(1).member(NodeId(2)).is_some(), "it has waited {wait} s");
        drop_two(&mut region);
    }
}

#[test]
fn a_calendar_that_is_set_back_by_a_day_holds_up_nobody_for_a_day() {
    const DAY_MS: u64 = 86_400_000;
    let mut region = Region::new(4, 1);
    region.observed.wall = Timestamp(9 * DAY_MS);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3, 4]);
    region.round();
    region.pass(secs(5), &[1, 3, 4]);
    assert!(region.settle().is_empty(), "it has its ten minutes");
    region.observed.wall = Timestamp(region.observed.wall.0 - DAY_MS);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(4)).unwrap().role, Role::Joining);
}

#[test]
fn a_member_away_for_ten_minutes_is_replaced_unless_a_storm_is_on() {
    let mut region = Region::new(4, 1);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3, 4]);
    region.round();
    region.pass(REPLACE_AFTER - secs(1), &[1, 3, 4]);
    assert!(region.settle().is_empty());
    region.pass(secs(2), &[1, 3, 4]);
    region.observed.storm = true;
    assert!(region.settle().is_empty());
    region.observed.storm = false;
    region.settle();
    assert_eq!(region.group(1).member(NodeId(4)).unwrap().role, Role::Joining);
    assert_eq!(region.group(1).homes().collect::<Vec<_>>(), [NodeId(1), NodeId(3), NodeId(4)]);
}

#[test]
fn a_lost_lone_survivor_is_replaced_only_after_its_lease_ran_out() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2, 3]);
    region.report(2, &[1, 3]);
    region.report(3, &[1, 2]);
    region.pass(GATHER, &[1, 2, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [1]);
    // Host 1 dies; 2 and 3 could serve everything that was acknowledged, but 1 may still be reading.
    region.observed.silences.clear();
    region.pass(secs(30), &[2, 3]);
    assert!(region.settle().is_empty());
    region.pass(secs(1), &[2, 3]);
    region.settle();
    assert_eq!(region.in_sync(1), [2, 3], "both are complete, so the group takes writes at once");
}

#[test]
fn silence_of_an_earlier_start_does_not_drop_a_host_that_has_joined_again() {
    let mut region = Region::new(3, 1);
    let earlier = region.observed.heard[&NodeId(2)].boot;
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    region.start(2, 2001);
    region.pass(REPORT_FRESH, &[1, 2, 3]);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).unwrap().role, Role::Joining);
    // An agent that was cut off says now what its data plane said then.
    region.observed.silences.clear();
    region.report_start(1, 2, Some(earlier));
    region.pass(GATHER, &[1, 2, 3]);
    assert!(region.round().is_empty());
    // Silence of the present start counts, and of a host that was never heard.
    for boot in [Some(BootId(2001)), None] {
        let mut region = region.clone();
        region.report_start(3, 2, boot);
        region.pass(GATHER, &[1, 2, 3]);
        region.round();
        assert!(region.group(1).member(NodeId(2)).is_none(), "{boot:?}");
    }
}

#[test]
fn what_an_earlier_start_reported_drops_nobody() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2]);
    region.start(1, 1001);
    region.settle();
    region.pass(GATHER, &[1, 2, 3]);
    let ops = region.round();
    assert!(!ops.iter().any(|op| matches!(op, Op::Drop(_))), "{ops:?}");
    assert!(region.in_sync(1).contains(&2));
}

#[test]
fn what_was_said_about_a_host_before_it_joined_does_not_drop_it() {
    let mut region = Region::new(3, 1);
    region.report(1, &[2]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    region.observed.heard.get_mut(&NodeId(2)).unwrap().last = region.observed.now;
    let ops = region.settle();
    assert!(!ops.iter().any(|op| matches!(op, Op::AddJoining(_))), "the report is 50 ms old: {ops:?}");
    region.pass(REPORT_FRESH, &[1, 2, 3]);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).unwrap().role, Role::Joining);
}

#[test]
fn a_host_that_is_dropped_every_other_second_rests_after_half_a_minute_and_longer_each_time() {
    let mut region = Region::new(3, 1);
    let mut drops = Vec::new();
    for _ in 0..200 {
        if region.in_sync(1).contains(&2) || region.group(1).member(NodeId(2)).is_some() {
            drops.push(region.observed.now);
            region.report(1, &[2]);
            region.report(3, &[2]);
            region.pass(GATHER, &[1, 3]);
            region.settle();
            region.observed.silences.clear();
        }
        region.pass(secs(2), &[1, 2, 3]);
        region.settle();
    }
    let waits: Vec<u64> = drops.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    let long: Vec<u64> = waits.iter().copied().filter(|wait| *wait > 10).collect();
    assert!(waits.iter().take_while(|wait| **wait <= 3).count() <= 15, "one event: {waits:?}");
    assert!(long.len() >= 2 && long[0] >= 60 && long[1] >= 120, "{waits:?}");
    assert!(waits.len() < 40, "{waits:?}");
}

#[test]
fn a_frozen_group_takes_any_host_that_can_fill_it_without_waiting() {
    let mut region = Region::new(3, 1);
    for _ in 0..2 {
        region.report(1, &[2]);
        region.pass(GATHER, &[1, 3]);
        region.round();
        region.pass(secs(40), &[1, 2, 3]);
        region.round();
    }
    region.report(1, &[2, 3]);
    region.report(3, &[1]);
    region.pass(GATHER, &[1, 3]);
    region.round();
    assert_eq!(region.in_sync(1), [1], "host 2 waits a minute, host 3 is lost");
    assert!(region.groups.flaps(NodeId(2)).wait > secs(0));
    region.pass(secs(5), &[1, 2]);
    region.settle();
    assert_eq!(region.group(1).member(NodeId(2)).unwrap().role, Role::Joining);
}

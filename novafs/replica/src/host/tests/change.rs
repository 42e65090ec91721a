//! Members and primaries are lost.

use super::*;
use crate::options::{PROMISE, SILENCE, STALL};

const IN: Role = Role::InSync;

#[test]
fn a_silent_peer_is_reported_until_the_configuration_changes() {
    let mut net = Net::new(3);
    net.kill(3);
    net.run(u32::try_from(SILENCE.as_millis()).unwrap() - 100);
    assert!(net.node(1).reports.is_empty());
    net.run(500);
    let silence = Report::Silence {
        peer: NodeId(3),
        boot: Some(BootId(3000)),
        device: None,
        groups: vec![(GROUP, Epoch(1))],
        hears: vec![NodeId(2)],
    };
    let reports = core::mem::take(&mut net.node(1).reports);
    assert!(reports.len() >= 3 && reports.iter().all(|report| *report == silence), "{reports:?}");
    net.reconfigure(&[(1, IN), (2, IN)]);
    net.run(1_500);
    assert!(net.node(1).reports.is_empty());
}

#[test]
fn silence_of_an_earlier_start_is_not_held_against_a_later_one() {
    let mut net = Net::new(3);
    let device = net.kill(3);
    net.run(1_200);
    assert!(!net.node(1).reports.is_empty());
    // It runs and is registered again, but host 1 cannot reach it.
    net.start(3, device);
    net.cut.extend([(NodeId(1), NodeId(3)), (NodeId(3), NodeId(1))]);
    net.configure_all();
    net.run(20);
    net.node(1).reports.clear();
    net.run(u32::try_from(SILENCE.as_millis()).unwrap() - 100);
    assert!(net.node(1).reports.is_empty());
    net.run(300);
    let of_later = |report: &Report| matches!(report, Report::Silence { boot: Some(BootId(3001)), .. });
    let reports = &net.node(1).reports;
    assert!(!reports.is_empty() && reports.iter().all(of_later), "{reports:?}");
}

#[test]
fn a_host_that_was_away_itself_accuses_nobody() {
    let mut net = Net::new(3);
    net.now += Duration::from_secs(5);
    net.run(900);
    assert!(net.nodes.values().all(|node| node.reports.is_empty()));
}

#[test]
fn writes_wait_until_promises_to_the_dropped_member_have_lapsed() {
    let mut net = Net::new(3);
    net.kill(3);
    net.reconfigure(&[(1, IN), (2, IN)]);
    net.run(20);
    let write = net.write(1, vec![unit(0, 1)]);
    let refused = |answer| matches!(answer, Some(Answer::Busy { .. }));
    net.run(u32::try_from(PROMISE.as_millis()).unwrap() - 150);
    assert!(refused(net.answer(write)), "{:?}", net.answer(write));
    net.run(200);
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(20);
    assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(2), seq: Seq(1) }));
}

#[test]
fn the_new_primary_finishes_what_the_old_one_began() {
    let mut net = Net::new(3);
    // Host 3 never gets it; hosts 1 and 2 hold it; nobody knows of a commit.
    net.cut.insert((NodeId(1), NodeId(3)));
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(20);
    assert_eq!(net.answer(write), None);
    net.kill(1);
    net.reconfigure(&[(2, IN), (3, IN)]);
    net.run(1_000);
    let again = net.write(2, vec![unit(0, 1)]);
    net.run(20);
    assert_eq!(net.answer(again), Some(Answer::Written { epoch: Epoch(2), seq: Seq(1) }));
    assert_eq!(net.store(2).units, net.store(3).units);
}

#[test]
fn a_primary_takes_the_longer_tail_of_another_member() {
    let mut net = Net::new(3);
    // The entry reaches host 2 alone.
    net.node(1).disk_hangs = true;
    net.cut.insert((NodeId(1), NodeId(3)));
    net.write(1, vec![unit(0, 1)]);
    net.run(5);
    net.kill(1);
    net.reconfigure(&[(3, IN), (2, IN)]);
    net.run(1_000);
    assert_eq!(net.store(3).units.len(), 1);
    assert_eq!(net.store(3).units, net.store(2).units);
}

#[test]
fn a_primary_that_restarts_in_its_epoch_does_not_give_a_number_twice() {
    let mut net = Net::new(3);
    // Its own append is lost in the crash, the others hold entry 1.
    net.node(1).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(5);
    let device = net.kill(1);
    net.start(1, device);
    net.run(50);
    net.configure(NodeId(1));
    net.run(1_200);
    let write = net.write(1, vec![unit(1, 1)]);
    net.run(50);
    assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(1), seq: Seq(2) }));
    for node in 1..=3 {
        assert_eq!(net.store(node).units.len(), 2, "host {node}");
    }
}

#[test]
fn a_restarted_host_serves_nothing_before_it_is_confirmed() {
    let mut net = Net::new(3);
    let device = net.kill(2);
    net.start(2, device);
    net.run(100);
    let now = net.now;
    assert_eq!(net.node(2).host.begin_read(now, GROUP, Epoch(1)), Err(Answer::NotMember));
    let open = net.ask(2, Message::Open { group: GROUP, epoch: Epoch(1) });
    net.run(5);
    assert_eq!(net.answer(open), Some(Answer::NotMember));
    assert_eq!(net.node(2).settled, 0);
    net.reconfigure(&[(1, IN), (3, IN)]);
    net.run(100);
    net.reconfigure(&[(1, IN), (3, IN), (2, Role::Joining)]);
    net.run(100);
    assert_eq!(net.node(2).settled, 1, "its device forgets the mounts before this one, once");
}

#[test]
fn an_older_epoch_is_refused_and_a_newer_one_asked_to_wait() {
    let mut net = Net::new(3);
    net.reconfigure(&[(1, IN), (2, IN)]);
    net.run(1_000);
    let entry = LogEntry::Units(vec![unit(0, 1)]);
    let old = net.ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry: entry.clone() });
    let new = net.ask(1, Message::Write { group: GROUP, epoch: Epoch(3), entry });
    let wrong = net.write(2, vec![unit(0, 1)]);
    net.run(5);
    assert_eq!(net.answer(old), Some(Answer::StaleEpoch { epoch: Epoch(2) }));
    assert!(matches!(net.answer(new), Some(Answer::Busy { .. })));
    assert_eq!(net.answer(wrong), Some(Answer::NotPrimary { primary: NodeId(1) }));
    assert!(net.store(1).log.is_empty());
}

#[test]
fn a_failed_device_stops_the_host_and_is_reported() {
    let mut net = Net::new(3);
    let now = net.now;
    let mut out = Vec::new();
    net.node(2).host.fail_device(now, &mut out);
    assert!(matches!(out[..], [Effect::Report(Report::DeviceFailed), ..]));
    assert_eq!(net.node(2).host.begin_read(now, GROUP, Epoch(1)), Err(Answer::DeviceFailed));
    net.run(1_300);
    assert!(
        net.node(1).reports.iter().any(|report| matches!(report, Report::Silence { peer: NodeId(2), .. }))
    );
}

#[test]
fn a_device_that_answers_and_does_not_keep_up_is_reported_by_its_life() {
    let mut net = Net::new(3);
    net.node(3).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(u32::try_from((STALL + SILENCE).as_millis()).unwrap());
    let reports = &net.node(1).reports;
    let of_device = |report: &Report| matches!(report, Report::Silence { peer: NodeId(3), device: Some(Incarnation(1)), groups, .. } if *groups == [(GROUP, Epoch(1))]);
    assert!(!reports.is_empty() && reports.iter().all(of_device), "{reports:?}");
}

#[test]
fn a_primary_whose_device_hangs_says_so_itself_for_nobody_else_sees_it() {
    let mut net = Net::new(3);
    net.node(1).disk_hangs = true;
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(u32::try_from(STALL.as_millis()).unwrap() - 10);
    assert!(net.node(1).reports.is_empty(), "it may be slow");
    net.run(100);
    let of_itself = |report: &Report| matches!(report, Report::Silence { peer: NodeId(1), device: Some(Incarnation(1)), groups, hears, .. } if *groups == [(GROUP, Epoch(1))] && *hears == [NodeId(2), NodeId(3)]);
    let reports = &net.node(1).reports;
    assert!(!reports.is_empty() && reports.iter().all(of_itself), "{reports:?}");
    assert!(
        net.node(2).reports.is_empty() && net.node(3).reports.is_empty(),
        "they hear it and wait for nothing"
    );
    // Two hold the entry: it is committed without the one that gave it its number.
    net.reconfigure(&[(2, IN), (3, IN)]);
    net.run(1_000);
    assert_eq!(net.answer(write), Some(Answer::StaleEpoch { epoch: Epoch(2) }));
    let again = net.write(2, vec![unit(0, 1)]);
    net.run(50);
    assert_eq!(net.answer(again), Some(Answer::Written { epoch: Epoch(2), seq: Seq(1) }));
    // It says so as long as that lasts: it is not asked to join before.
    net.node(1).reports.clear();
    net.run(200);
    assert!(!net.node(1).reports.is_empty());
    net.release_disk(1);
    net.run(1);
    net.node(1).reports.clear();
    net.run(500);
    assert!(net.node(1).reports.is_empty());
}

#[test]
fn a_group_that_is_whole_on_another_device_of_the_host_was_left() {
    let mut net = Net::new(3);
    assert!(!net.node(3).host.has_left(GROUP));
    let mut configuration = net.configuration(NodeId(3));
    let view = configuration.groups.get_mut(&GROUP).unwrap();
    view.epoch = Epoch(2);
    view.members[2].incarnation = Incarnation(9);
    let (now, mut out) = (net.now, Vec::new());
    net.node(3).host.on(now, Input::Configure(configuration), &mut out);
    assert!(net.node(3).host.has_left(GROUP));
    assert_eq!(net.node(3).host.position(GROUP), None, "and this device serves it no more");
}

/// Host 1 has started again with an entry that nobody else has, and cannot read it.
fn unreadable_tail() -> Net {
    let mut net = Net::new(3);
    net.cut.extend([(NodeId(1), NodeId(2)), (NodeId(1), NodeId(3))]);
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(20);
    assert_eq!(net.answer(write), None);
    let device = net.kill(1);
    net.start(1, device);
    net.node(1).unreadable = true;
    net.cut.clear();
    assert_eq!(net.store(1).log.len(), 1);
    net
}

#[test]
fn an_entry_that_only_the_primary_has_and_cannot_read_is_taken_back() {
    let mut net = unreadable_tail();
    net.configure_all();
    net.run(2_000);
    assert!(net.store(1).log.is_empty(), "members in sync lack it, so it was never committed");
    let again = net.write(1, vec![unit(0, 1)]);
    net.run(20);
    assert!(matches!(net.answer(again), Some(Answer::Written { .. })), "{:?}", net.answer(again));
}

#[test]
fn an_entry_that_a_lone_survivor_cannot_read_is_kept() {
    let mut net = unreadable_tail();
    net.reconfigure(&[(1, IN), (2, Role::Joining)]);
    net.run(3_000);
    assert_eq!(net.store(1).log.len(), 1, "those that were dropped may have acknowledged it");
}

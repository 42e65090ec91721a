//! Survivors are frozen, members come back and are filled.

use super::*;
use crate::host::ReadEnd;

const IN: Role = Role::InSync;
const JOIN: Role = Role::Joining;

fn ready(net: &mut Net, primary: u64) -> bool {
    net.node(primary).reports.iter().any(|report| matches!(report, Report::JoinReady { .. }))
}

#[test]
fn a_lone_survivor_reads_under_its_node_lease_and_writes_nothing() {
    let mut net = Net::new(3);
    net.write(1, vec![unit(0, 1)]);
    net.run(20);
    net.kill(2);
    net.kill(3);
    net.reconfigure(&[(1, IN)]);
    net.run(1_000);
    let write = net.write(1, vec![unit(0, 2)]);
    net.run(5);
    assert!(matches!(net.answer(write), Some(Answer::Frozen { .. })));
    let now = net.now;
    let host = &mut net.node(1).host;
    let permit = host.begin_read(now, GROUP, Epoch(2)).unwrap();
    assert_eq!(host.end_read(now, &permit, None), ReadEnd::Serve);
    let late = now + Duration::from_secs(30);
    assert_eq!(host.end_read(late, &permit, None), ReadEnd::Refuse(Answer::NoLease));
}

#[test]
fn a_survivors_tail_stays_prepared_until_a_joiner_holds_it() {
    let mut net = Net::new(3);
    net.node(2).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(20);
    net.kill(2);
    net.kill(3);
    net.reconfigure(&[(1, IN)]);
    net.run(1_000);
    let tail = CommitPoint { epoch: Epoch(1), seq: Seq(1) };
    let now = net.now;
    let host = &mut net.node(1).host;
    let permit = host.begin_read(now, GROUP, Epoch(2)).unwrap();
    assert_eq!(host.end_read(now, &permit, Some(tail)), ReadEnd::Refuse(Answer::Unsettled));
    net.start(4, BTreeMap::new());
    net.reconfigure(&[(1, IN), (4, JOIN)]);
    net.run(1_000);
    assert!(ready(&mut net, 1));
    assert!(net.store(1).units.is_empty(), "not committed by one member");
    net.reconfigure(&[(1, IN), (4, IN)]);
    net.run(1_000);
    assert_eq!(net.store(4).units.len(), 1);
    assert_eq!(net.store(1).units, net.store(4).units);
}

#[test]
fn a_member_that_returns_is_caught_up_from_the_log_while_writes_go_on() {
    let mut net = Net::new(3);
    let device = net.kill(3);
    net.reconfigure(&[(1, IN), (2, IN)]);
    net.run(1_000);
    for counter in 1..=20 {
        net.write(1, vec![unit(u16::try_from(counter).unwrap(), counter)]);
    }
    net.run(50);
    net.start(3, device);
    net.reconfigure(&[(1, IN), (2, IN), (3, JOIN)]);
    for counter in 21..=30 {
        net.run(100);
        let write = net.write(1, vec![unit(u16::try_from(counter).unwrap(), counter)]);
        net.run(20);
        assert!(matches!(net.answer(write), Some(Answer::Written { .. } | Answer::Busy { .. })));
    }
    net.run(500);
    assert!(ready(&mut net, 1));
    net.reconfigure(&[(1, IN), (2, IN), (3, IN)]);
    net.run(1_000);
    assert_eq!(net.store(1).units, net.store(3).units);
    let now = net.now;
    let epoch = net.view.epoch;
    assert!(net.node(3).host.begin_read(now, GROUP, epoch).is_ok());
}

#[test]
fn an_empty_joiner_is_filled_with_pages_when_the_log_is_gone() {
    let mut net = Net::new(2);
    let fence = LogEntry::Fence { block: BLOCK, generation: Generation(1) };
    net.ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry: fence });
    let cut = Cut { generation: Generation(1), counter: 0, salt: [1; 16] };
    let entry = LogEntry::Trim { block: BLOCK, from_unit: UnitIndex(0), cut };
    net.ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry });
    for counter in 1..=7 {
        net.write(1, vec![unit(u16::try_from(counter).unwrap(), counter)]);
    }
    net.run(50);
    net.forget_log(1);
    net.start(3, BTreeMap::new());
    net.reconfigure(&[(1, IN), (2, IN), (3, JOIN)]);
    net.run(1_500);
    assert!(ready(&mut net, 1));
    net.reconfigure(&[(1, IN), (2, IN), (3, IN)]);
    net.run(1_000);
    let write = net.write(1, vec![unit(9, 9)]);
    net.run(50);
    assert!(matches!(net.answer(write), Some(Answer::Written { .. })));
    assert_eq!(net.store(1).units, net.store(3).units);
    assert_eq!(net.store(1).fences, net.store(3).fences);
    assert_eq!(net.store(1).cuts, net.store(3).cuts);
}

#[test]
fn a_joiner_that_is_filled_hears_of_a_cut_when_it_is_committed_and_no_page_undoes_it() {
    let mut net = Net::new(2);
    for counter in 1..=7 {
        net.write(1, vec![unit(u16::try_from(counter).unwrap(), counter)]);
    }
    net.run(50);
    net.forget_log(1);
    net.start(3, BTreeMap::new());
    net.reconfigure(&[(1, IN), (2, IN), (3, JOIN)]);
    net.run(100);
    net.node(2).disk_hangs = true;
    let cut = Cut { generation: Generation(1), counter: 8, salt: [1; 16] };
    let entry = LogEntry::Trim { block: BLOCK, from_unit: UnitIndex(4), cut };
    let trim = net.ask(1, Message::Write { group: GROUP, epoch: net.view.epoch, entry });
    net.run(1_500);
    assert_eq!(net.store(3).units.len(), 7, "pages do not wait for the cut");
    assert!(!net.store(3).cuts.contains_key(&BLOCK));
    net.release_disk(2);
    net.run(500);
    assert!(matches!(net.answer(trim), Some(Answer::Written { .. })));
    assert!(ready(&mut net, 1));
    assert_eq!(net.store(3).units.len(), 3);
    assert_eq!(net.store(1).units, net.store(3).units);
    assert_eq!(net.store(3).cuts.get(&BLOCK), Some(&cut));
    // And no late copy of what was cut off is taken for new.
    let late = net.write(1, vec![unit(6, 6)]);
    net.run(50);
    assert!(matches!(net.answer(late), Some(Answer::Written { .. })));
    assert_eq!(net.store(1).units.len(), 3);
}

#[test]
fn a_survivors_tail_does_not_keep_a_joiner_from_being_filled() {
    let mut net = Net::new(3);
    for counter in 1..=5 {
        net.write(1, vec![unit(u16::try_from(counter).unwrap(), counter)]);
    }
    net.run(50);
    net.node(2).disk_hangs = true;
    net.write(1, vec![unit(6, 6)]);
    net.run(20);
    net.kill(2);
    net.kill(3);
    net.forget_log(1);
    net.reconfigure(&[(1, IN)]);
    net.run(1_000);
    net.start(4, BTreeMap::new());
    net.reconfigure(&[(1, IN), (4, JOIN)]);
    net.run(2_000);
    assert!(ready(&mut net, 1));
    net.reconfigure(&[(1, IN), (4, IN)]);
    net.run(1_000);
    assert_eq!(net.store(4).units.len(), 6);
    assert_eq!(net.store(1).units, net.store(4).units);
}

#[test]
fn from_the_moment_a_joiner_is_reported_nothing_is_committed_without_it() {
    let mut net = Net::new(2);
    net.start(3, BTreeMap::new());
    net.reconfigure(&[(1, IN), (2, IN), (3, JOIN)]);
    net.run(1_000);
    assert!(ready(&mut net, 1));
    net.node(3).disk_hangs = true;
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(100);
    assert_eq!(net.answer(write), None, "the controllers may promote it any moment");
    // Not even a restart of the primary forgets that.
    let device = net.kill(1);
    net.start(1, device);
    net.configure(NodeId(1));
    net.run(1_500);
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(100);
    assert_eq!(net.answer(write), None);
    net.release_disk(3);
    net.run(1_500);
    assert!(matches!(net.answer(write), Some(Answer::Written { .. })), "{:?}", net.answer(write));
}

#[test]
fn a_joiner_forgets_what_was_never_committed() {
    let mut net = Net::new(3);
    // Host 3 alone holds an entry of epoch 1 that its primary never committed.
    net.node(1).disk_hangs = true;
    net.cut.insert((NodeId(1), NodeId(2)));
    net.write(1, vec![unit(0, 1)]);
    net.run(5);
    let device = net.kill(3);
    assert_eq!(device[&GROUP].log.len(), 1);
    net.kill(1);
    net.start(4, BTreeMap::new());
    net.reconfigure(&[(2, IN), (4, JOIN)]);
    net.run(1_000);
    net.reconfigure(&[(2, IN), (4, IN)]);
    net.run(1_000);
    net.write(2, vec![unit(0, 2)]);
    net.run(50);
    net.start(3, device);
    net.reconfigure(&[(2, IN), (4, IN), (3, JOIN)]);
    net.run(1_000);
    net.reconfigure(&[(2, IN), (4, IN), (3, IN)]);
    net.run(1_000);
    assert_eq!(net.store(3).units, net.store(2).units);
    assert_eq!(net.store(3).units[&(BLOCK, UnitIndex(0))].sealed.counter, 2);
}

//! Nothing fails.

use super::*;
use crate::host::ReadEnd;

#[test]
fn a_write_is_answered_when_every_member_holds_it_and_is_visible_everywhere_soon_after() {
    let mut net = Net::new(3);
    net.node(3).disk_hangs = true;
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(50);
    assert_eq!(net.answer(write), None, "one member does not hold it yet");
    net.release_disk(3);
    net.run(10);
    assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(1), seq: Seq(1) }));
    for node in 1..=3 {
        assert_eq!(net.store(node).units.len(), 1, "host {node}");
    }
}

#[test]
fn the_same_units_sent_again_get_the_first_result() {
    let mut net = Net::new(3);
    let first = net.write(1, vec![unit(0, 1), unit(1, 2)]);
    let again = net.write(1, vec![unit(0, 1), unit(1, 2)]);
    net.run(50);
    let late = net.write(1, vec![unit(0, 1), unit(1, 2)]);
    net.run(50);
    for write in [first, again, late] {
        assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(1), seq: Seq(1) }));
    }
    assert_eq!(net.store(2).log.len(), 1);
}

#[test]
fn a_late_lower_counter_changes_nothing() {
    let mut net = Net::new(3);
    net.write(1, vec![unit(0, 9)]);
    net.run(20);
    let late = net.write(1, vec![unit(0, 8)]);
    net.run(20);
    assert_eq!(net.answer(late), Some(Answer::Written { epoch: Epoch(1), seq: Seq(1) }));
    assert_eq!(net.store(1).units[&(BLOCK, UnitIndex(0))].sealed.counter, 9);
}

#[test]
fn a_fence_refuses_lower_generations_even_before_it_is_committed() {
    let mut net = Net::new(3);
    net.node(2).disk_hangs = true;
    let fence = LogEntry::Fence { block: BLOCK, generation: Generation(2) };
    let fence = net.ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry: fence });
    net.run(5);
    let late = net.write(1, vec![unit(0, 1)]);
    net.run(5);
    assert_eq!(net.answer(late), Some(Answer::Fenced { generation: Generation(2) }));
    net.release_disk(2);
    net.run(10);
    assert_eq!(net.answer(fence), Some(Answer::Written { epoch: Epoch(1), seq: Seq(1) }));
    let late = net.write(1, vec![unit(0, 1)]);
    net.run(5);
    assert_eq!(net.answer(late), Some(Answer::Fenced { generation: Generation(2) }));
}

#[test]
fn want_of_room_on_one_member_fails_the_write_before_it_has_a_number() {
    let mut net = Net::new(3);
    net.node(3).bytes_free = 4096;
    net.run(300);
    let write = net.write(1, vec![unit(0, 1)]);
    net.run(20);
    assert_eq!(net.answer(write), Some(Answer::Full));
    assert!(net.store(1).log.is_empty() && net.store(3).log.is_empty());
    let delete = net
        .ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry: LogEntry::Delete { block: BLOCK } });
    net.run(20);
    assert!(matches!(net.answer(delete), Some(Answer::Written { .. })), "deletes work on a full device");
    assert!(net.node(1).reports.is_empty());
}

#[test]
fn an_entry_that_a_member_has_no_room_for_is_taken_back_everywhere() {
    for full in [1, 3] {
        let mut net = Net::new(3);
        net.write(1, vec![unit(0, 1)]);
        net.run(20);
        net.node(full).no_room = true;
        let writes = [net.write(1, vec![unit(0, 2)]), net.write(1, vec![unit(1, 3)])];
        net.run(100);
        for write in writes {
            assert_eq!(net.answer(write), Some(Answer::Full), "host {full} is full");
        }
        for node in 1..=3 {
            assert_eq!(net.store(node).log.len(), 1, "host {node} forgot them");
        }
        let block = BlockId::new(0, 99);
        let delete = LogEntry::Delete { block };
        let delete = net.ask(1, Message::Write { group: GROUP, epoch: Epoch(1), entry: delete });
        net.run(50);
        let written = Answer::Written { epoch: Epoch(1), seq: Seq(2) };
        assert_eq!(
            net.answer(delete),
            Some(written),
            "the number is given again, for the same log everywhere"
        );
        net.node(full).no_room = false;
        net.run(600);
        let write = net.write(1, vec![unit(0, 4)]);
        net.run(50);
        assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(1), seq: Seq(3) }));
        assert_eq!(net.store(1).units, net.store(2).units);
        assert_eq!(net.store(1).units, net.store(3).units);
        assert!(net.nodes.values().all(|node| node.reports.is_empty()), "nobody is accused of being full");
    }
}

#[test]
fn a_member_that_holds_something_newer_asks_the_primary_before_it_answers_a_read() {
    let mut net = Net::new(3);
    net.node(3).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(20);
    let prepared = CommitPoint { epoch: Epoch(1), seq: Seq(1) };
    let now = net.now;
    let host = &mut net.node(2).host;
    let mut permit = host.begin_read(now, GROUP, Epoch(1)).unwrap();
    assert_eq!(host.end_read(now, &permit, None), ReadEnd::Serve);
    let ReadEnd::Ask { primary, message } = host.end_read(now, &permit, Some(prepared)) else {
        panic!("it cannot know")
    };
    assert_eq!(primary, NodeId(1));
    let answer = net.ask(1, message);
    net.settle();
    let answer = net.answer(answer);
    assert_eq!(answer, Some(Answer::CommitIs { seq: Seq(0) }));
    let mut out = Vec::new();
    let host = &mut net.node(2).host;
    host.settle_read(&mut permit, answer.as_ref(), &mut out).unwrap();
    assert_eq!(host.end_read(now, &permit, Some(prepared)), ReadEnd::Serve, "it was not committed");
}

#[test]
fn no_lease_no_read() {
    let mut net = Net::new(3);
    let now = net.now;
    let permit = net.node(2).host.begin_read(now, GROUP, Epoch(1)).unwrap();
    net.cut.extend([(NodeId(2), NodeId(3)), (NodeId(3), NodeId(2))]);
    net.run(600);
    let now = net.now;
    let host = &mut net.node(2).host;
    assert_eq!(host.begin_read(now, GROUP, Epoch(1)), Err(Answer::NoLease));
    assert_eq!(
        host.end_read(now, &permit, None),
        ReadEnd::Refuse(Answer::NoLease),
        "checked after the read too"
    );
    assert!(net.node(1).host.begin_read(now, GROUP, Epoch(1)).is_ok(), "the others hear everyone");
}

#[test]
fn a_late_answer_to_an_open_does_not_speak_for_entries_that_were_taken_back_since() {
    let mut net = Net::new(3);
    // Host 2 holds entry 1 and has no room for entry 2: it is opened again, and its answer is late.
    net.node(3).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(5);
    net.node(2).no_room = true;
    net.late = Some(NodeId(2));
    net.write(1, vec![unit(1, 1)]);
    net.run(10);
    // Host 3 has no room for entry 1: both entries are taken back, from host 2 too.
    net.late = None;
    net.node(3).no_room = true;
    net.release_disk(3);
    net.run(700);
    for node in 1..=3 {
        assert!(net.store(node).log.is_empty(), "host {node}");
        net.node(node).no_room = false;
    }
    // Another entry 1 does not get to host 2.
    net.node(2).disk_hangs = true;
    let write = net.write(1, vec![unit(2, 1)]);
    net.run(10);
    net.deliver_late();
    net.run(10);
    assert_eq!(net.answer(write), None);
    net.release_disk(2);
    net.run(20);
    assert_eq!(net.answer(write), Some(Answer::Written { epoch: Epoch(1), seq: Seq(1) }));
}

#[test]
fn a_host_that_is_primary_no_more_holds_no_bytes_of_its_tail() {
    let mut net = Net::new(3);
    net.node(2).disk_hangs = true;
    net.write(1, vec![unit(0, 1)]);
    net.run(20);
    let bodies = |net: &mut Net| -> Vec<Option<u64>> {
        net.node(1).host.groups[&GROUP].log.tail.values().map(|entry| entry.body).collect()
    };
    assert_eq!(bodies(&mut net), [Some(1)]);
    net.kill(2);
    net.kill(3);
    net.reconfigure(&[(1, Role::InSync)]);
    net.run(1_000);
    assert_eq!(bodies(&mut net), [None], "it may be a lone survivor for long");
}

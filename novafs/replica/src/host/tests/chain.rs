//! Large entries go along a chain, and whatever breaks it costs nothing but time.

use super::*;
use crate::options::CHAIN_BYTES_MIN;

/// As many units as make a large entry, all of one version.
fn large(counter: u64) -> Vec<SealedUnit> {
    let units = u16::try_from(CHAIN_BYTES_MIN / 4096).unwrap();
    (0..units).map(|index| unit(index, counter)).collect()
}

fn written(seq: u64) -> Option<Answer> {
    Some(Answer::Written { epoch: Epoch(1), seq: Seq(seq) })
}

impl Net {
    /// Entries that the primary sent along a chain, and those that it had to send after all.
    fn chained(&mut self) -> (u64, u64) {
        let counters = self.node(1).host.counters();
        (counters.entries_chained, counters.chains_broken)
    }
}

#[test]
fn a_large_entry_leaves_the_primary_once_and_is_on_every_member() {
    let mut net = Net::new(3);
    let writes: Vec<_> = (1..=4).map(|counter| net.write(1, large(counter))).collect();
    net.run(20);
    for (write, seq) in writes.into_iter().zip(1..) {
        assert_eq!(net.answer(write), written(seq));
    }
    assert_eq!(net.chained(), (4, 0));
    assert!(net.store(2).units == net.store(1).units && net.store(3).units == net.store(1).units);
    assert_eq!(net.store(3).units.len(), large(4).len());
}

#[test]
fn a_group_of_any_size_has_large_entries_on_every_member_and_chains_where_two_can_share_one() {
    for (members, chains) in [(2, 0), (3, 1), (4, 1), (5, 2)] {
        let mut net = Net::new(members);
        let writes: Vec<_> = (1..=4).map(|counter| net.write(1, large(counter))).collect();
        let small = net.write(1, vec![unit(0, 9)]);
        net.run(20);
        for (write, seq) in writes.into_iter().zip(1..) {
            assert_eq!(net.answer(write), written(seq), "of {members} members");
        }
        assert_eq!(net.answer(small), written(5), "of {members} members");
        assert_eq!(net.chained(), (4 * chains, 0), "of {members} members");
        for node in 2..=members {
            assert!(net.store(node).units == net.store(1).units, "host {node} of {members}");
        }
    }
}

#[test]
fn a_small_entry_goes_to_each_member_by_itself_and_keeps_its_place_between_large_ones() {
    let mut net = Net::new(3);
    net.write(1, large(1));
    net.write(1, vec![unit(0, 2)]);
    let last = net.write(1, large(3));
    net.run(20);
    assert_eq!(net.answer(last), written(3));
    assert_eq!(net.chained(), (2, 0));
    for node in 1..=3 {
        let log: Vec<_> =
            net.store(node).log.values().map(|(at, entry, _)| (at.seq, entry.units().len())).collect();
        assert_eq!(log, [(Seq(1), 32), (Seq(2), 1), (Seq(3), 32)], "host {node}");
    }
}

#[test]
fn two_members_that_cannot_talk_get_large_entries_from_the_primary() {
    let mut net = Net::new(3);
    net.cut.extend([(NodeId(2), NodeId(3)), (NodeId(3), NodeId(2))]);
    let writes: Vec<_> = (1..=3).map(|counter| net.write(1, large(counter))).collect();
    net.run(20);
    for (write, seq) in writes.into_iter().zip(1..) {
        assert_eq!(net.answer(write), written(seq));
    }
    assert_eq!(net.chained(), (3, 3));
}

#[test]
fn the_end_of_a_chain_stores_while_the_first_still_does_and_both_are_waited_for() {
    for hangs in [2, 3] {
        let mut net = Net::new(3);
        net.node(hangs).disk_hangs = true;
        let write = net.write(1, large(1));
        net.run(50);
        assert_eq!(net.answer(write), None);
        assert_eq!(net.store(5 - hangs).log.len(), 1, "host {}", 5 - hangs);
        net.release_disk(hangs);
        net.run(20);
        assert_eq!(net.answer(write), written(1));
    }
}

#[test]
fn a_first_member_that_dies_with_the_entry_takes_nothing_from_the_others() {
    for dies in [2, 3] {
        let mut net = Net::new(3);
        net.node(dies).disk_hangs = true;
        let write = net.write(1, large(1));
        net.run(5);
        net.kill(dies);
        net.reconfigure(&[(1, Role::InSync), (5 - dies, Role::InSync)]);
        net.run(1_500);
        let answer = net.answer(write);
        assert!(!matches!(answer, Some(Answer::Full | Answer::Conflict)), "{answer:?}");
        assert_eq!(net.store(1).units.len(), 32);
        assert!(net.store(5 - dies).units == net.store(1).units);
    }
}

#[test]
fn nobody_but_an_in_sync_member_with_the_grant_passes_an_entry_on() {
    let mut net = Net::new(3);
    let prepare = |route| Message::Prepare {
        group: GROUP,
        epoch: Epoch(1),
        grant: Grant { boot: BootId(1), number: 1 },
        previous: Seq(0),
        at: CommitPoint { epoch: Epoch(1), seq: Seq(1) },
        commit: Seq(0),
        route,
        entry: LogEntry::Units(large(1)),
    };
    let stranger = net.ask(2, prepare(Route::PassedOn));
    net.run(5);
    assert_eq!(net.answer(stranger), Some(Answer::NotPrimary { primary: NodeId(1) }));
    let mut out = Vec::new();
    let (ticket, now) = (Ticket(1 << 40), net.now);
    let message = prepare(Route::PassedOn);
    net.node(2).host.on(now, Input::Request { ticket, from: NodeId(3), message, body: Some(1) }, &mut out);
    assert!(matches!(&out[..], [Effect::Answer { answer: Answer::NoGrant, .. }]), "{out:?}");
    assert!(net.store(2).log.is_empty());
}

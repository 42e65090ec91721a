//! Writes, reads, repair and the end.

use std::time::Duration;

use nova_units::{NodeId, Seq, UnitIndex};
use novafs_replica::{Answer, Message, Report};

use super::rig::{BLOCK, EPOCH, GROUP, Rig, seal};

fn write(rig: &Rig, counter: u64) -> Vec<u8> {
    let (entry, stored) = seal(3, counter, &[&[7; 20_000], b"short"]);
    let message = Message::Write { group: GROUP, epoch: EPOCH, entry };
    let (answer, _) = rig.ask(1, message, Some(stored.clone()));
    assert!(matches!(answer, Answer::Written { epoch: EPOCH, .. }), "{answer:?}");
    stored
}

#[test]
fn what_the_primary_acknowledged_every_member_serves() {
    let rig = Rig::new(1);
    let stored = write(&rig, 1);
    for node in 1..=3 {
        let (answer, body) = rig.read(node, 0, 16);
        let Answer::Units { units } = answer else { panic!("host {node}: {answer:?}") };
        assert_eq!(
            units.iter().map(|unit| unit.sealed.unit).collect::<Vec<_>>(),
            [UnitIndex(3), UnitIndex(4)]
        );
        assert_eq!(body, stored, "host {node}");
        assert_eq!(units[0].commit.seq, Seq(1));
    }
    assert_eq!(rig.members[&NodeId(1)].counters().host.entries_committed, 1);
    assert_eq!(rig.members[&NodeId(2)].counters().host.entries_followed, 1);
}

#[test]
fn a_body_that_fails_its_sums_is_refused_before_anything_is_written() {
    let rig = Rig::new(2);
    let (entry, mut stored) = seal(0, 1, &[b"bytes"]);
    stored[2] ^= 1;
    let message = Message::Write { group: GROUP, epoch: EPOCH, entry };
    assert_eq!(rig.ask(1, message.clone(), Some(stored)).0, Answer::Damaged);
    assert_eq!(rig.ask(1, message, None).0, Answer::Damaged, "nor is one that is missing");
    assert_eq!(rig.members[&NodeId(1)].counters().appends, 0);
    assert_eq!(rig.members[&NodeId(1)].counters().damaged, 2);
}

#[test]
fn a_flipped_page_is_repaired_from_another_member_and_reported() {
    let rig = Rig::new(3);
    let stored = write(&rig, 1);
    // The commit is told within 5 ms.
    rig.world.run_for(Duration::from_millis(10));
    let locate = Message::Locate { group: GROUP, block: BLOCK, first: UnitIndex(3), count: 1 };
    let (Answer::Located { cells, .. }, _) = rig.ask(2, locate.clone(), None) else { panic!("it is there") };
    rig.disks[&NodeId(2)].flip_bit(cells[0].position + 5_000, 3);
    let (answer, _) = rig.read(2, 3, 2);
    assert_eq!(answer, Answer::Corrupt { unit: UnitIndex(3) }, "not one wrong byte is served");
    rig.world.run_for(Duration::from_millis(300));
    let (answer, body) = rig.read(2, 3, 2);
    assert!(matches!(answer, Answer::Units { .. }), "{answer:?}");
    assert_eq!(body, stored);
    let repaired = Report::PageRepaired { group: GROUP, block: BLOCK, unit: UnitIndex(3) };
    assert!(rig.members[&NodeId(2)].reports().contains(&repaired));
    let (Answer::Located { cells: after, .. }, _) = rig.ask(2, locate, None) else { panic!("it is there") };
    assert_ne!(after[0].position, cells[0].position, "into another cell");
}

#[test]
fn a_write_that_spoils_in_the_memory_of_the_primary_is_taken_back_and_written_when_it_is_sent_again() {
    let rig = Rig::new(4);
    let (entry, stored) = seal(3, 1, &[&[7; 20_000]]);
    let message = Message::Write { group: GROUP, epoch: EPOCH, entry };
    // Behind the check of the primary: what it sends to the others is bad, and stays so.
    rig.spoil(1, Some(&stored[..64]));
    let (answer, _) = rig.ask(1, message.clone(), Some(stored.clone()));
    assert!(matches!(answer, Answer::Busy { .. }), "{answer:?}");
    rig.spoil(1, None);
    rig.world.run_for(Duration::from_millis(500));
    assert!(matches!(rig.read(2, 3, 1).0, Answer::Units { units } if units.is_empty()), "nothing is visible");
    let said: Vec<_> = (1..=3).flat_map(|node| rig.members[&NodeId(node)].reports()).collect();
    assert!(
        !said.iter().any(|report| matches!(report, Report::Silence { .. })),
        "nobody is dropped: {said:?}"
    );
    let (answer, _) = rig.ask(1, message, Some(stored.clone()));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    rig.world.run_for(Duration::from_millis(10));
    for node in 1..=3 {
        assert_eq!(rig.read(node, 3, 1).1, stored, "host {node}");
    }
}

#[test]
fn a_member_that_was_stopped_refuses_and_has_everything_on_its_device() {
    let rig = Rig::new(4);
    write(&rig, 1);
    let member = rig.members[&NodeId(3)].clone();
    let stopping = member.clone();
    rig.world.run_for(Duration::from_millis(50));
    // Any host can run the future; this one's own tasks are what it waits for.
    let edge = rig.edge_shard();
    rig.world.run(&edge, async move { stopping.stop().await.unwrap() });
    assert_eq!(rig.read(3, 3, 1).0, Answer::NotMember);
    assert_eq!(member.store().usage().wal_bytes_used, 0, "the log was released by a last checkpoint");
}

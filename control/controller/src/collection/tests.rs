use novafs_namespace::{Command, EndSession, Op, OpenSession, ReserveBlocks};

use super::*;

/// Sessions that reserved three blocks each in `groups`, and ended.
fn orphans(count: u64, groups: &[u32]) -> Namespace {
    let mut namespace = Namespace::default();
    for session in 1..=count {
        let ops = [
            Op::OpenSession(OpenSession { lease_ms: 0 }),
            Op::ReserveBlocks(ReserveBlocks { session, count: 3, groups: groups.to_vec() }),
            Op::EndSession(EndSession { session }),
        ];
        for op in ops {
            namespace.apply(1, &Command { client: 0, sequence: 0, at_ms: 1000 * session, op: Some(op) });
        }
    }
    namespace
}

fn work(tokens: f64) -> Work {
    Work { tokens, ..Work::default() }
}

fn report(group: u32, first: BlockId) -> pb::BlocksDeleted {
    let runs = vec![pb::BlockRun { first: first.0, count: 3 }];
    pb::BlocksDeleted { group, runs, deleted: 1, bytes: 4096 }
}

#[test]
fn orphans_are_begun_when_old_enough_and_no_faster_than_the_limit() {
    let namespace = orphans(5, &[7, 7]);
    let mut waiting = work(10.0);
    waiting.begin_orphans(&namespace, Timestamp(3500), Duration::from_secs(2));
    assert_eq!(waiting.pending.parts(), 1, "one of five has waited for two seconds");
    let mut slow = work(2.5);
    slow.begin_orphans(&namespace, Timestamp(100_000), Duration::ZERO);
    assert_eq!(slow.pending.parts(), 2);
    slow.refill(Duration::from_secs(60), 2);
    slow.begin_orphans(&namespace, Timestamp(100_000), Duration::ZERO);
    assert_eq!(slow.pending.parts(), 4, "what was not used in a minute does not add up");
}

#[test]
fn an_orphan_is_told_once_all_its_groups_hold_nothing_and_not_begun_again_before_that_is_applied() {
    let namespace = orphans(1, &[7, 8]);
    let (first, _) = namespace.orphans().next().unwrap();
    let mut work = work(100.0);
    let look = |work: &mut Work| {
        work.cursor = BlockId(0);
        work.begin_orphans(&namespace, Timestamp(100_000), Duration::ZERO);
        work.pending.parts()
    };
    assert_eq!(look(&mut work), 2);
    assert_eq!(look(&mut work), 2, "it is under way");
    work.take_reports(vec![report(8, first), report(8, first)]);
    assert!(work.gone.is_empty());
    work.take_reports(vec![report(7, first)]);
    assert_eq!(work.gone, [first].into());
    assert_eq!((work.deleted.blocks, work.deleted.bytes), (3, 3 * 4096));
    assert_eq!(look(&mut work), 0, "it is to be told");
    work.told = std::mem::take(&mut work.gone);
    assert_eq!(look(&mut work), 0, "it was told");
}

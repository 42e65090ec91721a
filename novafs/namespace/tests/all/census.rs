//! What the metadata know of each block, and that no block comes back from being collected.

use nova_units::{BlockId, GroupId};
use novafs_namespace::{BlockUse, Census, Collected, EndSession, Namespace, Op, Purge, PurgeTrash, Remove};

use crate::kit::{Log, file};

fn use_of(log: &Log, block: u64) -> BlockUse {
    Census::of(&log.namespace).use_of(BlockId(block))
}

#[test]
fn a_block_goes_from_reserved_over_a_file_to_orphan_to_gone() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    assert_eq!(use_of(&log, first), BlockUse::Reserved);
    assert_eq!(use_of(&log, first + 3), BlockUse::Reserved);
    assert_eq!(use_of(&log, first + 4), BlockUse::Later);
    log.publish(session, vec![file("/hot/a", first + 1, 10)], false);
    assert_eq!(use_of(&log, first + 1), BlockUse::File { group: GroupId(1), filled: true });
    assert_eq!(use_of(&log, first + 2), BlockUse::Reserved);
    assert_eq!(Census::of(&log.namespace).filled_in(GroupId(1)), [BlockId(first + 1)]);
    assert_eq!(Census::of(&log.namespace).filled_in(GroupId(2)), []);
    log.apply(Op::Remove(Remove { path: "/hot/a".into(), ..Remove::default() }));
    assert_eq!(
        use_of(&log, first + 1),
        BlockUse::File { group: GroupId(1), filled: true },
        "it can be had back"
    );
    log.empty_trash();
    assert_eq!(use_of(&log, first + 1), BlockUse::Orphan);
    log.apply(Op::EndSession(EndSession { session }));
    for block in first..first + 4 {
        assert_eq!(use_of(&log, block), BlockUse::Orphan);
    }
    let census = Census::of(&log.namespace);
    assert_eq!((census.file_blocks(), census.reserved_blocks(), census.orphan_blocks()), (0, 0, 4));
    let waiting: Vec<u64> = log.namespace.orphans().map(|(first, _)| first.0).collect();
    let collected = Collected { first_blocks: waiting, blocks: 1, bytes: 4096, ..Collected::default() };
    log.apply(Op::Collected(collected.clone()));
    for block in first..first + 4 {
        assert_eq!(use_of(&log, block), BlockUse::Gone);
    }
    log.apply(Op::Collected(Collected { full_pass_ms: 77, ..Collected::default() }));
    let sum = log.namespace.collection();
    assert_eq!((sum.blocks, sum.bytes, sum.full_pass.0), (1, 4096, 77));
    let mut snapshot = Vec::new();
    log.namespace.encode(&mut |piece| snapshot.extend_from_slice(piece));
    assert_eq!(Namespace::decode(&snapshot).unwrap().collection(), sum, "a snapshot has the sums");
}

#[test]
fn a_tree_that_waits_for_its_sweep_still_has_its_blocks() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 2);
    log.publish(session, vec![file("/hot/d/a", first, 10)], false);
    log.apply(Op::Remove(Remove { path: "/hot/d".into(), recursive: true, ..Remove::default() }));
    log.apply(Op::PurgeTrash(PurgeTrash { id: 0 }));
    log.apply(Op::Purge(Purge { limit: 100, now_ms: 0, early: false }));
    assert!(log.namespace.has_sweep());
    assert_eq!(use_of(&log, first), BlockUse::File { group: GroupId(1), filled: true });
    let owners = log.namespace.owners(&[BlockId(first), BlockId(first + 1)].into());
    assert_eq!(owners.keys().copied().collect::<Vec<_>>(), [BlockId(first)]);
}

//! Files appear whole, or not at all.

use std::time::{Duration, Instant};

use novafs_namespace::{
    Block, Code, CommitFile, EndSession, FILES_PER_PUBLISH_MAX, Namespace, NewFile, Op, Publish,
};

use crate::kit::{Log, block, check, done, file};

fn one(log: &mut Log, session: u64, file: NewFile, replace: bool) -> Result<u64, Code> {
    let outcome = log.publish(session, vec![file], replace).remove(0);
    outcome.failure.map_or(Ok(outcome.inode), |failure| Err(failure.code()))
}

#[test]
fn each_file_of_a_publish_has_its_own_outcome() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 10);
    let files = vec![
        file("/hot/a", first, 10),
        file("/hot/a", first + 1, 10),
        file("/nowhere/a", first + 2, 10),
        file("/hot/a/b", first + 3, 10),
        file("/top", first + 4, 10),
        file("/hot/../x", first + 5, 10),
        file("/hot/empty", 0, 0),
        file("/hot/b", first + 6, 10),
    ];
    let codes: Vec<Option<Code>> =
        log.publish(session, files, false).iter().map(|it| it.failure.as_ref().map(|it| it.code())).collect();
    assert_eq!(
        codes,
        [
            None,
            Some(Code::AlreadyExists),
            Some(Code::NotFound),
            Some(Code::NotADirectory),
            Some(Code::Invalid),
            Some(Code::InvalidName),
            None,
            None
        ]
    );
    check(&log.namespace);
}

#[test]
fn a_block_is_published_once_and_only_by_the_session_that_reserved_it() {
    let mut log = Log::default();
    let (mine, other) = (log.open(), log.open());
    let first = log.reserve(mine, 4);
    assert_eq!(one(&mut log, other, file("/hot/a", first, 10), false), Err(Code::Invalid));
    assert!(one(&mut log, mine, file("/hot/a", first + 1, 10), false).is_ok());
    assert_eq!(one(&mut log, mine, file("/hot/b", first + 1, 10), false), Err(Code::Invalid));
    assert_eq!(one(&mut log, mine, file("/hot/b", first + 4, 10), false), Err(Code::Invalid));
    let mut elsewhere = file("/hot/b", first, 10);
    elsewhere.blocks[0].group = 3;
    assert_eq!(one(&mut log, mine, elsewhere, false), Err(Code::Invalid), "a group that was not reserved");
    let mut twice = file("/hot/b", first, 20);
    twice.blocks = vec![block(first, 0, 10), block(first, 10, 10)];
    assert_eq!(one(&mut log, mine, twice, false), Err(Code::Invalid));
    check(&log.namespace);
}

#[test]
fn a_block_is_sealed_with_the_keys_of_its_namespace() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    let mut foreign = file("/hot/a", first, 10);
    foreign.blocks[0].key_domain = 2;
    assert_eq!(one(&mut log, session, foreign.clone(), false), Err(Code::Invalid));
    foreign.blocks[0].key_domain = 1;
    let inode = one(&mut log, session, foreign, false).unwrap();
    let opened = log.open_file(session, "/hot/a").unwrap();
    let more = |key_domain| {
        let block =
            Block { generation: opened.generation, sparse: true, key_domain, ..block(first + 1, 10, 5) };
        let blocks = vec![Block { root: vec![], ..block }];
        Op::CommitFile(CommitFile { session, inode, bytes: 15, blocks, ..CommitFile::default() })
    };
    assert_eq!(log.try_apply(more(2)), Err(Code::Invalid));
    assert_eq!(log.try_apply(more(1)), Ok(()));
    check(&log.namespace);
}

#[test]
fn blocks_lie_in_order_within_the_file() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    let with =
        |bytes: u64, blocks: Vec<novafs_namespace::Block>| NewFile { bytes, blocks, ..file("/hot/f", 0, 0) };
    let mut refused = |bytes, blocks| {
        assert_eq!(one(&mut log, session, with(bytes, blocks), false), Err(Code::Invalid));
    };
    refused(15, vec![block(first, 0, 10), block(first + 1, 10, 10)]);
    refused(20, vec![block(first, 10, 10), block(first + 1, 0, 10)]);
    refused(20, vec![block(first, 0, 11), block(first + 1, 10, 10)]);
    refused(1 << 40, vec![block(first, 0, (128 << 20) + 1)]);
    refused(20, vec![block(first, 0, 0)]);
    refused(20, vec![block(first, u64::MAX, 10)]);
    let mut root = block(first, 0, 10);
    root.root.pop();
    refused(20, vec![root]);
    let sparse = with(100, vec![block(first, 10, 10), block(first + 1, 50, 10)]);
    assert!(one(&mut log, session, sparse, false).is_ok(), "holes read as zeros");
    check(&log.namespace);
}

#[test]
fn a_replaced_file_leaves_its_blocks_for_collection() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    let old = one(&mut log, session, file("/hot/f", first, 10), false).unwrap();
    let new = one(&mut log, session, file("/hot/f", first + 1, 20), true).unwrap();
    assert_ne!(old, new);
    assert_eq!(log.namespace.stat(0, "/hot/f").unwrap().bytes, 20);
    log.empty_trash();
    assert_eq!(log.namespace.orphans().map(|(first, _)| first.0).collect::<Vec<_>>(), [first]);
    check(&log.namespace);
    let collected = novafs_namespace::Collected { first_blocks: vec![first], ..Default::default() };
    log.apply(Op::Collected(collected));
    assert_eq!(log.namespace.orphans().count(), 0);
}

#[test]
fn a_session_that_ended_publishes_nothing() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    one(&mut log, session, file("/hot/before", first + 1, 10), false).unwrap();
    assert_eq!(done(&log.apply(Op::EndSession(EndSession { session }))), Ok(()));
    let publish =
        Publish { session, files: vec![file("/hot/after", first, 1)], make_parents: true, replace: false };
    assert_eq!(done(&log.apply(Op::Publish(publish))), Err(Code::Fenced));
    assert_eq!(done(&log.apply(Op::EndSession(EndSession { session }))), Err(Code::Fenced));
    let left: u32 = log.namespace.orphans().map(|(_, orphan)| orphan.count).sum();
    assert_eq!(left, 3, "what it reserved and did not publish");
    assert!(log.namespace.stat(0, "/hot/before").is_ok());
    check(&log.namespace);
}

#[test]
fn a_full_region_refuses_new_files_and_still_removes_old_ones() {
    let mut log = Log { namespace: Namespace::default().with_inodes_max(8), ..Log::default() };
    let session = log.open();
    one(&mut log, session, file("/hot/a", 0, 0), false).unwrap();
    let publish = |path: &str| {
        Op::Publish(Publish { session, files: vec![file(path, 0, 0)], make_parents: false, replace: false })
    };
    log.apply(publish("/hot/b"));
    log.apply(publish("/hot/c"));
    assert_eq!(one(&mut log, session, file("/hot/d", 0, 0), false), Err(Code::Full));
    assert_eq!(log.remove("/hot/a", false), Ok(()));
    log.apply(publish("/hot/d"));
    assert!(log.namespace.stat(0, "/hot/d").is_ok());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures; the state still sees no clock")]
fn a_tree_of_100_000_files_is_published_listed_and_summed_in_seconds() {
    const FILES: usize = 100_000;
    let begun = Instant::now();
    let mut log = Log::default();
    let session = log.open();
    let mut snapshots = Vec::new();
    let paths: Vec<String> =
        (0..FILES).map(|n| format!("/hot/d{}/e{}/f{}/file-{n}", n / 10_000, n / 1000, n / 50)).collect();
    for chunk in paths.chunks(FILES_PER_PUBLISH_MAX) {
        let first = log.reserve(session, u32::try_from(chunk.len()).unwrap());
        let files = chunk.iter().zip(first..).map(|(path, block)| file(path, block, 100)).collect();
        assert!(log.publish(session, files, false).iter().all(|outcome| outcome.failure.is_none()));
        snapshots.push(log.namespace.clone());
    }
    let published = begun.elapsed();
    let usage = log.namespace.usage(0, "/hot").unwrap().0;
    assert_eq!((usage.files, usage.bytes, usage.blocks), (100_000, 10_000_000, 100_000));
    assert_eq!(usage.directories, 10 + 100 + 2000);
    let early = snapshots[0].usage(0, "/hot").unwrap().0.files;
    assert_eq!(early, FILES_PER_PUBLISH_MAX as u64, "a clone keeps its own version");
    let mut bytes = Vec::new();
    log.namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
    assert_eq!(Namespace::decode(&bytes).unwrap(), log.namespace);
    eprintln!(
        "100,000 files published in {published:?}, all in {:?}, snapshot {} bytes",
        begun.elapsed(),
        bytes.len()
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
}

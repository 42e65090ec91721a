//! Files are reopened: turns, one writer, lengths, truncation.

use nova_units::{InodeId, SessionId};
use novafs_namespace::{
    Block, CloseFile, Code, CommitFile, EndSession, Op, OpenFile, Publish, Reply, StoredBlock, Truncate,
};

use crate::kit::{Log, block, check, done, file};

/// As a writer of `turn` commits it.
fn written(id: u64, offset: u64, bytes: u64, turn: u32) -> Block {
    Block { generation: turn, sparse: true, root: vec![], ..block(id, offset, bytes) }
}

fn commit(log: &mut Log, session: u64, inode: u64, bytes: u64, blocks: Vec<Block>) -> Result<(), Code> {
    log.try_apply(Op::CommitFile(CommitFile { session, inode, bytes, blocks, ..CommitFile::default() }))
}

fn truncate(log: &mut Log, session: u64, inode: u64, bytes: u64) -> Result<(), Code> {
    log.try_apply(Op::Truncate(Truncate { session, inode, bytes }))
}

fn blocks(log: &Log, inode: u64) -> Vec<StoredBlock> {
    log.namespace.open_inode(InodeId(inode)).unwrap().0.file().unwrap().blocks.to_vec()
}

#[test]
fn each_new_writer_raises_the_turn_and_makes_the_blocks_sparse() {
    let mut log = Log::default();
    let inode = log.put("/hot/f", 10).0;
    let dense = &blocks(&log, inode)[0];
    assert!(!dense.sparse && dense.root.is_some() && log.stat("/hot/f").sha256.is_some());
    let session = log.open();
    let opened = log.open_file(session, "/hot/f").unwrap();
    assert_eq!((opened.inode, opened.generation, opened.created), (inode, 2, false));
    let open = &blocks(&log, inode)[0];
    assert!(open.sparse && open.root.is_none() && log.stat("/hot/f").sha256.is_none());
    assert_eq!(log.open_file(session, "/hot/f").unwrap().generation, 2, "it is the writer already");
    let made = log.open_file(session, "/hot/new").unwrap();
    assert_eq!((made.generation, made.created), (1, true));
    assert_eq!(log.stat("/hot/new").mode, 0o640);
    let exclusive =
        OpenFile { session, path: "/hot/f".into(), create: true, exclusive: true, ..OpenFile::default() };
    assert_eq!(log.try_apply(Op::OpenFile(exclusive.clone())), Err(Code::AlreadyExists));
    let missing = OpenFile { path: "/hot/none".into(), create: false, ..exclusive.clone() };
    assert_eq!(log.try_apply(Op::OpenFile(missing)), Err(Code::NotFound));
    assert_eq!(log.open_file(session, "/hot"), Err(Code::IsADirectory));
    assert_eq!(log.open_file(session, "/top"), Err(Code::Invalid), "files lie in a namespace");
    assert_eq!(log.open_file(99, "/hot/f"), Err(Code::Fenced));
    check(&log.namespace);
}

#[test]
fn a_file_has_one_writer_until_it_closes_or_its_session_ends() {
    let mut log = Log::default();
    let (first, second) = (log.open(), log.open());
    let opened = log.open_file(first, "/hot/f").unwrap();
    assert_eq!(log.open_file(second, "/hot/f"), Err(Code::Busy));
    assert_eq!(commit(&mut log, second, opened.inode, 1, vec![]), Err(Code::Busy));
    let close = |session| Op::CloseFile(CloseFile { session, inode: opened.inode });
    assert_eq!(log.try_apply(close(second)), Err(Code::Busy));
    assert_eq!(log.try_apply(close(first)), Ok(()));
    assert_eq!(commit(&mut log, first, opened.inode, 1, vec![]), Err(Code::Invalid), "it gave up its place");
    assert_eq!(log.open_file(second, "/hot/f").unwrap().generation, 2);
    assert_eq!(log.namespace.writer(InodeId(opened.inode)), Some(SessionId(second)));
    log.apply(Op::EndSession(EndSession { session: second }));
    assert_eq!(commit(&mut log, second, opened.inode, 1, vec![]), Err(Code::Fenced));
    assert_eq!(log.open_file(first, "/hot/f").unwrap().generation, 3);
    check(&log.namespace);
}

#[test]
fn a_commit_makes_new_and_grown_blocks_visible() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4);
    let inode = log.open_file(session, "/hot/f").unwrap().inode;
    assert_eq!(commit(&mut log, session, inode, 10, vec![written(first, 0, 10, 1)]), Ok(()));
    assert_eq!((log.stat("/hot/f").bytes, log.namespace.usage(0, "/hot").unwrap().0.bytes), (10, 10));
    let grown = vec![written(first, 0, 30, 1), written(first + 1, 128 << 20, 5, 1)];
    assert_eq!(commit(&mut log, session, inode, (128 << 20) + 5, grown), Ok(()));
    let view = log.stat("/hot/f");
    assert_eq!((view.bytes, view.stored_bytes), ((128 << 20) + 5, 35), "a hole is not stored");
    check(&log.namespace);

    let end = (128 << 20) + 5;
    let mut refused = |bytes, block: Block| {
        assert_eq!(commit(&mut log, session, inode, bytes, vec![block]), Err(Code::Invalid));
    };
    refused(5, written(first, 0, 30, 1));
    refused(end, written(first, 0, 20, 1));
    refused(end, written(first, 0, 30, 2));
    refused(end, Block { group: 2, ..written(first, 0, 30, 1) });
    refused(end, Block { unit_log2: 12, ..written(first, 0, 30, 1) });
    refused(end, written(first, 50, 30, 1));
    refused(end, written(first + 2, 10, 30, 1));
    refused(end, written(first + 9, 40, 30, 1));
    refused(end, written(first + 2, 128 << 20, 6, 1));
    let close =
        CommitFile { session, inode, bytes: end, close: true, modified_ns: 77, ..CommitFile::default() };
    assert_eq!(log.try_apply(Op::CommitFile(close)), Ok(()));
    assert_eq!(log.namespace.writer(InodeId(inode)), None);
    assert_eq!(log.stat("/hot/f").modified_ns, 77);
    assert!(!blocks(&log, inode)[0].trim_pending, "who closes with a commit leaves nothing behind");
    check(&log.namespace);
}

#[test]
fn what_a_dead_writer_left_is_trimmed_before_the_file_grows() {
    let mut log = Log::default();
    let inode = log.put("/hot/f", 10).0;
    let id = blocks(&log, inode)[0].block.0;
    let dead = log.open();
    log.open_file(dead, "/hot/f").unwrap();
    log.apply(Op::EndSession(EndSession { session: dead }));
    assert!(blocks(&log, inode)[0].trim_pending);
    assert_eq!(log.stat("/hot/f").bytes, 10, "the committed length stays");

    let session = log.open();
    let turn = log.open_file(session, "/hot/f").unwrap().generation;
    assert_eq!(turn, 3);
    let grow = |trimmed: Vec<u64>, bytes| CommitFile {
        session,
        inode,
        bytes,
        blocks: vec![written(id, 0, bytes, turn)],
        trimmed,
        ..CommitFile::default()
    };
    assert_eq!(log.try_apply(Op::CommitFile(grow(vec![], 20))), Err(Code::Invalid));
    assert_eq!(log.try_apply(Op::CommitFile(grow(vec![], 10))), Ok(()), "in place it may be written");
    assert!(blocks(&log, inode)[0].trim_pending);
    assert_eq!(log.try_apply(Op::CommitFile(grow(vec![id], 20))), Ok(()));
    assert!(!blocks(&log, inode)[0].trim_pending);
    assert_eq!(log.try_apply(Op::CloseFile(CloseFile { session, inode })), Ok(()));
    assert!(blocks(&log, inode)[0].trim_pending, "who closes without a commit may have written past it");
}

#[test]
fn truncation_drops_whole_blocks_and_cuts_the_last() {
    const MAX: u64 = 128 << 20;
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 3);
    let inode = log.open_file(session, "/hot/f").unwrap().inode;
    let three = (0..3).map(|n| written(first + n, n * MAX, 100, 1)).collect();
    commit(&mut log, session, inode, 2 * MAX + 100, three).unwrap();
    let other = log.open();
    assert_eq!(truncate(&mut log, other, inode, 1), Err(Code::Busy));
    let answer = log.apply(Op::Truncate(Truncate { session, inode, bytes: MAX + 40 }));
    assert!(matches!(answer.result, Some(Reply::Resized(touched)) if touched.inode == inode));
    let kept = blocks(&log, inode);
    assert_eq!(
        kept.iter().map(|block| (block.bytes, block.trim_pending)).collect::<Vec<_>>(),
        [(100, false), (40, true)]
    );
    assert_eq!(log.namespace.orphans().map(|(id, _)| id.0).collect::<Vec<_>>(), [first + 2]);
    check(&log.namespace);
    assert_eq!(truncate(&mut log, session, inode, 1 << 40), Ok(()), "growth is a hole");
    assert_eq!((log.stat("/hot/f").bytes, log.stat("/hot/f").stored_bytes), (1 << 40, 140));
    assert_eq!(truncate(&mut log, session, inode, u64::MAX), Err(Code::TooLarge));
    let open = OpenFile { session, path: "/hot/f".into(), truncate: true, ..OpenFile::default() };
    assert_eq!(log.try_apply(Op::OpenFile(open)), Ok(()));
    assert_eq!((log.stat("/hot/f").bytes, blocks(&log, inode).len()), (0, 0));
    check(&log.namespace);
}

#[test]
fn a_removed_file_stays_for_who_writes_it_and_is_stale_when_it_is_gone() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 1);
    let inode = log.open_file(session, "/hot/f").unwrap().inode;
    assert_eq!(log.remove("/hot/f", false), Ok(()));
    assert_eq!(log.namespace.open_inode(InodeId(inode)).unwrap().1.links, 0);
    assert_eq!(commit(&mut log, session, inode, 10, vec![written(first, 0, 10, 1)]), Ok(()));
    check(&log.namespace);
    log.empty_trash();
    assert_eq!(commit(&mut log, session, inode, 10, vec![]), Err(Code::Stale));
    let by_inode = OpenFile { session, base: inode, ..OpenFile::default() };
    assert_eq!(log.try_apply(Op::OpenFile(by_inode)), Err(Code::Stale));
    check(&log.namespace);
}

#[test]
fn a_publish_over_a_file_that_is_written_leaves_the_old_one_to_its_writer() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 2);
    let inode = log.open_file(session, "/hot/f").unwrap().inode;
    let files = vec![file("/hot/f", first, 10)];
    let publish = Publish { session, files, make_parents: false, replace: true };
    assert_eq!(done(&log.apply(Op::Publish(publish))), Ok(()));
    assert_ne!(log.stat("/hot/f").inode.0, inode);
    assert_eq!(commit(&mut log, session, inode, 10, vec![written(first + 1, 0, 10, 1)]), Ok(()));
    check(&log.namespace);
}

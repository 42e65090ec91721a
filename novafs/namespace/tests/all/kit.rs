//! A namespace with a log, and checks that hold after every command.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, GroupId, InodeId};
use novafs_namespace::{
    Answer, Block, Code, Command, Kind, NewFile, Op, OpenSession, Outcome, Publish, Reply, ReserveBlocks,
    Totals,
};
use novafs_namespace::{Namespace, Rename};

/// Applies commands at rising indexes.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) namespace: Namespace,
    pub(crate) index: u64,
}

impl Log {
    pub(crate) fn apply(&mut self, op: Op) -> Answer {
        self.apply_from(0, 0, op)
    }

    pub(crate) fn apply_from(&mut self, client: u64, sequence: u64, op: Op) -> Answer {
        self.index += 1;
        self.namespace
            .apply(self.index, &Command { client, sequence, at_ms: 1000 + self.index, op: Some(op) })
    }

    pub(crate) fn open(&mut self) -> u64 {
        match self.apply(Op::OpenSession(OpenSession { lease_ms: 0 })).result {
            Some(Reply::SessionOpened(opened)) => opened.session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reserve(&mut self, session: u64, count: u32) -> u64 {
        match self.apply(Op::ReserveBlocks(ReserveBlocks { session, count, groups: vec![1, 2] })).result {
            Some(Reply::BlocksReserved(reserved)) => reserved.first_block,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, session: u64, files: Vec<NewFile>, replace: bool) -> Vec<Outcome> {
        let publish = Publish { session, files, make_parents: true, replace };
        match self.apply(Op::Publish(publish)).result {
            Some(Reply::Published(published)) => published.outcomes,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn rename(&mut self, source: &str, target: &str, replace: bool) -> Result<(), Code> {
        let rename = Rename { source: source.into(), target: target.into(), replace, ..Rename::default() };
        done(&self.apply(Op::Rename(rename)))
    }
}

/// A refusal's code, or nothing.
pub(crate) fn done(answer: &Answer) -> Result<(), Code> {
    answer.failure().map_or(Ok(()), |failure| Err(failure.code()))
}

/// A file of one block, or of none when `bytes` is 0.
pub(crate) fn file(path: &str, block: u64, bytes: u64) -> NewFile {
    let blocks = if bytes == 0 { vec![] } else { vec![self::block(block, 0, bytes)] };
    NewFile {
        path: path.into(),
        mode: 0o644,
        modified_ms: 5,
        bytes,
        blocks,
        sha256: vec![7; 32],
        ..NewFile::default()
    }
}

pub(crate) fn block(block: u64, offset: u64, bytes: u64) -> Block {
    Block {
        block,
        group: 1,
        bytes,
        generation: 1,
        unit_log2: 16,
        key_domain: 1,
        key_version: 1,
        root: vec![9; 32],
        offset,
        ..Block::default()
    }
}

/// What must hold in every state: reads through the public API only.
pub(crate) fn check(namespace: &Namespace) {
    let mut blocks: BTreeMap<BlockId, &str> = BTreeMap::new();
    for (first, orphan) in namespace.orphans() {
        for number in 0..u64::from(orphan.count) {
            assert!(
                blocks.insert(BlockId(first.0 + number), "orphan").is_none(),
                "a block is orphaned twice"
            );
        }
    }
    for (_, session) in namespace.sessions() {
        let mut outstanding = 0;
        for (first, run) in &session.reserved {
            outstanding += run.count;
            for number in 0..u64::from(run.count) {
                assert!(
                    blocks.insert(BlockId(first.0 + number), "reserved").is_none(),
                    "a block is given twice"
                );
            }
        }
        assert_eq!(outstanding, session.outstanding, "a session counts its blocks");
    }
    let mut inodes = BTreeSet::new();
    let root = namespace.stat("/").unwrap();
    assert!(inodes.insert(root.inode));
    let totals = check_directory(namespace, "/", root.children, &mut inodes, &mut blocks);
    assert_eq!(namespace.usage("/").unwrap(), totals);
}

fn check_directory(
    namespace: &Namespace,
    path: &str,
    children: u64,
    inodes: &mut BTreeSet<InodeId>,
    blocks: &mut BTreeMap<BlockId, &str>,
) -> Totals {
    let mut totals = Totals::default();
    let mut after = String::new();
    let mut count = 0;
    loop {
        // A small page, so that the cookie is used.
        let page = namespace.list(path, &after, 3).unwrap();
        for entry in &page.entries {
            assert!(after.as_str() < &*entry.name, "names come in order");
            after = entry.name.to_string();
            count += 1;
            let below = format!("{}/{}", path.trim_end_matches('/'), entry.name);
            assert_eq!(&namespace.stat(&below).unwrap(), entry, "the entry is reachable by its path");
            assert!(inodes.insert(entry.inode), "an inode has one name");
            match entry.kind {
                Kind::Directory => {
                    let sums = check_directory(namespace, &below, entry.children, inodes, blocks);
                    assert_eq!(namespace.usage(&below).unwrap(), sums, "sums of {below}");
                    totals.files += sums.files;
                    totals.directories += sums.directories + 1;
                    totals.bytes += sums.bytes;
                    totals.blocks += sums.blocks;
                }
                Kind::File => {
                    let (_, file) = namespace.open(&below).unwrap();
                    assert_eq!(namespace.open_inode(entry.inode).unwrap().1, file);
                    for block in &file.blocks {
                        assert!(
                            blocks.insert(block.block, "file").is_none(),
                            "{} is used twice",
                            block.block
                        );
                        assert!([GroupId(1), GroupId(2)].contains(&block.group));
                    }
                    totals.files += 1;
                    totals.bytes += file.bytes;
                    totals.blocks += file.blocks.len() as u64;
                }
            }
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(count, children, "{path} counts its entries");
    totals
}

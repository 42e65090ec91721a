//! Every block that the metadata know of, for whoever compares them with what is stored.
//!
//! A block id is given out once. From its reservation it goes into a file, and from there, or when its session ends,
//! it becomes an orphan; no step leads back. Hence one committed state, however old, is a proof for ever: a block that
//! is an orphan in it, or was given out by then and is in nothing, will never be referred to again.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, GroupId, InodeId};

use crate::model::{Namespace, Node};

/// What the metadata know of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockUse {
    /// A file has it; files that wait in the trash count.
    File {
        /// The group that holds it.
        group: GroupId,
        /// It has bytes, so that every member holds some of it.
        filled: bool,
    },
    /// A session may still write and publish it.
    Reserved,
    /// It waits to be collected.
    Orphan,
    /// It was given out and is in nothing: it was collected, or never written. Nothing will refer to it again.
    Gone,
    /// It has not been given out yet.
    Later,
}

#[derive(Clone, Copy, Debug)]
struct FileBlock {
    block: BlockId,
    group: GroupId,
    filled: bool,
}

/// The blocks of one state of the metadata.
#[derive(Clone, Debug)]
pub struct Census {
    /// By id.
    files: Vec<FileBlock>,
    /// First and count, by first.
    reserved: Vec<(BlockId, u32)>,
    orphans: Vec<(BlockId, u32)>,
    next: BlockId,
}

impl Census {
    /// Counts the blocks of `namespace`. Takes time and memory for every block: 16 bytes each.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        let mut files = Vec::new();
        for inode in namespace.inodes.values() {
            if let Node::File(file) = &inode.node {
                files.extend(file.blocks.iter().map(|stored| FileBlock {
                    block: stored.block,
                    group: stored.group,
                    filled: stored.bytes > 0 && !stored.sparse,
                }));
            }
        }
        files.sort_unstable_by_key(|stored| stored.block);
        let sessions = namespace.sessions.values();
        let mut reserved: Vec<_> = sessions
            .flat_map(|session| session.reserved.iter().map(|(first, run)| (*first, run.count)))
            .collect();
        reserved.sort_unstable();
        let orphans = namespace.orphans.iter().map(|(first, orphan)| (*first, orphan.count)).collect();
        Self { files, reserved, orphans, next: BlockId::new(namespace.era, namespace.next_block) }
    }

    /// What is known of a block.
    #[must_use]
    pub fn use_of(&self, block: BlockId) -> BlockUse {
        let found = self.files.binary_search_by_key(&block, |stored| stored.block);
        if let Ok(index) = found {
            let FileBlock { group, filled, .. } = self.files[index];
            return BlockUse::File { group, filled };
        }
        if is_in(&self.reserved, block) {
            BlockUse::Reserved
        } else if is_in(&self.orphans, block) {
            BlockUse::Orphan
        } else if block < self.next {
            BlockUse::Gone
        } else {
            BlockUse::Later
        }
    }

    /// Blocks of files that every member of `group` holds something of, in ascending order.
    #[must_use]
    pub fn filled_in(&self, group: GroupId) -> Vec<BlockId> {
        let there = self.files.iter().filter(|stored| stored.group == group && stored.filled);
        there.map(|stored| stored.block).collect()
    }

    /// Era of the ids given out now.
    #[must_use]
    pub fn era(&self) -> u16 {
        self.next.era()
    }

    /// Blocks that files have.
    #[must_use]
    pub fn file_blocks(&self) -> u64 {
        self.files.len() as u64
    }

    /// Blocks that sessions have reserved.
    #[must_use]
    pub fn reserved_blocks(&self) -> u64 {
        self.reserved.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Blocks that wait to be collected.
    #[must_use]
    pub fn orphan_blocks(&self) -> u64 {
        self.orphans.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

fn is_in(runs: &[(BlockId, u32)], block: BlockId) -> bool {
    let after = runs.partition_point(|(first, _)| *first <= block);
    after.checked_sub(1).is_some_and(|index| block.0 - runs[index].0.0 < u64::from(runs[index].1))
}

impl Namespace {
    /// The files that have these blocks. Looks through every inode.
    #[must_use]
    pub fn owners(&self, blocks: &BTreeSet<BlockId>) -> BTreeMap<BlockId, InodeId> {
        let mut owners = BTreeMap::new();
        for (id, inode) in &self.inodes {
            if let Node::File(file) = &inode.node {
                let wanted = file.blocks.iter().filter(|stored| blocks.contains(&stored.block));
                owners.extend(wanted.map(|stored| (stored.block, *id)));
            }
        }
        owners
    }

    /// Blocks of files in each group, and their bytes. Looks through every inode.
    #[must_use]
    pub fn stored_by_group(&self) -> BTreeMap<GroupId, (u64, u64)> {
        let mut stored = BTreeMap::<_, (u64, u64)>::new();
        for inode in self.inodes.values() {
            if let Node::File(file) = &inode.node {
                for block in &file.blocks {
                    let (blocks, bytes) = stored.entry(block.group).or_default();
                    *blocks += 1;
                    *bytes += u64::from(block.bytes);
                }
            }
        }
        stored
    }
}

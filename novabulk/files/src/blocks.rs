//! The blocks of a file that comes: what the receiver knows of each.

use std::collections::BTreeMap;

use crate::{BLOCK_BYTES, Digest, FILE_BYTES_MAX, root_of};

/// Blocks that one answer tells of, with their digests.
pub const HAVE_PAGE_BLOCKS: usize = 1700;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// How many blocks a file of `bytes` has.
///
/// # Panics
/// Over [`FILE_BYTES_MAX`], which no decoder lets through.
#[must_use]
pub fn block_count(bytes: u64) -> u32 {
    assert!(bytes <= FILE_BYTES_MAX, "a file of {bytes} bytes");
    u32::try_from(bytes.div_ceil(BLOCK)).expect("2^50 bytes are 2^30 blocks")
}

/// Offset and length of a block of a file of `bytes`; nothing when the file has no such block.
#[must_use]
pub fn block_range(bytes: u64, block: u32) -> Option<(u64, u32)> {
    let offset = u64::from(block) * BLOCK;
    let left = bytes.checked_sub(offset).filter(|&left| left > 0)?;
    Some((offset, u32::try_from(left.min(BLOCK)).expect("at most a block")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way to the file.
    Writing,
    /// In the file, not durable.
    Written(Digest),
    /// In the file and flushed.
    Durable(Digest),
}

/// What to do with a block that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Write it here: offset and length.
    Write {
        /// In the file, in bytes.
        offset: u64,
        /// Length of the block.
        bytes: u32,
    },
    /// It is there, or another one is being written: this one is of no use.
    Duplicate {
        /// Whether the other has arrived for good, so that this one counts as delivered.
        written: bool,
    },
    /// The file has no such block, or the block has another length.
    Outside,
}

/// The blocks of one file. Blocks that never come are holes; the root says whether all came that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    bytes: u64,
    states: BTreeMap<u32, State>,
    bytes_unflushed: u64,
}

impl Blocks {
    /// Of a file of `bytes`, of which nothing is there.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self { bytes, states: BTreeMap::new(), bytes_unflushed: 0 }
    }

    /// A ledger says that this block is durable; one that the file cannot have is ignored.
    pub fn recall(&mut self, block: u32, digest: Digest) {
        if block_range(self.bytes, block).is_some() {
            self.states.insert(block, State::Durable(digest));
        }
    }

    /// A block of `bytes` has come.
    pub fn arrive(&mut self, block: u32, bytes: usize) -> Arrival {
        let Some((offset, expected)) = block_range(self.bytes, block) else { return Arrival::Outside };
        if usize::try_from(expected) != Ok(bytes) {
            return Arrival::Outside;
        }
        match self.states.get(&block) {
            Some(State::Writing) => Arrival::Duplicate { written: false },
            Some(_) => Arrival::Duplicate { written: true },
            None => {
                self.states.insert(block, State::Writing);
                Arrival::Write { offset, bytes: expected }
            }
        }
    }

    /// The block that was being written is in the file.
    ///
    /// # Panics
    /// When it was not being written.
    pub fn written(&mut self, block: u32, digest: Digest) {
        let before = self.states.insert(block, State::Written(digest));
        assert_eq!(before, Some(State::Writing), "block {block} was written without having come");
        self.bytes_unflushed += block_range(self.bytes, block).map_or(0, |(_, bytes)| bytes.into());
    }

    /// The block could not be written: it has not come.
    pub fn lost(&mut self, block: u32) {
        if self.states.get(&block) == Some(&State::Writing) {
            self.states.remove(&block);
        }
    }

    /// Bytes in the file that no flush covers.
    #[must_use]
    pub const fn bytes_unflushed(&self) -> u64 {
        self.bytes_unflushed
    }

    /// Blocks that are being written.
    #[must_use]
    pub fn writing(&self) -> usize {
        self.states.values().filter(|state| **state == State::Writing).count()
    }

    /// What a flush that begins now will make durable.
    #[must_use]
    pub fn unflushed(&self) -> Vec<(u32, Digest)> {
        let written = self.states.iter().filter_map(|(block, state)| match state {
            State::Written(digest) => Some((*block, *digest)),
            _ => None,
        });
        written.collect()
    }

    /// A flush that began when [`Blocks::unflushed`] said this has ended well.
    pub fn flushed(&mut self, blocks: &[(u32, Digest)]) {
        for (block, digest) in blocks {
            if self.states.get(block) == Some(&State::Written(*digest)) {
                self.states.insert(*block, State::Durable(*digest));
                let bytes = block_range(self.bytes, *block).map_or(0, |(_, bytes)| bytes.into());
                self.bytes_unflushed -= bytes;
            }
        }
    }

    /// Up to [`HAVE_PAGE_BLOCKS`] blocks that are there, from `from` on, and where to go on.
    #[must_use]
    pub fn held(&self, from: u32) -> (Vec<(u32, Digest)>, Option<u32>) {
        let mut there = self.states.range(from..).filter_map(|(block, state)| match state {
            State::Writing => None,
            State::Written(digest) | State::Durable(digest) => Some((*block, *digest)),
        });
        let page: Vec<_> = there.by_ref().take(HAVE_PAGE_BLOCKS).collect();
        (page, there.next().map(|(block, _)| block))
    }

    /// How many blocks are there, and the root over them.
    #[must_use]
    pub fn root(&self) -> (u32, Digest) {
        let there = self.states.iter().filter_map(|(block, state)| match state {
            State::Writing => None,
            State::Written(digest) | State::Durable(digest) => Some((*block, *digest)),
        });
        let count = u32::try_from(there.clone().count()).expect("a file has at most 2^30 blocks");
        (count, root_of(self.bytes, there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn a_block_is_written_once_and_counts_when_it_is_there() {
        let mut blocks = Blocks::new(2 * MIB + 5);
        assert_eq!(blocks.arrive(2, 5), Arrival::Write { offset: 2 * MIB, bytes: 5 });
        assert_eq!(blocks.arrive(2, 5), Arrival::Duplicate { written: false });
        assert_eq!((blocks.writing(), blocks.root().0), (1, 0));
        blocks.written(2, digest(1));
        assert_eq!(blocks.arrive(2, 5), Arrival::Duplicate { written: true });
        assert_eq!((blocks.writing(), blocks.root().0, blocks.bytes_unflushed()), (0, 1, 5));
        let flushed = blocks.unflushed();
        assert_eq!(blocks.arrive(0, 1 << 20), Arrival::Write { offset: 0, bytes: 1 << 20 });
        blocks.written(0, digest(2));
        blocks.flushed(&flushed);
        assert_eq!(blocks.unflushed(), [(0, digest(2))], "what came during the flush is not covered by it");
        assert_eq!(blocks.bytes_unflushed(), MIB);
    }

    #[test]
    fn blocks_past_the_end_and_of_another_length_are_outside() {
        let mut blocks = Blocks::new(MIB + 1);
        for (block, bytes) in [(2, 1), (u32::MAX, 1 << 20), (1, 2), (0, 1), (1, 0), (0, (1 << 20) + 1)] {
            assert_eq!(blocks.arrive(block, bytes), Arrival::Outside, "{block} {bytes}");
        }
        assert_eq!(Blocks::new(0).arrive(0, 0), Arrival::Outside);
        blocks.recall(2, digest(0));
        assert_eq!(blocks.held(0), (vec![], None));
    }

    #[test]
    fn a_lost_block_may_come_again() {
        let mut blocks = Blocks::new(10);
        blocks.arrive(0, 10);
        blocks.lost(0);
        assert_eq!(blocks.arrive(0, 10), Arrival::Write { offset: 0, bytes: 10 });
        blocks.written(0, digest(9));
        blocks.lost(0);
        assert_eq!(blocks.root().0, 1, "what is there is not lost");
    }

    #[test]
    fn what_is_held_is_told_in_pages() {
        let mut blocks = Blocks::new(2000 * MIB);
        for block in 0..2000 {
            blocks.recall(block, digest(1));
        }
        let (first, next) = blocks.held(0);
        assert_eq!((first.len(), next), (HAVE_PAGE_BLOCKS, Some(1700)));
        let (second, next) = blocks.held(1700);
        assert_eq!((second.len(), next), (300, None));
    }
}

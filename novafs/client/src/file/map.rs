//! The blocks of an open file.

use std::collections::BTreeMap;

use nova_api::files::Block;
use nova_units::BLOCK_BYTES_MAX;

/// A block, with what this client did to it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// As metadata knows it; `bytes` is how far it was written and acknowledged.
    pub(super) block: Block,
    /// Generation in which it was made or fenced; 0: in none of this client's.
    pub(super) ready: u32,
    /// Whether metadata must be told.
    pub(super) changed: bool,
    /// Whether a write that failed may have left bytes past `block.bytes`.
    pub(super) spilled: bool,
}

/// Blocks by where they begin in the file.
#[derive(Debug, Default)]
pub(super) struct Map {
    blocks: BTreeMap<u64, Held>,
}

/// Where in a file a write of a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the block begins in the file.
    pub(super) start: u64,
    /// First byte in the block.
    pub(super) offset: u64,
    /// Bytes from there on that may lie in the block.
    pub(super) room: u64,
}

impl Map {
    pub(super) fn new(blocks: Vec<Block>, spilled: bool) -> Self {
        let held = |block: Block| (block.offset, Held { block, ready: 0, changed: false, spilled });
        Self { blocks: blocks.into_iter().map(held).collect() }
    }

    /// The block that byte `at` of the file lies in, there or to be made.
    pub(super) fn place(&self, at: u64) -> Place {
        let before = self.blocks.range(..=at).next_back().map(|(start, _)| *start);
        let start = match before {
            Some(start) if at - start < BLOCK_BYTES_MAX => start,
            // Blocks begin at multiples of their largest size, unless one before reaches further.
            before => {
                let reached = before.map_or(0, |start| start + BLOCK_BYTES_MAX);
                (at / BLOCK_BYTES_MAX * BLOCK_BYTES_MAX).max(reached)
            }
        };
        let next = self.blocks.range(start + 1..).next().map_or(u64::MAX, |(next, _)| *next);
        let end = start.saturating_add(BLOCK_BYTES_MAX).min(next);
        Place { start, offset: at - start, room: end - at }
    }

    /// What was true of blocks before metadata said anew what they are.
    pub(super) fn keep_ready(&mut self, old: &Self) {
        for held in self.blocks.values_mut() {
            let before = old.blocks.get(&held.block.offset);
            if let Some(before) = before.filter(|before| before.block.block == held.block.block) {
                (held.ready, held.spilled) = (before.ready, before.spilled);
            }
        }
    }

    pub(super) fn get(&self, start: u64) -> Option<&Held> {
        self.blocks.get(&start)
    }

    pub(super) fn get_mut(&mut self, start: u64) -> Option<&mut Held> {
        self.blocks.get_mut(&start)
    }

    pub(super) fn insert(&mut self, held: Held) {
        self.blocks.insert(held.block.offset, held);
    }

    pub(super) fn remove(&mut self, start: u64) {
        self.blocks.remove(&start);
    }

    /// Where blocks begin that must be cut before they grow.
    pub(super) fn uncut(&self) -> Vec<u64> {
        let uncut = |held: &Held| held.block.trim_pending || held.spilled;
        self.blocks.iter().filter(|(_, held)| uncut(held)).map(|(start, _)| *start).collect()
    }

    /// Whether no block may hold bytes of a write that failed.
    pub(super) fn spilled_none(&self) -> bool {
        self.blocks.values().all(|held| !held.spilled)
    }

    /// Blocks with bytes in a range of the file.
    pub(super) fn within(&self, begin: u64, end: u64) -> Vec<Block> {
        let overlaps = |held: &&Held| held.block.offset + held.block.bytes > begin;
        self.blocks
            .range(..end)
            .map(|(_, held)| held)
            .filter(overlaps)
            .map(|held| held.block.clone())
            .collect()
    }

    /// What metadata must be told. A block that was never written is not told.
    pub(super) fn changed(&self) -> Vec<Block> {
        let told = |held: &&Held| held.changed && held.block.bytes > 0;
        self.blocks.values().filter(told).map(|held| held.block.clone()).collect()
    }

    /// Metadata was told.
    pub(super) fn settle(&mut self) {
        for held in self.blocks.values_mut() {
            held.changed &= held.block.bytes == 0;
        }
    }

    /// Blocks that were made or fenced in a generation.
    pub(super) fn ready_in(&self, generation: u32) -> impl Iterator<Item = &Block> {
        self.blocks.values().filter(move |held| held.ready == generation).map(|held| &held.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(blocks: &[(u64, u64)]) -> Map {
        let block = |&(offset, bytes): &(u64, u64)| Block { offset, bytes, ..Block::default() };
        Map::new(blocks.iter().map(block).collect(), false)
    }

    #[test]
    fn a_byte_has_one_block_to_lie_in() {
        const MAX: u64 = BLOCK_BYTES_MAX;
        let place = |map: &Map, at| {
            let Place { start, offset, room } = map.place(at);
            (start, offset, room)
        };
        let empty = Map::default();
        assert_eq!(place(&empty, 5), (0, 5, MAX - 5));
        assert_eq!(place(&empty, 3 * MAX + 1), (3 * MAX, 1, MAX - 1));
        // Blocks that begin elsewhere keep their places, and none overlap.
        let odd = map(&[(0, 100), (1000, 50)]);
        assert_eq!(place(&odd, 999), (0, 999, 1));
        assert_eq!(place(&odd, 1000), (1000, 0, MAX));
        assert_eq!(place(&odd, MAX + 999), (1000, MAX - 1, 1));
        assert_eq!(place(&odd, MAX + 1000), (MAX + 1000, 0, MAX));
        assert_eq!(place(&odd, 2 * MAX), (2 * MAX, 0, MAX));
    }

    #[test]
    fn only_written_blocks_are_told_and_only_once() {
        let mut map = map(&[(0, 100), (BLOCK_BYTES_MAX, 0)]);
        for start in [0, BLOCK_BYTES_MAX] {
            map.get_mut(start).unwrap().changed = true;
        }
        assert_eq!(map.changed().len(), 1);
        map.settle();
        assert!(map.changed().is_empty());
        map.get_mut(BLOCK_BYTES_MAX).unwrap().block.bytes = 1;
        assert_eq!(map.changed().len(), 1, "a block that was made and is written later");
        assert_eq!(map.within(0, 100).len(), 1);
        assert_eq!(map.within(100, BLOCK_BYTES_MAX + 1).len(), 1);
    }
}

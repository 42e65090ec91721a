//! Digests that grow upward: unit, segment of 1 MiB, block.
//!
//! The digest of a segment is the SHA-256 of the digests of all its units in order, 32 zero bytes for a unit that
//! was never written; a segment without any unit has the digest of 32 zero bytes. The 128 segment digests of a block
//! fill exactly one page of 4 KiB, and the block's root is the SHA-256 of its header and that page.

use crate::unit::PAGE;
use core::fmt;
use nova_units::{BLOCK_BYTES_MAX, BlockId, GroupId, SEGMENT_BYTES, UNIT_LOG2_MAX, UNIT_LOG2_MIN, UnitIndex};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Segments in a block.
pub const SEGMENTS: usize = 128;
const _: () = assert!(SEGMENTS as u64 == BLOCK_BYTES_MAX / SEGMENT_BYTES);

/// What a block's root says about the block besides its bytes.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 8 | `"NOVABLK1"` |
/// | 8 | 8 | block |
/// | 16 | 4 | group |
/// | 20 | 4 | key domain |
/// | 24 | 4 | key version |
/// | 28 | 1 | log2 of the unit's size |
/// | 29 | 1 | suite |
/// | 30 | 2 | zero |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The block.
    pub block: BlockId,
    /// Group that keeps it.
    pub group: GroupId,
    /// Key domain of its units.
    pub domain: u32,
    /// Version of the domain's key.
    pub version: u32,
    /// log2 of the size of its units, 12 to 16.
    pub unit_log2: u8,
    /// Cipher and checksums, [`crate::seal::SUITE_AES256GCM_SHA256_CRC32`].
    pub suite: u8,
}

impl BlockHeader {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 32;

    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[0..8].copy_from_slice(b"NOVABLK1");
        out[8..16].copy_from_slice(&self.block.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.group.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.domain.to_le_bytes());
        out[24..28].copy_from_slice(&self.version.to_le_bytes());
        out[28] = self.unit_log2;
        out[29] = self.suite;
        out
    }
}

/// Digest of a segment from the digests of its units in order; `None` for a unit that was never written.
#[must_use]
pub fn segment_digest(units: impl IntoIterator<Item = Option<[u8; 32]>>) -> [u8; 32] {
    let mut sha = Sha256::new();
    let mut any = false;
    for digest in units {
        any |= digest.is_some();
        sha.update(digest.unwrap_or_default());
    }
    if any { sha.finalize().into() } else { [0; 32] }
}

/// Root of a block from its header and its page of segment digests.
#[must_use]
pub fn block_root(header: &BlockHeader, page: &[u8; PAGE]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(header.encode());
    sha.update(page);
    sha.finalize().into()
}

/// Gathers the digests of a block's units, in any order, up to its root.
#[derive(Clone)]
pub struct BlockDigest {
    header: BlockHeader,
    units: BTreeMap<UnitIndex, [u8; 32]>,
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDigest").field("header", &self.header).field("units", &self.units.len()).finish()
    }
}

impl BlockDigest {
    /// A block without units.
    ///
    /// # Panics
    /// When the header's unit size is not 4 KiB to 64 KiB.
    #[must_use]
    pub fn new(header: BlockHeader) -> Self {
        assert!((UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&header.unit_log2), "units are 4 KiB to 64 KiB");
        Self { header, units: BTreeMap::new() }
    }

    /// Takes the digest of a unit; a later one of the same unit replaces it.
    ///
    /// # Panics
    /// When the unit is past the end of a block.
    pub fn set(&mut self, unit: UnitIndex, digest: [u8; 32]) {
        assert!(
            u64::from(unit.0) < BLOCK_BYTES_MAX >> self.header.unit_log2,
            "{unit} is past the end of a block"
        );
        self.units.insert(unit, digest);
    }

    /// Forgets the digests of `from` and the units behind it: the block was cut there.
    pub fn truncate(&mut self, from: UnitIndex) {
        self.units.split_off(&from);
    }

    /// Units that have a digest.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// The 128 segment digests: one metadata page.
    #[must_use]
    pub fn page(&self) -> [u8; PAGE] {
        let per_segment =
            u16::try_from(SEGMENT_BYTES >> self.header.unit_log2).expect("at most 256 units a segment");
        let mut page = [0; PAGE];
        for (out, segment) in page.chunks_exact_mut(32).zip(0_u16..) {
            let first = segment * per_segment;
            // Most blocks are small files: a range look-up is cheaper than asking for 2,048 units one by one.
            if self.units.range(UnitIndex(first)..).next().is_none() {
                break;
            }
            let digests = (first..first + per_segment).map(|unit| self.units.get(&UnitIndex(unit)).copied());
            out.copy_from_slice(&segment_digest(digests));
        }
        page
    }

    /// The block's root.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        block_root(&self.header, &self.page())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(unit_log2: u8) -> BlockHeader {
        BlockHeader { block: BlockId(1), group: GroupId(2), domain: 3, version: 4, unit_log2, suite: 1 }
    }

    #[test]
    fn the_order_of_units_does_not_matter_but_their_place_does() {
        let root_of = |units: &[(u16, u8)]| {
            let mut block = BlockDigest::new(header(16));
            for (unit, byte) in units {
                block.set(UnitIndex(*unit), [*byte; 32]);
            }
            block.root()
        };
        assert_eq!(root_of(&[(0, 1), (17, 2), (2047, 3)]), root_of(&[(2047, 3), (0, 9), (17, 2), (0, 1)]));
        assert_ne!(root_of(&[(0, 1), (17, 2)]), root_of(&[(0, 1), (18, 2)]));
    }

    #[test]
    fn a_segment_takes_the_digests_of_its_own_units() {
        let mut block = BlockDigest::new(header(12));
        block.set(UnitIndex(256), [5; 32]);
        let page = block.page();
        let expected = segment_digest((0..256).map(|i| (i == 0).then_some([5; 32])));
        assert_eq!(page[32..64], expected);
        assert_eq!(page[..32], [0; 32]);
        assert!(page[64..].iter().all(|byte| *byte == 0));
    }
}

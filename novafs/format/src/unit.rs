//! The sealed unit: what an edge makes, hosts store and wires carry, without ever opening it.

use crate::cursor::{Put, Reader};
use crate::error::{FormatError, bad_field, expect_end};
use crc32fast::Hasher;
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, Generation, PAGE_BYTES, PageSum, UNIT_LOG2_MAX, UNIT_LOG2_MIN, UnitIndex,
};
use sha2::{Digest, Sha256};

/// A page of [`PAGE_BYTES`], as a length of memory.
pub const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// Pages in the largest unit.
pub const UNIT_PAGES_MAX: usize = 16;
const _: () = assert!(UNIT_PAGES_MAX * PAGE == 1 << UNIT_LOG2_MAX);

/// How the plaintext was compressed before it was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    #[default]
    Raw = 0,
    /// LZ4 block format.
    Lz4 = 1,
    /// One Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// The codec with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// One version of one unit, sealed: everything about it except the stored bytes themselves.
///
/// Portable: the same 160 bytes in the log of a device, in a request and in an answer
/// (docs/novafs-format.md, "Sealed unit"). A value of this type need not be valid; [`SealedUnit::decode`] returns
/// only valid ones, and [`SealedUnit::check`] says whether one is.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 8 | block |
/// | 8 | 8 | counter |
/// | 16 | 4 | generation |
/// | 20 | 4 | plain bytes |
/// | 24 | 4 | stored bytes |
/// | 28 | 2 | unit |
/// | 30 | 1 | codec |
/// | 31 | 1 | log2 of the unit's size |
/// | 32 | 16 | GCM tag |
/// | 48 | 16 | salt |
/// | 64 | 32 | digest |
/// | 96 | 64 | CRC-32 of each stored page, zero for pages there are not |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SealedUnit {
    /// Block it belongs to.
    pub block: BlockId,
    /// Which unit of the block.
    pub unit: UnitIndex,
    /// Writer session's turn on the block that sealed it.
    pub generation: Generation,
    /// Seal counter within (block, generation): the higher one is the newer version.
    pub counter: u64,
    /// Bytes of plaintext, 1 to the unit's size.
    pub plain_bytes: u32,
    /// Bytes after compression and sealing, without padding; never more than `plain_bytes`.
    pub stored_bytes: u32,
    /// Compression under the seal.
    pub codec: Codec,
    /// log2 of the size of the block's units, 12 to 16.
    pub unit_log2: u8,
    /// Authentication tag of AES-256-GCM.
    pub tag: [u8; 16],
    /// Salt of the writer session that sealed it: with it anyone who holds the domain's key derives the block's key. It
    /// is no secret; with another one the tag fails (docs/adr/0011).
    pub salt: [u8; 16],
    /// SHA-256 of sealing fields, tag, salt and stored bytes ([`SealedUnit::compute_digest`]).
    pub digest: [u8; 32],
    /// Seeded CRC-32 of each padded page of the stored bytes; zero past [`SealedUnit::stored_pages`].
    pub page_crc: [u32; 16],
}

/// A stored page whose bytes are not those that were sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {page} of {block} {unit} fails its checksum: take the unit from another member")]
pub struct BadPage {
    /// Block of the unit.
    pub block: BlockId,
    /// The unit.
    pub unit: UnitIndex,
    /// First bad page of the unit, counted from 0.
    pub page: u8,
}

impl SealedUnit {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 160;
    /// Length of the sealing fields, the tag and the salt, which the digest covers ahead of the stored bytes.
    pub const SEALING_BYTES: usize = 64;
    /// Length of everything ahead of the page checksums.
    pub(crate) const FIXED_BYTES: usize = 96;

    /// 4 KiB pages that the stored bytes fill, the last one padded with zeros.
    #[must_use]
    pub const fn stored_pages(&self) -> usize {
        (self.stored_bytes as usize).div_ceil(PAGE)
    }

    /// Stored bytes with their padding: what is written, sent and checked.
    #[must_use]
    pub const fn padded_bytes(&self) -> usize {
        self.stored_pages() * PAGE
    }

    /// Whether the fields can belong together.
    ///
    /// # Errors
    /// [`FormatError::Field`] names the first that cannot.
    pub fn check(&self) -> Result<(), FormatError> {
        if !(UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&self.unit_log2) {
            return Err(bad_field("unit_log2", self.unit_log2));
        }
        if u64::from(self.unit.0) >= BLOCK_BYTES_MAX >> self.unit_log2 {
            return Err(bad_field("unit", self.unit.0));
        }
        if self.plain_bytes == 0 || self.plain_bytes > 1 << self.unit_log2 {
            return Err(bad_field("plain_bytes", self.plain_bytes));
        }
        let stored_fits = match self.codec {
            Codec::Raw => self.stored_bytes == self.plain_bytes,
            Codec::Lz4 | Codec::Zstd => self.stored_bytes > 0 && self.stored_bytes < self.plain_bytes,
        };
        if !stored_fits {
            return Err(bad_field("stored_bytes", self.stored_bytes));
        }
        match self.page_crc[self.stored_pages()..].iter().find(|crc| **crc != 0) {
            Some(crc) => Err(bad_field("page_crc", *crc)),
            None => Ok(()),
        }
    }

    /// The sealing fields, the tag and the salt: the first 64 bytes of the encoded form.
    #[must_use]
    pub fn sealing_fields(&self) -> [u8; Self::SEALING_BYTES] {
        let mut out = [0; Self::SEALING_BYTES];
        out[0..8].copy_from_slice(&self.block.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.counter.to_le_bytes());
        out[16..20].copy_from_slice(&self.generation.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[28..30].copy_from_slice(&self.unit.0.to_le_bytes());
        out[30] = self.codec as u8;
        out[31] = self.unit_log2;
        out[32..48].copy_from_slice(&self.tag);
        out[48..64].copy_from_slice(&self.salt);
        out
    }

    /// The encoded form; [`SealedUnit::decode`] takes it back.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[..64].copy_from_slice(&self.sealing_fields());
        out[64..96].copy_from_slice(&self.digest);
        for (bytes, crc) in out[96..].chunks_exact_mut(4).zip(self.page_crc) {
            bytes.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// Takes the encoded form from untrusted bytes.
    ///
    /// # Errors
    /// Any [`FormatError`] about lengths and fields; only the canonical form is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let unit = Self::read(&mut reader)?;
        expect_end(reader.rest())?;
        Ok(unit)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut unit = Self::read_fixed(reader)?;
        for crc in &mut unit.page_crc {
            *crc = reader.u32()?;
        }
        unit.check()?;
        Ok(unit)
    }

    /// The form in a tree page: without the checksums of pages there are not.
    pub(crate) fn read_compact(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let mut unit = Self::read_fixed(reader)?;
        unit.check()?;
        let pages = unit.stored_pages();
        for crc in &mut unit.page_crc[..pages] {
            *crc = reader.u32()?;
        }
        Ok(unit)
    }

    pub(crate) fn put_compact(&self, out: &mut Vec<u8>) {
        out.put(&self.encode()[..Self::FIXED_BYTES + 4 * self.stored_pages()]);
    }

    fn read_fixed(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let block = BlockId(reader.u64()?);
        let counter = reader.u64()?;
        let generation = Generation(reader.u32()?);
        let plain_bytes = reader.u32()?;
        let stored_bytes = reader.u32()?;
        let unit = UnitIndex(reader.u16()?);
        let codec = reader.u8()?;
        let codec = Codec::from_number(codec).ok_or_else(|| bad_field("codec", codec))?;
        let unit_log2 = reader.u8()?;
        let tag = reader.array()?;
        let salt = reader.array()?;
        let digest = reader.array()?;
        let page_crc = [0; UNIT_PAGES_MAX];
        Ok(Self {
            block,
            unit,
            generation,
            counter,
            plain_bytes,
            stored_bytes,
            codec,
            unit_log2,
            tag,
            salt,
            digest,
            page_crc,
        })
    }

    /// Checksums of the pages of `stored`, seeded with (block, unit, generation, counter, page), so that an intact
    /// page of another unit, place or version fails too.
    ///
    /// # Panics
    /// When `stored` is not whole pages or more than [`UNIT_PAGES_MAX`] of them.
    #[must_use]
    pub fn compute_page_crcs(&self, stored: &[u8]) -> [u32; UNIT_PAGES_MAX] {
        assert!(
            stored.len().is_multiple_of(PAGE) && stored.len() <= UNIT_PAGES_MAX * PAGE,
            "not the pages of a unit"
        );
        let seed = self.page_seed();
        let mut crcs = [0; UNIT_PAGES_MAX];
        for ((crc, page), index) in crcs.iter_mut().zip(stored.chunks_exact(PAGE)).zip(0_u16..) {
            *crc = page_crc(&seed, index, page);
        }
        crcs
    }

    /// Checks every page of `stored`, padding included.
    ///
    /// # Errors
    /// [`BadPage`] with the first bad page; a `stored` of another length fails at the first page it lacks or has too
    /// many of.
    pub fn check_pages(&self, stored: &[u8]) -> Result<(), BadPage> {
        let seed = self.page_seed();
        let bad = |page: u16| BadPage {
            block: self.block,
            unit: self.unit,
            page: u8::try_from(page).unwrap_or(u8::MAX),
        };
        let pages = u16::try_from(self.stored_pages().min(UNIT_PAGES_MAX)).expect("at most sixteen");
        let mut rest = stored;
        for index in 0..pages {
            let Some((page, tail)) = rest.split_at_checked(PAGE) else { return Err(bad(index)) };
            if page_crc(&seed, index, page) != self.page_crc[usize::from(index)] {
                return Err(bad(index));
            }
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(bad(pages)) }
    }

    /// [`SealedUnit::check_pages`] for pages whose sums somebody computed already; their bytes are not read again.
    ///
    /// # Errors
    /// [`BadPage`] as there.
    pub fn check_page_sums(&self, sums: &[PageSum]) -> Result<(), BadPage> {
        let seed = self.page_seed();
        let expected = self.page_crc.iter().take(self.stored_pages()).zip(0_u8..);
        let mut sums = sums.iter();
        for (crc, page) in expected {
            if sums.next().is_none_or(|sum| sum.behind(front_crc(&seed, page.into())) != *crc) {
                return Err(BadPage { block: self.block, unit: self.unit, page });
            }
        }
        match sums.next() {
            None => Ok(()),
            Some(_) => Err(BadPage { block: self.block, unit: self.unit, page: self.stored_pages_u8() }),
        }
    }

    /// What the stored pages sum up to when they are as this says: known without a look at them.
    pub fn page_sums(&self) -> impl Iterator<Item = PageSum> + '_ {
        let seed = self.page_seed();
        let pages = self.page_crc.iter().take(self.stored_pages()).zip(0_u16..);
        pages.map(move |(crc, index)| PageSum::without(*crc, front_crc(&seed, index)))
    }

    fn stored_pages_u8(&self) -> u8 {
        u8::try_from(self.stored_pages()).unwrap_or(u8::MAX)
    }

    /// SHA-256 of sealing fields, tag, salt and stored bytes. Padding is not covered: the page checksums are for that.
    ///
    /// # Panics
    /// When `stored` is shorter than the stored bytes; padding behind them is ignored.
    #[must_use]
    pub fn compute_digest(&self, stored: &[u8]) -> [u8; 32] {
        let mut sha = Sha256::new();
        sha.update(self.sealing_fields());
        sha.update(&stored[..self.stored_bytes as usize]);
        sha.finalize().into()
    }

    fn page_seed(&self) -> Hasher {
        let mut seed = [0; 22];
        seed[0..8].copy_from_slice(&self.block.0.to_le_bytes());
        seed[8..10].copy_from_slice(&self.unit.0.to_le_bytes());
        seed[10..14].copy_from_slice(&self.generation.0.to_le_bytes());
        seed[14..22].copy_from_slice(&self.counter.to_le_bytes());
        let mut hasher = Hasher::new();
        hasher.update(&seed);
        hasher
    }
}

fn page_crc(seed: &Hasher, index: u16, page: &[u8]) -> u32 {
    PageSum(crc32fast::hash(page)).behind(front_crc(seed, index))
}

/// The sum of what is thought to stand in front of a page.
fn front_crc(seed: &Hasher, index: u16) -> u32 {
    let mut hasher = seed.clone();
    hasher.update(&index.to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(stored_bytes: u32) -> (SealedUnit, Vec<u8>) {
        let mut unit = SealedUnit {
            block: BlockId::new(1, 77),
            unit: UnitIndex(3),
            generation: Generation(5),
            counter: 9,
            plain_bytes: stored_bytes,
            stored_bytes,
            codec: Codec::Raw,
            unit_log2: 16,
            tag: [0xA5; 16],
            salt: [0x5A; 16],
            digest: [0; 32],
            page_crc: [0; UNIT_PAGES_MAX],
        };
        let mut stored: Vec<u8> = (0..stored_bytes).map(|i| u8::try_from(i % 251).unwrap()).collect();
        stored.resize(unit.padded_bytes(), 0);
        unit.page_crc = unit.compute_page_crcs(&stored);
        unit.digest = unit.compute_digest(&stored);
        (unit, stored)
    }

    #[test]
    fn a_page_of_another_version_unit_or_place_fails_although_intact() {
        let (unit, stored) = sample(10_000);
        assert_eq!(unit.check_pages(&stored), Ok(()));
        for other in [
            SealedUnit { counter: 10, ..unit },
            SealedUnit { generation: Generation(6), ..unit },
            SealedUnit { unit: UnitIndex(4), ..unit },
            SealedUnit { block: BlockId::new(2, 77), ..unit },
        ] {
            assert_eq!(other.check_pages(&stored).unwrap_err().page, 0);
        }
        let mut swapped = stored.clone();
        swapped.copy_within(0..PAGE, PAGE);
        assert_eq!(unit.check_pages(&swapped).unwrap_err().page, 1);
    }

    #[test]
    fn sums_computed_elsewhere_are_judged_as_the_bytes_would_be() {
        for bytes in [1, 4096, 10_000, 65_536] {
            let (unit, mut stored) = sample(bytes);
            let sums_of = |stored: &[u8]| -> Vec<_> {
                stored.chunks(PAGE).map(|page| PageSum(crc32fast::hash(page))).collect()
            };
            let sums = sums_of(&stored);
            assert!(unit.page_sums().eq(sums.iter().copied()), "known without a look");
            assert_eq!(unit.check_page_sums(&sums), Ok(()));
            let pages = u8::try_from(sums.len()).unwrap();
            assert_eq!(unit.check_page_sums(&sums[..sums.len() - 1]).unwrap_err().page, pages - 1);
            let long = [sums.as_slice(), &sums[..1]].concat();
            assert_eq!(unit.check_page_sums(&long).unwrap_err().page, pages);
            assert_eq!(SealedUnit { counter: 10, ..unit }.check_page_sums(&sums).unwrap_err().page, 0);
            *stored.last_mut().unwrap() ^= 1;
            assert_eq!(unit.check_page_sums(&sums_of(&stored)), unit.check_pages(&stored));
            assert_eq!(unit.check_pages(&stored).unwrap_err().page, pages - 1);
        }
    }

    #[test]
    fn a_flip_in_the_padding_and_a_wrong_length_fail() {
        let (unit, mut stored) = sample(10_000);
        assert_eq!(unit.check_pages(&stored[..2 * PAGE]).unwrap_err().page, 2);
        let long = [stored.as_slice(), &[0; PAGE]].concat();
        assert_eq!(unit.check_pages(&long).unwrap_err().page, 3);
        *stored.last_mut().unwrap() = 1;
        assert_eq!(unit.check_pages(&stored).unwrap_err().page, 2);
    }

    #[test]
    fn fields_that_cannot_belong_together_are_refused() {
        let (unit, _) = sample(10_000);
        let cases = [
            SealedUnit { unit_log2: 17, ..unit },
            SealedUnit { unit: UnitIndex(2048), ..unit },
            SealedUnit { plain_bytes: 0, ..unit },
            SealedUnit { plain_bytes: 65_537, ..unit },
            SealedUnit { stored_bytes: 9_999, ..unit },
            SealedUnit { codec: Codec::Zstd, ..unit },
            SealedUnit { page_crc: [7; UNIT_PAGES_MAX], ..unit },
        ];
        for case in cases {
            assert!(matches!(SealedUnit::decode(&case.encode()), Err(FormatError::Field { .. })), "{case:?}");
        }
        let mut codec = unit.encode();
        codec[30] = 3;
        assert_eq!(SealedUnit::decode(&codec), Err(FormatError::Field { field: "codec", value: 3 }));
    }
}

//! Sealing: how plaintext becomes a unit that anyone may store and only the key's owner can read or make.
//!
//! AES-256-GCM. A block's key comes from the key of its domain by HKDF-SHA256 (RFC 5869) with the 16 random bytes of
//! the writer session as salt; the nonce is the unit and a counter that rises with every seal. A nonce can therefore
//! meet the same key again only when one session seals two different versions of a unit under one counter, which
//! [`BlockKey::seal`]'s caller must not do: it raises the counter at every seal, and a retry sends the same bytes.
//!
//! The salt travels in the unit ([`SealedUnit::salt`]), so a block may hold units of any number of sessions.

mod cipher;
mod key_file;

use crate::unit::{Codec, PAGE, SealedUnit, UNIT_PAGES_MAX};
use cipher::Cipher;
use core::fmt;
use hkdf::Hkdf;
use nova_units::{BlockId, Generation, UNIT_LOG2_DEFAULT, UNIT_LOG2_MAX, UNIT_LOG2_MIN, UnitIndex};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use cipher::{Aead, CipherKind, NONCE_BYTES, Refused, TAG_BYTES};
pub use key_file::KeyFileError;

/// Checksums and cipher of a block, named in its header and in every seal: AES-256-GCM, SHA-256, seeded CRC-32.
pub const SUITE_AES256GCM_SHA256_CRC32: u8 = 1;

/// Length of the random salt that a writer session brings.
pub const SALT_BYTES: usize = 16;

/// The secret of a key domain at one version: every block key of the domain comes from it.
///
/// Leaves memory when dropped; its text form shows no secret.
#[derive(Clone)]
pub struct DomainKey {
    domain: u32,
    version: u32,
    secret: Zeroizing<[u8; 32]>,
    cipher: CipherKind,
}

impl DomainKey {
    /// Names 32 secret bytes.
    #[must_use]
    pub fn new(domain: u32, version: u32, secret: [u8; 32]) -> Self {
        Self { domain, version, secret: Zeroizing::new(secret), cipher: CipherKind::default() }
    }

    /// The same key, whose block keys work with this implementation.
    #[must_use]
    pub fn with_cipher(self, cipher: CipherKind) -> Self {
        Self { cipher, ..self }
    }

    /// Which implementation its block keys work with.
    #[must_use]
    pub const fn cipher(&self) -> CipherKind {
        self.cipher
    }

    /// Which domain.
    #[must_use]
    pub const fn domain(&self) -> u32 {
        self.domain
    }

    /// Which version of the domain's key; it rises with each rotation.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }
}

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainKey")
            .field("domain", &self.domain)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The key of one block under one generation. It wipes itself when dropped.
pub struct BlockKey {
    cipher: Cipher,
    domain: u32,
    salt: [u8; SALT_BYTES],
    block: BlockId,
    generation: Generation,
    unit_log2: u8,
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockKey")
            .field("domain", &self.domain)
            .field("block", &self.block)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The stored bytes, or what is said about them, are not what was sealed under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{block} {unit} of {generation} does not open: wrong key, or the bytes were changed after they were sealed"
)]
pub struct NotAuthentic {
    /// Block of the unit.
    pub block: BlockId,
    /// The unit.
    pub unit: UnitIndex,
    /// Generation that is said to have sealed it.
    pub generation: Generation,
}

impl BlockKey {
    /// Derives the key of `block` under `generation`, for units of the default size of 64 KiB.
    ///
    /// HKDF-SHA256: input the domain's secret, salt the writer session's, info
    /// `"novafs block key 1" ‖ domain u32 ‖ block u64 ‖ generation u32`, little-endian.
    #[must_use]
    pub fn derive(key: &DomainKey, salt: &[u8; SALT_BYTES], block: BlockId, generation: Generation) -> Self {
        let mut info = [0; 34];
        info[..18].copy_from_slice(b"novafs block key 1");
        info[18..22].copy_from_slice(&key.domain.to_le_bytes());
        info[22..30].copy_from_slice(&block.0.to_le_bytes());
        info[30..34].copy_from_slice(&generation.0.to_le_bytes());
        let mut secret = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(salt), key.secret.as_slice())
            .expand(&info, secret.as_mut_slice())
            .expect("32 bytes are within what HKDF can give");
        let cipher = Cipher::new(key.cipher, &secret);
        Self { cipher, domain: key.domain, salt: *salt, block, generation, unit_log2: UNIT_LOG2_DEFAULT }
    }

    /// Whether `sealed` says that it was sealed under this key; only [`BlockKey::open`] proves it.
    #[must_use]
    pub fn is_of(&self, sealed: &SealedUnit) -> bool {
        (sealed.block, sealed.generation, sealed.salt, sealed.unit_log2)
            == (self.block, self.generation, self.salt, self.unit_log2)
    }

    /// The same key for a block whose units are `1 << unit_log2` bytes.
    ///
    /// # Panics
    /// When `unit_log2` is not 12 to 16.
    #[must_use]
    pub fn with_unit_log2(mut self, unit_log2: u8) -> Self {
        assert!((UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&unit_log2), "units are 4 KiB to 64 KiB");
        self.unit_log2 = unit_log2;
        self
    }

    /// Seals one unit: reads `plain` once, writes ciphertext and zero padding to the front of `out`.
    ///
    /// `counter` must be higher than in every earlier seal under this key.
    ///
    /// # Panics
    /// When `plain` is empty or over the unit's size, or `out` is shorter than `plain` padded to 4 KiB.
    pub fn seal(&self, unit: UnitIndex, counter: u64, plain: &[u8], out: &mut [u8]) -> SealedUnit {
        let plain_bytes = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        assert!(plain_bytes > 0 && plain_bytes <= 1 << self.unit_log2, "a unit holds 1 byte to its size");
        let mut sealed = SealedUnit {
            block: self.block,
            unit,
            generation: self.generation,
            counter,
            plain_bytes,
            stored_bytes: plain_bytes,
            codec: Codec::Raw,
            unit_log2: self.unit_log2,
            tag: [0; 16],
            salt: self.salt,
            digest: [0; 32],
            page_crc: [0; UNIT_PAGES_MAX],
        };
        let padded = sealed.padded_bytes();
        assert!(out.len() >= padded, "no room for the padding to {PAGE} bytes");
        let (stored, padding) = out[..padded].split_at_mut(plain.len());
        padding.fill(0);
        sealed.tag = self.cipher.seal(nonce(unit, counter), &self.associated_data(&sealed), plain, stored);
        sealed.page_crc = sealed.compute_page_crcs(&out[..padded]);
        sealed.digest = sealed.compute_digest(&out[..padded]);
        sealed
    }

    /// Opens one unit into the front of `out`, which then holds its stored plaintext: `stored_bytes` of it.
    ///
    /// Neither page checksums nor the digest are looked at: the tag is stronger than both.
    ///
    /// # Errors
    /// [`NotAuthentic`] when key, fields and bytes do not belong together; `out` holds nothing to be used then.
    ///
    /// # Panics
    /// When `out` is shorter than the stored bytes.
    pub fn open(&self, sealed: &SealedUnit, stored: &[u8], out: &mut [u8]) -> Result<(), NotAuthentic> {
        let refused = NotAuthentic { block: sealed.block, unit: sealed.unit, generation: sealed.generation };
        let bytes = sealed.stored_bytes as usize;
        let stored = stored.get(..bytes).ok_or(refused)?;
        if !self.is_of(sealed) {
            return Err(refused);
        }
        let nonce = nonce(sealed.unit, sealed.counter);
        self.cipher
            .open(nonce, &self.associated_data(sealed), stored, sealed.tag, &mut out[..bytes])
            .map_err(|Refused| refused)
    }

    /// What the tag covers beside the bytes: domain u32, block u64, unit u16, generation u32, counter u64, suite u8,
    /// codec u8, plain bytes u32, unit size u8.
    fn associated_data(&self, sealed: &SealedUnit) -> [u8; 33] {
        let mut out = [0; 33];
        out[0..4].copy_from_slice(&self.domain.to_le_bytes());
        out[4..12].copy_from_slice(&sealed.block.0.to_le_bytes());
        out[12..14].copy_from_slice(&sealed.unit.0.to_le_bytes());
        out[14..18].copy_from_slice(&sealed.generation.0.to_le_bytes());
        out[18..26].copy_from_slice(&sealed.counter.to_le_bytes());
        out[26] = SUITE_AES256GCM_SHA256_CRC32;
        out[27] = sealed.codec as u8;
        out[28..32].copy_from_slice(&sealed.plain_bytes.to_le_bytes());
        out[32] = sealed.unit_log2;
        out
    }
}

/// Unit u16 ‖ zero u16 ‖ counter u64, little-endian.
fn nonce(unit: UnitIndex, counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[0..2].copy_from_slice(&unit.0.to_le_bytes());
    nonce[4..12].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> BlockKey {
        let domain = DomainKey::new(1, 1, [7; 32]);
        BlockKey::derive(&domain, &[9; 16], BlockId::new(0, 5), Generation(2))
    }

    #[test]
    fn what_was_sealed_opens_and_passes_its_sums() {
        for bytes in [1_usize, 4095, 4096, 4097, 65_536] {
            let plain: Vec<u8> = (0..bytes).map(|i| u8::try_from(i % 253).unwrap()).collect();
            let mut out = vec![0xEE; bytes.next_multiple_of(PAGE) + PAGE];
            let sealed = key().seal(UnitIndex(11), 3, &plain, &mut out);
            let stored = &out[..sealed.padded_bytes()];
            assert_eq!(sealed.check(), Ok(()));
            assert_eq!(sealed.check_pages(stored), Ok(()));
            assert_eq!(sealed.digest, sealed.compute_digest(stored));
            assert!(stored[bytes..].iter().all(|byte| *byte == 0), "padding is zero");
            assert_eq!(out[sealed.padded_bytes()], 0xEE, "nothing is written behind the padding");
            assert_ne!(&stored[..bytes.min(64)], &plain[..bytes.min(64)]);
            let mut opened = vec![0; bytes];
            key().open(&sealed, stored, &mut opened).unwrap();
            assert_eq!(opened, plain);
        }
    }

    #[test]
    fn a_change_anywhere_keeps_it_shut() {
        let mut out = vec![0; PAGE];
        let sealed = key().seal(UnitIndex(0), 1, b"words", &mut out);
        let opens = |sealed: &SealedUnit, stored: &[u8]| key().open(sealed, stored, &mut [0; 16]).is_ok();
        assert!(opens(&sealed, &out));
        for byte in 0..5 {
            let mut changed = out.clone();
            changed[byte] ^= 1;
            assert!(!opens(&sealed, &changed));
        }
        for changed in [
            SealedUnit { unit: UnitIndex(1), ..sealed },
            SealedUnit { counter: 2, ..sealed },
            SealedUnit { block: BlockId(6), ..sealed },
            SealedUnit { generation: Generation(3), ..sealed },
            SealedUnit { codec: Codec::Lz4, ..sealed },
            SealedUnit { plain_bytes: 6, ..sealed },
            SealedUnit { stored_bytes: 4, ..sealed },
            SealedUnit { unit_log2: 12, ..sealed },
            SealedUnit { tag: [0; 16], ..sealed },
            SealedUnit { salt: [8; 16], ..sealed },
        ] {
            assert!(!opens(&changed, &out), "{changed:?}");
        }
        assert!(!opens(&sealed, &out[..4]), "cut short");
    }

    #[test]
    fn a_unit_that_claims_another_salt_fails_its_tag_under_the_key_of_that_salt() {
        let mut out = vec![0; PAGE];
        let sealed = key().seal(UnitIndex(0), 1, b"words", &mut out);
        let claimed = SealedUnit { salt: [8; 16], ..sealed };
        let domain = DomainKey::new(1, 1, [7; 32]);
        let key = BlockKey::derive(&domain, &claimed.salt, claimed.block, claimed.generation);
        assert!(key.is_of(&claimed) && key.open(&claimed, &out, &mut [0; 16]).is_err());
    }

    #[test]
    fn every_input_of_the_derivation_changes_the_key() {
        let sealed_with = |domain: DomainKey, salt: [u8; 16], block: u64, generation: u32| {
            let mut out = vec![0; PAGE];
            let key = BlockKey::derive(&domain, &salt, BlockId(block), Generation(generation));
            key.seal(UnitIndex(0), 1, &[0; 32], &mut out);
            out
        };
        let domain = || DomainKey::new(1, 1, [7; 32]);
        let all = [
            sealed_with(domain(), [9; 16], 5, 2),
            sealed_with(DomainKey::new(2, 1, [7; 32]), [9; 16], 5, 2),
            sealed_with(DomainKey::new(1, 1, [8; 32]), [9; 16], 5, 2),
            sealed_with(domain(), [8; 16], 5, 2),
            sealed_with(domain(), [9; 16], 6, 2),
            sealed_with(domain(), [9; 16], 5, 3),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b), "case {i}");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = format!("{:?}{:?}", DomainKey::new(1, 2, [0x5A; 32]), key());
        assert!(!text.contains("90") && !text.to_lowercase().contains("5a"), "{text}");
    }
}

//! The ledger of a file that comes: which blocks are durable. It lies beside the file and outlives the process.
//!
//! A record is written only after a flush that covers its block. At a start records are read up to the first that is
//! torn; that one and all behind it are cut off.
//!
//! | at | bytes | header |
//! | --- | --- | --- |
//! | 0 | 8 | `NOVALEDG` |
//! | 8 | 4 | version, 1 |
//! | 12 | 48 | identity of the source |
//! | 60 | 4 | CRC-32 of bytes 0 to 60 |
//!
//! | at | bytes | record |
//! | --- | --- | --- |
//! | 0 | 4 | block |
//! | 4 | 32 | its digest |
//! | 36 | 4 | CRC-32 of the header's CRC-32 and bytes 0 to 36 |

use crate::{Digest, Identity};

/// Length of the header.
pub const LEDGER_HEADER_BYTES: usize = 64;
/// Length of a record.
pub const LEDGER_RECORD_BYTES: usize = 40;

const MAGIC: &[u8; 8] = b"NOVALEDG";
const VERSION: u32 = 1;

/// One durable block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub block: u32,
    /// Of its bytes.
    pub digest: Digest,
}

/// What a ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Durable blocks; a later record of the same block counts.
    pub records: Vec<Record>,
    /// Length up to the first torn record: cut off what is behind.
    pub bytes: usize,
}

/// Why a ledger is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It is none, or its header is torn.
    #[error("no ledger, or one whose header is torn: the file is copied from its beginning")]
    Header,
    /// Of another version.
    #[error("a ledger of version {found}: the file is copied from its beginning")]
    Version {
        /// What it says.
        found: u32,
    },
    /// Of another source.
    #[error("a ledger of another source: the file is copied from its beginning")]
    Source,
}

/// The header of the ledger of a file with this source.
#[must_use]
pub fn header(source: &Identity) -> [u8; LEDGER_HEADER_BYTES] {
    let mut bytes = [0; LEDGER_HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    bytes[12..60].copy_from_slice(&source.encoded());
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

impl Record {
    /// Its bytes, in the ledger of a file with this source.
    #[must_use]
    pub fn encode(&self, source: &Identity) -> [u8; LEDGER_RECORD_BYTES] {
        self.encode_behind(&header(source))
    }

    fn encode_behind(&self, header: &[u8; LEDGER_HEADER_BYTES]) -> [u8; LEDGER_RECORD_BYTES] {
        let mut bytes = [0; LEDGER_RECORD_BYTES];
        bytes[..4].copy_from_slice(&self.block.to_be_bytes());
        bytes[4..36].copy_from_slice(&self.digest.0);
        let sum = record_sum(header, &bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// What the ledger says of a file with this source.
///
/// # Errors
/// [`LedgerError`] says why it says nothing.
pub fn replay(bytes: &[u8], source: &Identity) -> Result<Replayed, LedgerError> {
    let (front, records) = bytes.split_first_chunk::<LEDGER_HEADER_BYTES>().ok_or(LedgerError::Header)?;
    let sum = crc32fast::hash(&front[..60]).to_be_bytes();
    if !front.starts_with(MAGIC) || front[60..] != sum {
        return Err(LedgerError::Header);
    }
    let version = u32::from_be_bytes([front[8], front[9], front[10], front[11]]);
    if version != VERSION {
        return Err(LedgerError::Version { found: version });
    }
    if *front != header(source) {
        return Err(LedgerError::Source);
    }
    let intact = records.chunks_exact(LEDGER_RECORD_BYTES).map_while(|record| {
        let (fields, sum) = record.split_at(36);
        if record_sum(front, fields).to_be_bytes() != sum {
            return None;
        }
        let block = u32::from_be_bytes(fields[..4].try_into().expect("four bytes"));
        Some(Record { block, digest: Digest(fields[4..].try_into().expect("32 bytes")) })
    });
    let records: Vec<Record> = intact.collect();
    let bytes = LEDGER_HEADER_BYTES + records.len() * LEDGER_RECORD_BYTES;
    Ok(Replayed { records, bytes })
}

/// The header's sum goes in, so that a record of another ledger is none of this.
fn record_sum(header: &[u8; LEDGER_HEADER_BYTES], fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[60..]);
    hasher.update(fields);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Identity {
        Identity { bytes: 77, inode: 5, ..Identity::default() }
    }

    fn ledger(count: u32) -> Vec<u8> {
        let mut bytes = header(&source()).to_vec();
        for block in 0..count {
            bytes.extend(Record { block, digest: Digest::of(&block.to_be_bytes()) }.encode(&source()));
        }
        bytes
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_length() {
        let whole = ledger(3);
        for end in LEDGER_HEADER_BYTES..=whole.len() {
            let replayed = replay(&whole[..end], &source()).unwrap();
            let count = (end - LEDGER_HEADER_BYTES) / LEDGER_RECORD_BYTES;
            assert_eq!(replayed.records.len(), count, "{end}");
            assert_eq!(replayed.bytes, LEDGER_HEADER_BYTES + count * LEDGER_RECORD_BYTES);
        }
    }

    #[test]
    fn a_changed_byte_ends_the_ledger_before_its_record() {
        let whole = ledger(3);
        for at in LEDGER_HEADER_BYTES..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let replayed = replay(&bytes, &source()).unwrap();
            assert_eq!(replayed.records.len(), (at - LEDGER_HEADER_BYTES) / LEDGER_RECORD_BYTES, "{at}");
        }
    }

    #[test]
    fn a_ledger_of_another_source_or_version_and_no_ledger_say_nothing() {
        assert_eq!(replay(&ledger(1), &Identity::default()), Err(LedgerError::Source));
        assert_eq!(replay(b"", &source()), Err(LedgerError::Header));
        for at in 0..LEDGER_HEADER_BYTES {
            let mut bytes = ledger(1);
            bytes[at] ^= 1;
            assert!(replay(&bytes, &source()).is_err(), "{at}");
        }
        let mut newer = ledger(0);
        newer[11] = 2;
        let sum = crc32fast::hash(&newer[..60]).to_be_bytes();
        newer[60..].copy_from_slice(&sum);
        assert_eq!(replay(&newer, &source()), Err(LedgerError::Version { found: 2 }));
    }
}

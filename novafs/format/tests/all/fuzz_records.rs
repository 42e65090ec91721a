//! Mutations of saved inputs: no decoder panics, and what one accepts is exactly what would be encoded.
//!
//! Inputs are in `testdata/fuzz/<decoder>/`; one that ever broke a decoder is added there. Checksums of mutated
//! inputs are made right again half of the time: else nothing behind them would ever be reached.

use crate::samples;
use novafs_format::{
    BatchWriter, LogEntry, SealedUnit, Superblock, TreePage, UnitRecord, WalRecord, decode_batch,
    decode_batch_header,
};
use std::path::PathBuf;

/// Mutations of each decoder's inputs; takes less than a second each.
const MUTATIONS: usize = 200_000;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no inputs in {}", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Calls `check` with mutations of the corpus; `reseal` makes checksums right again. Returns how many were accepted.
fn fuzz(name: &str, reseal: impl Fn(&mut [u8]), mut check: impl FnMut(&[u8]) -> bool) -> usize {
    let corpus = corpus(name);
    let mut rng = fastrand::Rng::with_seed(0xF0_22);
    let mut accepted = corpus.iter().filter(|input| check(input)).count();
    for _ in 0..MUTATIONS {
        let mut bytes = rng.choice(&corpus).unwrap().clone();
        // Most fields lie near the front.
        let near = if rng.bool() { bytes.len().min(200) } else { bytes.len() };
        for _ in 0..rng.usize(1..4) {
            match rng.u8(..6) {
                0 => bytes.truncate(rng.usize(..=bytes.len())),
                1 => bytes.extend((0..rng.usize(..40)).map(|_| rng.u8(..))),
                2 if !bytes.is_empty() => {
                    let at = rng.usize(..near.min(bytes.len()).max(1));
                    bytes[at] ^= 1 << rng.u8(..8);
                }
                3 if !bytes.is_empty() => {
                    let at = rng.usize(..near.min(bytes.len()).max(1));
                    bytes[at] = *rng.choice(&[0, 1, 2, 0x7F, 0x80, 0xFF]).unwrap();
                }
                4 if bytes.len() > 8 => {
                    let at = rng.usize(..bytes.len() - 8);
                    let value = *rng.choice(&[0, 1, u64::MAX, 1 << 31, 4096]).unwrap();
                    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                _ => {
                    let other = rng.choice(&corpus).unwrap();
                    let (from, length) = (rng.usize(..=other.len()), rng.usize(..64));
                    let part = &other[from..(from + length).min(other.len())];
                    let at = rng.usize(..=bytes.len());
                    bytes.splice(at..(at + part.len()).min(bytes.len()), part.iter().copied());
                }
            }
        }
        if rng.bool() {
            reseal(&mut bytes);
        }
        accepted += usize::from(check(&bytes));
    }
    accepted
}

fn seal_from_4(bytes: &mut [u8]) {
    if bytes.len() > 4 {
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn sealed_units() {
    let accepted = fuzz(
        "sealed-unit",
        |_| {},
        |bytes| match SealedUnit::decode(bytes) {
            Ok(unit) => {
                assert_eq!(unit.encode(), bytes);
                true
            }
            Err(_) => false,
        },
    );
    assert!(accepted > 10, "mutations never pass the first check");
}

#[test]
fn unit_records() {
    let accepted = fuzz(
        "unit-record",
        |_| {},
        |bytes| match UnitRecord::decode(bytes) {
            Ok(record) => {
                let mut again = Vec::new();
                record.encode(&mut again);
                assert_eq!(again, bytes);
                assert_eq!(again.len(), record.encoded_bytes());
                true
            }
            Err(_) => false,
        },
    );
    assert!(accepted > 10);
}

#[test]
fn log_entries() {
    let accepted = fuzz(
        "entry",
        |_| {},
        |bytes| match LogEntry::decode(bytes) {
            Ok(entry) => {
                let mut again = Vec::new();
                entry.encode(&mut again);
                assert_eq!(again, bytes);
                true
            }
            Err(_) => false,
        },
    );
    assert!(accepted > 10);
}

#[test]
fn wal_records() {
    let accepted = fuzz(
        "wal-record",
        |_| {},
        |bytes| match WalRecord::decode(bytes) {
            Ok(record) => {
                let mut again = Vec::new();
                record.encode(&mut again);
                assert_eq!(again, bytes);
                true
            }
            Err(_) => false,
        },
    );
    assert!(accepted > 10);
}

#[test]
fn wal_batches() {
    let accepted = fuzz("wal-batch", seal_from_4, |bytes| {
        let Ok(header) = decode_batch_header(bytes) else { return false };
        match decode_batch(bytes, header.place) {
            Ok(records) => {
                let mut writer = BatchWriter::default();
                records.iter().for_each(|record| writer.push(record));
                assert_eq!(writer.finish(header.place), bytes);
                true
            }
            Err(_) => false,
        }
    });
    assert!(accepted > 10);
}

#[test]
fn tree_pages() {
    let accepted = fuzz("tree-page", seal_from_4, |bytes| {
        let Some(crc) = bytes.first_chunk().map(|crc| u32::from_le_bytes(*crc)) else { return false };
        [samples::LEAF, samples::BRANCH].iter().any(|place| match TreePage::decode(bytes, *place, crc) {
            Ok(page) => {
                assert_eq!(page.encode(*place), (bytes.try_into().unwrap(), crc));
                true
            }
            Err(_) => false,
        })
    });
    assert!(accepted > 10);
}

#[test]
fn superblocks() {
    let reseal = |bytes: &mut [u8]| {
        if bytes.len() >= 512 {
            let crc = crc32fast::hash(&bytes[..508]);
            bytes[508..512].copy_from_slice(&crc.to_le_bytes());
        }
    };
    let accepted = fuzz("superblock", reseal, |bytes| match Superblock::decode(bytes, 0x3FF_0000) {
        Ok(superblock) => {
            // What an earlier version wrote is written anew under the version of now, with a trail of one mount.
            let (mut again, mut given) = (superblock.encode(0x3FF_0000), bytes[..512].to_vec());
            if given[8] < 4 {
                given[208] = 1;
            }
            for page in [&mut again[..], &mut given] {
                page[8..12].fill(0);
                page[508..512].fill(0);
            }
            assert_eq!(again[..512], given);
            true
        }
        Err(_) => false,
    });
    assert!(accepted > 10);
}

//! The bytes on disk and on the wire stay what they are. A change of a format is a new version, not new golden bytes;
//! `BLESS=1` writes the files of formats that are new.

use crate::samples;
use nova_units::{BlockId, Generation, GroupId, MountTrail, UnitIndex};
use novafs_format::digest::{BlockDigest, BlockHeader};
use novafs_format::seal::{BlockKey, DomainKey, SUITE_AES256GCM_SHA256_CRC32};
use novafs_format::{
    LogEntry, SealedUnit, Superblock, TreePage, UnitRecord, WalRecord, decode_batch, decode_batch_header,
};
use std::path::PathBuf;

fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(name);
    if std::env::var_os("BLESS").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    let saved = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differs = saved.iter().zip(bytes).position(|(a, b)| a != b);
    assert!(saved == bytes, "{name} changed, first at byte {differs:?}");
}

#[test]
fn a_sealed_unit_and_its_stored_bytes() {
    let (sealed, stored) = samples::sealed(1, 10_000);
    golden("sealed-unit-v2.bin", &sealed.encode());
    golden("stored-v2.bin", &stored);
    assert_eq!(SealedUnit::decode(&sealed.encode()), Ok(sealed));
    let domain = DomainKey::new(3, 1, core::array::from_fn(|index| u8::try_from(index).unwrap()));
    let key = BlockKey::derive(&domain, &[0xC3; 16], BlockId::new(1, 0x1234), Generation(5));
    key.open(&sealed, &stored, &mut vec![0; 10_000]).unwrap();
}

#[test]
fn a_unit_record() {
    let mut bytes = Vec::new();
    samples::unit_record(1, 10_000).encode(&mut bytes);
    assert_eq!(bytes.len(), 96 + 4 * 3 + 24);
    golden("unit-record-v2.bin", &bytes);
    assert_eq!(UnitRecord::decode(&bytes), Ok(samples::unit_record(1, 10_000)));
}

#[test]
fn log_entries_of_every_kind() {
    for (name, entry) in ["units", "trim", "fence", "delete"].iter().zip(samples::entries()) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        golden(&format!("entry-{name}-v2.bin"), &bytes);
        assert_eq!(LogEntry::decode(&bytes), Ok(entry));
    }
}

#[test]
fn a_log_batch_with_records_of_every_kind() {
    let bytes = samples::batch();
    golden("batch-v2.bin", &bytes);
    assert_eq!(decode_batch(&bytes, samples::BATCH), Ok(samples::wal_records()));
    for record in samples::wal_records() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), record.encoded_bytes());
        assert_eq!(WalRecord::decode(&bytes), Ok(record));
    }
}

#[test]
fn a_log_batch_with_bodies_behind_its_records() {
    let (bytes, bodies) = samples::inline_batch();
    golden("batch-inline-v3.bin", &[bytes.as_slice(), &bodies].concat());
    let header = decode_batch_header(&bytes).unwrap();
    assert_eq!((header.bytes, header.body_bytes), (bytes.len(), bodies.len()));
    assert_eq!(decode_batch(&bytes, samples::BATCH), Ok(samples::inline_records()));
    let record = &samples::inline_records()[0];
    let mut encoded = Vec::new();
    record.encode(&mut encoded);
    assert_eq!((encoded.len(), record.inline_bytes()), (record.encoded_bytes(), bodies.len()));
    assert_eq!(WalRecord::decode(&encoded), Ok(record.clone()));
}

#[test]
fn a_leaf_and_a_branch() {
    for (name, page, place) in
        [("leaf", samples::leaf(), samples::LEAF), ("branch", samples::branch(), samples::BRANCH)]
    {
        let (bytes, crc) = page.encode(place);
        golden(&format!("tree-{name}-v2.bin"), &bytes);
        assert_eq!(TreePage::decode(&bytes, place, crc), Ok(page));
    }
}

#[test]
fn a_superblock() {
    let bytes = samples::superblock().encode(0x3FF_0000);
    golden("superblock-v4.bin", &bytes);
    assert_eq!(Superblock::decode(&bytes, 0x3FF_0000), Ok(samples::superblock()));
    let untrailed = Superblock { trail: MountTrail::default(), ..samples::superblock() };
    for version in [2, 3] {
        let name = format!("testdata/golden/superblock-v{version}.bin");
        let before = std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        assert_eq!(Superblock::decode(&before, 0x3FF_0000), Ok(untrailed), "version {version} is taken over");
    }
}

#[test]
fn the_root_of_a_block() {
    let header = BlockHeader {
        block: BlockId::new(1, 0x1234),
        group: GroupId(8),
        domain: 3,
        version: 1,
        unit_log2: 16,
        suite: SUITE_AES256GCM_SHA256_CRC32,
    };
    let mut block = BlockDigest::new(header);
    for (unit, bytes) in [(0, 65_536), (1, 10_000), (2047, 5)] {
        block.set(UnitIndex(unit), samples::sealed(unit, bytes).0.digest);
    }
    golden("block-page-v2.bin", &block.page());
    golden("block-root-v2.bin", &block.root());
}

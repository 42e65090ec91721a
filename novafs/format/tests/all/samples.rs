//! One of everything, always the same.

use nova_units::{
    BlockId, CommitPoint, DeviceId, Epoch, Generation, GroupId, Incarnation, MountNonce, MountTrail, Seq,
    Timestamp, UnitIndex,
};
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_format::{
    BatchPlace, BatchWriter, BlockRecord, Cell, CellClass, Child, Cut, Geometry, GroupRecord, Key, LogEntry,
    PAGE, Root, ScrubMark, SealedUnit, StoredGroup, Superblock, TreePage, TreePlace, UnitRecord, Value,
    WalRecord,
};

pub(crate) const SALT: u64 = 0x5A17_5A17_5A17_5A17;
pub(crate) const BATCH: BatchPlace = BatchPlace { salt: SALT, number: 77, position: 0x20_0000 };
pub(crate) const LEAF: TreePlace = TreePlace { salt: SALT, position: 0x30_0000, level: 0 };
pub(crate) const BRANCH: TreePlace = TreePlace { salt: SALT, position: 0x30_1000, level: 1 };

/// Really sealed, so that the golden bytes hold the key derivation, nonce and associated data too.
pub(crate) fn sealed(unit: u16, bytes: usize) -> (SealedUnit, Vec<u8>) {
    let domain = DomainKey::new(3, 1, core::array::from_fn(|index| u8::try_from(index).unwrap()));
    let key = BlockKey::derive(&domain, &[0xC3; 16], BlockId::new(1, 0x1234), Generation(5));
    let plain: Vec<u8> = (0..bytes).map(|index| u8::try_from(index % 239).unwrap()).collect();
    let mut out = vec![0; bytes.next_multiple_of(PAGE)];
    let sealed = key.seal(UnitIndex(unit), 1000 + u64::from(unit), &plain, &mut out);
    (sealed, out)
}

pub(crate) fn point(seq: u64) -> CommitPoint {
    CommitPoint { epoch: Epoch(9), seq: Seq(seq) }
}

pub(crate) fn unit_record(unit: u16, bytes: usize) -> UnitRecord {
    let sealed = sealed(unit, bytes).0;
    let class = CellClass::for_pages(sealed.stored_pages());
    let position = 0x100_0000 + u64::from(unit) * 65_536;
    UnitRecord { sealed, commit: point(21), cell: Cell { position, class } }
}

pub(crate) fn cut() -> Cut {
    Cut { generation: Generation(5), counter: 0x0102_0304_0506_0708, salt: [0xC3; 16] }
}

pub(crate) fn entries() -> Vec<LogEntry> {
    let block = BlockId::new(1, 0x1234);
    vec![
        LogEntry::Units(vec![sealed(0, 65_536).0, sealed(1, 10_000).0]),
        LogEntry::Trim { block, from_unit: UnitIndex(7), cut: cut() },
        LogEntry::Fence { block, generation: Generation(6) },
        LogEntry::Delete { block },
    ]
}

pub(crate) fn group_record() -> GroupRecord {
    GroupRecord { epoch: Epoch(9), promised: Epoch(10), commit: Seq(20), role: 2 }
}

pub(crate) fn wal_records() -> Vec<WalRecord> {
    let group = GroupId(8);
    let units = LogEntry::Units(vec![sealed(0, 65_536).0, sealed(1, 10_000).0]);
    let cells = vec![unit_record(0, 65_536).cell, unit_record(1, 10_000).cell];
    let fence = LogEntry::Fence { block: BlockId::new(1, 0x1234), generation: Generation(6) };
    vec![
        WalRecord::Append { group, at: point(21), entry: units.clone(), cells: cells.clone() },
        WalRecord::Append { group, at: point(22), entry: fence, cells: vec![] },
        WalRecord::Commit { group, seq: Seq(21) },
        WalRecord::Discard { group, above: Seq(21) },
        WalRecord::Group { group, record: group_record() },
        WalRecord::Drop { group: GroupId(9) },
        WalRecord::Install { group, at: point(3), entry: units.clone(), cells: cells.clone() },
        WalRecord::Repair { group, at: point(3), entry: units, cells },
    ]
}

/// The first rides in its batch, the second lies in its cells already.
pub(crate) fn inline_records() -> Vec<WalRecord> {
    let group = GroupId(8);
    let entry = |units: &[(u16, usize)]| {
        LogEntry::Units(units.iter().map(|(unit, bytes)| sealed(*unit, *bytes).0).collect())
    };
    let cells =
        |units: &[(u16, usize)]| units.iter().map(|(unit, bytes)| unit_record(*unit, *bytes).cell).collect();
    let (small, large) = ([(2, 100), (1, 10_000)], [(0, 65_536)]);
    vec![
        WalRecord::Inline { group, at: point(23), entry: entry(&small), cells: cells(&small) },
        WalRecord::Append { group, at: point(24), entry: entry(&large), cells: cells(&large) },
        WalRecord::Commit { group, seq: Seq(24) },
    ]
}

/// What lies on the device: header and records, then the bodies.
pub(crate) fn inline_batch() -> (Vec<u8>, Vec<u8>) {
    let mut writer = BatchWriter::default();
    for record in inline_records() {
        writer.push(&record);
    }
    let bodies = [sealed(2, 100).1, sealed(1, 10_000).1].concat();
    assert_eq!(writer.padded_bytes(), PAGE + bodies.len());
    (writer.finish(BATCH), bodies)
}

pub(crate) fn batch() -> Vec<u8> {
    let mut writer = BatchWriter::default();
    for record in wal_records() {
        writer.push(&record);
    }
    writer.finish(BATCH)
}

pub(crate) fn leaf() -> TreePage {
    let (group, block) = (GroupId(8), BlockId::new(1, 0x1234));
    let stored = StoredGroup { record: group_record(), commit_epoch: Epoch(8) };
    let fence = BlockRecord { fence: Generation(6), deleted: false, cut: cut(), at: point(22) };
    let unit =
        |index, bytes| (Key::unit(group, block, UnitIndex(index)), Value::Unit(unit_record(index, bytes)));
    TreePage::Leaf(vec![
        (Key::group(group), Value::Group(stored)),
        (Key::block(group, block), Value::Block(fence)),
        unit(0, 65_536),
        unit(1, 10_000),
    ])
}

pub(crate) fn branch() -> TreePage {
    let child = |first, position, crc| Child { first, position, crc };
    TreePage::Branch(vec![
        child(Key::group(GroupId(8)), 0x30_0000, 0xAABB_CCDD),
        child(Key::unit(GroupId(8), BlockId(7), UnitIndex(3)), 0x30_2000, 0x0102_0304),
    ])
}

pub(crate) fn superblock() -> Superblock {
    Superblock {
        number: 41,
        device: DeviceId(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF),
        incarnation: Incarnation(2),
        mount_counter: 13,
        salt: SALT,
        geometry: Geometry {
            device_bytes: 64 << 20,
            wal_position: 64 << 10,
            wal_bytes: 1 << 20,
            meta_position: (1 << 20) + (64 << 10),
            meta_bytes: 2 << 20,
            slots_position: 4 << 20,
            slot_count: 59,
            slot_log2: 20,
        },
        checkpoint: 17,
        wal_head_position: 0x4_0000,
        wal_head_batch: 65_600,
        root: Some(Root { position: 0x12_0000, crc: 0xDEAD_BEEF, level: 1 }),
        scrub: ScrubMark {
            started: Timestamp(0x0000_019A_1122_3344),
            next: (GroupId(0x0102_0304), BlockId::new(1, 0x1234), UnitIndex(0x0506)),
            last_started: Timestamp(0x0000_0199_5566_7788),
            last_ended: Timestamp(0x0000_0199_99AA_BBCC),
        },
        trail: MountTrail::new(&[MountNonce(0x0A0B_0C0D_0E0F_1011), MountNonce(0x1213_1415_1617_1819)])
            .expect("two are few enough"),
    }
}

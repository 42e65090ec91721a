//! What is encoded decodes to itself, whatever it holds.

use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, Seq, UnitIndex};
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_format::{
    BATCH_BYTES_MAX, BatchPlace, BatchWriter, BlockRecord, Cell, CellClass, Codec, Cut, GroupRecord, Key,
    LogEntry, PAGE, SealedUnit, StoredGroup, TREE_ENTRY_BYTES, TreePage, TreePlace, UnitRecord, Value,
    WalRecord, decode_batch,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

fn sealed() -> impl Strategy<Value = SealedUnit> {
    let sizes =
        (12_u8..=16).prop_flat_map(|log2| (Just(log2), 1_u32..=1 << log2, 0_u16..=(1 << (27 - log2)) - 1));
    let codec = prop_oneof![Just(Codec::Raw), Just(Codec::Lz4), Just(Codec::Zstd)];
    (sizes, codec, any::<(u64, u32, u64, [u8; 16], [u8; 16], [u8; 32], [u32; 16])>()).prop_map(
        |(
            (unit_log2, plain_bytes, unit),
            codec,
            (block, generation, counter, tag, salt, digest, mut page_crc),
        )| {
            let codec = if plain_bytes == 1 { Codec::Raw } else { codec };
            let stored_bytes = if codec == Codec::Raw { plain_bytes } else { plain_bytes / 2 };
            let pages = usize::try_from(stored_bytes).unwrap().div_ceil(PAGE);
            page_crc[pages..].fill(0);
            SealedUnit {
                block: BlockId(block),
                unit: UnitIndex(unit),
                generation: Generation(generation),
                counter,
                plain_bytes,
                stored_bytes,
                codec,
                unit_log2,
                tag,
                salt,
                digest,
                page_crc,
            }
        },
    )
}

fn cell_for(sealed: &SealedUnit, page: u32) -> Cell {
    Cell { position: u64::from(page) << 12, class: CellClass::for_pages(sealed.stored_pages()) }
}

fn cut() -> impl Strategy<Value = Cut> {
    any::<(u32, u64, [u8; 16])>().prop_map(|(generation, counter, salt)| Cut {
        generation: Generation(generation),
        counter,
        salt,
    })
}

fn entry() -> impl Strategy<Value = LogEntry> {
    let units = vec(sealed(), 1..16).prop_map(|units| {
        let mut seen = std::collections::BTreeSet::new();
        LogEntry::Units(units.into_iter().filter(|unit| seen.insert((unit.block, unit.unit))).collect())
    });
    prop_oneof![
        units,
        (any::<(u64, u16)>(), cut()).prop_map(|((block, unit), cut)| LogEntry::Trim {
            block: BlockId(block),
            from_unit: UnitIndex(unit),
            cut
        }),
        any::<(u64, u32)>().prop_map(|(block, generation)| LogEntry::Fence {
            block: BlockId(block),
            generation: Generation(generation)
        }),
        any::<u64>().prop_map(|block| LogEntry::Delete { block: BlockId(block) }),
    ]
}

fn point() -> impl Strategy<Value = CommitPoint> {
    any::<(u64, u64)>().prop_map(|(epoch, seq)| CommitPoint { epoch: Epoch(epoch), seq: Seq(seq) })
}

fn group_record() -> impl Strategy<Value = GroupRecord> {
    any::<(u64, u64, u64, u32)>().prop_map(|(epoch, promised, commit, role)| GroupRecord {
        epoch: Epoch(epoch),
        promised: Epoch(promised),
        commit: Seq(commit),
        role,
    })
}

fn wal_record() -> impl Strategy<Value = WalRecord> {
    let placed = || {
        (any::<u32>(), point(), entry(), any::<u32>()).prop_map(|(group, at, entry, page)| {
            let cells = entry.units().iter().map(|unit| cell_for(unit, page)).collect::<Vec<_>>();
            (GroupId(group), at, entry, cells)
        })
    };
    prop_oneof![
        placed().prop_map(|(group, at, entry, cells)| WalRecord::Append { group, at, entry, cells }),
        placed().prop_filter_map("only units ride", |(group, at, entry, cells)| {
            (!cells.is_empty()).then_some(WalRecord::Inline { group, at, entry, cells })
        }),
        placed().prop_map(|(group, at, entry, cells)| WalRecord::Install { group, at, entry, cells }),
        placed().prop_map(|(group, at, entry, cells)| WalRecord::Repair { group, at, entry, cells }),
        any::<(u32, u64)>()
            .prop_map(|(group, seq)| WalRecord::Commit { group: GroupId(group), seq: Seq(seq) }),
        any::<(u32, u64)>()
            .prop_map(|(group, seq)| WalRecord::Discard { group: GroupId(group), above: Seq(seq) }),
        (any::<u32>(), group_record())
            .prop_map(|(group, record)| WalRecord::Group { group: GroupId(group), record }),
        any::<u32>().prop_map(|group| WalRecord::Drop { group: GroupId(group) }),
    ]
}

fn item() -> impl Strategy<Value = (Key, Value)> {
    let unit = (any::<u32>(), sealed(), point(), any::<u32>()).prop_map(|(group, sealed, commit, page)| {
        let record = UnitRecord { sealed, commit, cell: cell_for(&sealed, page) };
        (Key::unit(GroupId(group), sealed.block, sealed.unit), Value::Unit(record))
    });
    let group = (any::<u32>(), group_record(), any::<u64>()).prop_map(|(group, record, epoch)| {
        (Key::group(GroupId(group)), Value::Group(StoredGroup { record, commit_epoch: Epoch(epoch) }))
    });
    let block = (any::<(u32, u64, u32, bool)>(), cut(), point()).prop_map(
        |((group, block, fence, deleted), cut, at)| {
            let record = BlockRecord { fence: Generation(fence), deleted, cut, at };
            (Key::block(GroupId(group), BlockId(block)), Value::Block(record))
        },
    );
    prop_oneof![unit, group, block]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sealed_units_come_back(unit in sealed()) {
        prop_assert_eq!(SealedUnit::decode(&unit.encode()), Ok(unit));
    }

    #[test]
    fn entries_come_back_and_no_prefix_does(entry in entry(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        prop_assert!(LogEntry::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert_eq!(LogEntry::decode(&bytes), Ok(entry));
    }

    #[test]
    fn batches_come_back_and_only_at_their_place(
        records in vec(wal_record(), 0..8),
        place in any::<(u64, u64, u32)>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let place = BatchPlace { salt: place.0, number: place.1, position: u64::from(place.2) << 12 };
        let (mut writer, mut pushed) = (BatchWriter::default(), Vec::new());
        for record in &records {
            if writer.has_room_for(record) {
                writer.push(record);
                pushed.push(record.clone());
            }
        }
        let records = pushed;
        let padded = writer.padded_bytes();
        let mut bytes = writer.finish(place);
        let body_bytes: usize = records.iter().map(WalRecord::inline_bytes).sum();
        prop_assert_eq!(bytes.len() + body_bytes, padded);
        prop_assert!(padded <= BATCH_BYTES_MAX);
        prop_assert_eq!(decode_batch(&bytes, place), Ok(records));
        for other in [
            BatchPlace { salt: place.salt ^ 1, ..place },
            BatchPlace { number: place.number ^ 1, ..place },
            BatchPlace { position: place.position ^ 4096, ..place },
        ] {
            prop_assert!(decode_batch(&bytes, other).is_err());
        }
        let at = flip.0.index(bytes.len());
        bytes[at] ^= 1 << (flip.1 % 8);
        prop_assert!(decode_batch(&bytes, place).is_err(), "a flipped bit passed");
    }

    #[test]
    fn leaves_come_back_and_a_flipped_bit_does_not(
        items in btree_map(any::<u8>(), item(), 1..12),
        position in any::<u32>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let items: std::collections::BTreeMap<Key, Value> = items.into_values().collect();
        let mut bytes = 0;
        let items: Vec<_> = items
            .into_iter()
            .take_while(|(_, value)| {
                bytes += TreePage::leaf_entry_bytes(value);
                bytes <= TREE_ENTRY_BYTES
            })
            .collect();
        let place = TreePlace { salt: 1, position: u64::from(position) << 12, level: 0 };
        let page = TreePage::Leaf(items);
        let (mut bytes, crc) = page.encode(place);
        prop_assert_eq!(TreePage::decode(&bytes, place, crc), Ok(page));
        let elsewhere = TreePlace { position: place.position ^ 4096, ..place };
        prop_assert!(TreePage::decode(&bytes, elsewhere, crc).is_err());
        let at = flip.0.index(bytes.len());
        bytes[at] ^= 1 << (flip.1 % 8);
        prop_assert!(TreePage::decode(&bytes, place, crc).is_err());
    }

    #[test]
    fn whatever_was_sealed_opens(plain in vec(any::<u8>(), 1..9000), unit in 0_u16..2048, counter in any::<u64>()) {
        let key = BlockKey::derive(&DomainKey::new(1, 1, [7; 32]), &[9; 16], BlockId(5), Generation(2));
        let mut out = vec![0; plain.len().next_multiple_of(PAGE)];
        let sealed = key.seal(UnitIndex(unit), counter, &plain, &mut out);
        prop_assert_eq!(sealed.check_pages(&out), Ok(()));
        let mut opened = vec![0; plain.len()];
        prop_assert!(key.open(&sealed, &out, &mut opened).is_ok());
        prop_assert_eq!(opened, plain);
    }
}

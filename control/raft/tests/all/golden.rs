//! Bytes on disk stay as they are: a log written by one version is read by the next.

use nova_raft::wal::record::{FORMAT_VERSION, FORMAT_VERSION_UNMARKED, Kind, Record, SegmentHeader, encode};
use nova_raft::wal::watermark::Mark;

#[test]
fn segment_header_stays_as_it_is() {
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        number: 2,
        salt: 0x1122_3344_5566_7788,
        previous_salt: 0x0102_0304_0506_0708,
        previous_bytes: 0x1_0000,
        member: 3,
        group_sum: 0xaabb_ccdd,
    };
    let before = SegmentHeader { version: FORMAT_VERSION_UNMARKED, ..header };
    for (header, golden) in [
        (header, include_str!("../../testdata/golden/segment-header.hex")),
        (before, include_str!("../../testdata/golden/segment-header-1.hex")),
    ] {
        let golden = hex(golden);
        assert_eq!(header.encode().to_vec(), golden, "{}", text(&header.encode()));
        assert_eq!(SegmentHeader::decode(&golden), Ok(header));
    }
}

#[test]
fn watermark_stays_as_it_is() {
    let mark = Mark { segment: 2, bytes: 0x1_0040, salt: 0x1122_3344_5566_7788 };
    let golden = hex(include_str!("../../testdata/golden/watermark.hex"));
    assert_eq!(mark.encode().to_vec(), golden, "{}", text(&mark.encode()));
    assert_eq!(Mark::decode(&golden), Some(mark));
}

#[test]
fn record_stays_as_it_is() {
    let records = [
        Record { kind: Kind::Vote, batch: 1, last_of_batch: false, payload: b"\x08\x01\x10\x02" },
        Record { kind: Kind::Entry, batch: 1, last_of_batch: true, payload: b"an entry of 22 bytes.." },
        Record { kind: Kind::Truncate, batch: 2, last_of_batch: false, payload: b"" },
        Record { kind: Kind::Purge, batch: 2, last_of_batch: false, payload: b"\x18\x05" },
        Record { kind: Kind::Committed, batch: 2, last_of_batch: true, payload: b"\x18\x06" },
    ];
    let mut bytes = Vec::new();
    for record in &records {
        encode(&mut bytes, 0x1122_3344_5566_7788, record);
    }
    let golden = hex(include_str!("../../testdata/golden/records.hex"));
    assert_eq!(bytes, golden, "{}", text(&bytes));
    let mut at = 0;
    for record in records {
        let found = Record::decode(&golden[at..], 0x1122_3344_5566_7788).unwrap();
        assert_eq!(found, record);
        at += found.bytes();
    }
    assert_eq!(at, golden.len());
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
}

fn text(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

//! Bytes on the wire stay as they were.
use std::path::PathBuf;

use novabulk_frame::{Codec, Control, FrameHeader, FrameKind, HEADER_BYTES, StreamId, decode};

use super::samples;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn data_frame_keeps_its_bytes() {
    let header = FrameHeader {
        kind: FrameKind::Data(Codec::Zstd),
        more: true,
        end: true,
        stream: StreamId(0x0102_0304),
        payload_bytes: 9,
    };
    let bytes = header.encode(b"123456789");
    // The last four bytes were computed with Python's zlib.crc32 over the first twelve and the payload.
    assert_eq!(hex(&bytes), format!("4e42011a0102030400000009{DATA_CRC}"));
    assert_eq!(decode(&bytes).unwrap().verify(b"123456789").unwrap(), header);
}

const DATA_CRC: &str = "abe7469f";

#[test]
fn control_frames_keep_their_bytes() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/control.hex");
    let now: String = samples::controls()
        .iter()
        .map(|(name, control)| format!("{name} {}\n", hex(&samples::control_frame(control))))
        .collect();
    if std::env::var_os("NOVA_GOLDEN_WRITE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    assert_eq!(
        now,
        std::fs::read_to_string(&file).unwrap(),
        "set NOVA_GOLDEN_WRITE=1 only with a new version"
    );
}

#[test]
fn saved_control_frames_still_decode() {
    let saved = include_str!("../../testdata/control.hex");
    for (line, (name, control)) in saved.lines().zip(samples::controls()) {
        let digits = line.strip_prefix(name).unwrap().trim();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        assert_eq!(decode(header).unwrap().verify(payload).unwrap().kind, FrameKind::Control);
        assert_eq!(Control::decode(payload), Ok(control), "{name}");
    }
}

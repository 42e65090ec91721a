//! Frames and checksums: one pass over 1 MiB each.

use std::hint::black_box;
use std::time::Duration;

use novabulk_frame::{FrameHeader, FrameKind, StreamId, decode};

use crate::report::Report;

const BYTES: usize = 1 << 20;

pub(crate) fn run(report: &mut Report, slice: Duration) {
    let payload: Vec<u8> = (0..BYTES).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
    let mut copy = vec![0; BYTES];
    let bytes = BYTES as u64;
    report.repeat("memcpy 1 MiB", bytes, "the rate of memory", slice, || {
        copy.copy_from_slice(black_box(&payload));
        black_box(&copy);
    });
    let header = FrameHeader {
        kind: FrameKind::Data(novabulk_frame::Codec::Raw),
        more: false,
        end: false,
        stream: StreamId(1),
        payload_bytes: u32::try_from(BYTES).expect("1 MiB"),
    };
    report.repeat("frame encode 1 MiB", bytes, "memcpy 1 MiB of this run", slice, || {
        black_box(header.encode(black_box(&payload)));
    });
    let encoded = header.encode(&payload);
    report.repeat("frame decode and verify 1 MiB", bytes, "memcpy 1 MiB of this run", slice, || {
        let received = decode(black_box(&encoded)).expect("just encoded");
        black_box(received.verify(black_box(&payload)).expect("just encoded"));
    });
}

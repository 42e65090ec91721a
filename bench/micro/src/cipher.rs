//! Sealing and opening a unit of 64 KiB: cipher, tag, page sums and digest, as the edge does it.

use std::hint::black_box;
use std::time::Duration;

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::seal::{BlockKey, DomainKey};

use crate::report::Report;

const BYTES: usize = 64 << 10;

pub(crate) fn run(report: &mut Report, slice: Duration) {
    let key = BlockKey::derive(&DomainKey::new(1, 1, [3; 32]), &[5; 16], BlockId(1), Generation(1));
    let plain: Vec<u8> = (0..BYTES).map(|at| u8::try_from(at % 253).expect("below 253")).collect();
    let (mut stored, mut opened) = (vec![0; BYTES], vec![0; BYTES]);
    let bytes = BYTES as u64;
    let mut counter = 0;
    report.repeat("seal 64 KiB", bytes, "SHA-256 and AES-GCM alone: 1.86 and 3.7 GB/s a core", slice, || {
        counter += 1;
        black_box(key.seal(UnitIndex(0), counter, black_box(&plain), &mut stored));
    });
    let sealed = key.seal(UnitIndex(0), counter + 1, &plain, &mut stored);
    report.repeat("page sums of 64 KiB", bytes, "frame decode and verify of this run", slice, || {
        sealed.check_pages(black_box(&stored)).expect("just sealed");
    });
    report.repeat("open 64 KiB", bytes, "seal 64 KiB of this run", slice, || {
        key.open(black_box(&sealed), &stored, &mut opened).expect("just sealed");
        black_box(&opened);
    });
}

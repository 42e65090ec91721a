//! Sealing and opening a unit of 64 KiB: cipher, tag, page sums and digest, as the edge does it, with either cipher.
//! And a block's key, which an edge derives once for a run of units of one session.

use std::hint::black_box;
use std::time::Duration;

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::seal::{BlockKey, CipherKind, DomainKey};

use crate::report::Report;

const BYTES: usize = 64 << 10;

struct Names {
    seal: &'static str,
    open: &'static str,
    derive: &'static str,
}

pub(crate) fn run(report: &mut Report, slice: Duration) {
    let plain: Vec<u8> = (0..BYTES).map(|at| u8::try_from(at % 253).expect("below 253")).collect();
    for cipher in CipherKind::ALL {
        let names = match cipher {
            CipherKind::AesGcm => Names {
                seal: "seal 64 KiB, aes-gcm",
                open: "open 64 KiB, aes-gcm",
                derive: "derive a block's key, aes-gcm",
            },
            CipherKind::AwsLc => Names {
                seal: "seal 64 KiB, aws-lc-rs",
                open: "open 64 KiB, aws-lc-rs",
                derive: "derive a block's key, aws-lc-rs",
            },
        };
        measure(report, slice, &plain, cipher, &names);
    }
}

fn measure(report: &mut Report, slice: Duration, plain: &[u8], cipher: CipherKind, names: &Names) {
    let domain = DomainKey::new(1, 1, [3; 32]).with_cipher(cipher);
    let derive = |block| BlockKey::derive(&domain, &[5; 16], BlockId(block), Generation(1));
    let key = derive(1);
    let (mut stored, mut opened) = (vec![0; BYTES], vec![0; BYTES]);
    let bytes = BYTES as u64;
    let mut counter = 0;
    report.repeat(names.seal, bytes, "SHA-256 alone: 1.86 GB/s a core", slice, || {
        counter += 1;
        black_box(key.seal(UnitIndex(0), counter, black_box(plain), &mut stored));
    });
    let sealed = key.seal(UnitIndex(0), counter + 1, plain, &mut stored);
    if cipher == CipherKind::default() {
        report.repeat("page sums of 64 KiB", bytes, "frame decode and verify of this run", slice, || {
            sealed.check_pages(black_box(&stored)).expect("just sealed");
        });
    }
    report.repeat(names.open, bytes, "seal 64 KiB of this run", slice, || {
        key.open(black_box(&sealed), &stored, &mut opened).expect("just sealed");
        black_box(&opened);
    });
    report.repeat(names.derive, 0, "open 64 KiB of this run: once a run of units", slice, || {
        counter += 1;
        black_box(derive(black_box(counter)));
    });
}

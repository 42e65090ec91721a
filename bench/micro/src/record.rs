//! One record of TLS, 16 KiB, by either crate that has the cipher, out of place as both ends of a connection work.

use std::hint::black_box;
use std::time::Duration;

use aes_gcm::aead::KeyInit as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut as _, Aes128Gcm};
use anyhow::Context as _;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use novabulk_frame::page_sums;
use novabulk_tls::RECORD_PLAIN_BYTES_MAX;

use crate::report::Report;

pub(crate) fn run(report: &mut Report, slice: Duration) -> anyhow::Result<()> {
    let plain = vec![7; RECORD_PLAIN_BYTES_MAX];
    let mut sealed = vec![0; RECORD_PLAIN_BYTES_MAX];
    let mut opened = vec![0; RECORD_PLAIN_BYTES_MAX];
    let bytes = RECORD_PLAIN_BYTES_MAX as u64;
    let against = "the same by the other crate in this run";

    let lc = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[3; 16]).context("a key")?);
    let mut tag = [0; 16];
    let nonce = || Nonce::assume_unique_for_key([1; 12]);
    report.repeat("record of 16 KiB: seal, aws-lc-rs", bytes, against, slice, || {
        let out = (&mut sealed, &mut tag);
        let aad = Aad::from([0; 5]);
        lc.seal_out_of_place_scatter(nonce(), aad, black_box(&plain), out.0, &[], out.1).expect("sizes fit");
    });
    report.repeat("record of 16 KiB: open, aws-lc-rs", bytes, against, slice, || {
        let aad = Aad::from([0; 5]);
        lc.open_separate_gather(nonce(), aad, black_box(&sealed), &tag, &mut opened).expect("just sealed");
    });
    report.repeat("record of 16 KiB: page sums", bytes, "opening it in this run", slice, || {
        black_box(page_sums(black_box(&opened)));
    });

    let rust = Aes128Gcm::new_from_slice(&[3; 16]).context("a key")?;
    let nonce = [1; 12].into();
    let mut tag = aes_gcm::Tag::default();
    report.repeat("record of 16 KiB: seal, aes-gcm", bytes, against, slice, || {
        let buffer = InOutBuf::new(black_box(&plain[..]), &mut sealed).expect("both are equally long");
        tag = rust.encrypt_inout_detached(&nonce, &[0; 5], buffer).expect("far below the limit");
    });
    report.repeat("record of 16 KiB: open, aes-gcm", bytes, against, slice, || {
        let buffer = InOutBuf::new(black_box(&sealed[..]), &mut opened).expect("both are equally long");
        rust.decrypt_inout_detached(&nonce, &[0; 5], buffer, &tag).expect("just sealed");
    });
    Ok(())
}

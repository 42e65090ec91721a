//! The record decoder on bytes that nobody wrote: from a saved corpus, changed at random with a printed seed.

use std::fs;
use std::time::{Duration, Instant};

use nova_raft::wal::record::{
    ALIGNMENT, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader, encode,
};
use nova_raft::wal::watermark::Mark;

/// Salt of the corpus.
const SALT: u64 = 0x1122_3344_5566_7788;
const TIME: Duration = Duration::from_secs(2);

#[test]
fn no_bytes_make_the_record_decoder_panic_or_read_past_their_end() {
    let seed = std::env::var("NOVA_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("NOVA_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fuzz/record");
    let corpus: Vec<Vec<u8>> =
        fs::read_dir(folder).unwrap().map(|f| fs::read(f.unwrap().path()).unwrap()).collect();
    assert!(corpus.len() >= 3, "the corpus is there");

    let began = Instant::now();
    let (mut rounds, mut read) = (0_u64, 0_u64);
    while began.elapsed() < TIME {
        let mut bytes = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(..4) {
            change(&mut bytes, &mut random);
        }
        let _ = SegmentHeader::decode(&bytes);
        let _ = Mark::decode(&bytes);
        let start = if bytes.starts_with(b"NOVARAFT") { SEGMENT_HEADER_BYTES } else { 0 };
        let mut at = start;
        while let Some(record) = bytes.get(at..).and_then(|rest| Record::decode(rest, SALT)) {
            // Whatever is read writes back to the same bytes.
            let mut again = Vec::new();
            encode(&mut again, SALT, &record);
            assert_eq!(again, bytes[at..at + record.bytes()]);
            at += record.bytes();
            read += 1;
        }
        rounds += 1;
    }
    assert!(rounds > 1000 && read > rounds / 10, "{rounds} rounds, {read} records read");
}

fn change(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        bytes.push(random.u8(..));
        return;
    }
    let at = random.usize(..bytes.len());
    match random.u8(..5) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => bytes.truncate(at),
        2 => bytes.splice(at..at, [0; ALIGNMENT]).for_each(drop),
        3 => {
            // A length field at its limits.
            let lengths = [0, 1, u32::MAX, 16 << 20, (16 << 20) + 1];
            let length = lengths[random.usize(..lengths.len())].to_le_bytes();
            let field = at / RECORD_HEADER_BYTES * RECORD_HEADER_BYTES + 4;
            if let Some(place) = bytes.get_mut(field..field + 4) {
                place.copy_from_slice(&length);
            }
        }
        _ => {
            let end = random.usize(at..=bytes.len());
            random.fill(&mut bytes[at..end]);
        }
    }
}

//! Decoders meet bytes that nobody meant: mutations of a saved corpus, from a fixed seed.
use std::path::PathBuf;

use novabulk_frame::{CONTROL_BYTES_MAX, Control, HEADER_BYTES, decode};

use super::samples;

const ROUNDS: u32 = 60_000;

/// xorshift64*: the fuzz run is the same on every machine.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/frame");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .map(|files| files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect())
        .unwrap_or_default();
    assert!(!seeds.is_empty(), "the saved corpus is missing");
    seeds.extend(samples::controls().iter().map(|(_, control)| samples::control_frame(control)));
    seeds
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Seeded) {
    for _ in 0..=random.below(4) {
        let byte = u8::try_from(random.next() >> 56).unwrap();
        match (random.below(5), bytes.len()) {
            (0, 1..) => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << (byte & 7);
            }
            (1, 1..) => {
                let at = random.below(bytes.len());
                bytes[at] = byte;
            }
            (2, 1..) => bytes.truncate(random.below(bytes.len())),
            (3, _) => bytes.push(byte),
            _ => {
                let at = random.below(bytes.len() + 1);
                bytes.insert(at, byte);
            }
        }
    }
}

#[test]
fn mutated_frames_never_panic_and_what_decodes_encodes_again() {
    let corpus = corpus();
    let mut random = Seeded(0x4E42_0001);
    let mut decoded = 0u32;
    for _ in 0..ROUNDS {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        mutate(&mut bytes, &mut random);
        if let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>()
            && let Ok(received) = decode(header)
        {
            assert!(received.unverified().payload_bytes <= novabulk_frame::PAYLOAD_BYTES_MAX);
            if let Ok(header) = received.verify(payload) {
                assert_eq!(bytes[..HEADER_BYTES], header.encode(payload));
            }
        }
        let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if let Ok(control) = Control::decode(payload) {
            let mut again = Vec::new();
            control.encode(&mut again);
            assert_eq!(again, payload, "two encodings of one control header");
            assert!(again.len() <= usize::try_from(CONTROL_BYTES_MAX).unwrap());
            decoded += 1;
        }
    }
    assert!(decoded > ROUNDS / 20, "the mutations are too wild to reach the fields: {decoded}");
}

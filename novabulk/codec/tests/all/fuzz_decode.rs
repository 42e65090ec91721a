//! Streams of strangers: mutations of a saved corpus and of good streams, from fixed seeds. What opens has the length
//! that was announced, and nothing takes more memory than that.
use std::path::PathBuf;

use novabulk_codec::{Coder, Coding, Level, PLAIN_BYTES_MAX};
use proptest::prelude::*;

const ROUNDS: u32 = 20_000;
const SEED: u64 = 20_261_127;

fn codings() -> Vec<Coding> {
    let zstd = [1, 3, 9].map(|number| Coding::Zstd(Level::new(number).unwrap()));
    [Coding::Raw, Coding::Lz4].into_iter().chain(zstd).collect()
}

/// Streams that were found to be of interest, or are of another kind altogether.
fn saved() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/coded");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the saved corpus is missing");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn streams() -> Vec<Vec<u8>> {
    let mut coder = Coder::default();
    let mut all = saved();
    for plain in [vec![0; 5000], b"a line\n".repeat(900), (0..=255).cycle().take(9000).collect::<Vec<u8>>()] {
        for coding in codings() {
            let mut coded = Vec::new();
            if coder.encode(&plain, coding, &mut coded) {
                all.push(coded);
            }
        }
    }
    all
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..=random.usize(..4) {
        match (random.u8(..5), bytes.len()) {
            (0, 1..) => {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
            (1, 1..) => {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            (2, 1..) => bytes.truncate(random.usize(..bytes.len())),
            (3, _) => bytes.push(random.u8(..)),
            _ => bytes.insert(random.usize(..=bytes.len()), random.u8(..)),
        }
    }
}

#[test]
fn mutated_streams_open_to_the_announced_length_or_not_at_all() {
    let (streams, codings) = (streams(), codings());
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut coder = Coder::default();
    let mut opened = Vec::new();
    let mut good = 0;
    for _ in 0..ROUNDS {
        let mut stream = streams[random.usize(..streams.len())].clone();
        if random.u8(..8) > 0 {
            mutate(&mut stream, &mut random);
        }
        let coding = codings[random.usize(..codings.len())];
        let announced = match random.u8(..4) {
            0 => random.usize(..20_000),
            1 => 5000,
            2 => 6300,
            _ => 9000,
        };
        if coder.decode(&stream, coding, announced, &mut opened).is_ok() {
            assert_eq!(opened.len(), announced);
            good += 1;
        }
        assert!(opened.capacity() <= PLAIN_BYTES_MAX, "{coding} took {}", opened.capacity());
    }
    assert!(good > 100, "only {good} streams were whole: the corpus fits no codec");
}

proptest! {
    #[test]
    fn what_was_coded_comes_back(
        words in prop::collection::vec(0_u8..4, 0..3000),
        each in 1..40_usize,
        which in 0..5_usize,
    ) {
        let plain: Vec<u8> = words.iter().flat_map(|&word| std::iter::repeat_n(word, each)).collect();
        let coding = codings()[which];
        let mut coder = Coder::default();
        let (mut coded, mut opened) = (Vec::new(), Vec::new());
        if coder.encode(&plain, coding, &mut coded) {
            prop_assert!(coded.len() < plain.len());
            prop_assert_eq!(coder.decode(&coded, coding, plain.len(), &mut opened), Ok(()));
            prop_assert_eq!(opened, plain);
        }
    }

    #[test]
    fn no_bytes_make_a_codec_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), announced in 0..10_000_usize) {
        let mut coder = Coder::default();
        let mut opened = Vec::new();
        for coding in codings() {
            if coder.decode(&bytes, coding, announced, &mut opened).is_ok() {
                prop_assert_eq!(opened.len(), announced);
            }
        }
    }
}

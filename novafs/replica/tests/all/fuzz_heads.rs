//! Heads from strangers: whatever the bytes, decoding ends with a value or an error, and a value encodes to the
//! very bytes it came from.

use novafs_replica::{Answer, Message};

use super::golden_heads::folder;

const ROUNDS: usize = 60_000;
const SEED: u64 = 0x4e42_0002;

fn corpus() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutate(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = *rng.choice([0, 1, 0x7f, 0x80, 0xff].iter()).unwrap(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.u8(..)),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            5 => bytes.extend_from_slice(&other[..rng.usize(..=other.len())]),
            _ => {
                let from = rng.usize(..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
}

#[test]
fn no_bytes_make_a_decoder_panic_and_what_it_takes_is_canonical() {
    let corpus = corpus();
    assert!(corpus.len() > 30, "the corpus is there");
    let mut rng = fastrand::Rng::with_seed(SEED);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let mut bytes = rng.choice(corpus.iter()).unwrap().clone();
        let other = rng.choice(corpus.iter()).unwrap();
        mutate(&mut rng, &mut bytes, other);
        let message = Message::decode(&bytes).ok().map(|message| message.encode());
        let answer = Answer::decode(&bytes).ok().map(|answer| answer.encode());
        match message.or(answer) {
            Some(encoded) => {
                assert_eq!(encoded, bytes);
                taken += 1;
            }
            None => refused += 1,
        }
    }
    assert!(taken > 100 && refused > 100, "both ways were tried: {taken} taken, {refused} refused");
}

//! Slots nobody meant to send: mutations of a saved corpus, from a fixed seed.
use std::path::PathBuf;

use nova_ring::abi::{
    AgentCommand, AgentEvent, Answer, ClientCommand, MetadataReply, MetadataRequest, SLOT_BYTES, Slot,
};

const ROUNDS: u32 = 200_000;

/// xorshift64*: the same run on every machine.
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

fn corpus() -> Vec<[u8; SLOT_BYTES]> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/slot");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the saved corpus is missing");
    files.iter().map(|file| std::fs::read(file).unwrap().try_into().expect("128 bytes")).collect()
}

#[test]
fn mutated_slots_never_panic_and_what_decodes_encodes_again() {
    let corpus = corpus();
    let mut random = Seeded(0x0051_0751);
    let mut decoded = 0u32;
    for _ in 0..ROUNDS {
        let mut bytes = corpus[random.below(corpus.len())];
        for _ in 0..random.below(4) {
            let anywhere = random.next().is_multiple_of(4);
            let at = random.below(if anywhere { SLOT_BYTES } else { 72 });
            bytes[at] = match random.below(3) {
                0 => bytes[at] ^ (1 << random.below(8)),
                1 => u8::try_from(random.next() >> 56).unwrap(),
                _ => [0, 1, 0x7f, 0xff][random.below(4)],
            };
        }
        let slot = Slot(bytes);
        let again = [
            ClientCommand::decode(&slot).map(|found| found.encode()),
            Answer::decode(&slot).map(|found| found.encode()),
            AgentCommand::decode(&slot).map(|found| found.encode()),
            AgentEvent::decode(&slot).map(|found| found.encode()),
            MetadataRequest::decode(&slot).map(|found| found.encode()),
            MetadataReply::decode(&slot).map(|found| found.encode()),
        ];
        for found in again.into_iter().flatten() {
            assert_eq!(found, slot, "two encodings of one slot");
            decoded += 1;
        }
    }
    assert!(decoded > ROUNDS / 20, "the mutations are too wild to reach the fields: {decoded}");
}

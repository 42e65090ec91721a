//! Over generated fields and bytes: one value, one encoding.
use nova_ring::abi::{
    AgentCommand, AgentEvent, Answer, ClientCommand, Detail, MetadataReply, MetadataRequest, SLOT_BYTES,
    Slot, Status,
};
use nova_ring::handshake::{ANSWER_BYTES, Answer as Verdict, HELLO_BYTES, Hello};
use nova_units::{BlockId, Generation, GroupId};
use proptest::prelude::*;

fn recoded(slot: &Slot) -> Vec<Slot> {
    [
        ClientCommand::decode(slot).map(|found| found.encode()),
        Answer::decode(slot).map(|found| found.encode()),
        AgentCommand::decode(slot).map(|found| found.encode()),
        AgentEvent::decode(slot).map(|found| found.encode()),
        MetadataRequest::decode(slot).map(|found| found.encode()),
        MetadataReply::decode(slot).map(|found| found.encode()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_slot(kind in 0u16..96, fields in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..8 + fields.len()].copy_from_slice(&fields);
        let slot = Slot(bytes);
        for again in recoded(&slot) {
            prop_assert_eq!(again, slot);
        }
    }

    #[test]
    fn a_read_is_taken_exactly_when_it_lies_inside_its_block(
        block_bytes in 0u32..(140 << 20), offset in 0u32..(140 << 20), bytes in 0u32..(2 << 20), unit_log2 in 10u8..20,
    ) {
        let read = ClientCommand::Read {
            request: 1, group: GroupId(2), block: BlockId(3), key_domain: 6, key_version: 7, unit_log2, block_bytes,
            offset, bytes, arena_offset: 8, sparse: false,
        };
        let inside = (12..=16).contains(&unit_log2) && block_bytes <= 128 << 20 && (1..=1 << 20).contains(&bytes)
            && u64::from(offset) + u64::from(bytes) <= u64::from(block_bytes);
        prop_assert_eq!(ClientCommand::decode(&read.encode()).is_ok(), inside);
    }

    #[test]
    fn a_write_is_taken_exactly_when_it_ends_within_128_mib(
        block_bytes in 0u32..(140 << 20), offset in 0u32..(140 << 20), bytes in 0u32..(2 << 20), unit_log2 in 10u8..20,
    ) {
        let write = ClientCommand::Write {
            request: 1, writer: 2, group: GroupId(2), block: BlockId(3), generation: Generation(4), unit_log2, offset,
            bytes, block_bytes, arena_offset: 8,
        };
        let inside = (12..=16).contains(&unit_log2) && block_bytes <= 128 << 20 && (1..=1 << 20).contains(&bytes)
            && offset + bytes <= 128 << 20;
        prop_assert_eq!(ClientCommand::decode(&write.encode()).is_ok(), inside);
    }

    #[test]
    fn answers_come_back_whole(request: u64, status in 0usize..Status::ALL.len(), bytes: u32, detail: [u8; 32]) {
        let mut whole = Detail::NONE;
        whole.0[..32].copy_from_slice(&detail);
        let answer = Answer { request, status: Status::ALL[status], bytes, detail: whole };
        prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn no_bytes_upset_the_handshake(hello in prop::collection::vec(any::<u8>(), HELLO_BYTES), text in any::<u16>(), magic: bool) {
        let mut bytes: [u8; HELLO_BYTES] = hello.try_into().unwrap();
        if magic {
            bytes[..8].copy_from_slice(b"NOVARING");
            bytes[56..].fill(0);
            bytes[12..16].copy_from_slice(&2u32.to_le_bytes());
            prop_assert_eq!(Hello::decode(&bytes).unwrap().encode(), bytes);
        } else {
            prop_assert!(Hello::decode(&bytes).is_err() || bytes[..8] == *b"NOVARING");
        }
        let mut answer = [b'a'; ANSWER_BYTES];
        answer[..8].copy_from_slice(b"NOVARING");
        answer[8..12].copy_from_slice(&2u32.to_le_bytes());
        answer[40..42].copy_from_slice(&text.to_le_bytes());
        prop_assert_eq!(Verdict::decode(&answer).is_ok(), usize::from(text) <= ANSWER_BYTES - 42);
    }
}

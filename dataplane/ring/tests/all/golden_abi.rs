//! The bytes of every slot and of the handshake stay as they are: another process may be one release behind.
use nova_ring::abi::{
    AgentCommand, AgentEvent, Answer, ClientCommand, ClosedBlock, MetadataReply, MetadataRequest,
    OpenedWriter, WORDS_BYTES_MAX, Words,
};
use nova_ring::handshake::{self, Hello};
use nova_ring::{Kind, Terms};

use super::samples;

const GOLDEN: &str = include_str!("../../testdata/abi.hex");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and bytes without the zeros at the end.
fn line(name: &str, bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    format!("{name} {}", hex(&bytes[..end]))
}

#[test]
fn every_slot_keeps_its_bytes() {
    let mut lines: Vec<String> = samples::slots().iter().map(|(name, slot)| line(name, &slot.0)).collect();
    let hello =
        Hello { layout_hash: 0x0102_0304_0506_0708, ..Hello::new(Kind::Metadata, [0xAB; 16], 1 << 26, 9) };
    lines.push(line("hello", &hello.encode()));
    let terms = Terms { capacity: 256, area_bytes: 1 << 26, boot: 0x1112, generation: 0x2122 };
    lines.push(line("welcome", &handshake::Answer::Welcome(terms).encode()));
    lines.push(line("refused", &handshake::Answer::Refused("no".into()).encode()));
    let found = lines.join("\n") + "\n";
    if found != GOLDEN {
        for (new, old) in found.lines().zip(GOLDEN.lines()).filter(|(new, old)| new != old) {
            println!("now {new}\nwas {old}");
        }
        panic!("a layout changed: raise the ABI version, or take the change back\n{found}");
    }
}

#[test]
fn every_slot_decodes_to_what_was_encoded() {
    for (_, command) in samples::client_commands() {
        assert_eq!(ClientCommand::decode(&command.encode()), Ok(command));
    }
    for (_, answer) in samples::answers() {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    for (_, command) in samples::agent_commands() {
        assert_eq!(AgentCommand::decode(&command.encode()), Ok(command));
    }
    for (_, event) in samples::agent_events() {
        assert_eq!(AgentEvent::decode(&event.encode()), Ok(event));
    }
    let (request, open, reply) = samples::metadata();
    assert_eq!(MetadataRequest::decode(&request.encode()), Ok(request));
    assert_eq!(MetadataRequest::decode(&open.encode()), Ok(open));
    assert_eq!(MetadataReply::decode(&reply.encode()), Ok(reply));
}

#[test]
fn details_decode_to_what_was_encoded() {
    let opened = OpenedWriter { writer: 7, key_domain: 1, key_version: 2 };
    assert_eq!(OpenedWriter::decode(&opened.encode()), opened);
    let closed = ClosedBlock { root: [9; 32], units: 2048 };
    assert_eq!(ClosedBlock::decode(&closed.encode()), closed);
}

#[test]
fn a_long_refusal_is_cut_at_a_character() {
    let reason = "é".repeat(400);
    let handshake::Answer::Refused(cut) =
        handshake::Answer::decode(&handshake::Answer::Refused(reason.clone()).encode()).unwrap()
    else {
        panic!("a refusal stays a refusal")
    };
    assert!(reason.starts_with(&cut) && cut.len() > 200);
}

#[test]
fn a_long_text_goes_in_parts_that_are_cut_between_characters() {
    let text = "ä drive that is long gone ".repeat(20);
    let parts: Vec<Words> = Words::of(&text).collect();
    assert!(parts.len() > 5 && parts.iter().all(|part| part.as_str().len() <= WORDS_BYTES_MAX));
    assert_eq!(parts.iter().map(Words::as_str).collect::<String>(), text);
    assert_eq!(Words::of("").count(), 0);
}

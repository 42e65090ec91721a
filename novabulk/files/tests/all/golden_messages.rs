//! The bytes of messages stay as they were: a host of an older version reads them.

use novabulk_files::{Digest, Identity, Record, Reply, Request, header};

use super::samples::{identity, name, replies, requests};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_comes_back_as_it_went() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode(1234)), Ok((reply, 1234)));
    }
}

#[test]
fn a_write_and_its_answer_have_these_bytes() {
    let write = Request::Write { name: name("d/f"), source: 6, block: 3, digest: Digest([0xAB; 32]) };
    assert_eq!(hex(&write.encode()), format!("01130003642f66000000000000000600000003{}", "ab".repeat(32)));
    assert_eq!(hex(&Reply::Done.encode(258)), "019300000102");
}

/// One digest over all samples: a change of any byte of any message shows.
#[test]
fn all_messages_together_have_this_digest() {
    let mut all = Vec::new();
    requests().iter().for_each(|request| all.extend(request.encode()));
    replies().iter().for_each(|reply| all.extend(reply.encode(7)));
    assert_eq!(Digest::of(&all).short(), "8054898009f03957");
}

#[test]
fn a_ledger_has_these_bytes() {
    let source = identity(0x0102_0304);
    let expected = "4e4f56414c454447000000010000000001020304000000006553f10000000007\
                    fffffffffffffffd3b9ac9ff0000080000000001000000000000002a";
    assert_eq!(hex(&header(&source)[..60]), expected);
    let record = Record { block: 5, digest: Digest([1; 32]) }.encode(&source);
    assert_eq!(hex(&record[..36]), format!("00000005{}", "01".repeat(32)));
    let other = Record { block: 5, digest: Digest([1; 32]) }.encode(&Identity::default());
    assert_ne!(record[36..], other[36..], "the sum ties a record to its ledger");
}

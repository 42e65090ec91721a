//! Bytes of strangers: decoders refuse or give a checked value, and never panic.

use novabulk_files::{
    Digest, HEAD_BYTES_MAX, Kind, MessageError, Name, NameError, PackFile, Reply, Request, replay,
};
use proptest::prelude::*;

use super::samples::{entry, identity, name, replies, requests};

fn heads() -> Vec<Vec<u8>> {
    let requests = requests().into_iter().map(|request| request.encode());
    requests.chain(replies().into_iter().map(|reply| reply.encode(3))).collect()
}

/// A name that was let through leads nowhere else.
fn assert_harmless(name: &Name) {
    let bytes = name.as_bytes();
    assert!(bytes.len() <= 4096 && !bytes.starts_with(b"/") && !bytes.contains(&0));
    assert!(!bytes.split(|&byte| byte == b'/').any(|part| part == b".." || part == b"."));
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    for head in heads() {
        for end in 0..head.len() {
            assert!(Request::decode(&head[..end]).is_err() && Reply::decode(&head[..end]).is_err());
        }
        let longer = [head.as_slice(), &[0]].concat();
        assert!(Request::decode(&longer).is_err() && Reply::decode(&longer).is_err());
    }
}

#[test]
fn another_version_is_named() {
    let mut head = requests()[0].encode();
    head[0] = 2;
    assert_eq!(Request::decode(&head), Err(MessageError::Version { found: 2 }));
}

#[test]
fn a_message_longer_than_any_is_refused_before_it_is_read() {
    let head = vec![1; HEAD_BYTES_MAX + 1];
    assert_eq!(Request::decode(&head), Err(MessageError::TooLong { bytes: HEAD_BYTES_MAX + 1 }));
}

#[test]
fn names_that_lead_elsewhere_are_refused_in_messages() {
    let mut head = Request::Stat { name: name("a/bb") }.encode();
    let at = head.len() - 2;
    head[at..].copy_from_slice(b"..");
    assert_eq!(Request::decode(&head), Err(MessageError::Name(NameError::Component)));
}

#[test]
fn reads_past_the_end_and_packs_of_more_than_a_body_are_refused() {
    let file = PackFile { name: name("f"), identity: identity(100) };
    for (offset, bytes) in [(100, 1), (0, 101), (99, 2), (u64::MAX, 1), (0, 0), (1 << 50, u32::MAX)] {
        let read = Request::Read { file: file.clone(), offset, bytes };
        assert!(Request::decode(&read.encode()).is_err(), "{offset} {bytes}");
    }
    let huge = PackFile { name: name("f"), identity: identity((1 << 50) + 1) };
    assert!(Request::decode(&Request::Map { file: huge, from: 0 }.encode()).is_err());
    let quarter = PackFile { name: name("f"), identity: identity((256 << 10) - 1) };
    let pack = |count| Request::ReadPack { files: vec![quarter.clone(); count] };
    assert!(Request::decode(&pack(4).encode()).is_ok());
    assert!(Request::decode(&pack(5).encode()).is_err());
    let large = PackFile { name: name("f"), identity: identity(256 << 10) };
    assert!(Request::decode(&Request::ReadPack { files: vec![large] }.encode()).is_err());
}

#[test]
fn attributes_of_the_kernel_modes_of_other_users_and_empty_links_are_refused() {
    let good = entry("f", Kind::Directory);
    let mut security = good.clone();
    security.xattrs[0].0 = b"security.capability".to_vec();
    let mut set_user = good.clone();
    set_user.mode = 0o4755;
    let mut many = good.clone();
    many.xattrs = vec![(b"user.b".to_vec(), vec![0; 16 << 10])];
    let empty = entry("l", Kind::Link { target: vec![] });
    for bad in [security, set_user, many, empty] {
        let offer = Request::Offer { entries: vec![bad.clone()], checksum: false, dry_run: false };
        assert!(Request::decode(&offer.encode()).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Request::decode(&bytes);
        let _ = Reply::decode(&bytes);
        let _ = replay(&bytes, &identity(3));
        if let Ok(name) = Name::new(bytes) {
            assert_harmless(&name);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_gives_another_checked_value(
        which in 0..31_usize,
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let heads = heads();
        let mut head = heads[which % heads.len()].clone();
        let at = at.index(head.len());
        head[at] = value;
        if let Ok(Request::Remove { names }) = Request::decode(&head) {
            names.iter().for_each(assert_harmless);
        }
        if let Ok(Request::Offer { entries, .. }) = Request::decode(&head) {
            entries.iter().for_each(|entry| assert_harmless(&entry.name));
        }
        if let Ok(request) = Request::decode(&head) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn names_are_what_they_were(parts in prop::collection::vec("[a-z]{1,9}", 1..9)) {
        let text = parts.join("/");
        let name = Name::new(text.clone()).unwrap();
        prop_assert_eq!(name.depth(), parts.len());
        let (folder, last) = name.split().unwrap();
        prop_assert_eq!(folder.child(last).unwrap(), name);
        prop_assert_ne!(Digest::of(text.as_bytes()), Digest::of(b""));
    }
}

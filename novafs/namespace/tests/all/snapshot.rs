//! The state as bytes.

use novafs_namespace::{
    Link, MakeSymlink, Namespace, Op, OpenSession, PurgeTrash, Remove, SNAPSHOT_MAGIC, SNAPSHOT_VERSION,
    SetQuota, SetSpace, SetXattr, SnapshotError,
};

use crate::kit::{Log, check, file};

fn encode(namespace: &Namespace) -> Vec<u8> {
    let mut bytes = Vec::new();
    namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
    bytes
}

/// Something of everything: files, a session with a reservation and an open file, links, attributes, orphans, trash,
/// a tree to sweep, an answered client.
fn full() -> Log {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 10);
    log.publish(session, vec![file("/hot/a/f", first, 10), file("/hot/b/g", first + 5, 10)], false);
    log.publish(session, vec![file("/hot/b/g", first + 6, 20)], true);
    log.remove("/hot/a", true).unwrap();
    log.try_apply(Op::PurgeTrash(PurgeTrash { id: 2 })).unwrap();
    log.open_file(session, "/hot/b/g").unwrap();
    let link = Link { source: "/hot/b/g".into(), target: "/hot/h".into(), ..Link::default() };
    log.try_apply(Op::Link(link.clone())).unwrap();
    log.try_apply(Op::Link(Link { target: "/hot/i".into(), ..link })).unwrap();
    log.remove("/hot/b/g", false).unwrap();
    let symlink = MakeSymlink { path: "/hot/s".into(), target: "x".into(), ..MakeSymlink::default() };
    log.try_apply(Op::MakeSymlink(symlink)).unwrap();
    let xattr =
        SetXattr { path: "/hot/s".into(), name: "user.a".into(), value: vec![1], ..SetXattr::default() };
    log.try_apply(Op::SetXattr(xattr)).unwrap();
    let quota = SetQuota { path: "/hot".into(), bytes_max: 9999, files_max: 77, ..SetQuota::default() };
    log.try_apply(Op::SetQuota(quota)).unwrap();
    let space =
        SetSpace { name: "cold".into(), undelete_ms: Some(1), unit_log2: Some(12), ..SetSpace::default() };
    log.try_apply(Op::SetSpace(space)).unwrap();
    log.apply_from(9, 1, Op::OpenSession(OpenSession { lease_ms: 1500 }));
    log.apply_from(9, 2, Op::Remove(Remove { path: "/none".into(), ..Remove::default() }));
    log
}

#[test]
fn a_snapshot_gives_the_same_state_back() {
    let log = full();
    let bytes = encode(&log.namespace);
    let read = Namespace::decode(&bytes).unwrap();
    assert_eq!(read, log.namespace);
    assert_eq!(encode(&read), bytes, "equal states give equal bytes");
    assert!(read.has_sweep());
    check(&read);
}

#[test]
fn the_header_of_a_snapshot_stays_as_it_is() {
    let bytes = encode(&Namespace::default());
    assert_eq!(&bytes[..12], b"NOVANAME\x02\0\0\0");
    assert_eq!((SNAPSHOT_MAGIC, SNAPSHOT_VERSION), (*b"NOVANAME", 2));
    for (name, bytes) in [("empty", bytes), ("full", encode(&full().namespace))] {
        let golden = format!("{}/testdata/snapshot-{name}-v2.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("NOVA_BLESS").is_some() {
            std::fs::write(&golden, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&golden).unwrap(), bytes, "{golden}: a new form needs a new version");
    }
}

/// Written before files could be reopened: two files in one directory of /hot, one replaced, and a tree to sweep.
#[test]
fn a_snapshot_of_version_1_is_read() {
    let golden = format!("{}/testdata/snapshot-full-v1.bin", env!("CARGO_MANIFEST_DIR"));
    let read = Namespace::decode(&std::fs::read(golden).unwrap()).unwrap();
    check(&read);
    let (inode, view) = read.open(0, "/hot/b/g").unwrap();
    assert_eq!((view.bytes, view.mode, view.links), (20, 0o644, 1));
    assert_eq!((view.modified_ns, view.cookie), (5_000_000, view.inode.0));
    assert_eq!(inode.turn.0, 1);
    let space = read.space("hot").unwrap();
    assert_eq!((space.undelete.as_secs(), space.unit_log2), (24 * 3600, 16));
    assert!(read.has_sweep() && read.remembered(9, 1).is_some());
    let mut log = Log { namespace: read, ..Log::default() };
    let session = log.open();
    assert_eq!(log.open_file(session, "/hot/b/g").unwrap().generation, 2);
    log.empty_trash();
    check(&log.namespace);
}

#[test]
fn a_cut_or_foreign_snapshot_is_refused() {
    let bytes = encode(&full().namespace);
    for end in 0..bytes.len() {
        assert!(Namespace::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(Namespace::decode(b"something else"), Err(SnapshotError::Magic));
    let mut newer = bytes.clone();
    newer[8] = 3;
    assert_eq!(Namespace::decode(&newer), Err(SnapshotError::Version(3)));
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(Namespace::decode(&longer), Err(SnapshotError::Damaged(_))));
}

#[test]
fn no_changed_byte_makes_the_decoder_panic() {
    let bytes = encode(&full().namespace);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        let mut mutated = bytes.clone();
        for _ in 0..=seed % 4 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = usize::try_from(seed % mutated.len() as u64).unwrap();
            mutated[at] ^= u8::try_from((seed >> 32) & 0xff).unwrap();
        }
        if let Ok(namespace) = Namespace::decode(&mutated) {
            let _ = namespace.stat(0, "/hot");
        }
    }
}

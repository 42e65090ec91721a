//! The state as bytes.

use novafs_namespace::{Namespace, Op, OpenSession, Remove, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, SnapshotError};

use crate::kit::{Log, file};

fn encode(namespace: &Namespace) -> Vec<u8> {
    let mut bytes = Vec::new();
    namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
    bytes
}

/// Something of everything: files, a session with a reservation, orphans, trash, an answered client.
fn full() -> Log {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 10);
    log.publish(session, vec![file("/hot/a/f", first, 10), file("/hot/b/g", first + 5, 10)], false);
    log.publish(session, vec![file("/hot/b/g", first + 6, 20)], true);
    log.apply(Op::Remove(Remove { path: "/hot/a".into(), recursive: true, ..Remove::default() }));
    log.apply_from(9, 1, Op::OpenSession(OpenSession { lease_ms: 1500 }));
    log.apply_from(9, 2, Op::Remove(Remove { path: "/none".into(), recursive: true, ..Remove::default() }));
    log
}

#[test]
fn a_snapshot_gives_the_same_state_back() {
    let log = full();
    let bytes = encode(&log.namespace);
    let read = Namespace::decode(&bytes).unwrap();
    assert_eq!(read, log.namespace);
    assert_eq!(encode(&read), bytes, "equal states give equal bytes");
    assert!(read.has_trash());
}

#[test]
fn the_header_of_a_snapshot_stays_as_it_is() {
    let bytes = encode(&Namespace::default());
    assert_eq!(&bytes[..12], b"NOVANAME\x01\0\0\0");
    assert_eq!((SNAPSHOT_MAGIC, SNAPSHOT_VERSION), (*b"NOVANAME", 1));
    for (name, bytes) in [("empty", bytes), ("full", encode(&full().namespace))] {
        let golden = format!("{}/testdata/snapshot-{name}-v1.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("NOVA_BLESS").is_some() {
            std::fs::write(&golden, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&golden).unwrap(), bytes, "{golden}: a new form needs a new version");
    }
}

#[test]
fn a_cut_or_foreign_snapshot_is_refused() {
    let bytes = encode(&full().namespace);
    for end in 0..bytes.len() {
        assert!(Namespace::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(Namespace::decode(b"something else"), Err(SnapshotError::Magic));
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert_eq!(Namespace::decode(&newer), Err(SnapshotError::Version(2)));
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
            let _ = namespace.stat("/hot");
        }
    }
}

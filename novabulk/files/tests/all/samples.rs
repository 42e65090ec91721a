//! One of every message.

use novabulk_files::{
    Digest, Entry, Fault, Identity, Kind, Moment, Name, Orders, Pack, PackFile, Packed, Relayed, Reply,
    Request, Verdict,
};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn identity(bytes: u64) -> Identity {
    Identity {
        bytes,
        modified: Moment { seconds: 1_700_000_000, nanos: 7 },
        changed: Moment { seconds: -3, nanos: 999_999_999 },
        device: 0x0800_0000_0001,
        inode: 42,
    }
}

pub(crate) fn entry(text: &str, kind: Kind) -> Entry {
    let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
    Entry { name: name(text), mode: 0o644, identity: identity(5), xattrs, kind }
}

fn entries() -> Vec<Entry> {
    vec![
        entry("d", Kind::Directory),
        entry("d/f", Kind::File { links: 2, sparse: true }),
        entry("d/l", Kind::Link { target: b"../x".to_vec() }),
    ]
}

pub(crate) fn requests() -> Vec<Request> {
    let file = PackFile { name: name("d/f"), identity: identity(1 << 30) };
    let small = PackFile { name: name("s"), identity: identity(10) };
    let digest = Digest([0xAB; 32]);
    let orders = Orders {
        checksum: true,
        dry_run: false,
        delete: true,
        streams: 4,
        bytes_per_second: 1 << 20,
        include: vec!["*.rs".to_owned()],
        exclude: vec!["target".to_owned()],
    };
    vec![
        Request::List { folder: Name::ROOT, after: b"a".to_vec() },
        Request::Stat { name: name("d") },
        Request::Map { file: file.clone(), from: 9 },
        Request::Read { file, offset: 1 << 20, bytes: 1 << 20 },
        Request::ReadPack { files: vec![small.clone(), small] },
        Request::Digest { name: name("d/f") },
        Request::Offer { entries: entries(), checksum: true, dry_run: false },
        Request::Open { entry: entries().remove(1) },
        Request::Held { name: name("d/f"), from: 3 },
        Request::Write { name: name("d/f"), source: 6, block: 3, digest },
        Request::WritePack { packs: vec![Pack { entry: entries().remove(1), digest }] },
        Request::Publish { name: name("d/f"), blocks: 4, root: digest },
        Request::Abandon { name: name("d/f") },
        Request::Link { name: name("e"), existing: name("d/f") },
        Request::Settle { entries: entries() },
        Request::Remove { names: vec![name("x"), name("y")] },
        Request::Sync { folder: name("d") },
        Request::Relay {
            id: 77,
            sources: vec![(name("d"), true)],
            address: "127.0.0.1:9470".to_owned(),
            target: name("to"),
            into: true,
            orders,
        },
        Request::Relayed { id: 77 },
    ]
}

pub(crate) fn replies() -> Vec<Reply> {
    let digest = Digest([0xCD; 32]);
    let failure = || (Fault::Changed, "it changed".to_owned());
    let (fault, text) = failure();
    let relayed = Relayed {
        ended: true,
        entries: 1,
        files_total: 2,
        files: 3,
        bytes_total: 4,
        bytes: 5,
        same: 6,
        removed: 7,
        skipped: 8,
        bytes_resumed: 9,
        failed: 10,
        failures: vec!["no".to_owned()],
        limit: "link".to_owned(),
    };
    vec![
        Reply::Listed {
            entries: entries(),
            skipped: 2,
            failures: vec!["x".to_owned()],
            next: Some(b"l".to_vec()),
        },
        Reply::Status { entry: entries().remove(0) },
        Reply::Mapped { ranges: vec![(0, 4096), (1 << 20, 1)], next: Some(1 << 21) },
        Reply::Read { digest },
        Reply::Packed {
            files: vec![Packed::Bytes { bytes: 3, digest }, Packed::Failed { fault, text: text.clone() }],
        },
        Reply::DigestIs { bytes: 9, root: digest },
        Reply::Offered {
            verdicts: vec![
                Verdict::Same,
                Verdict::Made,
                Verdict::Wanted,
                Verdict::Compare,
                Verdict::Refused { fault, text: text.clone() },
            ],
        },
        Reply::Holds { blocks: vec![(0, digest), (9, digest)], next: Some(10) },
        Reply::Each { failed: vec![(1, fault, text.clone())] },
        Reply::Done,
        Reply::Relayed(relayed),
        Reply::Failed { fault, text },
    ]
}

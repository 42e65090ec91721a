//! Hosts and drivers against others that lie.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;

use nova_device::{Handler, Incoming, Listener as _, Served, Shard as _};
use nova_shard::{RealShard, ShardOptions};
use nova_units::{BootId, NodeId, TaskClass};
use novabulk_files::{
    Digest, Entry, Fault, Identity, Kind, Name, Orders, Pack, Reply, Request, Verdict, part_name, root_of,
};
use novabulk_link::{LinkOptions, LocalIdentity};

use crate::host::{Host, HostOptions, Service};
use novabulk_tls::TlsConfig;

use crate::{CopyError, Door, End, Folder, Job, Source, Tally, copy};

fn on_a_shard<T>(main: impl AsyncFnOnce(RealShard) -> T) -> T {
    nova_shard::run(ShardOptions::default(), main).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn file(text: &str, bytes: u64) -> Entry {
    Entry {
        name: name(text),
        mode: 0o600,
        identity: Identity { bytes, inode: 3, ..Identity::default() },
        xattrs: vec![],
        kind: Kind::File { links: 1, sparse: false },
    }
}

/// Shows the certificate that tests of TLS have.
fn door() -> Door {
    let read =
        |name: &str| std::fs::read(format!("{}/../tls/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let certificates = TlsConfig::from_pem(&read("ca.pem"), &read("one.pem"), &read("one.key")).unwrap();
    Door::new(certificates).unwrap()
}

fn host_of(shard: &RealShard, folder: &Path, options: HostOptions) -> Rc<Host> {
    Host::new(shard.clone(), Folder::open(folder).unwrap(), options, Some(door()))
}

async fn asked(host: &Rc<Host>, request: Request, body: Option<&[u8]>) -> Result<Reply, Fault> {
    let body = match body {
        None => None,
        Some(bytes) => {
            let mut room = host.shard().pool().take(bytes.len()).await;
            room.copy_from_slice(bytes);
            Some(room.freeze())
        }
    };
    match host.answer(request, body).await.reply {
        Reply::Failed { fault, .. } => Err(fault),
        reply => Ok(reply),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn blocks_past_the_end_of_another_length_or_digest_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    on_a_shard(async |shard| {
        let host = host_of(&shard, folder.path(), HostOptions::default());
        let source = file("a", 5).identity.tag();
        let write = |block, bytes: &[u8]| {
            let digest = Digest::of(bytes);
            Request::Write { name: name("a"), source, block, digest }
        };
        assert_eq!(asked(&host, write(0, b"x"), Some(b"x")).await, Err(Fault::NotOpen));
        asked(&host, Request::Open { entry: file("a", 5) }, None).await.unwrap();
        for (block, bytes) in [(1, b"x".as_slice()), (u32::MAX, b"x"), (0, b"four"), (0, b"sixsix")] {
            assert_eq!(asked(&host, write(block, bytes), Some(bytes)).await, Err(Fault::Invalid), "{block}");
        }
        assert_eq!(asked(&host, write(0, b"other"), Some(b"bytes")).await, Err(Fault::Corrupt));
        assert_eq!(asked(&host, write(0, b"bytes"), None).await, Err(Fault::Invalid));
        let late =
            Request::Write { name: name("a"), source: source + 1, block: 0, digest: Digest::of(b"bytes") };
        assert_eq!(
            asked(&host, late, Some(b"bytes")).await,
            Err(Fault::NotOpen),
            "of what the file was before"
        );
        let publish = |blocks, root| Request::Publish { name: name("a"), blocks, root };
        let root = root_of(5, [(0, Digest::of(b"bytes"))]);
        assert_eq!(asked(&host, publish(1, root), None).await, Err(Fault::Missing));
        assert_eq!(asked(&host, write(0, b"bytes"), Some(b"bytes")).await, Ok(Reply::Done));
        assert_eq!(
            asked(&host, write(0, b"bytes"), Some(b"bytes")).await,
            Ok(Reply::Done),
            "a repeat is fine"
        );
        assert!(!folder.path().join("a").exists(), "a file has its name when it is whole");
        assert_eq!(asked(&host, publish(1, root), None).await, Ok(Reply::Done));
        assert_eq!(asked(&host, publish(1, root), None).await, Err(Fault::NotOpen));
        let again = asked(&host, Request::Open { entry: file("a", 5) }, None).await;
        assert_eq!(again, Ok(Reply::Done), "whose answer was lost learns that it is published");
    });
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"bytes");
    assert_eq!(names(folder.path()), ["a"]);
}

#[test]
fn a_file_with_another_root_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    on_a_shard(async |shard| {
        let host = host_of(&shard, folder.path(), HostOptions::default());
        asked(&host, Request::Open { entry: file("a", 1) }, None).await.unwrap();
        let write = Request::Write {
            name: name("a"),
            source: file("a", 1).identity.tag(),
            block: 0,
            digest: Digest::of(b"x"),
        };
        asked(&host, write, Some(b"x")).await.unwrap();
        let publish = Request::Publish { name: name("a"), blocks: 1, root: Digest::default() };
        assert_eq!(asked(&host, publish, None).await, Err(Fault::Corrupt));
    });
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn names_of_temporary_files_long_files_and_packs_of_another_length_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    on_a_shard(async |shard| {
        let options = HostOptions { file_bytes_max: 10, ..HostOptions::default() };
        let host = host_of(&shard, folder.path(), options);
        let part = file(&part_name(&name("a"), &Identity::default()), 1);
        assert_eq!(asked(&host, Request::Open { entry: part.clone() }, None).await, Err(Fault::Invalid));
        assert_eq!(asked(&host, Request::Open { entry: file("a", 11) }, None).await, Err(Fault::NoRoom));
        let offer = Request::Offer { entries: vec![part, file("a", 11)], checksum: false, dry_run: false };
        let Ok(Reply::Offered { verdicts }) = asked(&host, offer, None).await else { panic!("verdicts") };
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Refused { .. })), "{verdicts:?}");
        let pack =
            || Request::WritePack { packs: vec![Pack { entry: file("a", 3), digest: Digest::of(b"abc") }] };
        assert_eq!(asked(&host, pack(), Some(b"abcd")).await, Err(Fault::Invalid));
        assert_eq!(asked(&host, pack(), None).await, Err(Fault::Invalid));
        let Ok(Reply::Each { failed }) = asked(&host, pack(), Some(b"abd")).await else { panic!("failures") };
        assert_eq!(failed[0].1, Fault::Corrupt);
    });
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_link_in_the_way_is_never_followed() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), folder.path().join("way")).unwrap();
    fs::write(outside.path().join("kept"), b"k").unwrap();
    on_a_shard(async |shard| {
        let host = host_of(&shard, folder.path(), HostOptions::default());
        let list = Request::List { folder: name("way"), after: vec![] };
        assert!(asked(&host, list, None).await.is_err());
        assert!(asked(&host, Request::Open { entry: file("way/a", 1) }, None).await.is_err());
        let pack = Pack { entry: file("way/a", 1), digest: Digest::of(b"x") };
        let Ok(Reply::Each { failed }) =
            asked(&host, Request::WritePack { packs: vec![pack] }, Some(b"x")).await
        else {
            panic!("failures")
        };
        assert_eq!(failed.len(), 1);
        let Ok(Reply::Each { failed }) =
            asked(&host, Request::Remove { names: vec![name("way/kept")] }, None).await
        else {
            panic!("failures")
        };
        assert_eq!(failed.len(), 1);
        let removed = asked(&host, Request::Remove { names: vec![name("way")] }, None).await;
        assert_eq!(removed, Ok(Reply::Each { failed: vec![] }), "the link itself may go");
    });
    assert_eq!(names(outside.path()), ["kept"]);
}

#[test]
fn what_was_flushed_is_there_for_the_next_host_and_a_torn_ledger_costs_its_end() {
    const MIB: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let entry = file("a", 3 << 20);
    let block = vec![7; MIB];
    on_a_shard(async |shard| {
        let host = host_of(&shard, folder.path(), HostOptions::default());
        asked(&host, Request::Open { entry: entry.clone() }, None).await.unwrap();
        for index in [2, 0] {
            let write = Request::Write {
                name: name("a"),
                source: entry.identity.tag(),
                block: index,
                digest: Digest::of(&block),
            };
            asked(&host, write, Some(&block)).await.unwrap();
        }
        host.flush_all().await;
    });
    let ledger = folder.path().join(format!("{}.ledger", part_name(&name("a"), &entry.identity)));
    let held_after = |cut: u64| {
        let whole = fs::read(&ledger).unwrap();
        fs::write(&ledger, &whole[..whole.len() - usize::try_from(cut).unwrap()]).unwrap();
        on_a_shard(async |shard| {
            let host = host_of(&shard, folder.path(), HostOptions::default());
            let held = asked(&host, Request::Open { entry: entry.clone() }, None).await;
            let Ok(Reply::Holds { blocks, next: None }) = held else { panic!("{held:?}") };
            blocks.into_iter().map(|(block, _)| block).collect::<Vec<_>>()
        })
    };
    assert_eq!(held_after(0), [0, 2]);
    assert_eq!(held_after(1), [0], "records stand in the order of blocks, and the last is torn");
    assert_eq!(held_after(41), [0; 0], "and now the header too");
}

/// A host between the driver and a real one that changes what it says.
struct Liar<F: Fn(&Request, &mut Reply, &mut Option<Vec<u8>>) + 'static> {
    real: Service,
    lie: F,
}

impl<F: Fn(&Request, &mut Reply, &mut Option<Vec<u8>>) + 'static> Handler for Liar<F> {
    async fn serve(&self, from: NodeId, incoming: Incoming) -> Served {
        let request = Request::decode(&incoming.head).unwrap();
        let served = self.real.serve(from, incoming).await;
        let (mut reply, disk) = Reply::decode(&served.head).unwrap();
        let mut body = served.body.map(|body| body.to_vec());
        (self.lie)(&request, &mut reply, &mut body);
        let body = match body {
            None => None,
            Some(bytes) => {
                let mut room = self.real.0.shard().pool().take(bytes.len()).await;
                room.copy_from_slice(&bytes);
                Some(room.freeze())
            }
        };
        Served { head: reply.encode(disk), body }
    }
}

/// Pulls a folder `d` with a file `f` of 2 MiB from a host that lies.
fn pull_from(
    lie: impl Fn(&Request, &mut Reply, &mut Option<Vec<u8>>) + 'static,
) -> (Result<(), CopyError>, crate::Counts, Vec<String>, Vec<String>) {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), vec![9; 2 << 20]).unwrap();
    let (done, counts, failures) = on_a_shard(async |shard| {
        let real = Service(host_of(&shard, from.path(), HostOptions::default()));
        let listener = shard.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().0;
        let local = LocalIdentity { node: NodeId(u64::from_be_bytes(*b"novabulk")), boot: BootId(1) };
        let link = door().made(&shard, local, LinkOptions::default());
        let liar = Rc::new(Liar { real, lie });
        shard.spawn(TaskClass::Client, async move {
            while let Ok((lane, from)) = listener.accept().await {
                link.accept(lane, from, Rc::clone(&liar));
            }
        });
        let source = door().dial(&shard, address, 1);
        let target = End::Here(host_of(&shard, to.path(), HostOptions::default()));
        let job = Job {
            sources: vec![Source { name: name("d"), content: false }],
            target: Name::ROOT,
            into: true,
            orders: Orders { streams: 1, ..Orders::default() },
        };
        let tally = Rc::new(Tally::new(&shard));
        let done = copy(&shard, &source, &target, &job, &tally).await;
        (done, tally.counts(), tally.failures())
    });
    let there = if to.path().join("d").exists() { names(&to.path().join("d")) } else { vec![] };
    (done, counts, failures, there)
}

#[test]
fn a_block_that_arrives_damaged_is_asked_for_again_alone() {
    let damaged = Cell::new(0);
    let (done, counts, failures, there) = pull_from(move |request, _, body| {
        if let (Request::Read { offset: 0, .. }, Some(bytes)) = (request, body)
            && damaged.get() < 2
        {
            damaged.set(damaged.get() + 1);
            bytes[77] ^= 1;
        }
    });
    assert!(done.is_ok() && failures.is_empty(), "{done:?} {failures:?}");
    assert_eq!((counts.repaired, counts.files, counts.bytes), (2, 1, 2 << 20));
    assert_eq!(there, ["f"]);
}

#[test]
fn a_file_whose_blocks_are_always_damaged_fails_and_is_not_published() {
    let (done, counts, failures, there) = pull_from(|_, _, body| {
        if let Some(bytes) = body {
            bytes[0] ^= 1;
        }
    });
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((counts.failed, counts.files, counts.repaired > 3), (1, 0, true), "{counts:?}");
    assert!(failures[0].contains("damaged"), "{failures:?}");
    assert!(!there.contains(&"f".to_owned()));
}

#[test]
fn lists_that_lead_elsewhere_or_never_end_end_the_copy() {
    let elsewhere = |_: &Request, reply: &mut Reply, _: &mut Option<Vec<u8>>| {
        if let Reply::Listed { entries, .. } = reply {
            entries[0].name = Name::new("e/f").unwrap();
        }
    };
    let twice = |_: &Request, reply: &mut Reply, _: &mut Option<Vec<u8>>| {
        if let Reply::Listed { entries, .. } = reply {
            entries.push(entries[0].clone());
        }
    };
    let for_ever = |_: &Request, reply: &mut Reply, _: &mut Option<Vec<u8>>| {
        if let Reply::Listed { entries, next, .. } = reply {
            entries.clear();
            *next = Some(b"a".to_vec());
        }
    };
    for done in [pull_from(elsewhere).0, pull_from(twice).0, pull_from(for_ever).0] {
        assert!(matches!(done, Err(CopyError::Protocol { .. })), "{done:?}");
    }
}

#[test]
fn a_source_that_is_not_what_it_was_at_the_end_is_not_published() {
    let stats = RefCell::new(0);
    let (done, counts, failures, there) = pull_from(move |request, reply, _| {
        if let (Request::Stat { name }, Reply::Status { entry }) = (request, reply)
            && *name == Name::new("d/f").unwrap()
        {
            *stats.borrow_mut() += 1;
            entry.identity.changed.seconds += *stats.borrow();
        }
    });
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((counts.files, counts.failed), (0, 1), "{failures:?}");
    assert!(!there.contains(&"f".to_owned()));
}

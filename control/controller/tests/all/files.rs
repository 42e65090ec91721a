//! File metadata over the wire.

use std::time::Instant;

use nova_api::files as pb;
use nova_api::files::failure::Code;
use nova_api::files::files_client::FilesClient;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Told;

use crate::kit::{Host, Maps, Region};

/// A client that numbers its requests.
struct Client {
    id: u64,
    sequence: u64,
}

impl Client {
    async fn ask(&mut self, region: &Region, op: Ask) -> Told {
        self.sequence += 1;
        region.files(self.id, self.sequence, op).await.1
    }
}

fn code(told: &Told) -> Option<Code> {
    match told {
        Told::Failure(failure) => Some(failure.code()),
        _ => None,
    }
}

fn file(path: &str, block: u64, group: u32) -> pb::NewFile {
    let blocks = vec![pb::Block {
        block,
        group,
        bytes: 10,
        generation: 1,
        salt: vec![1; 16].into(),
        unit_log2: 16,
        key_domain: 1,
        key_version: 1,
        root: vec![2; 32].into(),
        ..pb::Block::default()
    }];
    let (mode, modified_ms, sha256) = (0o640, 77, vec![3; 32].into());
    pb::NewFile { path: path.into(), mode, modified_ms, bytes: 10, blocks, sha256, ..pb::NewFile::default() }
}

/// Three hosts whose groups take blocks; a session with 64 of them: session, first block, groups.
async fn session(region: &Region, client: &mut Client) -> (u64, u64, Vec<u32>) {
    let mut hosts = Vec::new();
    for number in 1..=3 {
        let mut host = Host::join(region, number, 100 + number).await;
        host.mount().await;
        hosts.push(host);
    }
    let mut maps = Maps::watch(region, "h1").await;
    maps.until_with(&mut hosts, "groups", |map| !map.groups.is_empty()).await;
    let opened = client.ask(region, Ask::OpenSession(pb::OpenSession { lease_ms: 60_000 })).await;
    let Told::SessionOpened(opened) = opened else { panic!("{opened:?}") };
    assert_eq!((opened.lease_ms, opened.era), (60_000, 1));
    let reserve = pb::ReserveBlocks { session: opened.session, count: 64, namespace: "hot".into() };
    // The controller that leads the files may not have heard of the groups yet.
    loop {
        let reserved = client.ask(region, Ask::ReserveBlocks(reserve.clone())).await;
        match reserved {
            Told::BlocksReserved(reserved) => return (opened.session, reserved.first_block, reserved.groups),
            other => assert_eq!(code(&other), Some(Code::NoGroups)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_listed_resolved_moved_and_removed_once() {
    let region = Region::start();
    let mut client = Client { id: 42, sequence: 0 };
    let (session, first, groups) = session(&region, &mut client).await;
    assert_eq!(groups.len(), 12);

    let group_of = |block: u64| groups[usize::try_from(block - first).unwrap() % groups.len()];
    let files = (0..20).map(|n| file(&format!("/hot/set/f{n:02}"), first + n, group_of(first + n))).collect();
    let publish = Ask::Publish(pb::Publish { session, files, make_parents: true, replace: false });
    let told = client.ask(&region, publish.clone()).await;
    let Told::Published(published) = &told else { panic!("{told:?}") };
    assert!(published.outcomes.iter().all(|outcome| outcome.failure.is_none() && outcome.inode > 0));
    let again = region.files(client.id, client.sequence, publish.clone()).await.1;
    assert_eq!(again, told, "the same request is answered as it was");
    let other = client.ask(&region, publish).await;
    let Told::Published(other) = other else { panic!("{other:?}") };
    assert!(
        other.outcomes.iter().all(|outcome| outcome.failure.is_some()),
        "another request finds the names taken"
    );

    let list = |after: &str, limit| {
        Ask::List(pb::List { path: "/hot/set".into(), after: after.into(), limit, ..pb::List::default() })
    };
    let Told::Listing(page) = client.ask(&region, list("", 15)).await else { panic!("a listing") };
    assert!(page.more && page.entries.len() == 15);
    let Told::Listing(rest) = client.ask(&region, list(&page.entries[14].name, 15)).await else {
        panic!("a listing")
    };
    assert!(!rest.more && rest.entries.len() == 5);

    let resolve = |path: &str| Ask::Resolve(pb::Resolve { path: path.into(), ..pb::Resolve::default() });
    let Told::Resolved(resolved) = client.ask(&region, resolve("/hot/set/f03")).await else {
        panic!("a file")
    };
    let expected = file("/hot/set/f03", first + 3, group_of(first + 3));
    let mut blocks = expected.blocks.clone();
    blocks[0].salt.clear();
    assert_eq!(resolved.blocks, blocks, "all but the salt, which is in the unit records");
    let entry = resolved.entry.unwrap();
    assert_eq!(
        (entry.bytes, entry.mode, entry.modified_ms, &entry.sha256),
        (10, 0o640, 77, &expected.sha256)
    );

    let rename =
        pb::Rename { source: "/hot/set".into(), target: "/warm/set".into(), ..pb::Rename::default() };
    assert_eq!(client.ask(&region, Ask::Rename(rename)).await, Told::Done(pb::Done {}));
    let by_inode = Ask::Resolve(pb::Resolve { inode: entry.inode, ..pb::Resolve::default() });
    assert!(matches!(client.ask(&region, by_inode).await, Told::Resolved(_)), "an inode stays");
    let usage = Ask::Usage(pb::Usage { path: "/warm".into(), ..pb::Usage::default() });
    let Told::Usage(usage) = client.ask(&region, usage).await else { panic!("a sum") };
    assert_eq!((usage.files, usage.directories, usage.bytes, usage.blocks), (20, 1, 200, 20));
    let remove = pb::Remove { path: "/warm/set".into(), recursive: true, ..pb::Remove::default() };
    assert_eq!(client.ask(&region, Ask::Remove(remove)).await, Told::Done(pb::Done {}));
    assert_eq!(code(&client.ask(&region, resolve("/warm/set/f03")).await), Some(Code::NotFound));

    let renew = Ask::RenewSession(pb::RenewSession { session });
    assert_eq!(client.ask(&region, renew.clone()).await, Told::Done(pb::Done {}));
    assert_eq!(
        client.ask(&region, Ask::CloseSession(pb::CloseSession { session })).await,
        Told::Done(pb::Done {})
    );
    assert_eq!(code(&client.ask(&region, renew).await), Some(Code::Fenced));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_written_linked_found_in_the_trash_and_brought_back() {
    let region = Region::start();
    let mut client = Client { id: 43, sequence: 0 };
    let (session, first, groups) = session(&region, &mut client).await;
    let hot = Ask::Stat(pb::Stat { path: "/hot".into(), ..pb::Stat::default() });
    let Told::Entry(hot) = client.ask(&region, hot).await else { panic!("an entry") };
    let policy = hot.space.expect("a namespace shows its policy");
    assert_eq!((policy.replicas, policy.unit_log2, policy.undelete_ms), (3, 16, 24 * 3600 * 1000));

    let open = pb::OpenFile {
        session,
        base: hot.inode,
        path: "f".into(),
        create: true,
        mode: 0o600,
        uid: 7,
        ..pb::OpenFile::default()
    };
    let Told::FileOpened(opened) = client.ask(&region, Ask::OpenFile(open.clone())).await else {
        panic!("a file")
    };
    let entry = opened.file.unwrap().entry.unwrap();
    assert!(opened.created && opened.generation == 1);
    assert_eq!((entry.name.as_str(), entry.uid, entry.links), ("f", 7, 1));
    let block = pb::Block { root: Default::default(), ..file("", first, groups[0]).blocks[0].clone() };
    let commit = pb::CommitFile {
        session,
        inode: entry.inode,
        bytes: 10,
        blocks: vec![block],
        modified_ns: 1_500_000_001,
        ..pb::CommitFile::default()
    };
    let Told::Entry(entry) = client.ask(&region, Ask::CommitFile(commit)).await else { panic!("an entry") };
    assert_eq!(
        (entry.bytes, entry.blocks, entry.modified_ns, entry.modified_ms),
        (10, 1, 1_500_000_001, 1500)
    );
    let truncate = pb::Truncate { session, inode: entry.inode, bytes: 4 };
    let Told::Resolved(cut) = client.ask(&region, Ask::Truncate(truncate)).await else { panic!("a file") };
    assert!(cut.blocks[0].bytes == 4 && cut.blocks[0].trim_pending && cut.blocks[0].sparse);
    let close = pb::CloseFile { session, inode: entry.inode };
    assert_eq!(client.ask(&region, Ask::CloseFile(close)).await, Told::Done(pb::Done {}));

    let link = pb::Link { source_base: entry.inode, target: "/warm/g".into(), ..pb::Link::default() };
    let Told::Entry(linked) = client.ask(&region, Ask::Link(link)).await else { panic!("an entry") };
    assert_eq!((linked.name.as_str(), linked.links, linked.inode), ("g", 2, entry.inode));
    let set = pb::SetXattr {
        base: entry.inode,
        name: "user.a".into(),
        value: vec![1, 2].into(),
        ..pb::SetXattr::default()
    };
    assert_eq!(client.ask(&region, Ask::SetXattr(set)).await, Told::Done(pb::Done {}));
    let ask = Ask::Xattrs(pb::Xattrs { path: "/warm/g".into(), ..pb::Xattrs::default() });
    let Told::XattrList(list) = client.ask(&region, ask).await else { panic!("attributes") };
    assert_eq!((list.xattrs[0].name.as_str(), list.xattrs[0].value.as_ref()), ("user.a", &[1, 2][..]));
    let list = pb::List { base: hot.inode, by_cookie: true, with_blocks: true, ..pb::List::default() };
    let Told::Listing(page) = client.ask(&region, Ask::List(list)).await else { panic!("a listing") };
    assert_eq!((page.entries.len(), page.maps.len(), page.maps[0].blocks.len()), (1, 1, 1));

    for path in ["/warm/g", "/hot/f"] {
        let remove = pb::Remove { path: path.into(), ..pb::Remove::default() };
        assert_eq!(client.ask(&region, Ask::Remove(remove)).await, Told::Done(pb::Done {}));
    }
    let stale = pb::Stat { base: 9999, ..pb::Stat::default() };
    assert_eq!(code(&client.ask(&region, Ask::Stat(stale)).await), Some(Code::Stale));
    let trash = Ask::ListTrash(pb::ListTrash { namespace: "hot".into(), ..pb::ListTrash::default() });
    let Told::Trash(trash) = client.ask(&region, trash).await else { panic!("the trash") };
    assert_eq!((trash.entries.len(), trash.entries[0].path.as_str()), (1, "/hot/f"));
    let undelete = pb::Undelete { id: trash.entries[0].id, target: "/cold/f".into() };
    assert_eq!(client.ask(&region, Ask::Undelete(undelete)).await, Told::Done(pb::Done {}));
    let back = pb::Stat { base: entry.inode, with_path: true, ..pb::Stat::default() };
    let Told::Entry(back) = client.ask(&region, Ask::Stat(back)).await else { panic!("an entry") };
    assert_eq!((back.path.as_str(), back.links, back.bytes), ("/cold/f", 1, 4));
    let statfs = Ask::Statfs(pb::Statfs { path: "/cold".into(), ..pb::Statfs::default() });
    let Told::Statfs(room) = client.ask(&region, statfs).await else { panic!("room") };
    assert!(room.bytes_total > 0 && room.bytes_free <= room.bytes_total && room.name_bytes_max == 255);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_nothing_and_a_retry_is_applied_once() {
    let mut region = Region::start();
    let make = |name: u64, parents| {
        Ask::MakeDirectory(pb::MakeDirectory {
            path: format!("/hot/d{name}"),
            mode: 0o700,
            parents,
            ..pb::MakeDirectory::default()
        })
    };
    let mut leader = 0;
    for number in 1..=10 {
        let (told_by, told) = region.files(7, number, make(number, false)).await;
        assert_eq!(told, Told::Done(pb::Done {}));
        leader = told_by;
    }
    region.kill(leader);
    let killed = Instant::now();
    // Asked before, answered again from the table that the new leader has too.
    assert_eq!(region.files(7, 10, make(10, false)).await.1, Told::Done(pb::Done {}));
    eprintln!("file metadata answers {:?} after its leader was killed", killed.elapsed());
    assert_eq!(region.files(7, 11, make(11, false)).await.1, Told::Done(pb::Done {}));
    let list = Ask::List(pb::List { path: "/hot".into(), ..pb::List::default() });
    let Told::Listing(page) = region.files(0, 0, list).await.1 else { panic!("a listing") };
    assert_eq!(page.entries.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_write_at_once_and_a_follower_names_the_leader() {
    const CLIENTS: u64 = 64;
    let region = Region::start();
    let stat = Ask::Stat(pb::Stat { path: "/hot".into(), ..pb::Stat::default() });
    let (leader, _) = region.files(0, 0, stat.clone()).await;
    let channel = region.channel(leader, "h1");
    let writes = (1..=CLIENTS).map(|client| {
        let mut files = FilesClient::new(channel.clone());
        tokio::spawn(async move {
            for sequence in 1..=10 {
                let path = format!("/scratch/c{client}/d{sequence}");
                let make = Ask::MakeDirectory(pb::MakeDirectory {
                    path,
                    parents: true,
                    ..pb::MakeDirectory::default()
                });
                let told =
                    files.execute(pb::Request { client, sequence, op: Some(make) }).await?.into_inner();
                assert_eq!(told.result, Some(Told::Done(pb::Done {})));
            }
            Ok::<_, tonic::Status>(())
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let usage = Ask::Usage(pb::Usage { path: "/scratch".into(), ..pb::Usage::default() });
    let Told::Usage(usage) = region.files(0, 0, usage).await.1 else { panic!("a sum") };
    assert_eq!(usage.directories, CLIENTS * 11);
    let applied = region.status().await.raft.iter().find(|group| group.name == "files").unwrap().applied;
    eprintln!("640 writes of 64 clients made {applied} log entries");
    assert!(applied < CLIENTS * 10, "requests that wait together share an entry");

    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let mut files = FilesClient::new(region.channel(follower, "h1"));
    let refused = files.execute(pb::Request { client: 0, sequence: 0, op: Some(stat) }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(refused.metadata().get("nova-leader").unwrap().to_str().unwrap(), region.members[&leader]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_wants_no_more_copies_than_hosts_and_its_blocks_go_to_groups_of_its_count() {
    let region = Region::start();
    let mut client = Client { id: 77, sequence: 0 };
    let mut hosts = Vec::new();
    for number in 1..=3 {
        let mut host = Host::join(&region, number, 100 + number).await;
        host.mount().await;
        host.heartbeat().await;
        hosts.push(host);
    }
    let mut maps = Maps::watch(&region, "h1").await;
    maps.until_with(&mut hosts, "groups", |map| map.groups.len() == 12).await;
    let opened = client.ask(&region, Ask::OpenSession(pb::OpenSession { lease_ms: 60_000 })).await;
    let Told::SessionOpened(opened) = opened else { panic!("{opened:?}") };
    let set = |replicas| {
        let name = "hot".into();
        Ask::SetSpace(pb::SetSpace { name, replicas: Some(replicas), ..pb::SetSpace::default() })
    };
    for (replicas, reason) in [(1, "2 to 5 copies"), (6, "2 to 5 copies"), (4, "add hosts first")] {
        let told = client.ask(&region, set(replicas)).await;
        let Told::Failure(refused) = told else { panic!("{replicas}: {told:?}") };
        assert!(refused.code() == Code::Invalid && refused.message.contains(reason), "{refused:?}");
    }
    // The controller that leads the files may not have heard of all hosts yet.
    while code(&client.ask(&region, set(2)).await).is_some() {}
    let reserve = pb::ReserveBlocks { session: opened.session, count: 12, namespace: "hot".into() };
    let reserved = loop {
        for host in &mut hosts {
            host.heartbeat().await;
        }
        match client.ask(&region, Ask::ReserveBlocks(reserve.clone())).await {
            Told::BlocksReserved(reserved) => break reserved,
            other => assert_eq!(code(&other), Some(Code::NoGroups)),
        }
    };
    let map = maps.until_with(&mut hosts, "groups of two", |map| map.groups.len() == 24).await;
    let of_two = map.groups.iter().filter(|group| group.replicas == 2 && group.members.len() == 2);
    let mut groups = reserved.groups;
    groups.sort_unstable();
    assert_eq!(groups, of_two.map(|group| group.group).collect::<Vec<_>>());
    let other = pb::ReserveBlocks { namespace: "warm".into(), ..reserve };
    let told = client.ask(&region, Ask::ReserveBlocks(other)).await;
    let Told::BlocksReserved(reserved) = told else { panic!("{told:?}") };
    assert!(reserved.groups.iter().all(|group| !groups.contains(group)), "{reserved:?}");
}

//! Orphans leave the groups and then the metadata, and a check finds what does not agree. The hosts are played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nova_api::cluster as cluster_pb;
use nova_api::cluster::check_finding::Kind;
use nova_api::cluster::check_reply::Reply;
use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::host_order::Order;
use nova_api::cluster::host_report::Report;
use nova_api::files as pb;
use nova_api::files::files_client::FilesClient;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Told;

use crate::kit::{Host, Maps, Region, wait};

/// Blocks by group: what every member of it holds.
type Held = Arc<Mutex<BTreeMap<u32, BTreeSet<u64>>>>;

/// Heartbeats, and answers orders about blocks as a data plane that holds `held`. Every third order to delete is lost.
fn serve(mut host: Host, held: Held) {
    tokio::spawn(async move {
        let mut beats = tokio::time::interval(Duration::from_millis(300));
        let mut deletes = 0;
        loop {
            let order = tokio::select! {
                _ = beats.tick() => {
                    host.heartbeat().await;
                    continue;
                }
                order = host.order() => order,
            };
            // The region ends with the test.
            let Ok(order) = order else { return };
            let report = match order.order {
                Some(Order::DeleteBlocks(delete)) => {
                    deletes += 1;
                    if deletes % 3 == 1 {
                        continue;
                    }
                    let mut held = held.lock().unwrap();
                    let of_group = held.entry(delete.group).or_default();
                    let before = of_group.len();
                    let named = |block: &u64| {
                        delete
                            .runs
                            .iter()
                            .any(|run| (run.first..run.first + u64::from(run.count)).contains(block))
                    };
                    of_group.retain(|block| !named(block));
                    let deleted = (before - of_group.len()) as u64;
                    let (group, runs) = (delete.group, delete.runs);
                    Report::BlocksDeleted(cluster_pb::BlocksDeleted {
                        group,
                        runs,
                        deleted,
                        bytes: 4096 * deleted,
                    })
                }
                Some(Order::ListBlocks(list)) => {
                    let held = held.lock().unwrap();
                    let all = held.get(&list.group).into_iter().flatten().copied();
                    let mut blocks: Vec<u64> = all.filter(|block| *block >= list.from).collect();
                    // Pages of one, so that a list has several.
                    let more = blocks.len() > 1;
                    blocks.truncate(1);
                    Report::BlocksHeld(cluster_pb::BlocksHeld { request: list.request, blocks, more })
                }
                _ => continue,
            };
            host.report(report).await;
        }
    });
}

async fn check(region: &Region) -> (Vec<(Kind, u32, u64, u64)>, cluster_pb::CheckSummary) {
    let ask = |id| async move {
        let mut client = ClusterClient::new(region.channel(id, "ann"));
        client.check(cluster_pb::CheckRequest {}).await.map(tonic::Response::into_inner)
    };
    let mut replies = region.ask(ask).await.1;
    let mut findings = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        match reply.reply.unwrap() {
            Reply::Progress(_) => {}
            Reply::Finding(found) => findings.push((found.kind(), found.group, found.block, found.inode)),
            Reply::Summary(summary) => return (findings, summary),
        }
    }
    panic!("no summary came");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_deleted_in_their_groups_then_forgotten_and_a_check_tells_what_differs() {
    let region = Region::start();
    let held = Held::default();
    for number in 1..=3 {
        let mut host = Host::join(&region, number, 100 + number).await;
        host.mount().await;
        serve(host, Arc::clone(&held));
    }
    Maps::watch(&region, "h1").await.until("groups", |map| map.groups.len() == 12).await;
    let mut sequence = 0;
    let mut ask = async |op: Ask| {
        sequence += 1;
        region.files(42, sequence, op).await.1
    };
    let Told::SessionOpened(session) = ask(Ask::OpenSession(pb::OpenSession { lease_ms: 60_000 })).await
    else {
        panic!("a session")
    };
    let session = session.session;
    let reserved = loop {
        let reserve = pb::ReserveBlocks { session, count: 40, namespace: "hot".into() };
        // The controller that leads the files may not have heard of the groups yet.
        if let Told::BlocksReserved(reserved) = ask(Ask::ReserveBlocks(reserve)).await {
            break reserved;
        }
    };
    let (first, group) = (reserved.first_block, reserved.groups[0]);
    let block = |block| pb::Block {
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
    };
    let file = |path: &str, id| pb::NewFile {
        path: path.into(),
        mode: 0o640,
        modified_ms: 77,
        bytes: 10,
        blocks: vec![block(id)],
        sha256: vec![3; 32].into(),
        ..pb::NewFile::default()
    };
    let files = vec![file("/hot/kept", first), file("/hot/gone", first + 1)];
    let publish = Ask::Publish(pb::Publish { session, files, make_parents: false, replace: false });
    assert!(matches!(ask(publish).await, Told::Published(_)));
    // Written and never published: three more, one of them in another group.
    held.lock().unwrap().entry(group).or_default().extend(first..first + 4);
    held.lock().unwrap().entry(reserved.groups[1]).or_default().insert(first + 9);
    let (findings, summary) = check(&region).await;
    assert_eq!(findings, [], "what is reserved may be there");
    assert_eq!((summary.blocks_referenced, summary.blocks_reserved, summary.members), (2, 38, 36));
    assert_eq!(summary.blocks_held, 3 * 5);

    let remove = pb::Remove { path: "/hot/gone".into(), ..pb::Remove::default() };
    assert_eq!(ask(Ask::Remove(remove)).await, Told::Done(pb::Done {}));
    assert_eq!(ask(Ask::PurgeTrash(pb::PurgeTrash { id: 0 })).await, Told::Done(pb::Done {}));
    assert_eq!(ask(Ask::CloseSession(pb::CloseSession { session })).await, Told::Done(pb::Done {}));
    let collection = wait("the orphans to be collected", || async {
        let collection = region.status().await.collection.unwrap();
        (collection.blocks_waiting == 0 && collection.blocks == 4).then_some(collection)
    })
    .await;
    assert_eq!(collection.bytes, 4 * 4096);
    assert_eq!(held.lock().unwrap()[&group], [first].into(), "the file that was kept has its block");
    let (findings, summary) = check(&region).await;
    assert_eq!((findings.len(), summary.blocks_held, summary.blocks_waiting), (0, 3, 0));

    // A late write of the ended session, and a block that is lost.
    held.lock().unwrap().insert(group, [first + 2].into());
    let (mut findings, summary) = check(&region).await;
    findings.sort_unstable_by_key(|(kind, ..)| i32::from(*kind));
    let kinds: Vec<_> = findings.iter().map(|(kind, _, block, inode)| (*kind, *block, *inode != 0)).collect();
    let expected = [(Kind::Missing, first, true), (Kind::Unknown, first + 2, false)];
    assert_eq!(kinds, expected.map(|found| [found; 3]).concat());
    assert!(findings.iter().all(|(_, of, ..)| *of == group));
    assert_eq!(summary.findings, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_not_say_what_was_collected() {
    let region = Region::start();
    let stat = Ask::Stat(pb::Stat { path: "/hot".into(), ..pb::Stat::default() });
    let (leader, _) = region.files(0, 0, stat).await;
    let collected = Ask::Collected(pb::Collected { first_blocks: vec![1], ..pb::Collected::default() });
    let request = pb::Request { client: 0, sequence: 0, op: Some(collected) };
    for name in ["h1", "ann"] {
        let mut files = FilesClient::new(region.channel(leader, name));
        let refused = files.execute(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{name}");
    }
}

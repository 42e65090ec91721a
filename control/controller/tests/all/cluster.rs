//! Hosts register, report and are told the map.

use std::time::{Duration, Instant};

use nova_api::cluster as pb;
use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::host_report::Report;
use nova_api::cluster::member::Role as MemberRole;
use tonic::Code;

use crate::kit::{Host, Maps, Region, wait};

/// Three hosts with empty devices, and the map with their groups.
async fn with_groups(region: &Region) -> (Vec<Host>, Maps, pb::ClusterMap) {
    let mut hosts = Vec::new();
    for number in 1..=3 {
        let mut host = Host::join(region, number, 100 + number).await;
        assert!(host.mount().await, "a new device starts empty");
        hosts.push(host);
    }
    // Hosts that are heard get groups.
    let mut maps = Maps::watch(region, "h1").await;
    let map = maps.until_with(&mut hosts, "12 groups", |map| map.groups.len() == 12).await;
    (hosts, maps, map)
}

fn in_sync(group: &pb::Group) -> Vec<u64> {
    let counts = |member: &&pb::Member| member.role() == MemberRole::InSync;
    group.members.iter().filter(counts).map(|member| member.node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_made_a_silent_host_leaves_within_a_second_and_joins_again() {
    let region = Region::start();
    let status = region.status().await;
    assert!(status.notes.iter().any(|note| note.contains("0 of 3 storage hosts")), "{:?}", status.notes);

    let (mut hosts, mut maps, map) = with_groups(&region).await;
    assert!(map.groups.iter().all(|group| in_sync(group).len() == 3 && group.epoch == 1 && !group.frozen));
    for host in &hosts {
        let node = map.nodes.iter().find(|node| node.node == host.id).unwrap();
        let lives: Vec<u64> = node.devices.iter().map(|device| device.incarnation).collect();
        assert_eq!((node.boot, lives), (host.boot, vec![host.incarnation]));
        assert_eq!(map.groups.iter().filter(|group| group.primary == host.id).count(), 4);
    }
    let beat = hosts[0].heartbeat().await;
    assert_eq!(hosts[0].acknowledged(beat).await, 25_000, "an acknowledged heartbeat carries the lease");

    let lost = hosts[1].id;
    let silence = pb::Silence { silent: vec![lost], ..pb::Silence::default() };
    let reported = Instant::now();
    hosts[0].report(Report::Silence(silence.clone())).await;
    hosts[2].report(Report::Silence(silence)).await;
    let map = maps.until("the silent host to leave", |map| {
        map.groups.iter().all(|group| group.members.iter().all(|member| member.node != lost))
    });
    let map = map.await;
    let took = reported.elapsed();
    assert!(took < Duration::from_secs(1), "the drop took {took:?}");
    eprintln!("a silent host left 12 groups {took:?} after the first report");
    assert!(
        map.groups.iter().all(|group| group.epoch == 2 && in_sync(group).len() == 2 && group.primary != lost)
    );

    // It comes back under another start, with what it had.
    hosts[1].boot += 1000;
    hosts[1].attend(&region).await;
    assert!(!hosts[1].mount().await, "its device still has its life");
    for host in &mut hosts {
        host.heartbeat().await;
    }
    let joining = |group: &pb::Group| {
        group.members.iter().any(|member| member.node == lost && member.role() == MemberRole::Joining)
    };
    let map = maps.until("it to join", |map| map.groups.iter().all(joining)).await;
    for group in &map.groups {
        let ready = pb::JoinReady { group: group.group, epoch: group.epoch, node: lost };
        let primary = hosts.iter_mut().find(|host| host.id == group.primary).unwrap();
        primary.report(Report::JoinReady(ready)).await;
    }
    let whole = |map: &pb::ClusterMap| map.groups.iter().all(|group| in_sync(group).len() == 3);
    maps.until("it to be in sync", whole).await;

    // What was said of its earlier start comes late, and then what is true of another host.
    let silence = |silent: u64, boot: u64| {
        let (silent, silent_boots) = (vec![silent], vec![boot]);
        Report::Silence(pb::Silence { silent, silent_boots, ..pb::Silence::default() })
    };
    let (earlier, third, third_boot) = (hosts[1].boot - 1000, hosts[2].id, hosts[2].boot);
    hosts[0].report(silence(lost, earlier)).await;
    hosts[0].report(silence(third, third_boot)).await;
    let without_third =
        |map: &pb::ClusterMap| map.groups.iter().all(|group| !in_sync(group).contains(&third));
    let map = maps.until("the third host to leave", without_third).await;
    assert!(map.groups.iter().all(|group| in_sync(group).contains(&lost)), "it has not been silent since");

    let status = region.status().await;
    let node = status.map.unwrap().nodes.into_iter().find(|node| node.node == hosts[0].id).unwrap();
    assert_eq!((node.bytes_total, node.bytes_free), (1 << 30, 400));
    assert!(node.last_heard_ms > 0);
    assert!(status.controllers.iter().all(|controller| controller.reachable));
    assert!(status.notes.is_empty(), "{:?}", status.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_leader_was_killed_hosts_keep_their_ids_and_groups_their_members() {
    let mut region = Region::start();
    let (mut hosts, _, before) = with_groups(&region).await;
    let leader = region.cluster_leader().await;
    region.kill(leader);
    let killed = Instant::now();
    for host in &mut hosts {
        host.attend(&region).await;
    }
    eprintln!("three hosts attend again {:?} after the leader was killed", killed.elapsed());
    let mut maps = Maps::watch(&region, "h2").await;
    let map = maps.until("the groups", |map| map.groups.len() == 12).await;
    assert!(map.version >= before.version);
    assert_eq!(map.groups, before.groups);

    let silence = pb::Silence { silent: vec![hosts[0].id], ..pb::Silence::default() };
    hosts[1].report(Report::Silence(silence)).await;
    let left = |map: &pb::ClusterMap| map.groups.iter().all(|group| in_sync(group).len() == 2);
    maps.until("the silent host to leave", left).await;

    region.spawn(leader);
    wait("all controllers to answer", || async {
        region.status().await.controllers.iter().all(|controller| controller.reachable).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_of_the_two_groups_sit_on_different_controllers() {
    let region = Region::start();
    wait("two different leaders", || async {
        let raft = region.status().await.raft;
        let leaders: Vec<u64> = raft.iter().map(|group| group.leader).filter(|leader| *leader != 0).collect();
        (leaders.len() == 2 && leaders[0] != leaders[1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_speaks_for_its_own_host_only() {
    let region = Region::start();
    let host = Host::join(&region, 1, 101).await;
    let leader = region.cluster_leader().await;
    let register = |cert: &'static str| {
        let channel = region.channel(leader, cert);
        async move {
            let request = pb::RegisterRequest {
                name: "h1".into(),
                data_addr: "127.0.0.1:1".into(),
                boot: 5,
                ..pb::RegisterRequest::default()
            };
            ClusterClient::new(channel).register(request).await.unwrap_err().code()
        }
    };
    assert_eq!(register("h2").await, Code::PermissionDenied, "another host's certificate");
    assert_eq!(register("ann").await, Code::PermissionDenied, "a person's certificate");

    // Host 2 may not report for host 1 either.
    let mut client = ClusterClient::new(region.channel(leader, "h2"));
    let report = pb::HostReport { node: host.id, boot: host.boot, sequence: 1, report: None };
    let mut orders = client.attend(tokio_stream::iter([report])).await.unwrap().into_inner();
    assert_eq!(orders.message().await.unwrap_err().code(), Code::PermissionDenied);
}

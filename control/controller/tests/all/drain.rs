//! An operator empties a host; hosts tell how their copies are.

use nova_api::cluster as pb;
use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::host_report::Report;
use nova_api::cluster::member::Role as MemberRole;
use tonic::{Code, Status};

use crate::kit::{Host, Maps, Region};

async fn join(region: &Region, number: u64) -> Host {
    let mut host = Host::join(region, number, 100 + number).await;
    host.mount().await;
    host.heartbeat().await;
    host
}

/// Asks controller after controller, and answers what the leader says.
async fn drain(region: &Region, name: &str, undrain: bool) -> Result<pb::DrainResponse, Status> {
    let request = pb::DrainRequest { name: name.into(), undrain };
    let ask = |id| {
        let request = request.clone();
        async move {
            let mut client = ClusterClient::new(region.channel(id, "ann"));
            match client.drain(request).await {
                Err(status) if !matches!(status.code(), Code::InvalidArgument | Code::NotFound) => {
                    Err(status)
                }
                answered => Ok(answered.map(tonic::Response::into_inner)),
            }
        }
    };
    region.ask(ask).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_drained_when_others_can_take_its_replicas() {
    let region = Region::start();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(join(&region, number).await);
    }
    let mut maps = Maps::watch(&region, "h1").await;
    maps.until("12 groups", |map| map.groups.len() == 12).await;
    let refused = drain(&region, "h2", false).await.unwrap_err();
    assert!(refused.message().contains("Add a storage host"), "{refused}");
    assert_eq!(drain(&region, "h9", false).await.unwrap_err().code(), Code::NotFound);

    hosts.push(join(&region, 4).await);
    let drained = hosts[1].id;
    let answer = drain(&region, "h2", false).await.unwrap();
    assert_eq!((answer.node, answer.groups), (drained, 12));
    loop {
        for host in &mut hosts {
            host.heartbeat().await;
        }
        // A map comes whenever something changed: here, when a member began to join.
        let map = maps.until("a move or the end", |map| {
            let on_it = |group: &pb::Group| group.members.iter().any(|member| member.node == drained);
            let joins = |member: &pb::Member| member.role() == MemberRole::Joining;
            let moves = map.groups.iter().any(|group| group.members.iter().any(joins));
            moves || !map.groups.iter().any(on_it)
        });
        let map = map.await;
        let mut moving = 0;
        for group in &map.groups {
            let counts = |member: &&pb::Member| member.role() == MemberRole::InSync;
            assert_eq!(group.members.iter().filter(counts).count(), 3, "{group:?}");
            let Some(joiner) = group.members.iter().find(|member| member.role() == MemberRole::Joining)
            else {
                continue;
            };
            moving += 1;
            let ready = pb::JoinReady { group: group.group, epoch: group.epoch, node: joiner.node };
            let primary = hosts.iter_mut().find(|host| host.id == group.primary).unwrap();
            primary.report(Report::JoinReady(ready)).await;
        }
        if moving == 0 {
            assert!(map.nodes.iter().any(|node| node.node == drained && node.draining));
            break;
        }
    }
    let status = region.status().await;
    assert!(status.notes.iter().any(|note| note.contains("h2 is drained")), "{:?}", status.notes);
    // The same again changes nothing, and it can be taken back.
    assert_eq!(drain(&region, "h2", false).await.unwrap().groups, 0);
    drain(&region, "h2", true).await.unwrap();
    maps.until("the drain to be taken back", |map| map.nodes.iter().all(|node| !node.draining)).await;
}

/// A host tells how much is free of its one device of 100 units.
async fn tell_free(host: &mut Host, bytes_free: u64) {
    let device = vec![u8::try_from(host.id).unwrap(); 16].into();
    let usage = pb::DeviceUsage { device, bytes_total: 100, bytes_free, pace: None };
    let beat = pb::Heartbeat {
        novad_up: true,
        bytes_total: 100,
        bytes_free,
        devices: vec![usage],
        ..pb::Heartbeat::default()
    };
    let sequence = host.report(Report::Heartbeat(beat)).await;
    host.acknowledged(sequence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_not_drained_when_no_other_has_room_and_one_that_is_says_so() {
    let region = Region::start();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(join(&region, number).await);
    }
    let mut maps = Maps::watch(&region, "h1").await;
    maps.until("12 groups", |map| map.groups.len() == 12).await;
    hosts.push(join(&region, 4).await);
    for (index, free) in [(0, 2), (1, 2), (2, 2), (3, 50)] {
        tell_free(&mut hosts[index], free).await;
    }
    // Twelve groups of some eight units each; the new host has room for six, and some may be on their way there.
    let refused = drain(&region, "h2", false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("no other storage host has room for"), "{refused}");
    assert!(!region.status().await.map.unwrap().nodes.iter().any(|node| node.draining));

    tell_free(&mut hosts[3], 100).await;
    drain(&region, "h2", false).await.unwrap();
    // The room goes while it is drained.
    tell_free(&mut hosts[3], 0).await;
    let status = region.status().await;
    let noted = |note: &String| note.contains("h2 is being drained") && note.contains("has room for");
    assert!(status.notes.iter().any(noted), "{:?}", status.notes);
    assert!(drain(&region, "h2", false).await.unwrap_err().message().contains("has room for"));
    drain(&region, "h2", true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_say_of_their_copies_is_shown_and_noted() {
    let region = Region::start();
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(join(&region, number).await);
    }
    let mut maps = Maps::watch(&region, "h1").await;
    let map = maps.until("12 groups", |map| map.groups.len() == 12).await;
    let health = pb::GroupHealth {
        group: map.groups[0].group,
        blocks: 5,
        bad_units: 3,
        verified_since_ms: 77,
        ..pb::GroupHealth::default()
    };
    let beat = |told: bool| pb::Heartbeat {
        novad_up: true,
        groups: if told { vec![health.clone()] } else { vec![] },
        groups_told: told,
        ..pb::Heartbeat::default()
    };
    // A beat that tells nothing leaves what was told.
    for told in [true, false] {
        let sequence = hosts[0].report(Report::Heartbeat(beat(told))).await;
        hosts[0].acknowledged(sequence).await;
        let status = region.status().await;
        let node = status.map.unwrap().nodes.into_iter().find(|node| node.node == hosts[0].id).unwrap();
        assert_eq!(node.health, std::slice::from_ref(&health));
        let noted = |note: &String| note.contains("h1 has 3 bad copies");
        assert!(status.notes.iter().any(noted), "{:?}", status.notes);
    }
    let down = pb::Heartbeat { novad_up: false, ..beat(false) };
    let sequence = hosts[2].report(Report::Heartbeat(down)).await;
    hosts[2].acknowledged(sequence).await;
    let silent = pb::DeviceSilent { node: hosts[1].id, boot: 0, incarnation: hosts[1].incarnation };
    let sequence = hosts[1].report(Report::DeviceSilent(silent)).await;
    hosts[1].acknowledged(sequence).await;
    let status = region.status().await;
    for said in ["device 0 of h2 has answered nothing for 0 s", "h3 does not serve: its novad"] {
        assert!(status.notes.iter().any(|note| note.contains(said)), "{:?}", status.notes);
    }
}

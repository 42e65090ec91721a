//! Strangers on the port.
use std::{collections::BTreeMap, rc::Rc, time::Duration};

use nova_device::{
    Lane, Peers, Shard,
    mem::{MemLane, World},
};
use nova_units::{BootId, NodeId, TaskClass};
use novabulk_frame::{Control, FrameHeader, FrameKind, HEADER_BYTES, HOPS, Hello, LinkRole, StreamId};
use novabulk_link::{ACCEPTED_MAX, Admitted, ESTABLISH_TIMEOUT, LinkOptions};
use novabulk_tls::HANDSHAKES_MAX;

use super::hosts::{Echo, Host, address, request};

const POOL: u64 = 32 << 20;

fn server(world: &World) -> Host {
    let server = Host::start(world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    server
}

/// A control frame; `harm` is added to one byte of its payload after the checksum was computed.
fn frame(control: &Control, harm: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    control.encode(&mut payload);
    let header = FrameHeader {
        kind: FrameKind::Control,
        more: false,
        end: false,
        stream: StreamId(0),
        payload_bytes: u32::try_from(payload.len()).unwrap(),
    };
    let bytes: [u8; HEADER_BYTES] = header.encode(&payload);
    payload[5] = payload[5].wrapping_add(harm);
    [&bytes[..], &payload].concat()
}

fn hello() -> Control {
    Control::Hello(Hello {
        version_min: 1,
        version_max: 1,
        role: LinkRole::Bulk,
        features: 0,
        node: NodeId(66),
        boot: BootId(6),
        body_bytes_max: 0,
        port_base: 0,
        port_count: 0,
        grants: [0; HOPS],
    })
}

/// Sends these bytes on a fresh lane, without TLS, and keeps it open until the other side ends it.
async fn attack_below(stranger: &Host, bytes: &[u8]) {
    let lane: MemLane = stranger.shard.connect(address(2)).await.unwrap();
    stay(stranger, &lane, bytes).await;
}

/// The same as somebody who has a certificate.
async fn attack(stranger: &Host, bytes: &[u8]) {
    let lane = stranger.shard.connect(address(2)).await.unwrap();
    let lane = stranger.tls.connect(lane, stranger.shard.clock()).await.unwrap();
    stay(stranger, &lane, bytes).await;
}

async fn stay(stranger: &Host, lane: &impl Lane, bytes: &[u8]) {
    let _ = lane.send(bytes, None).await;
    loop {
        let into = stranger.shard.pool().take(4096).await;
        if lane.recv_some(into, 1).await.0.is_err() {
            return;
        }
    }
}

fn still_serves(world: &World, caller: &Host) {
    let host = caller.clone();
    world.run(&caller.shard, async move {
        let body = host.body(1, 5000).await;
        host.link.call(NodeId(2), request(1, Some(body), 5000)).await.unwrap();
    });
}

#[test]
fn garbage_is_refused_without_growth() {
    let world = World::new(31);
    let server = server(&world);
    let stranger = Host::start(&world, 1, POOL, LinkOptions::default());
    let before = server.free_bytes();
    let host = stranger.clone();
    world.run(&stranger.shard, async move {
        for seed in 0..100u64 {
            let bytes: Vec<u8> = (0..3000u64).map(|at| (seed * 7919 + at * at).to_le_bytes()[1]).collect();
            attack(&host, &bytes).await;
            attack(&host, b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n").await;
        }
    });
    world.run_for(Duration::from_millis(100));
    assert_eq!(server.free_bytes(), before);
    assert_eq!(server.link.counters().garbled, 200);
    still_serves(&world, &stranger);
}

#[test]
fn whoever_does_not_speak_tls_is_refused_and_the_log_says_who() {
    let world = World::new(35);
    let server = server(&world);
    let stranger = Host::start(&world, 1, POOL, LinkOptions::default());
    let before = server.free_bytes();
    let host = stranger.clone();
    world.run(&stranger.shard, async move {
        attack_below(&host, &frame(&hello(), 0)).await;
        attack_below(&host, b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n").await;
    });
    let counters = server.link.counters();
    assert_eq!((counters.handshake_failures, counters.accepted, counters.served), (2, 0, 0));
    let refusal = server.link.take_refusal().unwrap();
    assert!(refusal.starts_with("10.0.0.1:"), "{refusal}");
    assert_eq!(server.link.take_refusal(), None, "told once");
    assert_eq!(server.free_bytes(), before);
    still_serves(&world, &stranger);
}

#[test]
fn a_host_may_only_be_who_its_certificate_says() {
    let world = World::new(36);
    let server = server(&world);
    let hosts: BTreeMap<_, _> = [(NodeId(1), "one".to_owned()), (NodeId(66), "two".to_owned())].into();
    let named = |service| Admitted::Named { service, hosts: hosts.clone() };
    server.link.admit(named("novad"));
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    caller.link.admit(Admitted::Named { service: "novad", hosts: [(NodeId(2), "two".to_owned())].into() });
    still_serves(&world, &caller);
    assert_eq!(server.link.counters().impostors, 0);

    // Host one calls itself 66, which is the number of another; and 3, which nobody has.
    for number in [66, 3] {
        let host = caller.clone();
        let mut hello = hello();
        if let Control::Hello(hello) = &mut hello {
            hello.node = NodeId(number);
        }
        world.run(&caller.shard, async move { attack(&host, &frame(&hello, 0)).await });
    }
    assert_eq!(server.link.counters().impostors, 2);
    let refusal = server.link.take_refusal().unwrap();
    assert!(refusal.contains("novad/one") && refusal.contains("itself n3"), "{refusal}");

    server.link.admit(Admitted::Anyone);
    // Neither does a caller believe a host by its address: node 2 is there, with a certificate of another name.
    let doubting = Host::start(&world, 3, POOL, LinkOptions::default());
    doubting
        .link
        .admit(Admitted::Named { service: "novad", hosts: [(NodeId(2), "three".to_owned())].into() });
    let host = doubting.clone();
    let refused = world
        .run(&doubting.shard, async move { host.link.call(NodeId(2), request(1, None, 0)).await.is_err() });
    assert!(refused);
    assert_eq!(doubting.link.counters().impostors, 2, "one connection for control, one for bulk");
}

#[test]
fn a_bad_checksum_closes_and_counts() {
    let world = World::new(32);
    let server = server(&world);
    let stranger = Host::start(&world, 1, POOL, LinkOptions::default());
    let host = stranger.clone();
    world.run(&stranger.shard, async move {
        attack(&host, &frame(&hello(), 1)).await;
        // HELLO is good, what follows is not.
        let goaway = Control::GoAway(novabulk_frame::GoAway {
            last_stream: StreamId(0),
            last_message: Default::default(),
        });
        attack(&host, &[frame(&hello(), 0), frame(&goaway, 9)].concat()).await;
        // A second HELLO is well formed and still a violation.
        attack(&host, &[frame(&hello(), 0), frame(&hello(), 0)].concat()).await;
    });
    let counters = server.link.counters();
    assert_eq!((counters.checksum_failures, counters.violations), (2, 1));
    still_serves(&world, &stranger);
}

#[test]
fn silent_strangers_are_put_out_after_five_seconds_and_only_so_many_are_let_in() {
    let world = World::new(33);
    let server = server(&world);
    let stranger = Host::start(&world, 1, POOL, LinkOptions::default());
    let before = server.free_bytes();
    for _ in 0..ACCEPTED_MAX + 20 {
        let host = stranger.clone();
        stranger.shard.spawn(TaskClass::Client, async move { attack(&host, &[0x4E]).await });
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(server.link.counters().accept_refusals, 20);
    assert!(before - server.free_bytes() <= u64::try_from(ACCEPTED_MAX).unwrap() * 4096);
    world.run_for(ESTABLISH_TIMEOUT + Duration::from_secs(1));
    assert_eq!(server.free_bytes(), before);

    // Those who do not even shake hands are fewer.
    for _ in 0..HANDSHAKES_MAX + 20 {
        let host = stranger.clone();
        stranger.shard.spawn(TaskClass::Client, async move { attack_below(&host, &[22]).await });
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(server.link.counters().handshake_failures, 20);
    world.run_for(ESTABLISH_TIMEOUT + Duration::from_secs(1));
    assert_eq!(server.link.counters().handshake_failures, 20 + HANDSHAKES_MAX as u64);
    assert_eq!(server.free_bytes(), before);
    still_serves(&world, &stranger);
}

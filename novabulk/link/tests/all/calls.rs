//! What a caller may rely on.
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use nova_buf::SharedBuf;
use nova_device::{
    Clock, Handler, Incoming, Listener, PeerError, Peers, Request, Served, Shard,
    mem::{MemShard, World},
};
use nova_units::{NodeId, PageSum, TaskClass};
use novabulk_link::{BODY_BYTES_MAX, IDLE_TIMEOUT, Link, LinkOptions, refusal};

use super::hosts::{Echo, Host, PORT, Slow, pattern, request};

/// Plenty: a caller that holds bodies while it waits for room for answers needs both at once.
const POOL: u64 = 256 << 20;

fn pair(world: &World) -> (Host, Host, Rc<Echo>) {
    let caller = Host::start(world, 1, POOL, LinkOptions::default());
    let server = Host::start(world, 2, POOL, LinkOptions::default());
    let echo = Rc::new(Echo::default());
    server.serve(Rc::clone(&echo));
    (caller, server, echo)
}

#[test]
fn a_thousand_concurrent_calls_each_get_their_own_answer() {
    let world = World::new(1);
    let (caller, server, echo) = pair(&world);
    let done = Rc::new(Cell::new(0));
    for key in 0..1000u64 {
        let (host, done) = (caller.clone(), Rc::clone(&done));
        caller.shard.spawn(TaskClass::Client, async move {
            let bytes = [0, 100, 4096, 5000, 70_000][usize::try_from(key % 5).unwrap()];
            let body = if bytes > 0 { Some(host.body(key, bytes).await) } else { None };
            let reply_max = u32::try_from(bytes).unwrap();
            let reply = host.link.call(NodeId(2), request(key, body, reply_max)).await.unwrap();
            assert_eq!(reply.head, key.to_be_bytes());
            assert_eq!(reply.body.as_deref().unwrap_or_default(), pattern(key, bytes));
            done.set(done.get() + 1);
        });
    }
    assert!(world.run_until(Duration::from_secs(20), || done.get() == 1000), "{} of 1000", done.get());
    assert!(echo.from.borrow().iter().all(|from| *from == NodeId(1)));
    let (sent, heard) = (caller.link.counters(), server.link.counters());
    assert_eq!((sent.calls, sent.calls_failed, heard.served), (1000, 0, 1000));
    assert!((2..=16).contains(&caller.link.connections(NodeId(2))));
    assert_eq!(sent.bytes_sent, heard.bytes_received);
    assert_eq!(sent.frames_sent, heard.frames_received);
}

/// Says which shard it is.
struct Names(u8);

impl Handler for Names {
    async fn serve(&self, _from: NodeId, _request: Incoming) -> Served {
        Served { head: vec![self.0], body: None }
    }
}

#[test]
fn a_shard_of_a_host_is_called_as_many_ports_behind_the_first_as_its_number() {
    let world = World::new(14);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Names(0)));
    let (second, link) = (server.shard.listen(PORT + 1), server.link.clone());
    server.shard.spawn(TaskClass::Control, async move {
        while let Ok((lane, from)) = second.accept().await {
            link.accept(lane, from, Rc::new(Names(1)));
        }
    });
    let (host, to) = (caller.clone(), NodeId(2));
    world.run(&caller.shard, async move {
        for shard in [1, 0, 1] {
            let reply = host.link.call_shard(to, shard, request(1, None, 0)).await.unwrap();
            assert_eq!(reply.head, [u8::try_from(shard).unwrap()]);
        }
        assert_eq!(host.link.call(to, request(1, None, 0)).await.unwrap().head, [0]);
        assert_eq!(host.link.connections(to), 4, "a control and a bulk connection to each");
        for nobody in [2, u16::MAX] {
            let refused = host.link.call_shard(to, nobody, request(1, None, 0)).await;
            assert_eq!(refused.map(|reply| reply.head), Err(PeerError::Unreachable), "{nobody}");
        }
        // A host that is gone is gone with all its shards.
        host.link.set_peers([].into());
        for shard in [0, 1] {
            let gone = host.link.call_shard(to, shard, request(1, None, 0)).await;
            assert_eq!(gone.map(|reply| reply.head), Err(PeerError::Unreachable), "{shard}");
        }
    });
}

#[test]
fn a_full_body_lands_in_one_aligned_slab() {
    let world = World::new(2);
    let (caller, ..) = pair(&world);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        let body = host.body(5, BODY_BYTES_MAX).await;
        let mut request = request(5, Some(body), u32::try_from(BODY_BYTES_MAX).unwrap());
        request.head = vec![9; 60_000];
        let reply = host.link.call(NodeId(2), request).await.unwrap();
        let body = reply.body.unwrap();
        assert_eq!(reply.head, vec![9; 60_000]);
        assert_eq!(body[..], pattern(5, BODY_BYTES_MAX));
        assert!(body.as_ptr().addr().is_multiple_of(4096));
    });
}

#[test]
fn a_short_message_is_received_at_once_and_a_long_body_goes_straight_to_its_slab() {
    let world = World::new(4);
    let (caller, server, _) = pair(&world);
    let host = caller.clone();
    let receives = move |bytes: usize| {
        let (host, before) = (host.clone(), server.link.counters());
        world.run(&caller.shard, async move {
            for key in 0..100 {
                let body = Some(host.body(key, bytes).await);
                host.link.call(NodeId(2), request(key, body, u32::try_from(bytes).unwrap())).await.unwrap();
            }
        });
        let after = server.link.counters();
        (after.frames_received - before.frames_received, after.receives - before.receives)
    };
    // A control frame and a data frame each. A lane in memory gives less than there is one time in four.
    let (frames, count) = receives(4096);
    assert!(frames >= 200 && count < 180, "{count} receives for {frames} frames");
    // Header, control frame with the next header, body; the first one comes ahead.
    let (frames, count) = receives(1 << 20);
    assert!(frames >= 200 && (290..=310).contains(&count), "{count} receives for {frames} frames");
}

#[test]
fn a_body_arrives_with_the_sums_of_its_pages() {
    let world = World::new(5);
    let (caller, server, _) = pair(&world);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        for bytes in [4096, 12_288, 1 << 20] {
            let body = host.body(3, bytes).await;
            let sums = novabulk_frame::page_sums(&body).unwrap();
            assert_eq!(body.page_sums(), None, "nobody computed any");
            let reply = host.link.call(NodeId(2), request(3, Some(body), 1 << 20)).await.unwrap();
            assert_eq!(reply.body.unwrap().page_sums(), Some(&sums[..]), "sent back with what came");
        }
        let reply =
            host.link.call(NodeId(2), request(3, Some(host.body(3, 5000).await), 5000)).await.unwrap();
        assert_eq!(reply.body.unwrap().page_sums(), None, "not whole pages");

        let mut body = host.shard.pool().take(4096).await;
        body.set_page_sums([PageSum(7)].into());
        let error = host.link.call(NodeId(2), request(3, Some(body.freeze()), 4096)).await.unwrap_err();
        assert_eq!(error, PeerError::Closed);
    });
    assert_eq!(server.link.counters().checksum_failures, 1, "sums of other bytes make a wrong frame");
}

#[test]
fn control_calls_have_a_connection_of_their_own() {
    let world = World::new(3);
    let (caller, ..) = pair(&world);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        let ping = Request { control: true, ..request(1, None, 0) };
        host.link.call(NodeId(2), ping).await.unwrap();
        host.link.call(NodeId(2), request(2, None, 0)).await.unwrap();
        assert_eq!(host.link.connections(NodeId(2)), 2);
        assert_eq!(host.link.counters().dials, 2);
    });
}

#[test]
fn what_no_peer_would_take_is_refused_by_name() {
    let world = World::new(4);
    let (caller, ..) = pair(&world);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        let code = async |request| match host.link.call(NodeId(2), request).await {
            Err(PeerError::Refused { code, .. }) => code,
            other => panic!("not refused: {other:?}"),
        };
        let long = u32::try_from(BODY_BYTES_MAX).unwrap() + 1;
        assert_eq!(code(request(1, None, long)).await, refusal::REPLY_TOO_LONG);
        assert_eq!(code(Request { hop: 3, ..request(1, None, 0) }).await, refusal::TOO_MANY_HOPS);
        assert_eq!(
            code(Request { head: vec![0; 65_600], ..request(1, None, 0) }).await,
            refusal::HEAD_TOO_LONG
        );
        // The echo is longer than the caller allows.
        let body = host.body(1, 100).await;
        assert_eq!(code(request(1, Some(body), 99)).await, refusal::REPLY_TOO_LONG);
        assert_eq!(
            host.link.call(NodeId(77), request(1, None, 0)).await.unwrap_err(),
            PeerError::Unreachable
        );
    });
}

#[test]
fn a_dropped_call_leaves_the_connection_whole() {
    let world = World::new(5);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Slow { shard: server.shard.clone(), takes: Duration::from_millis(50) }));
    let host = caller.clone();
    let before = caller.free_bytes();
    world.run(&caller.shard, async move {
        let clock = host.shard.clock();
        for key in 0..60u64 {
            let body = host.body(key, 300_000).await;
            let call = host.link.call(NodeId(2), request(key, Some(body), 300_000));
            // Somewhere between the dial and the last byte of the answer.
            let until = clock.now() + Duration::from_micros(key * 1500);
            let _ = nova_device::sync::timeout_at(clock, until, call).await;
        }
        let body = host.body(99, 1000).await;
        let reply = host.link.call(NodeId(2), request(99, Some(body), 1000)).await.unwrap();
        assert_eq!(reply.body.unwrap()[..], pattern(99, 1000));
    });
    world.run_for(Duration::from_secs(1));
    let counters = caller.link.counters();
    assert_eq!(counters.violations + counters.garbled + counters.checksum_failures + counters.stuck, 0);
    let heard = server.link.counters();
    assert_eq!(heard.violations + heard.garbled + heard.checksum_failures, 0);
    // What is left are the readers' own small buffers.
    assert!(before - caller.free_bytes() < 256 << 10, "{} bytes leaked", before - caller.free_bytes());
}

#[test]
fn idle_connections_close_and_come_back() {
    let world = World::new(6);
    let (caller, server, _) = pair(&world);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        host.link.call(NodeId(2), request(1, None, 0)).await.unwrap();
    });
    world.run_for(IDLE_TIMEOUT - Duration::from_secs(5));
    assert_eq!(caller.link.connections(NodeId(2)), 2);
    world.run_for(Duration::from_secs(10));
    assert_eq!(caller.link.connections(NodeId(2)), 0);
    let host = caller.clone();
    world.run(&caller.shard, async move {
        host.link.call(NodeId(2), request(2, None, 0)).await.unwrap();
    });
    assert_eq!(server.link.counters().served, 2);
}

/// Forwards to the next host until the last hop.
struct Forward {
    shard: MemShard,
    link: RefCell<Option<Link<MemShard>>>,
    next: NodeId,
}

impl Handler for Forward {
    async fn serve(&self, _from: NodeId, incoming: Incoming) -> Served {
        let clock = self.shard.clock();
        if incoming.hop == 2 {
            clock.sleep_until(clock.now() + Duration::from_millis(1)).await;
            return Served { head: incoming.head, body: None };
        }
        let link = self.link.borrow().clone().unwrap();
        let body = incoming.body.map(SharedBuf::from);
        let request = Request { hop: incoming.hop + 1, body, ..request(0, None, 0) };
        let request = Request { head: incoming.head, ..request };
        loop {
            match link.call(self.next, request.clone()).await {
                Ok(reply) => return Served { head: reply.head, body: None },
                Err(PeerError::Busy { retry_after }) => clock.sleep_until(clock.now() + retry_after).await,
                Err(error) => panic!("forward failed: {error}"),
            }
        }
    }
}

#[test]
fn hosts_that_forward_in_a_ring_do_not_lock() {
    let world = World::new(7);
    let options = LinkOptions { grants: [5, 5, 5], connections_max: 2, ..LinkOptions::default() };
    let hosts: Vec<Host> = (1..=3).map(|node| Host::start(&world, node, POOL, options)).collect();
    for (host, next) in hosts.iter().zip([2, 3, 1]) {
        let link = RefCell::new(Some(host.link.clone()));
        host.serve(Rc::new(Forward { shard: host.shard.clone(), link, next: NodeId(next) }));
    }
    let done = Rc::new(Cell::new(0));
    for (host, next) in hosts.iter().zip([2, 3, 1]) {
        for key in 0..40 {
            let (caller, done) = (host.clone(), Rc::clone(&done));
            host.shard.spawn(TaskClass::Client, async move {
                let body = caller.body(key, 250_000).await;
                let reply = caller.link.call(NodeId(next), request(key, Some(body), 0)).await.unwrap();
                assert_eq!(reply.head, key.to_be_bytes());
                done.set(done.get() + 1);
            });
        }
    }
    assert!(world.run_until(Duration::from_secs(20), || done.get() == 120), "{} of 120", done.get());
}

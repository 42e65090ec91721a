//! Hosts and networks that fail.
use std::{cell::RefCell, rc::Rc, time::Duration};

use nova_device::{
    Clock, PeerError, Peers, Reply, Request, Shard,
    mem::{Chance, KillMode, NetFaults, World},
};
use nova_units::{NodeId, TaskClass};
use novabulk_link::{BULK_SILENCE_MAX, CONTROL_SILENCE_MAX, ESTABLISH_TIMEOUT, LinkOptions};

use super::hosts::{Echo, Gated, Host, addresses, ip, request};

const POOL: u64 = 64 << 20;

/// One send in a hundred breaks its connection, one in twenty is late, one dial in ten is refused.
const ROUGH: NetFaults = NetFaults {
    reset: Chance::percent(1),
    delay: Chance::percent(5),
    delay_by: Duration::from_millis(30),
    refuse: Chance::percent(10),
    ..NetFaults::NONE
};

type Results = Rc<RefCell<Vec<Result<Reply, PeerError>>>>;

/// Starts calls beside the test; their results come in the order they end.
fn begin(host: &Host, keys: std::ops::Range<u64>, bytes: usize, deadline: Duration) -> Results {
    let results = Results::default();
    for key in keys {
        let (caller, results) = (host.clone(), Rc::clone(&results));
        host.shard.spawn(TaskClass::Client, async move {
            let body = if bytes > 0 { Some(caller.body(key, bytes).await) } else { None };
            let request = Request { deadline, ..request(key, body, u32::try_from(bytes).unwrap()) };
            let result = caller.link.call(NodeId(2), request).await;
            results.borrow_mut().push(result);
        });
    }
    results
}

fn call(world: &World, host: &Host, deadline: Duration) -> Result<Reply, PeerError> {
    let caller = host.clone();
    world.run(&host.shard, async move {
        caller.link.call(NodeId(2), Request { deadline, ..request(0, None, 0) }).await
    })
}

#[test]
fn calls_to_a_dead_process_fail_at_once_and_a_restarted_one_is_found_again() {
    let world = World::new(21);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Gated::default()));
    let results = begin(&caller, 0..50, 20_000, Duration::from_secs(60));
    world.run_for(Duration::from_millis(500));
    assert_eq!(results.borrow().len(), 0);

    world.kill(&server.shard, KillMode::Process);
    world.run_for(Duration::from_millis(200));
    assert_eq!(results.borrow().len(), 50, "no call waits for its deadline");
    let retryable = |result: &Result<Reply, PeerError>| {
        matches!(result, Err(PeerError::Closed | PeerError::Busy { .. } | PeerError::Unreachable))
    };
    assert!(results.borrow().iter().all(retryable));

    let began = world.now();
    assert_eq!(call(&world, &caller, Duration::from_secs(30)).unwrap_err(), PeerError::Unreachable);
    assert!(world.now() - began < ESTABLISH_TIMEOUT + Duration::from_millis(1));
    let began = world.now();
    assert_eq!(call(&world, &caller, Duration::from_secs(30)).unwrap_err(), PeerError::Unreachable);
    assert!(
        world.now() - began < Duration::from_millis(1),
        "right after a failed dial nobody waits for another"
    );

    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    world.run_for(Duration::from_secs(6));
    call(&world, &caller, Duration::from_secs(5)).unwrap();
    assert!(caller.link.counters().reconnects >= 1);
    assert!(caller.link.counters().dial_failures >= 1);
}

#[test]
fn a_host_that_lost_its_power_is_known_to_have_restarted_as_soon_as_one_ping_gets_through() {
    let world = World::new(22);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    call(&world, &caller, Duration::from_secs(5)).unwrap();
    world.kill(&server.shard, KillMode::Power);
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    let began = world.now();
    let lost = begin(&caller, 0..10, 1000, Duration::from_secs(60));
    let ping = || {
        let host = caller.clone();
        let ping = Request { control: true, deadline: Duration::from_millis(500), ..request(0, None, 0) };
        world.run(&caller.shard, async move { host.link.call(NodeId(2), ping).await })
    };
    while ping().is_err() {
        assert!(
            world.now() - began < CONTROL_SILENCE_MAX + Duration::from_secs(1),
            "the old boot is believed"
        );
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!(lost.borrow().len(), 10, "calls on bulk connections of the old boot end with it");
    call(&world, &caller, Duration::from_millis(500)).unwrap();
}

#[test]
fn without_pings_a_silent_bulk_connection_is_given_up_after_ten_seconds() {
    let world = World::new(28);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    call(&world, &caller, Duration::from_secs(5)).unwrap();
    world.run_for(Duration::from_secs(100));
    world.kill(&server.shard, KillMode::Power);
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Echo::default()));
    let began = world.now();
    while call(&world, &caller, Duration::from_millis(500)).is_err() {
        assert!(world.now() - began < BULK_SILENCE_MAX + Duration::from_secs(1), "the old boot is believed");
    }
    assert!(
        world.now() - began >= BULK_SILENCE_MAX,
        "one late answer after a long rest is no proof of death"
    );
}

#[test]
fn a_deadline_is_kept_even_when_nothing_answers() {
    let world = World::new(23);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    server.serve(Rc::new(Gated::default()));
    let began = world.now();
    assert_eq!(call(&world, &caller, Duration::from_millis(300)).unwrap_err(), PeerError::TimedOut);
    let took = world.now() - began;
    assert!((Duration::from_millis(300)..Duration::from_millis(350)).contains(&took), "{took:?}");
    world.part(ip(1), ip(2));
    let host = Host::start(&world, 3, POOL, LinkOptions::default());
    world.part(ip(3), ip(2));
    let began = world.now();
    assert_eq!(call(&world, &host, Duration::from_millis(300)).unwrap_err(), PeerError::TimedOut);
    assert!(world.now() - began < Duration::from_millis(350));
}

#[test]
fn a_host_that_answers_under_another_name_is_not_believed() {
    let world = World::new(24);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let other = Host::start(&world, 3, POOL, LinkOptions::default());
    let echo = Rc::new(Echo::default());
    other.serve(Rc::clone(&echo));
    let mut wrong = addresses(3);
    wrong.insert(NodeId(2), wrong[&NodeId(3)]);
    caller.link.set_peers(wrong);
    assert_eq!(call(&world, &caller, Duration::from_secs(10)).unwrap_err(), PeerError::Unreachable);
    assert!(echo.from.borrow().is_empty());
}

#[test]
fn a_peer_that_left_the_configuration_is_not_called_but_its_answers_are_awaited() {
    let world = World::new(25);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    let gated = Rc::new(Gated::default());
    server.serve(Rc::clone(&gated));
    let results = begin(&caller, 0..5, 1000, Duration::from_secs(20));
    world.run_for(Duration::from_millis(200));
    caller.link.set_peers(addresses(1));
    assert_eq!(call(&world, &caller, Duration::from_secs(1)).unwrap_err(), PeerError::Unreachable);
    gated.open();
    world.run_for(Duration::from_secs(1));
    assert_eq!(results.borrow().iter().filter(|result| result.is_ok()).count(), 5);
}

#[test]
fn a_draining_server_ends_what_it_began() {
    let world = World::new(26);
    let caller = Host::start(&world, 1, POOL, LinkOptions::default());
    let server = Host::start(&world, 2, POOL, LinkOptions::default());
    let gated = Rc::new(Gated::default());
    server.serve(Rc::clone(&gated));
    let results = begin(&caller, 0..5, 0, Duration::from_secs(20));
    world.run_for(Duration::from_millis(200));
    server.link.drain();
    world.run_for(Duration::from_millis(200));
    gated.open();
    world.run_for(Duration::from_secs(1));
    assert_eq!(results.borrow().iter().filter(|result| result.is_ok()).count(), 5);
    // What comes after finds a new connection, as long as somebody accepts it.
    call(&world, &caller, Duration::from_secs(2)).unwrap();
}

#[test]
fn every_call_ends_by_its_deadline_on_a_network_that_breaks_all_the_time() {
    for seed in 0..8 {
        let world = World::new(3000 + seed);
        let caller = Host::start(&world, 1, POOL, LinkOptions::default());
        let server = Host::start(&world, 2, POOL, LinkOptions::default());
        server.serve(Rc::new(Echo::default()));
        world.set_net_faults(ROUGH);
        let results = begin(&caller, 0..200, 20_000, Duration::from_secs(3));
        world.run_for(Duration::from_secs(4));
        assert_eq!(results.borrow().len(), 200, "seed {seed}: a call outlived its deadline");
        world.set_net_faults(NetFaults::default());
        world.run_for(Duration::from_secs(10));
        call(&world, &caller, Duration::from_secs(5)).unwrap();
        let clock = caller.shard.clock();
        assert!(clock.now() > Duration::ZERO);
        let counters = (caller.link.counters(), server.link.counters());
        assert_eq!(counters.0.violations + counters.1.violations, 0, "seed {seed}");
    }
}

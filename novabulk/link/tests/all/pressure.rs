//! A slow host slows its callers down and never holds more than it granted.
use std::{cell::Cell, rc::Rc, time::Duration};

use nova_device::{PeerError, Peers, Shard, mem::World};
use nova_units::{NodeId, TaskClass};
use novabulk_link::{BODY_BYTES_MAX, LinkOptions};

use super::hosts::{Gated, Host, request};

#[test]
fn a_slow_handler_holds_up_its_callers_through_credit() {
    let world = World::new(11);
    let options = LinkOptions { grants: [16, 16, 5], connections_max: 2, ..LinkOptions::default() };
    let caller = Host::start(&world, 1, 128 << 20, options);
    let server = Host::start(&world, 2, 64 << 20, options);
    let gated = Rc::new(Gated::default());
    server.serve(Rc::clone(&gated));
    let done = Rc::new(Cell::new(0));
    for key in 0..60 {
        let (host, done) = (caller.clone(), Rc::clone(&done));
        caller.shard.spawn(TaskClass::Client, async move {
            let body = host.body(key, BODY_BYTES_MAX).await;
            host.link.call(NodeId(2), request(key, Some(body), 0)).await.unwrap();
            done.set(done.get() + 1);
        });
    }
    let before = server.free_bytes();
    world.run_for(Duration::from_secs(1));
    assert_eq!(gated.inside.get(), 4, "16 units of 256 KiB are four bodies");
    assert!(before - server.free_bytes() <= 5 << 20);
    gated.open();
    assert!(world.run_until(Duration::from_secs(10), || done.get() == 60), "{} of 60", done.get());
    assert!(gated.inside_max.get() <= 4);
}

#[test]
fn everything_full_is_said_at_once_and_harms_nobody() {
    let world = World::new(12);
    let options = LinkOptions { connections_max: 3, ..LinkOptions::default() };
    let caller = Host::start(&world, 1, 64 << 20, options);
    let server = Host::start(&world, 2, 64 << 20, options);
    let gated = Rc::new(Gated::default());
    server.serve(Rc::clone(&gated));
    let (answered, busy) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for key in 0..300 {
        let (host, answered, busy) = (caller.clone(), Rc::clone(&answered), Rc::clone(&busy));
        caller.shard.spawn(TaskClass::Client, async move {
            match host.link.call(NodeId(2), request(key, None, 0)).await {
                Ok(_) => answered.set(answered.get() + 1),
                Err(PeerError::Busy { .. }) => busy.set(busy.get() + 1),
                Err(error) => panic!("{error}"),
            }
        });
    }
    world.run_for(Duration::from_secs(1));
    // Two bulk connections with 128 places each, of which 8 are kept for P0 and 32 for later hops.
    assert_eq!((gated.inside.get(), busy.get()), (176, 124));
    gated.open();
    assert!(world.run_until(Duration::from_secs(5), || answered.get() == 176));
}

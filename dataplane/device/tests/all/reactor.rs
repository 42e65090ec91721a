use core::time::Duration;

use nova_device::{
    Clock, sync,
    uring::{IN_FLIGHT_MAX, Reactor, RealClock, RingMode, Watch},
};
use rustix::event::{EventfdFlags, eventfd};

#[test]
fn a_supported_kernel_gives_the_deferred_mode() {
    assert_eq!(*Reactor::new().unwrap().mode(), RingMode::Deferred);
}

#[test]
fn timers_fire_in_their_order_and_not_early() {
    let reactor = Reactor::new().unwrap();
    let clock = RealClock::new(&reactor);
    let start = clock.now();
    let order = core::cell::RefCell::new(Vec::new());
    let sleep = async |millis: u64| {
        let at = start + Duration::from_millis(millis);
        clock.sleep_until(at).await;
        assert!(clock.now() >= at);
        order.borrow_mut().push(millis);
    };
    reactor.run(sync::join_all([30, 10, 20, 10].map(sleep)));
    assert_eq!(*order.borrow(), [10, 10, 20, 30]);
    assert!(clock.now() - start < Duration::from_secs(5));
}

#[test]
fn a_dropped_timer_is_forgotten() {
    let reactor = Reactor::new().unwrap();
    let clock = RealClock::new(&reactor);
    let start = clock.now();
    reactor.run(async {
        for _ in 0..100 {
            let long = clock.sleep_until(start + Duration::from_hours(1));
            let soon = clock.now() + Duration::from_micros(50);
            assert_eq!(sync::timeout_at(&clock, soon, long).await, Err(sync::TimedOut));
        }
    });
    assert!(clock.now() - start < Duration::from_secs(5));
}

#[test]
fn a_watched_descriptor_wakes_when_it_is_written() {
    let reactor = Reactor::new().unwrap();
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let watch = Watch::new(&reactor, event.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        rustix::io::write(&event, &1u64.to_le_bytes()).unwrap();
    });
    let clock = RealClock::new(&reactor);
    let start = clock.now();
    reactor.run(async {
        watch.readable().await.unwrap();
        assert!(clock.now() - start >= Duration::from_millis(15));
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&watch, &mut count), Ok(8));
    });
    writer.join().unwrap();
}

#[test]
fn more_operations_than_the_ring_holds_wait_their_turn() {
    let reactor = Reactor::new().unwrap();
    let count = IN_FLIGHT_MAX as usize + 500;
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let watch = Watch::new(&reactor, event.try_clone().unwrap());
    let done = core::cell::Cell::new(0);
    reactor.run(async {
        let waits = (0..count).map(|number| {
            let (watch, done, event, reactor) = (&watch, &done, &event, &reactor);
            async move {
                if number == count - 1 {
                    // The last to ask has no place yet; the first are waiting in the kernel.
                    assert!(reactor.in_flight() <= IN_FLIGHT_MAX as usize);
                    rustix::io::write(event, &1u64.to_le_bytes()).unwrap();
                }
                watch.readable().await.unwrap();
                done.set(done.get() + 1);
            }
        });
        sync::join_all(waits).await;
    });
    assert_eq!(done.get(), count);
    assert!(reactor.in_flight() <= 1, "nothing but perhaps a timeout");
}

#[test]
fn a_full_table_of_polls_is_cancelled_when_the_reactor_goes() {
    let reactor = Reactor::new().unwrap();
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let watch = Watch::new(&reactor, event);
    let clock = RealClock::new(&reactor);
    let start = clock.now();
    reactor.run(async {
        let waits = sync::join_all((0..1000).map(|_| watch.readable()));
        let soon = clock.now() + Duration::from_millis(20);
        assert!(sync::timeout_at(&clock, soon, waits).await.is_err());
    });
    assert!(reactor.in_flight() > 0);
    drop((watch, clock, reactor));
    let reactor = Reactor::new().unwrap();
    assert!(RealClock::new(&reactor).now() - start < Duration::from_secs(5));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_that_nothing_can_end_is_found() {
    Reactor::new().unwrap().run(sync::Notify::new().notified());
}

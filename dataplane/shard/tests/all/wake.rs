//! Parking: no wake-up is ever lost.

use core::{cell::Cell, time::Duration};
use std::{os::fd::OwnedFd, rc::Rc, time::Instant};

use nova_device::{
    Clock, Shard,
    sync::{self, Notify},
};
use nova_shard::{ShardOptions, run};
use nova_units::TaskClass;
use rustix::event::{EventfdFlags, eventfd};

use crate::life::small;

fn bell(blocking: bool) -> OwnedFd {
    let flags = if blocking { EventfdFlags::empty() } else { EventfdFlags::NONBLOCK };
    eventfd(0, flags | EventfdFlags::CLOEXEC).unwrap()
}

fn ring(bell: &OwnedFd) {
    rustix::io::write(bell, &1u64.to_le_bytes()).unwrap();
}

/// Another thread rings, the shard answers, and so on; a lost wake-up would hang both.
fn ping_pong(spin: Duration, rounds: u32) -> Duration {
    let (there, back) = (bell(false), bell(true));
    let (far_there, far_back) = (there.try_clone().unwrap(), back.try_clone().unwrap());
    let started = Instant::now();
    let other = std::thread::spawn(move || {
        for _ in 0..rounds {
            ring(&far_there);
            rustix::io::read(&far_back, &mut [0; 8]).unwrap();
        }
    });
    run(ShardOptions { spin, ..small() }, async move |shard| {
        let watch = shard.watch(there);
        for _ in 0..rounds {
            watch.readable().await.unwrap();
            rustix::io::read(&watch, &mut [0; 8]).unwrap();
            ring(&back);
        }
    })
    .unwrap();
    other.join().unwrap();
    started.elapsed()
}

#[test]
fn twenty_thousand_parks_lose_no_wake_up() {
    let took = ping_pong(Duration::ZERO, 20_000);
    println!("20,000 round trips parked: {took:?}, {:?} each", took / 20_000);
}

#[test]
fn a_spinning_shard_loses_no_wake_up_either() {
    let took = ping_pong(Duration::from_micros(50), 2_000);
    println!("2,000 round trips spinning: {took:?}, {:?} each", took / 2_000);
}

#[test]
fn timers_wake_a_parked_shard() {
    run(small(), async |shard| {
        let clock = shard.clock().clone();
        let start = clock.now();
        for number in 1..=50 {
            let at = start + Duration::from_millis(number);
            clock.sleep_until(at).await;
            assert!(clock.now() >= at);
        }
        assert!(clock.now() - start < Duration::from_secs(5));
    })
    .unwrap();
}

#[test]
fn an_earlier_timer_set_while_parked_is_served_first() {
    run(small(), async |shard| {
        let clock = shard.clock().clone();
        let start = clock.now();
        let (woken, sleeper) = (Rc::new(Cell::new(false)), shard.clone());
        let flag = Rc::clone(&woken);
        shard.spawn(TaskClass::Background, async move {
            sleeper.clock().sleep_until(start + Duration::from_hours(1)).await;
            flag.set(true);
        });
        for _ in 0..20 {
            clock.sleep_until(clock.now() + Duration::from_millis(2)).await;
        }
        assert!(clock.now() - start < Duration::from_secs(5));
        assert!(!woken.get());
    })
    .unwrap();
}

#[test]
fn tasks_wake_each_other_without_the_ring() {
    run(small(), async |shard| {
        let (ping, pong) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (far_ping, far_pong) = (Rc::clone(&ping), Rc::clone(&pong));
        shard.spawn(TaskClass::Repair, async move {
            loop {
                far_ping.notified().await;
                far_pong.notify_one();
            }
        });
        for _ in 0..1000 {
            ping.notify_one();
            pong.notified().await;
        }
    })
    .unwrap();
}

#[test]
fn a_parked_shard_uses_no_processor_time() {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
    };
    let busy = run(small(), async |shard| {
        let clock = shard.clock();
        clock.sleep_until(clock.now() + Duration::from_millis(50)).await;
        let before = used();
        clock.sleep_until(clock.now() + Duration::from_millis(500)).await;
        used() - before
    });
    let busy = busy.unwrap();
    assert!(busy < Duration::from_millis(100), "{busy:?} of 500 ms");
}

#[test]
fn a_doorbell_is_heard_by_a_shard_that_is_never_idle() {
    let (there, back) = (bell(false), bell(true));
    let (far_there, far_back) = (there.try_clone().unwrap(), back.try_clone().unwrap());
    let other = std::thread::spawn(move || {
        let started = Instant::now();
        for _ in 0..50 {
            ring(&far_there);
            rustix::io::read(&far_back, &mut [0; 8]).unwrap();
        }
        started.elapsed()
    });
    run(small(), async move |shard| {
        shard.spawn(TaskClass::Background, async {
            loop {
                sync::give_way().await;
            }
        });
        let watch = shard.watch(there);
        for _ in 0..50 {
            watch.readable().await.unwrap();
            rustix::io::read(&watch, &mut [0; 8]).unwrap();
            ring(&back);
        }
    })
    .unwrap();
    let took = other.join().unwrap();
    assert!(took < Duration::from_secs(5), "{took:?} for 50 rings");
}

#[test]
fn urgent_tasks_run_beside_busy_ones() {
    run(small(), async |shard| {
        for class in [TaskClass::Background, TaskClass::Repair, TaskClass::Client] {
            shard.spawn(class, async {
                loop {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_micros(50) {
                        core::hint::spin_loop();
                    }
                    sync::give_way().await;
                }
            });
        }
        let (clock, ticks) = (shard.clock().clone(), Rc::new(Cell::new(0)));
        let (ticker, counting) = (shard.clone(), Rc::clone(&ticks));
        shard.spawn(TaskClass::Control, async move {
            loop {
                ticker.clock().sleep_until(ticker.clock().now() + Duration::from_millis(2)).await;
                counting.set(counting.get() + 1);
            }
        });
        clock.sleep_until(clock.now() + Duration::from_millis(400)).await;
        assert!(ticks.get() > 20, "{} ticks of 2 ms in 400 ms beside three busy classes", ticks.get());
    })
    .unwrap();
}

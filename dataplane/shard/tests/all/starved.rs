//! A shard that hardly gets its core goes on, late.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::{process::Command, sync::Arc, thread, time::Instant};

use nova_device::{Clock, Shard};
use nova_shard::{ShardOptions, run};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::life::small;

/// Threads that take the core of the shard.
const RIVALS: usize = 1;
/// Longer than the executor's preempt timer was.
const BURST: Duration = Duration::from_millis(12);
const PAUSE_US_MAX: u64 = 1_000;
/// Within so long a shard whose executor slept with tasks to run did so at the latest, in most of the tries.
const STARVED_FOR: Duration = Duration::from_secs(20);
/// A shard that stands still for so long, with its core free, does so for ever.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// Once it lost its core for longer than the executor's preempt timer, between arming that and the first task, the shard slept
/// in the executor's ring with nothing to wake it.
#[test]
fn a_shard_that_hardly_gets_its_core_goes_on() {
    let turns = Arc::new(AtomicU64::new(0));
    let (rivals_end, shard_ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (counted, ends) = (Arc::clone(&turns), Arc::clone(&shard_ends));
    let shard = thread::spawn(move || {
        // Any other thread goes first. `chrt` is of util-linux, which every Debian has.
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        assert!(Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status().unwrap().success());
        run(ShardOptions { core: Some(0), ..small() }, async move |shard| {
            let clock = shard.clock().clone();
            while !ends.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
                clock.sleep_until(clock.now() + Duration::from_millis(1)).await;
            }
        })
        .unwrap();
    });
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let end = Arc::clone(&rivals_end);
            thread::spawn(move || {
                let mut core = CpuSet::new();
                core.set(0);
                sched_setaffinity(None, &core).unwrap();
                while !end.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    while begun.elapsed() < BURST {
                        core::hint::spin_loop();
                    }
                    thread::sleep(Duration::from_micros(fastrand::u64(..PAUSE_US_MAX)));
                }
            })
        })
        .collect();
    thread::sleep(STARVED_FOR);
    rivals_end.store(true, Ordering::Relaxed);
    rivals.into_iter().for_each(|rival| rival.join().unwrap());
    let (before, free) = (turns.load(Ordering::Relaxed), Instant::now());
    while turns.load(Ordering::Relaxed) < before + 10 {
        assert!(free.elapsed() < GONE_AFTER, "it sleeps for ever after {before} turns");
        thread::sleep(Duration::from_millis(10));
    }
    shard_ends.store(true, Ordering::Relaxed);
    shard.join().unwrap();
    println!("{before} turns while it was starved");
}

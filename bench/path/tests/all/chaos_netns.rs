//! Hosts parted from each other, both ways and one way, stopped, and killed all at once, by random schedules: what was
//! acknowledged stays, and nothing old or wrong is ever read.

use std::thread;
use std::time::{Duration, Instant};

use nova_path::region::Size;
use rustix::process::{Pid, Signal, kill_process};

use super::netns::{Parted, cannot_part_hosts};
use super::registers::{Registers, Totals};
use super::rig::IN_SYNC_TIMEOUT;
use super::skip::skip;

const STORAGE: [&str; 3] = ["storage-1", "storage-2", "storage-3"];
const CONTROLLERS: [&str; 3] = ["controller-1", "controller-2", "controller-3"];
const EDGE: &str = "compute-1";
const REGISTERS: usize = 6;
/// A write is acknowledged again this long after everything was healed.
const WRITABLE_AGAIN_WITHIN: Duration = Duration::from_secs(30);
/// How long faults go on.
const CHAOS: Duration = Duration::from_secs(75);

/// Runs `disturb` while registers are written and read, then heals everything and judges what was read.
fn lives_through(name: &str, disturb: impl FnOnce(&mut Parted, &Registers)) -> Option<Totals> {
    if let Some(why) = cannot_part_hosts() {
        skip(&why);
        return None;
    }
    let mut parted = Parted::start(name, &Size::standard(512));
    let local = parted.rig.local("registers");
    let registers = Registers::make(parted.rig.nova(), "/registers", local, REGISTERS);
    registers.in_use(|| {
        disturb(&mut parted, &registers);
        parted.namespaces.heal();
        registers.wait_writable(WRITABLE_AGAIN_WITHIN);
    });
    // Not three: a host that was dropped again and again waits for minutes before it may join.
    parted.rig.region.wait_in_sync(2, IN_SYNC_TIMEOUT).unwrap();
    let totals = registers.settle();
    parted.rig.assert_no_findings();
    println!("{name}: {totals:?}");
    assert!(totals.writes > 20 && totals.reads > 20, "hardly anything happened: {totals:?}");
    parted.rig.region.down().unwrap();
    Some(totals)
}

fn signal(parted: &Parted, host: &str, signal: Signal) {
    let host = parted.rig.region.processes().host(host).unwrap();
    kill_process(Pid::from_raw(host.novad_pid.unwrap()).unwrap(), signal).unwrap();
}

fn some_time(random: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..=to))
}

#[test]
fn random_partitions_and_stops_lose_nothing_and_read_nothing_old() {
    let seed = std::env::var("NOVA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(41);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut done = [0_u32; 6];
    let totals = lives_through("netns_random", |parted, _| {
        let begun = Instant::now();
        while begun.elapsed() < CHAOS {
            let (one, other) = (random.usize(..3), random.usize(1..3));
            let (one, other) = (STORAGE[one], STORAGE[(one + other) % 3]);
            let kind = random.usize(..done.len());
            done[kind] += 1;
            let time = some_time(&mut random, 500, 4_000);
            eprintln!(
                "{:.1} s: kind {kind} of {one} and {other} for {time:?}",
                begun.elapsed().as_secs_f64()
            );
            match kind {
                0 => parted.namespaces.part(one, other),
                1 => parted.namespaces.cut(one, other),
                2 => CONTROLLERS.iter().for_each(|of| parted.namespaces.part(one, of)),
                3 => {
                    let of = CONTROLLERS[random.usize(..3)];
                    CONTROLLERS.iter().filter(|it| **it != of).for_each(|it| parted.namespaces.part(of, it));
                }
                4 => parted.namespaces.cut(one, EDGE),
                _ => signal(parted, one, Signal::STOP),
            }
            thread::sleep(time);
            if kind == 5 {
                signal(parted, one, Signal::CONT);
            }
            parted.namespaces.heal();
            thread::sleep(some_time(&mut random, 200, 3_000));
        }
    });
    if totals.is_some() {
        assert!(done.iter().sum::<u32>() >= 6, "{done:?}");
    }
}

#[test]
fn a_member_that_is_heard_by_nobody_and_hears_all_stalls_writes_for_seconds_only() {
    let mut stall = Duration::ZERO;
    lives_through("netns_one_way", |parted, registers| {
        registers.reset_stall();
        for of in STORAGE.iter().filter(|of| **of != "storage-2").chain(&CONTROLLERS) {
            parted.namespaces.cut("storage-2", of);
        }
        thread::sleep(Duration::from_secs(15));
        stall = registers.stall();
    });
    println!("writes stalled for {stall:?}");
    assert!(stall < Duration::from_secs(8), "writes stalled for {stall:?}");
}

#[test]
fn all_members_killed_at_once_lose_nothing_that_was_acknowledged() {
    lives_through("netns_all_killed", |parted, _| {
        for _ in 0..2 {
            thread::sleep(Duration::from_secs(3));
            // All at once, in the middle of writes.
            STORAGE.iter().for_each(|host| signal(parted, host, Signal::KILL));
            for host in STORAGE {
                parted.rig.region.kill(host).unwrap();
            }
            for host in STORAGE {
                parted.rig.region.restart(host).unwrap();
            }
        }
    });
}

use core::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::rc::Rc;

use nova_buf::DmaBuf;
use nova_units::{DiskIndex, IoClass, PeerAddr, TaskClass};

use super::*;
use crate::{Clock, Disk, DiskError, Durability, Lane, LaneError, Listener, Position, Shard, sync};

const DISK: DiskIndex = DiskIndex(0);
const MIB: u64 = 1 << 20;

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn host(world: &World, last: u8) -> MemShard {
    let disks = vec![MemDisk::new(world, 4 * MIB)];
    world.add_host(HostOptions { address: ip(last), disks, pool_bytes: 4 * MIB, ..HostOptions::default() })
}

async fn filled(shard: &MemShard, bytes: usize, with: u8) -> DmaBuf {
    let mut buf = shard.pool().take(bytes).await;
    buf.fill(with);
    buf
}

async fn put(shard: &MemShard, at: u64, with: u8, durability: Durability) -> Result<(), DiskError> {
    let buf = filled(shard, 4096, with).await;
    shard.disk(DISK).write(IoClass::Client, Position(at), buf.freeze(), durability).await
}

async fn get(shard: &MemShard, at: u64) -> Result<u8, DiskError> {
    let buf = shard.pool().take(4096).await;
    let (result, buf) = shard.disk(DISK).read(IoClass::Client, Position(at), buf).await;
    result.map(|()| {
        assert!(buf.iter().all(|byte| *byte == buf[0]), "a page of one value");
        buf[0]
    })
}

#[test]
fn equal_seeds_run_alike_and_others_do_not() {
    fn run(seed: u64) -> (u64, Duration) {
        let world = World::new(seed);
        let shard = host(&world, 1);
        let task = shard.clone();
        world.run(&shard, async move {
            let gate = sync::Gate::new();
            for number in 0..20u8 {
                let (shard, pass) = (task.clone(), gate.enter().unwrap());
                task.spawn(TaskClass::Client, async move {
                    put(&shard, u64::from(number) * 4096, number, Durability::Synced).await.unwrap();
                    drop(pass);
                });
            }
            gate.close().await;
        });
        (world.fingerprint(), world.now())
    }
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn time_passes_only_when_everyone_waits() {
    let world = World::new(3);
    let shard = host(&world, 1);
    let task = shard.clone();
    let woken = world.run(&shard, async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        for seconds in [30, 10, 20] {
            let (clock, order) = (task.clock().clone(), Rc::clone(&order));
            task.spawn(TaskClass::Control, async move {
                clock.sleep_until(Duration::from_secs(seconds)).await;
                order.borrow_mut().push((seconds, clock.now()));
            });
        }
        task.clock().sleep_until(Duration::from_secs(40)).await;
        order.take()
    });
    assert_eq!(woken, [10, 20, 30].map(|seconds| (seconds, Duration::from_secs(seconds))));
}

#[test]
fn clocks_of_hosts_start_and_drift_apart() {
    let world = World::new(3);
    let options = HostOptions {
        clock_offset: Duration::from_secs(100),
        clock_drift_ppm: 1000,
        pool_bytes: MIB,
        ..HostOptions::default()
    };
    let shard = world.add_host(options);
    let clock = shard.clock().clone();
    world.run(&shard, async move {
        clock.sleep_until(Duration::from_secs(110)).await;
        assert!(clock.now() >= Duration::from_secs(110));
        assert!(clock.now() < Duration::from_secs(110) + Duration::from_micros(1));
    });
    assert!(world.now() < Duration::from_secs(10), "a fast clock gets there early: {:?}", world.now());
}

#[test]
#[should_panic(expected = "the reason")]
fn a_panic_of_a_task_reaches_the_test() {
    let world = World::new(3);
    let shard = host(&world, 1);
    let task = shard.clone();
    world.run(&shard, async move {
        task.spawn(TaskClass::Client, async { panic!("the reason") });
        task.clock().sleep_until(Duration::from_secs(1)).await;
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_without_end_is_found() {
    let world = World::new(3);
    let shard = host(&world, 1);
    world.run(&shard, async { sync::Notify::new().notified().await });
}

#[test]
fn run_until_stops_at_its_condition_or_its_limit() {
    let world = World::new(3);
    let shard = host(&world, 1);
    let (task, ticks) = (shard.clone(), Rc::new(Cell::new(0)));
    let counting = Rc::clone(&ticks);
    shard.spawn(TaskClass::Background, async move {
        loop {
            task.clock().sleep_until(task.clock().now() + Duration::from_secs(1)).await;
            counting.set(counting.get() + 1);
        }
    });
    assert!(world.run_until(Duration::from_secs(60), || ticks.get() == 5));
    assert_eq!(world.now(), Duration::from_secs(5));
    assert!(!world.run_until(Duration::from_millis(2500), || false));
    assert_eq!((ticks.get(), world.now()), (7, Duration::from_millis(7500)));
}

#[test]
fn a_timeout_comes_before_a_late_result_and_after_an_early_one() {
    let world = World::new(3);
    let shard = host(&world, 1);
    let clock = shard.clock().clone();
    world.run(&shard, async move {
        let second = Duration::from_secs(1);
        assert_eq!(
            sync::timeout_at(&clock, second, clock.sleep_until(second * 2)).await,
            Err(sync::TimedOut)
        );
        assert_eq!(clock.now(), second);
        assert_eq!(sync::timeout_at(&clock, second * 9, clock.sleep_until(second * 2)).await, Ok(()));
        assert_eq!(clock.now(), second * 2);
    });
}

#[test]
fn synced_writes_and_flushed_writes_survive_a_power_cut() {
    let world = World::new(5);
    let shard = host(&world, 1);
    let disk = shard.disks()[0].clone();
    disk.set_faults(DiskFaults { sector_survives: Chance::NEVER, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        put(&task, 0, 1, Durability::Synced).await.unwrap();
        put(&task, 4096, 2, Durability::Cached).await.unwrap();
        task.disk(DISK).flush().await.unwrap();
        put(&task, 8192, 3, Durability::Cached).await.unwrap();
        assert_eq!(get(&task, 8192).await, Ok(3), "reads see the cache");
        task.disks()[0].power_cut();
        let survivors = (get(&task, 0).await, get(&task, 4096).await, get(&task, 8192).await);
        assert_eq!(survivors, (Ok(1), Ok(2), Ok(0)));
    });
    assert_eq!(disk.counters().power_cuts, 1);
    assert_eq!(disk.image(), disk.durable_image());
}

#[test]
fn an_older_cached_write_never_undoes_a_synced_one() {
    for seed in 0..20 {
        let world = World::new(seed);
        let shard = host(&world, 1);
        let task = shard.clone();
        world.run(&shard, async move {
            put(&task, 0, 1, Durability::Cached).await.unwrap();
            put(&task, 0, 2, Durability::Synced).await.unwrap();
            task.disks()[0].power_cut();
            assert_eq!(get(&task, 0).await, Ok(2));
        });
    }
}

#[test]
fn unflushed_sectors_are_torn_by_the_seed() {
    let mut torn = 0;
    for seed in 0..10 {
        let world = World::new(seed);
        let shard = host(&world, 1);
        let task = shard.clone();
        world.run(&shard, async move { put(&task, 0, 9, Durability::Cached).await.unwrap() });
        world.kill(&shard, KillMode::Power);
        let page = shard.disks()[0].image().page(Position(0));
        for sector in page.chunks(512) {
            assert!(sector.iter().all(|&byte| byte == sector[0]), "a sector is whole or absent");
        }
        let kept = page.chunks(512).filter(|sector| sector[0] == 9).count();
        torn += usize::from(kept > 0 && kept < 8);
    }
    assert!(torn > 5, "half of the sectors survive: nearly every page is torn, not {torn} of 10");
}

#[test]
fn a_killed_host_runs_no_more_and_a_new_one_finds_its_disk() {
    let world = World::new(8);
    let shard = host(&world, 1);
    let (task, ticks) = (shard.clone(), Rc::new(Cell::new(0)));
    let counting = Rc::clone(&ticks);
    shard.spawn(TaskClass::Client, async move {
        loop {
            put(&task, 0, 7, Durability::Synced).await.unwrap();
            counting.set(counting.get() + 1);
        }
    });
    assert!(world.run_until(Duration::from_secs(1), || ticks.get() == 3));
    world.kill(&shard, KillMode::Power);
    assert!(!shard.is_alive());
    assert_eq!(Rc::strong_count(&ticks), 1, "its tasks are dropped");
    world.run_for(Duration::from_secs(1));
    assert_eq!(ticks.get(), 3);
    shard.spawn(TaskClass::Client, async { panic!("a dead host runs nothing") });
    let disks = shard.disks().to_vec();
    let again =
        world.add_host(HostOptions { address: ip(1), disks, pool_bytes: MIB, ..HostOptions::default() });
    let task = again.clone();
    assert_eq!(world.run(&again, async move { get(&task, 0).await }), Ok(7));
}

#[test]
fn a_host_may_kill_itself() {
    let world = Rc::new(World::new(8));
    let shard = host(&world, 1);
    let (task, inner) = (shard.clone(), Rc::clone(&world));
    let reached = Rc::new(Cell::new(0));
    let counting = Rc::clone(&reached);
    shard.spawn(TaskClass::Client, async move {
        counting.set(1);
        inner.kill(&task, KillMode::Process);
        task.clock().sleep_until(Duration::from_secs(1)).await;
        counting.set(2);
    });
    world.run_for(Duration::from_secs(5));
    assert_eq!(reached.get(), 1);
    assert_eq!(Rc::strong_count(&reached), 1, "its future is dropped");
}

#[test]
fn a_dropped_write_is_completed_by_the_disk() {
    let world = World::new(4);
    let shard = host(&world, 1);
    let task = shard.clone();
    world.run(&shard, async move {
        let soon = task.clock().now() + Duration::from_micros(1);
        let write = put(&task, 0, 6, Durability::Cached);
        assert_eq!(sync::timeout_at(task.clock(), soon, write).await, Err(sync::TimedOut));
        task.clock().sleep_until(Duration::from_secs(1)).await;
        assert_eq!(get(&task, 0).await, Ok(6));
    });
    assert_eq!(shard.pool().free_bytes(), shard.pool().bytes());
}

#[test]
fn faults_of_a_disk_show_as_they_are_named() {
    fn with(faults: DiskFaults) -> (World, MemShard) {
        let world = World::new(11);
        let shard = host(&world, 1);
        shard.disks()[0].set_faults(faults);
        (world, shard)
    }
    let always = Chance::ALWAYS;
    let eio = |at| DiskError::Io { position: Position(at), errno: 5 };

    let (world, shard) = with(DiskFaults { write_error: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        assert_eq!(put(&task, 4096, 1, Durability::Cached).await, Err(eio(4096)));
        assert_eq!(get(&task, 0).await, Err(DiskError::Failed), "failed for good");
        assert_eq!(task.disk(DISK).flush().await, Err(DiskError::Failed));
    });

    let (world, shard) = with(DiskFaults { flush_error: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        assert_eq!(task.disk(DISK).flush().await, Err(eio(0)));
        assert_eq!(put(&task, 0, 1, Durability::Cached).await, Err(DiskError::Failed));
    });

    let (world, shard) = with(DiskFaults { no_space: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        assert_eq!(put(&task, 0, 1, Durability::Cached).await, Err(DiskError::NoSpace));
        assert!(task.disks()[0].is_failed());
    });

    let (world, shard) = with(DiskFaults { read_error: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        assert_eq!(get(&task, 8192).await, Err(eio(8192)));
        task.disks()[0].set_faults(DiskFaults::NONE);
        assert_eq!(get(&task, 8192).await, Err(eio(8192)), "the page stays bad");
        put(&task, 8192, 2, Durability::Cached).await.unwrap();
        assert_eq!(get(&task, 8192).await, Ok(2), "until it is written");
    });

    let (world, shard) = with(DiskFaults { lost_write: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        put(&task, 0, 1, Durability::Synced).await.unwrap();
        assert_eq!(get(&task, 0).await, Ok(0));
    });
    assert_eq!(shard.disks()[0].counters().lost_writes, 1);

    let (world, shard) = with(DiskFaults { misdirected_write: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move { put(&task, 0, 1, Durability::Synced).await.unwrap() });
    let image = shard.disks()[0].image();
    assert_eq!((image.pages_stored(), image.page(Position(0))[0]), (1, 0), "stored, but elsewhere");

    let (world, shard) = with(DiskFaults { misdirected_read: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        put(&task, 0, 1, Durability::Synced).await.unwrap();
        for _ in 0..8 {
            assert!(get(&task, 0).await.is_ok());
        }
    });
    assert_eq!(shard.disks()[0].counters().misdirected_reads, 8);

    let (world, shard) = with(DiskFaults { write_flip: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move { put(&task, 0, 0, Durability::Synced).await.unwrap() });
    let page = shard.disks()[0].image().page(Position(0));
    assert_eq!(page.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1, "one bit flipped on its way");

    let faults = DiskFaults { lost_flush: always, sector_survives: Chance::NEVER, ..DiskFaults::NONE };
    let (world, shard) = with(faults);
    let task = shard.clone();
    world.run(&shard, async move {
        put(&task, 0, 1, Durability::Synced).await.unwrap();
        put(&task, 4096, 1, Durability::Cached).await.unwrap();
        task.disk(DISK).flush().await.unwrap();
        assert_eq!(get(&task, 0).await, Ok(1), "reads see it");
    });
    assert_eq!(shard.disks()[0].counters().lost_flushes, 2);
    shard.disks()[0].power_cut();
    assert_eq!(shard.disks()[0].image().pages_stored(), 0, "and nothing was durable");

    let faults = DiskFaults {
        flush_error: always,
        forgives: true,
        sector_survives: Chance::NEVER,
        ..DiskFaults::NONE
    };
    let (world, shard) = with(faults);
    let (task, disk) = (shard.clone(), shard.disks()[0].clone());
    world.run(&shard, async move {
        put(&task, 0, 1, Durability::Cached).await.unwrap();
        assert!(matches!(task.disk(DISK).flush().await, Err(DiskError::Io { .. })));
        disk.set_faults(DiskFaults { sector_survives: Chance::NEVER, ..DiskFaults::NONE });
        assert_eq!(task.disk(DISK).flush().await, Ok(()), "as if nothing had been");
    });
    shard.disks()[0].power_cut();
    assert_eq!(shard.disks()[0].image().pages_stored(), 0, "what the failed flush should have kept is gone");

    let (world, shard) = with(DiskFaults { rot: always, ..DiskFaults::NONE });
    let task = shard.clone();
    world.run(&shard, async move {
        let buf = task.pool().take(4096).await;
        let (result, buf) = task.disk(DISK).read(IoClass::Scrub, Position(0), buf).await;
        assert_eq!(result, Ok(()));
        assert_eq!(buf.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1, "one bit flipped");
    });
}

#[test]
fn a_request_past_the_end_is_refused_and_harms_nothing() {
    let world = World::new(1);
    let shard = host(&world, 1);
    let task = shard.clone();
    world.run(&shard, async move {
        let error = put(&task, 4 * MIB, 1, Durability::Cached).await.unwrap_err();
        assert!(matches!(error, DiskError::OutOfRange { .. }));
        put(&task, 4 * MIB - 4096, 1, Durability::Cached).await.unwrap();
    });
}

#[test]
fn a_trace_rebuilds_every_crash() {
    let world = World::new(21);
    let shard = host(&world, 1);
    let disk = shard.disks()[0].clone();
    disk.start_trace();
    let (task, acknowledged) = (shard.clone(), Rc::new(RefCell::new(Vec::new())));
    let marks = Rc::clone(&acknowledged);
    world.run(&shard, async move {
        for round in 1..=5u8 {
            put(&task, 0, round, Durability::Cached).await.unwrap();
            put(&task, 4096, round, Durability::Cached).await.unwrap();
            task.disk(DISK).flush().await.unwrap();
            marks.borrow_mut().push(task.disks()[0].trace_len());
        }
    });
    let trace = disk.trace().unwrap();
    assert_eq!(trace.len(), 5 * 5, "two submits, two completions, one flush a round");
    for events in 0..=trace.len() {
        let rounds = acknowledged.borrow().iter().filter(|&&mark| mark <= events).count();
        let none = trace.crash_image(events, |_, _| false);
        assert_eq!(usize::from(none.page(Position(0))[0]), rounds, "what was flushed, and nothing else");
        let all = trace.crash_image(events, |_, _| true);
        assert!(usize::from(all.page(Position(0))[0]) >= rounds);
        let mut rng = fastrand::Rng::with_seed(events as u64);
        let some = trace.crash_image(events, |_, _| rng.bool());
        assert!(usize::from(some.page(Position(4096))[0]) >= rounds);
    }
    let last = trace.crash_image(trace.len(), |_, _| false);
    assert_eq!(last, disk.image());
    let reopened = MemDisk::from_image(&world, last);
    assert_eq!(reopened.image().page(Position(4096))[0], 5);
}

/// A pair of connected hosts.
fn connected(world: &World) -> ([MemShard; 2], [Rc<MemLane>; 2]) {
    let (one, two) = (host(world, 1), host(world, 2));
    let listener = two.listen(7);
    let to = listener.address();
    let from = one.clone();
    let near = Rc::new(Cell::new(None));
    let slot = Rc::clone(&near);
    one.spawn(TaskClass::Client, async move { slot.set(Some(from.connect(to).await.unwrap())) });
    let (far, peer) = world.run(&two, async move { listener.accept().await.unwrap() });
    assert_eq!(peer.0.ip(), ip(1));
    assert!(world.run_until(Duration::from_secs(1), || {
        let lane = near.take();
        let there = lane.is_some();
        near.set(lane);
        there
    }));
    let near = near.take().unwrap();
    ([one, two], [Rc::new(near), Rc::new(far)])
}

#[test]
fn bytes_arrive_in_order_whole_and_later() {
    let world = World::new(31);
    let ([one, two], [near, far]) = connected(&world);
    let sender = one.clone();
    one.spawn(TaskClass::Client, async move {
        for number in 0..8u8 {
            let body = filled(&sender, 100_000, number).await.freeze();
            near.send(&[number; 16], Some(body)).await.unwrap();
        }
        near.shutdown().await.unwrap();
        sender.clock().sleep_until(Duration::from_hours(1)).await;
        drop(near);
    });
    let shard = two.clone();
    world.run(&two, async move {
        let mut buf = shard.pool().take(1 << 20).await;
        for number in 0..8u8 {
            let (result, back) = far.recv_exact(buf, 16).await;
            result.unwrap();
            assert!(back[..16].iter().all(|&byte| byte == number));
            let (result, back) = far.recv_exact(back, 100_000).await;
            result.unwrap();
            assert!(back[..100_000].iter().all(|&byte| byte == number));
            buf = back;
        }
        let (result, _buf) = far.recv_some(buf, 1).await;
        assert_eq!(result, Err(LaneError::Closed));
    });
    assert!(world.now() > Duration::from_micros(20));
}

#[test]
fn a_sender_waits_for_its_reader() {
    let world = World::new(31);
    let ([one, two], [near, far]) = connected(&world);
    let (sender, sent) = (one.clone(), Rc::new(Cell::new(0)));
    let counting = Rc::clone(&sent);
    one.spawn(TaskClass::Client, async move {
        for number in 0..16u8 {
            let body = filled(&sender, 64 << 10, number).await.freeze();
            near.send(&[], Some(body)).await.unwrap();
            counting.set(counting.get() + 1);
        }
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(sent.get(), 4, "256 KiB are under way at most");
    let shard = two.clone();
    world.run(&two, async move {
        let mut left = 16 * (64 << 10);
        let mut buf = shard.pool().take(1 << 20).await;
        while left > 0 {
            let (result, back) = far.recv_some(buf, 1).await;
            left -= result.unwrap();
            buf = back;
        }
    });
    assert_eq!(sent.get(), 16);
}

#[test]
fn a_cut_way_holds_bytes_back_until_it_is_healed() {
    let world = World::new(33);
    let ([one, two], [near, far]) = connected(&world);
    world.cut(ip(1), ip(2));
    let sender = Rc::clone(&near);
    one.spawn(TaskClass::Client, async move { sender.send(b"held", None).await.unwrap() });
    let (got, shard) = (Rc::new(Cell::new(false)), two.clone());
    let flag = Rc::clone(&got);
    two.spawn(TaskClass::Client, async move {
        let buf = shard.pool().take(4096).await;
        let (result, buf) = far.recv_exact(buf, 4).await;
        result.unwrap();
        assert_eq!(&buf[..4], b"held");
        flag.set(true);
        far.send(b"back", None).await.unwrap();
        shard.clock().sleep_until(Duration::from_hours(1)).await;
    });
    world.run_for(Duration::from_secs(60));
    assert!(!got.get());
    let (from, to) = (one.clone(), SocketAddr::new(ip(2), 7));
    let refused = world.run(&one, async move { from.connect(PeerAddr(to)).await.unwrap_err() });
    assert_eq!(refused, LaneError::TimedOut);
    world.heal(ip(1), ip(2));
    let shard = one.clone();
    world.run(&one, async move {
        let (result, _buf) = near.recv_exact(shard.pool().take(4096).await, 4).await;
        result.unwrap();
    });
    assert!(got.get());
}

#[test]
fn peers_of_a_killed_process_see_a_broken_connection() {
    let world = World::new(33);
    let ([one, two], [near, far]) = connected(&world);
    two.spawn(TaskClass::Client, async move {
        sync::Notify::new().notified().await;
        drop(far);
    });
    world.run_for(Duration::from_millis(1));
    world.kill(&two, KillMode::Process);
    let shard = one.clone();
    world.run(&one, async move {
        let (result, _buf) = near.recv_exact(shard.pool().take(4096).await, 4).await;
        assert_eq!(result, Err(LaneError::Broken { errno: 104 }));
        let to = PeerAddr(SocketAddr::new(ip(2), 7));
        assert_eq!(shard.connect(to).await.unwrap_err(), LaneError::TimedOut, "nobody is there");
        let to = PeerAddr(SocketAddr::new(ip(1), 7));
        assert_eq!(shard.connect(to).await.unwrap_err(), LaneError::Refused, "nobody listens");
    });
}

#[test]
fn an_abandoned_send_poisons_its_lane() {
    let world = World::new(33);
    let ([one, _two], [near, _far]) = connected(&world);
    let shard = one.clone();
    world.run(&one, async move {
        let body = filled(&shard, 1 << 20, 1).await.freeze();
        let soon = shard.clock().now() + Duration::from_millis(1);
        let sent = sync::timeout_at(shard.clock(), soon, near.send(&[], Some(body))).await;
        assert_eq!(sent, Err(sync::TimedOut));
        assert_eq!(near.send(b"more", None).await, Err(LaneError::Poisoned));
    });
}

#[test]
fn a_reset_breaks_both_ends() {
    let world = World::new(35);
    let ([one, two], [near, far]) = connected(&world);
    world.set_net_faults(NetFaults { reset: Chance::ALWAYS, ..NetFaults::NONE });
    let broken = LaneError::Broken { errno: 104 };
    world.run(&one, async move { assert_eq!(near.send(b"x", None).await, Err(broken)) });
    let shard = two.clone();
    world.run(&two, async move {
        let (result, _buf) = far.recv_some(shard.pool().take(4096).await, 1).await;
        assert_eq!(result, Err(broken));
    });
}

#[test]
fn a_world_with_waiting_tasks_frees_them_when_dropped() {
    let world = World::new(1);
    let shard = host(&world, 1);
    let alive = Rc::new(());
    let (held, task) = (Rc::clone(&alive), shard.clone());
    shard.spawn(TaskClass::Client, async move {
        task.clock().sleep_until(Duration::from_hours(1)).await;
        drop(held);
    });
    world.run_for(Duration::from_secs(1));
    drop(world);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn a_stopped_host_does_nothing_until_it_goes_on_and_is_late_then() {
    let world = World::new(3);
    let (stopped, other) = (host(&world, 1), host(&world, 2));
    let ticks = |shard: &MemShard| {
        let (count, task) = (Rc::new(Cell::new(0)), shard.clone());
        let counted = Rc::clone(&count);
        shard.spawn(TaskClass::Client, async move {
            loop {
                task.clock().sleep_until(task.clock().now() + Duration::from_millis(10)).await;
                counted.set(counted.get() + 1);
            }
        });
        count
    };
    let (here, there) = (ticks(&stopped), ticks(&other));
    world.run_for(Duration::from_millis(105));
    assert_eq!((here.get(), there.get()), (10, 10));
    world.stop(&stopped);
    world.stop(&stopped);
    world.run_for(Duration::from_secs(1));
    assert_eq!((here.get(), there.get()), (10, 110));
    world.resume(&stopped);
    world.run_for(Duration::from_millis(5));
    assert_eq!(here.get(), 11, "the timer that ran out meanwhile");
    world.stop(&stopped);
    world.kill(&stopped, KillMode::Process);
    world.resume(&stopped);
    world.run_for(Duration::from_secs(1));
    assert_eq!(here.get(), 11, "what is dead stays dead");
}

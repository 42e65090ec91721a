//! How a shard starts, and how it ends.

use core::time::Duration;
use std::{rc::Rc, time::Instant};

use nova_buf::{HugePages, PoolOptions};
use nova_device::{
    Clock, Disk, Durability, Listener, Position, Shard,
    uring::{CreateOptions, create_disk},
};
use nova_shard::{BrokenDisks, ShardError, ShardOptions, run};
use nova_units::{DiskIndex, IoClass, PeerAddr, TaskClass};

pub(crate) fn small() -> ShardOptions {
    ShardOptions { pool: PoolOptions { bytes: 16 << 20, huge: HugePages::Never }, ..ShardOptions::default() }
}

#[test]
fn a_shard_returns_what_its_main_returns_and_says_what_it_runs_on() {
    let lines = run(small(), async |shard| shard.describe()).unwrap();
    let all = lines.join("\n");
    for part in [
        "glommio executor, not pinned",
        "deferred task run",
        "arena of 16 MiB in ordinary pages",
        "no listener",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
}

#[test]
fn a_pinned_shard_runs_on_its_core() {
    let options = ShardOptions { core: Some(0), ..small() };
    let cores = run(options, async |_shard| rustix::thread::sched_getaffinity(None).unwrap()).unwrap();
    assert!(cores.is_set(0));
    assert_eq!(cores.count(), 1);
}

#[test]
fn what_cannot_start_is_named() {
    let missing = ShardOptions { disks: vec!["/does/not/exist".into()], ..small() };
    assert!(matches!(run(missing, async |_| ()), Err(ShardError::Disk(_))));
    let path = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = path.path().join("disk");
    create_disk(&disk, CreateOptions { bytes: 1 << 20 }, |_| {}).unwrap();
    let disks = vec!["/does/not/exist".into(), disk];
    let without = ShardOptions { disks, broken_disks: BrokenDisks::Leave, ..small() };
    let found = run(without, async |shard| {
        let said = shard.describe().iter().any(|line| line.contains("disk 0: not in use"));
        (said, shard.disks().map(Result::is_ok).collect::<Vec<_>>())
    });
    assert_eq!(found.unwrap(), (true, vec![false, true]));
    // An address for documentation, which no host has (RFC 5737).
    let elsewhere = ShardOptions { listen: Some(([192, 0, 2, 1], 0).into()), ..small() };
    assert!(matches!(run(elsewhere, async |_| ()), Err(ShardError::Listen { .. })));
    let nowhere = ShardOptions { core: Some(100_000), ..small() };
    assert!(matches!(run(nowhere, async |_| ()), Err(ShardError::Executor { .. })));
}

#[test]
fn a_shard_ends_with_everything_still_in_flight() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_disk(&path, CreateOptions { bytes: 64 << 20 }, |_| {}).unwrap();
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    let options = ShardOptions { disks: vec![path], listen: Some(([127, 0, 0, 1], 0).into()), ..small() };
    let started = Instant::now();
    let pool = run(options, async move |shard| {
        let to = shard.listener().unwrap().address();
        for number in 0..200u64 {
            let (shard, held) = (shard.clone(), Rc::clone(&held));
            shard.clone().spawn(TaskClass::Background, async move {
                loop {
                    let buf = shard.pool().take(65536).await.freeze();
                    let at = Position(number % 1000 * 65536);
                    shard
                        .disk(DiskIndex(0))
                        .write(IoClass::Client, at, buf, Durability::Cached)
                        .await
                        .unwrap();
                    let _held = &held;
                }
            });
        }
        for _ in 0..10 {
            let (shard, held) = (shard.clone(), Rc::clone(&held));
            shard.clone().spawn(TaskClass::Client, async move {
                let lane = shard.connect(to).await.unwrap();
                let buf = shard.pool().take(4096).await;
                let _ = nova_device::Lane::recv_exact(&lane, buf, 4096).await;
                drop(held);
            });
        }
        shard.clock().sleep_until(shard.clock().now() + Duration::from_millis(30)).await;
        assert!(shard.reactor().in_flight() > 0, "writes are in flight");
        shard.pool().clone()
    })
    .unwrap();
    assert_eq!(Rc::strong_count(&alive), 1, "every task is dropped");
    assert_eq!(pool.free_bytes(), pool.bytes(), "every buffer is back");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_shard_can_be_started_again_on_the_same_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_disk(&path, CreateOptions { bytes: 1 << 20 }, |_| {}).unwrap();
    for round in 0..3u8 {
        let options = ShardOptions { disks: vec![path.clone()], ..small() };
        let found = run(options, async move |shard| {
            let disk = shard.disk(DiskIndex(0));
            let (result, mut buf) =
                disk.read(IoClass::Client, Position(0), shard.pool().take(4096).await).await;
            result.unwrap();
            let found = buf[0];
            buf.fill(round + 1);
            disk.write(IoClass::Wal, Position(0), buf.freeze(), Durability::Synced).await.unwrap();
            found
        });
        assert_eq!(found.unwrap(), round);
    }
}

#[test]
fn tasks_that_end_leave_the_list() {
    let left = run(small(), async |shard| {
        for _ in 0..100 {
            shard.spawn(TaskClass::Client, async {});
        }
        assert_eq!(shard.tasks_running(), 100);
        shard.clock().sleep_until(shard.clock().now() + Duration::from_millis(20)).await;
        shard.tasks_running()
    });
    assert_eq!(left.unwrap(), 0);
}

#[test]
fn secrets_and_random_numbers_differ() {
    run(small(), async |shard| {
        let (mut one, mut two) = ([0; 16], [0; 16]);
        shard.fill_secret(&mut one);
        shard.fill_secret(&mut two);
        assert_ne!(one, two);
        assert_ne!(shard.random(), shard.random());
        let nobody = PeerAddr(([127, 0, 0, 1], 1).into());
        assert!(shard.connect(nobody).await.is_err());
    })
    .unwrap();
}

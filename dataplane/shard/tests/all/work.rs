//! Disks, sockets and threads under a shard.

use core::{cell::Cell, time::Duration};
use std::{net::SocketAddr, rc::Rc, sync::mpsc};

use nova_device::{
    Clock, Disk, Durability, Lane, Listener, Position, Shard,
    sync::{Gate, Notify},
    uring::{CreateOptions, create_disk},
};
use nova_shard::{BLOCKING_MAX, ShardOptions, run};
use nova_units::{DiskIndex, IoClass, PeerAddr, TaskClass};

use crate::life::small;

const MESSAGES: u32 = 50;
const BODY_BYTES: usize = 300_000;

#[test]
fn a_thousand_tasks_write_flush_and_read() {
    const TASKS: u64 = 1000;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_disk(&path, CreateOptions { bytes: 8 << 20 }, |_| {}).unwrap();
    let options = ShardOptions { disks: vec![path], ..small() };
    run(options, async |shard| {
        let (gate, right) = (Gate::new(), Rc::new(Cell::new(0)));
        for number in 0..TASKS {
            let (task, pass, right) = (shard.clone(), gate.enter().unwrap(), Rc::clone(&right));
            let class = if number % 2 == 0 { TaskClass::Client } else { TaskClass::Background };
            shard.spawn(class, async move {
                let disk = task.disk(DiskIndex(0));
                let at = Position(number * 4096);
                let mut buf = task.pool().take(4096).await;
                buf.fill(u8::try_from(number % 251).unwrap());
                disk.write(IoClass::Client, at, buf.freeze(), Durability::Cached).await.unwrap();
                if number % 100 == 0 {
                    disk.flush().await.unwrap();
                }
                let (result, buf) = disk.read(IoClass::Client, at, task.pool().take(4096).await).await;
                result.unwrap();
                right.set(right.get() + u32::from(buf.iter().all(|&byte| u64::from(byte) == number % 251)));
                drop(pass);
            });
        }
        gate.close().await;
        assert_eq!(right.get(), 1000);
        assert_eq!(shard.pool().free_bytes(), shard.pool().bytes());
    })
    .unwrap();
}

/// Sends what its peer expects and receives what its peer sends, both at once.
async fn converse(shard: &impl Shard<Lane = nova_device::uring::TcpLane>, lane: nova_device::uring::TcpLane) {
    let (lane, sent) = (Rc::new(lane), Rc::new(Notify::new()));
    let (sender, out, done) = (shard.clone(), Rc::clone(&lane), Rc::clone(&sent));
    shard.spawn(TaskClass::Client, async move {
        for number in 0..MESSAGES {
            let mut body = sender.pool().take(BODY_BYTES).await;
            body.fill(u8::try_from(number).unwrap());
            out.send(&number.to_le_bytes(), Some(body.freeze())).await.unwrap();
        }
        done.notify_one();
    });
    let mut buf = shard.pool().take(BODY_BYTES).await;
    for number in 0..MESSAGES {
        let (result, back) = lane.recv_exact(buf, 4).await;
        result.unwrap();
        assert_eq!(back[..4], number.to_le_bytes());
        let (result, back) = lane.recv_exact(back, BODY_BYTES).await;
        result.unwrap();
        assert!(back.iter().all(|&byte| u32::from(byte) == number));
        buf = back;
    }
    sent.notified().await;
}

#[test]
fn two_shards_talk_both_ways_at_once() {
    let (tell, told) = mpsc::channel::<SocketAddr>();
    let server = std::thread::spawn(move || {
        let options =
            ShardOptions { name: "server".into(), listen: Some(([127, 0, 0, 1], 0).into()), ..small() };
        run(options, async move |shard| {
            let listener = shard.listener().unwrap();
            tell.send(listener.address().0).unwrap();
            let (lane, _) = listener.accept().await.unwrap();
            converse(&shard, lane).await;
        })
        .unwrap();
    });
    let to = told.recv().unwrap();
    run(ShardOptions { name: "client".into(), ..small() }, async move |shard| {
        let lane = shard.connect(PeerAddr(to)).await.unwrap();
        converse(&shard, lane).await;
    })
    .unwrap();
    server.join().unwrap();
}

#[test]
fn blocking_work_runs_beside_the_shard_and_is_bounded() {
    run(small(), async |shard| {
        assert_eq!(shard.run_blocking(|| 7).await.unwrap(), 7);
        let gate = Gate::new();
        let ticks = Rc::new(Cell::new(0));
        for _ in 0..2 * BLOCKING_MAX {
            let (task, pass) = (shard.clone(), gate.enter().unwrap());
            shard.spawn(TaskClass::Background, async move {
                task.run_blocking(|| std::thread::sleep(Duration::from_millis(20))).await.unwrap();
                drop(pass);
            });
        }
        let (task, counting) = (shard.clone(), Rc::clone(&ticks));
        shard.spawn(TaskClass::Control, async move {
            loop {
                task.clock().sleep_until(task.clock().now() + Duration::from_millis(1)).await;
                counting.set(counting.get() + 1);
            }
        });
        let start = shard.clock().now();
        gate.close().await;
        assert!(shard.clock().now() - start >= Duration::from_millis(40), "two rounds of {BLOCKING_MAX}");
        assert!(ticks.get() > 5, "the shard went on meanwhile");
    })
    .unwrap();
}

#[test]
fn a_panic_of_blocking_work_is_an_error_of_its_caller() {
    run(small(), async |shard| {
        let result = shard.run_blocking(|| panic!("on a thread of its own")).await;
        assert!(result.is_err());
    })
    .unwrap();
}

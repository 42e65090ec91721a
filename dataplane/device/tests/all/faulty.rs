use core::time::Duration;

use nova_device::{
    Clock, Disk, DiskError, Durability, Lane, LaneError, Listener, Position,
    faulty::{FaultyDisk, FaultyDiskOptions, FaultyLane, FaultyLaneOptions},
    mem::{Chance, Latency},
    uring::{RealClock, TcpLane, TcpListener},
};
use nova_units::IoClass;

use crate::bench::{Bench, MIB};

#[test]
fn a_flipped_bit_comes_from_the_read_and_not_from_the_disk() {
    let bench = Bench::new();
    let clock = RealClock::new(&bench.reactor);
    let options = FaultyDiskOptions { read_flip: Chance::ALWAYS, ..FaultyDiskOptions::default() };
    let disk = FaultyDisk::new(bench.disk(MIB), clock, 7, options);
    bench.reactor.run(async {
        let zeros = bench.filled(4096, 0).freeze();
        disk.write(IoClass::Client, Position(0), zeros, Durability::Synced).await.unwrap();
        let ones = async || {
            let (result, buf) = disk.read(IoClass::Client, Position(0), bench.filled(4096, 9)).await;
            result.unwrap();
            buf.iter().map(|byte| byte.count_ones()).sum::<u32>()
        };
        assert_eq!(ones().await, 1);
        disk.set_options(FaultyDiskOptions::default());
        assert_eq!(ones().await, 0);
    });
}

#[test]
fn an_error_of_a_write_is_final_and_one_of_a_read_is_not() {
    let bench = Bench::new();
    let clock = RealClock::new(&bench.reactor);
    let options = FaultyDiskOptions { read_error: Chance::ALWAYS, ..FaultyDiskOptions::default() };
    let disk = FaultyDisk::new(bench.disk(MIB), clock, 7, options);
    bench.reactor.run(async {
        let (result, buf) = disk.read(IoClass::Client, Position(4096), bench.filled(4096, 9)).await;
        assert_eq!(result, Err(DiskError::Io { position: Position(4096), errno: 5 }));
        disk.set_options(FaultyDiskOptions { write_error: Chance::ALWAYS, ..FaultyDiskOptions::default() });
        let (result, buf) = disk.read(IoClass::Client, Position(4096), buf).await;
        assert_eq!(result, Ok(()));
        let written = disk.write(IoClass::Client, Position(0), buf.freeze(), Durability::Cached).await;
        assert_eq!(written, Err(DiskError::Io { position: Position(0), errno: 5 }));
        disk.set_options(FaultyDiskOptions::default());
        assert_eq!(disk.flush().await, Err(DiskError::Failed));
        assert!(!disk.inner().is_failed(), "the real disk never saw it");
    });
}

#[test]
fn a_held_up_request_takes_its_time() {
    let bench = Bench::new();
    let clock = RealClock::new(&bench.reactor);
    let by = Latency { min: Duration::from_millis(20), max: Duration::from_millis(30) };
    let options =
        FaultyDiskOptions { delay: Chance::ALWAYS, delay_by: Some(by), ..FaultyDiskOptions::default() };
    let disk = FaultyDisk::new(bench.disk(MIB), clock.clone(), 7, options);
    bench.reactor.run(async {
        let start = clock.now();
        disk.flush().await.unwrap();
        assert!(clock.now() - start >= by.min);
    });
}

#[test]
fn a_reset_lane_stays_broken_and_its_peer_sees_the_end() {
    let bench = Bench::new();
    let clock = RealClock::new(&bench.reactor);
    bench.reactor.run(async {
        let listener = TcpListener::bind(&bench.reactor, ([127, 0, 0, 1], 0).into()).unwrap();
        let near = TcpLane::connect(&bench.reactor, listener.address().0).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let options = FaultyLaneOptions { reset: Chance::ALWAYS, ..FaultyLaneOptions::default() };
        let near = FaultyLane::new(near, clock, 7, options);
        let broken = LaneError::Broken { errno: 104 };
        assert_eq!(near.send(b"lost", None).await, Err(broken));
        let (result, _buf) = near.recv_some(bench.filled(4096, 0), 1).await;
        assert_eq!(result, Err(broken));
        let (result, _buf) = far.recv_exact(bench.filled(4096, 0), 4).await;
        assert_eq!(result, Err(LaneError::Closed));
    });
}

#[test]
fn a_bad_switch_flips_one_bit_of_what_arrives() {
    let bench = Bench::new();
    let clock = RealClock::new(&bench.reactor);
    bench.reactor.run(async {
        let listener = TcpListener::bind(&bench.reactor, ([127, 0, 0, 1], 0).into()).unwrap();
        let near = TcpLane::connect(&bench.reactor, listener.address().0).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let options = FaultyLaneOptions { receive_flip: Chance::ALWAYS, ..FaultyLaneOptions::default() };
        let far = FaultyLane::new(far, clock, 7, options);
        near.send(&[0; 16], Some(bench.filled(4096, 0).freeze())).await.unwrap();
        let (result, buf) = far.recv_exact(bench.filled(8192, 0), 4112).await;
        result.unwrap();
        assert_eq!(buf.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    });
}

use core::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};
use std::os::{fd::AsRawFd, unix::fs::FileExt};

use nova_buf::{HugePages, Pool, PoolOptions};
use nova_device::{
    Disk, DiskError, Durability, Position, sync,
    uring::{CreateError, CreateOptions, OpenError, Progress, Reactor, Registration, UringDisk, create_disk},
};
use nova_units::IoClass;

use crate::bench::{Bench, MIB};

#[test]
fn what_is_written_is_read_by_us_and_by_the_file_system() {
    let bench = Bench::new();
    let disk = bench.disk(4 * MIB);
    assert_eq!(disk.bytes(), 4 << 20);
    bench.reactor.run(async {
        for (at, bytes, with, durability) in [
            (0, 4096, 1, Durability::Cached),
            (8192, 65536, 2, Durability::Synced),
            (1 << 20, MIB, 3, Durability::Cached),
        ] {
            let buf = bench.filled(bytes, with).freeze();
            disk.write(IoClass::Client, Position(at), buf, durability).await.unwrap();
            let (result, buf) = disk.read(IoClass::Client, Position(at), bench.filled(bytes, 0xEE)).await;
            result.unwrap();
            assert!(buf.iter().all(|&byte| byte == with));
        }
        disk.flush().await.unwrap();
    });
    let file = std::fs::File::open(bench.path()).unwrap();
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 8192).unwrap();
    assert_eq!(page, [2; 4096]);
    assert_eq!(bench.pool.free_bytes(), bench.pool.bytes());
}

#[test]
fn parts_of_a_shared_buffer_are_written_each_to_its_place() {
    let bench = Bench::new();
    let disk = bench.disk(MIB);
    bench.reactor.run(async {
        let mut buf = bench.filled(8192, 1);
        buf[4096..].fill(2);
        let whole = buf.freeze();
        let parts = [(whole.slice(4096..8192), 0), (whole.slice(0..4096), 4096)];
        let writes = parts.map(|(part, at)| disk.write(IoClass::Wal, Position(at), part, Durability::Cached));
        assert_eq!(sync::join_all(writes).await, [Ok(()), Ok(())]);
        let (result, buf) = disk.read(IoClass::Client, Position(0), bench.filled(8192, 0)).await;
        result.unwrap();
        assert_eq!((buf[0], buf[8191]), (2, 1));
    });
}

#[test]
fn a_thousand_requests_at_once_all_land_where_they_belong() {
    const COUNT: u64 = 1000;
    let bench = Bench::new();
    let disk = bench.disk(8 * MIB);
    bench.reactor.run(async {
        let write = async |number: u64| {
            let mut buf = bench.pool.take(4096).await;
            buf.fill(u8::try_from(number % 251).unwrap());
            disk.write(IoClass::Client, Position(number * 4096), buf.freeze(), Durability::Cached).await
        };
        let written = sync::join_all((0..COUNT).map(write)).await;
        assert!(written.iter().all(Result::is_ok));
        let read = async |number: u64| {
            let buf = bench.pool.take(4096).await;
            let (result, buf) = disk.read(IoClass::Scrub, Position(number * 4096), buf).await;
            result.unwrap();
            buf.iter().all(|&byte| u64::from(byte) == number % 251)
        };
        assert!(sync::join_all((0..COUNT).map(read)).await.into_iter().all(|right| right));
    });
    assert_eq!(bench.pool.free_bytes(), bench.pool.bytes());
    assert_eq!(disk.queue_depth(), (0, 0));
}

#[test]
fn a_dropped_read_gives_its_buffer_back_only_when_the_kernel_is_done() {
    let bench = Bench::new();
    let disk = bench.disk(8 * MIB);
    let all = bench.pool.bytes();
    for round in 0..20 {
        let buf = bench.filled(MIB, 0x55);
        {
            let mut read = pin!(disk.read(IoClass::Client, Position(0), buf));
            let mut context = Context::from_waker(Waker::noop());
            // Once to be admitted and to take a slot.
            assert!(read.as_mut().poll(&mut context).is_pending());
            if round % 2 == 0 {
                bench.reactor.turn();
            }
        }
        assert!(bench.pool.free_bytes() < all, "the operation holds it");
        bench.reactor.run(async { disk.flush().await.unwrap() });
        while bench.reactor.in_flight() > 0 {
            bench.reactor.turn();
        }
        assert_eq!(bench.pool.free_bytes(), all);
        bench.reactor.run(async {
            let (result, buf) = disk.read(IoClass::Client, Position(MIB as u64), bench.filled(MIB, 1)).await;
            result.unwrap();
            assert!(buf.iter().all(|&byte| byte == 0));
        });
    }
}

#[test]
fn a_reactor_dropped_with_reads_in_flight_waits_for_them() {
    let bench = Bench::new();
    let disk = bench.disk(8 * MIB);
    let pool = bench.pool.clone();
    let mut reads: Vec<_> = (0..8u64)
        .map(|number| Box::pin(disk.read(IoClass::Client, Position(number << 20), bench.filled(MIB, 9))))
        .collect();
    for read in &mut reads {
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    bench.reactor.turn();
    drop(reads);
    drop(disk);
    drop(bench);
    assert_eq!(pool.free_bytes(), pool.bytes(), "the kernel has given back every buffer");
}

#[test]
fn requests_outside_the_disk_are_refused_and_harm_nothing() {
    let bench = Bench::new();
    let disk = bench.disk(MIB);
    bench.reactor.run(async {
        let past = disk
            .write(IoClass::Client, Position(MIB as u64), bench.filled(4096, 1).freeze(), Durability::Cached)
            .await;
        assert!(matches!(past, Err(DiskError::OutOfRange { disk_bytes: 1_048_576, .. })));
        assert!(!disk.is_failed());
        disk.discard(Position(0), 4096).await.unwrap();
        disk.flush().await.unwrap();
    });
}

#[test]
fn a_read_error_is_a_matter_of_its_page() {
    let bench = Bench::new();
    let disk = bench.disk(4 * MIB);
    // The file shrinks under us: a read past its end gets nothing, which no device would do.
    std::fs::OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(1 << 20).unwrap();
    bench.reactor.run(async {
        let (result, buf) = disk.read(IoClass::Client, Position(2 << 20), bench.filled(4096, 1)).await;
        assert_eq!(result, Err(DiskError::Io { position: Position(2 << 20), errno: 5 }));
        assert!(!disk.is_failed(), "a read error is a matter of that page");
        drop(buf);
    });
}

#[test]
fn a_device_that_errs_on_a_write_is_failed_for_good() {
    // A file in memory that is sealed against writing stands for a device that stops taking them.
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::memfd_create("disk", flags).unwrap());
    file.write_all_at(&vec![0; MIB], 0).unwrap();
    let bench = Bench::new();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let disk = match UringDisk::open(&bench.reactor, path.as_ref()) {
        Err(OpenError::NoDirect { .. }) => {
            return println!("skipped: no direct I/O on files in memory (Linux < 6.6)");
        }
        disk => disk.unwrap(),
    };
    let write =
        |at| disk.write(IoClass::Wal, Position(at), bench.filled(4096, 1).freeze(), Durability::Synced);
    bench.reactor.run(async {
        write(0).await.unwrap();
        rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).unwrap();
        assert_eq!(write(8192).await, Err(DiskError::Io { position: Position(8192), errno: 1 }));
        assert!(disk.is_failed());
        assert_eq!(write(0).await, Err(DiskError::Failed));
        assert_eq!(disk.flush().await, Err(DiskError::Failed));
        let (result, _buf) = disk.read(IoClass::Client, Position(0), bench.filled(4096, 1)).await;
        assert_eq!(result, Err(DiskError::Failed));
    });
}

#[test]
fn a_disk_is_created_whole_once_and_with_progress() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    let bytes = 3 << 20;
    create_disk(&bench.path(), CreateOptions { bytes }, |progress| seen.push(progress)).unwrap();
    assert_eq!(seen.last(), Some(&Progress { bytes_done: bytes, bytes_total: bytes }));
    assert!(std::fs::read(bench.path()).unwrap().iter().all(|&byte| byte == 0));
    let again = create_disk(&bench.path(), CreateOptions { bytes }, |_| {});
    assert!(matches!(again, Err(CreateError::Exists { .. })), "{again:?}");
    let other = bench.folder.path().join("other");
    let huge = create_disk(&other, CreateOptions { bytes: 1 << 60 }, |_| {});
    assert!(matches!(huge, Err(CreateError::NoSpace { .. })), "{huge:?}");
    let odd = create_disk(&other, CreateOptions { bytes: 4095 }, |_| {});
    assert!(matches!(odd, Err(CreateError::Size { bytes: 4095 })), "{odd:?}");
    let names: Vec<_> =
        std::fs::read_dir(bench.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["disk"], "nothing is left behind");
}

#[test]
fn a_disk_is_opened_once_and_again_after_it_is_closed() {
    let bench = Bench::new();
    let disk = bench.disk(MIB);
    assert!(disk.facts().fixed_file && !disk.facts().block_device);
    let again = UringDisk::open(&bench.reactor, &bench.path());
    assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    drop(disk);
    UringDisk::open(&bench.reactor, &bench.path()).unwrap();
}

#[test]
fn what_is_not_a_disk_is_not_opened() {
    let bench = Bench::new();
    let missing = UringDisk::open(&bench.reactor, &bench.path());
    assert!(matches!(missing, Err(OpenError::Open { .. })), "{missing:?}");
    std::fs::File::create(bench.path()).unwrap().set_len(1 << 20).unwrap();
    let sparse = UringDisk::open(&bench.reactor, &bench.path());
    assert!(matches!(sparse, Err(OpenError::Sparse { bytes: 1_048_576, .. })), "{sparse:?}");
    std::fs::write(bench.path(), b"too small").unwrap();
    let small = UringDisk::open(&bench.reactor, &bench.path());
    assert!(matches!(small, Err(OpenError::NotADisk { .. })), "{small:?}");
}

#[test]
fn registration_over_the_limit_degrades_and_says_so() {
    let reactor = Reactor::new().unwrap();
    let pool = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never }).unwrap();
    match reactor.register_pool(&pool) {
        Registration::Registered { bytes } => assert_eq!(bytes, 64 << 20),
        Registration::Unregistered { reason } => {
            assert!(reason.contains("LimitMEMLOCK"), "{reason}");
            assert!(reactor.registration().to_string().contains("unregistered"));
        }
        Registration::None => panic!("an answer is given"),
    }
}

#[test]
fn registered_buffers_read_and_write_like_others() {
    let bench = Bench::new();
    let disk = bench.disk(MIB);
    let pool = Pool::new(PoolOptions { bytes: 2 << 20, huge: HugePages::Never }).unwrap();
    let registered = matches!(bench.reactor.register_pool(&pool), Registration::Registered { .. });
    bench.reactor.run(async {
        for pool in [&pool, &bench.pool] {
            let mut buf = pool.try_take(65536).unwrap();
            buf.fill(7);
            disk.write(IoClass::Wal, Position(4096), buf.freeze(), Durability::Synced).await.unwrap();
            let (result, buf) = disk.read(IoClass::Wal, Position(4096), pool.try_take(65536).unwrap()).await;
            result.unwrap();
            assert!(buf.iter().all(|&byte| byte == 7), "registered: {registered}");
        }
    });
}

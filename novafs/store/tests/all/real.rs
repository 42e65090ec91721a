//! The same store over `io_uring` and a file with direct I/O.

use crate::rig::{GROUP, at, entry, unit};
use nova_buf::{HugePages, Pool, PoolOptions, SharedBuf};
use nova_device::uring::{CreateOptions, Reactor, RealClock, TcpLane, UringDisk, create_disk};
use nova_device::{Durability, LaneError, Shard, sync};
use nova_units::{BlockId, DeviceId, DiskIndex, IoClass, PeerAddr, Seq, TaskClass, UnitIndex};
use novafs_store::{FormatOptions, OpenOptions, Opened, Store};
use std::cell::RefCell;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A shard without an executor: its tasks are polled beside the future that a test runs.
#[derive(Clone)]
struct RealShard {
    disk: Rc<UringDisk>,
    clock: RealClock,
    pool: Pool,
    reactor: Reactor,
    tasks: Rc<RefCell<Vec<Task>>>,
}

impl RealShard {
    fn new(path: &Path) -> Self {
        let reactor = Reactor::new().unwrap();
        let pool = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never }).unwrap();
        let disk = Rc::new(UringDisk::open(&reactor, path).unwrap());
        Self { disk, clock: RealClock::new(&reactor), pool, reactor, tasks: Rc::default() }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let beside = poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            let polled = self.tasks.take();
            let waiting: Vec<Task> = polled
                .into_iter()
                .filter_map(|mut task| task.as_mut().poll(context).is_pending().then_some(task))
                .collect();
            if !self.tasks.borrow().is_empty() {
                context.waker().wake_by_ref();
            }
            self.tasks.borrow_mut().extend(waiting);
            Poll::Pending
        });
        self.reactor.run(beside)
    }

    fn body(&self, bytes: &[u8]) -> SharedBuf {
        let mut buffer = self.pool.try_take(bytes.len()).unwrap();
        buffer.copy_from_slice(bytes);
        buffer.freeze()
    }

    fn open(&self) -> Opened<Self> {
        self.run(Store::open(self.clone(), DiskIndex(0), OpenOptions::default())).unwrap()
    }
}

impl Shard for RealShard {
    type Disk = UringDisk;
    type Lane = TcpLane;
    type Clock = RealClock;

    fn disk(&self, _index: DiskIndex) -> &UringDisk {
        &self.disk
    }

    fn clock(&self) -> &RealClock {
        &self.clock
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    async fn connect(&self, _to: PeerAddr) -> Result<TcpLane, LaneError> {
        panic!("a store connects to nobody")
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn fill_secret(&self, out: &mut [u8]) {
        fastrand::Rng::new().fill(out);
    }

    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(Box::pin(task));
    }
}

#[test]
fn a_file_with_direct_io_keeps_what_was_appended() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    create_disk(&path, CreateOptions { bytes: 96 << 20 }, |_| {}).unwrap();
    let names = |seq: u64| (0..16).map(move |index| (seq, index, seq, 65_536));
    {
        let shard = RealShard::new(&path);
        shard.run(Store::format(&shard, DiskIndex(0), FormatOptions::new(DeviceId(7)))).unwrap();
        let store = shard.open().store;
        for first in (1..=24).step_by(8) {
            let appends = (first..first + 8).map(|seq| {
                let (entry, stored) = entry(&names(seq).collect::<Vec<_>>());
                let (body, store) = (shard.body(&stored), store.clone());
                async move { store.append(GROUP, at(seq), &entry, Some(body), Durability::Synced).await }
            });
            assert!(shard.run(sync::join_all(appends)).iter().all(Result::is_ok));
            store.commit(GROUP, Seq(first + 7));
        }
        shard.run(store.checkpoint()).unwrap();
        let (small, stored) = entry(&[(90, 0, 1, 777)]);
        shard
            .run(store.append(GROUP, at(25), &small, Some(shard.body(&stored)), Durability::Synced))
            .unwrap();
        // The process ends here without closing anything; its tasks hold the disk.
        drop(shard.tasks.take());
    }
    let shard = RealShard::new(&path);
    let opened = shard.open();
    assert_eq!((opened.mount_counter, opened.suspects.len()), (2, 0));
    let store = opened.store;
    assert_eq!(store.group(GROUP).unwrap().last, at(25));
    store.commit(GROUP, Seq(25));
    for seq in 1..=24 {
        let run = shard.run(store.read_run(GROUP, BlockId(seq), 0..16, IoClass::Client)).unwrap();
        assert!(*run.body == *entry(&names(seq).collect::<Vec<_>>()).1, "block {seq}");
    }
    let found = shard.run(store.read(GROUP, BlockId(90), UnitIndex(0), IoClass::Client)).unwrap().unwrap();
    assert!(*found.body == *unit(90, 0, 1, 777).1);
    shard.run(store.close()).unwrap();
}

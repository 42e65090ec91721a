//! The same link over the kernel's TCP on loopback, through an `io_uring`.
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Instant,
};

use nova_buf::{HugePages, Pool, PoolOptions, SharedBuf};
use nova_device::{
    LaneError, Listener, Peers, Request, Shard,
    mem::MemDisk,
    uring::{Reactor, RealClock, TcpLane, TcpListener},
};
use nova_units::{BootId, DiskIndex, NodeId, PeerAddr, TaskClass};
use novabulk_link::{Admitted, BODY_BYTES_MAX, Link, LinkOptions, LocalIdentity};

use super::hosts::{Echo, pattern, request, tls};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A reactor and a handful of tasks, all polled whenever anything happens.
#[derive(Clone)]
struct TcpShard(Rc<Inner>);

struct Inner {
    reactor: Reactor,
    clock: RealClock,
    pool: Pool,
    spawned: RefCell<Vec<Task>>,
}

impl TcpShard {
    fn new() -> Self {
        let reactor = Reactor::new().unwrap();
        let pool = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never }).unwrap();
        reactor.register_pool(&pool);
        let clock = RealClock::new(&reactor);
        Self(Rc::new(Inner { reactor, clock, pool, spawned: RefCell::default() }))
    }

    fn run(&self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        let mut tasks: Vec<Task> = Vec::new();
        self.0.reactor.run(poll_fn(|context| {
            let output = future.as_mut().poll(context);
            loop {
                tasks.append(&mut self.0.spawned.borrow_mut());
                tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
                if self.0.spawned.borrow().is_empty() {
                    break;
                }
            }
            output
        }));
        drop(tasks);
    }
}

impl Shard for TcpShard {
    type Disk = MemDisk;
    type Lane = TcpLane;
    type Clock = RealClock;

    fn disk(&self, index: DiskIndex) -> &MemDisk {
        panic!("a shard without disks was asked for {index}")
    }

    fn clock(&self) -> &RealClock {
        &self.0.clock
    }

    fn pool(&self) -> &Pool {
        &self.0.pool
    }

    async fn connect(&self, to: PeerAddr) -> Result<TcpLane, LaneError> {
        TcpLane::connect(&self.0.reactor, to.0).await
    }

    fn random(&self) -> u64 {
        4
    }

    fn fill_secret(&self, out: &mut [u8]) {
        out.fill(4);
    }

    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.0.spawned.borrow_mut().push(Box::pin(task));
    }
}

/// All of the futures, in any order.
async fn all(futures: Vec<impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn blocks_cross_the_kernel_unchanged() {
    let shard = TcpShard::new();
    let listener = TcpListener::bind(&shard.0.reactor, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.address();
    let options = LinkOptions { connections_max: 3, ..LinkOptions::default() };
    let link = |node| {
        let local = LocalIdentity { node: NodeId(node), boot: BootId(node) };
        let link = Link::new(shard.clone(), local, options, tls(if node == 2 { "two" } else { "one" }));
        link.admit(Admitted::Anyone);
        link
    };
    let (caller, server) = (link(1), link(2));
    caller.set_peers([(NodeId(2), address)].into());
    let serving = server.clone();
    shard.spawn(TaskClass::Control, async move {
        let echo = Rc::new(Echo::default());
        while let Ok((lane, from)) = listener.accept().await {
            serving.accept(lane, from, Rc::clone(&echo));
        }
    });
    let blocks = 48;
    shard.run(async {
        let ping = Request { control: true, ..request(0, None, 0) };
        caller.call(NodeId(2), ping).await.unwrap();
        let began = Instant::now();
        let lanes = (0..4).map(async |lane| {
            for key in (lane..blocks).step_by(4) {
                let mut body = shard.pool().take(BODY_BYTES_MAX).await;
                body.copy_from_slice(&pattern(key, BODY_BYTES_MAX));
                let body = SharedBuf::from(body);
                let reply_max = u32::try_from(BODY_BYTES_MAX).unwrap();
                let reply = caller.call(NodeId(2), request(key, Some(body), reply_max)).await.unwrap();
                assert!(reply.body.unwrap()[..] == pattern(key, BODY_BYTES_MAX), "block {key} changed");
            }
        });
        all(lanes.collect()).await;
        println!("{blocks} MiB there and back in {:?}", began.elapsed());

        let began = Instant::now();
        for key in 0..2000 {
            caller.call(NodeId(2), request(key, None, 0)).await.unwrap();
        }
        println!("{:?} a call without body", began.elapsed() / 2000);
        let (sent, heard) = (caller.counters(), server.counters());
        assert_eq!((sent.calls_failed, heard.served), (0, blocks + 2001));
        assert_eq!((sent.bytes_sent, sent.frames_sent), (heard.bytes_received, heard.frames_received));
        caller.drain();
        shard.0.reactor.drain().await;
    });
}

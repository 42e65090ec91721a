//! Hosts with a link each, in one seeded world.
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use nova_buf::{HugePages, Pool, PoolOptions, SharedBuf};
use nova_device::{
    Clock, Handler, Incoming, Listener, Request, Served, Shard,
    mem::{HostOptions, MemShard, World},
    sync::Notify,
};
use nova_units::{BootId, NodeId, PeerAddr, Priority, TaskClass};
use novabulk_link::{Admitted, Link, LinkOptions, LocalIdentity};
use novabulk_tls::{Tls, TlsConfig, TlsOptions};

pub(crate) const PORT: u16 = 7400;

pub(crate) fn ip(node: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, node))
}

pub(crate) fn address(node: u8) -> PeerAddr {
    PeerAddr(SocketAddr::new(ip(node), PORT))
}

pub(crate) fn addresses(nodes: u8) -> BTreeMap<NodeId, PeerAddr> {
    (1..=nodes).map(|node| (NodeId(node.into()), address(node))).collect()
}

/// TLS with the certificate of this name of the tests of `novabulk/tls`.
pub(crate) fn tls(name: &str) -> Tls {
    let read = |file: String| {
        let path = format!("{}/../tls/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (certificate, key) = (read(format!("{name}.pem")), read(format!("{name}.key")));
    let config = TlsConfig::from_pem(&read("ca.pem".to_owned()), &certificate, &key).unwrap();
    let memory = Pool::new(PoolOptions { bytes: 32 << 20, huge: HugePages::Never }).unwrap();
    Tls::new(config, TlsOptions::default(), memory)
}

/// A shard and its link; node `n` listens at 10.0.0.n. Node 2 has the certificate of host `two`, all others that of `one`.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) shard: MemShard,
    pub(crate) link: Link<MemShard>,
    pub(crate) tls: Tls,
}

impl Host {
    pub(crate) fn start(world: &World, node: u8, pool_bytes: u64, options: LinkOptions) -> Self {
        let host = HostOptions { address: ip(node), pool_bytes, ..HostOptions::default() };
        let shard = world.add_host(host);
        let local = LocalIdentity { node: NodeId(node.into()), boot: BootId(shard.random()) };
        let tls = tls(if node == 2 { "two" } else { "one" });
        let link = Link::new(shard.clone(), local, options, tls.clone());
        link.set_peers(addresses(9));
        link.admit(Admitted::Anyone);
        Self { shard, link, tls }
    }

    /// Hands every accepted lane to the link.
    pub(crate) fn serve<H: Handler>(&self, handler: Rc<H>) {
        let listener = self.shard.listen(PORT);
        let link = self.link.clone();
        self.shard.spawn(TaskClass::Control, async move {
            while let Ok((lane, from)) = listener.accept().await {
                link.accept(lane, from, Rc::clone(&handler));
            }
        });
    }

    /// A body of `bytes` that tells `key` from every other.
    pub(crate) async fn body(&self, key: u64, bytes: usize) -> SharedBuf {
        let mut body = self.shard.pool().take(bytes).await;
        body.copy_from_slice(&pattern(key, bytes));
        body.freeze()
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.shard.pool().free_bytes()
    }
}

pub(crate) fn pattern(key: u64, bytes: usize) -> Vec<u8> {
    let word = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    let mut pattern = word.repeat(bytes.div_ceil(8));
    pattern.truncate(bytes);
    pattern
}

pub(crate) fn request(key: u64, body: Option<SharedBuf>, reply_bytes_max: u32) -> Request {
    Request {
        priority: Priority::P2,
        hop: 0,
        head: key.to_be_bytes().to_vec(),
        body,
        reply_bytes_max,
        deadline: Duration::from_secs(20),
        control: false,
    }
}

/// Answers with head and body of the request.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) from: RefCell<Vec<NodeId>>,
}

impl Handler for Echo {
    async fn serve(&self, from: NodeId, request: Incoming) -> Served {
        self.from.borrow_mut().push(from);
        Served { head: request.head, body: request.body.map(SharedBuf::from) }
    }
}

/// Holds every request until the gate opens.
#[derive(Default)]
pub(crate) struct Gated {
    pub(crate) inside: Cell<usize>,
    pub(crate) inside_max: Cell<usize>,
    pub(crate) open: Cell<bool>,
    pub(crate) opened: Notify,
}

impl Gated {
    pub(crate) fn open(&self) {
        self.open.set(true);
        self.opened.notify_all();
    }
}

impl Handler for Gated {
    async fn serve(&self, _from: NodeId, request: Incoming) -> Served {
        self.inside.set(self.inside.get() + 1);
        self.inside_max.set(self.inside_max.get().max(self.inside.get()));
        while !self.open.get() {
            self.opened.notified().await;
        }
        drop(request.body);
        self.inside.set(self.inside.get() - 1);
        Served { head: request.head, body: None }
    }
}

/// Answers after a while.
pub(crate) struct Slow {
    pub(crate) shard: MemShard,
    pub(crate) takes: Duration,
}

impl Handler for Slow {
    async fn serve(&self, _from: NodeId, request: Incoming) -> Served {
        let clock = self.shard.clock();
        clock.sleep_until(clock.now() + self.takes).await;
        Served { head: request.head, body: request.body.map(SharedBuf::from) }
    }
}

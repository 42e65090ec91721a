//! What a link under TLS costs: bodies of 1 MiB read and written over the loopback, with processor time a GB of both ends and
//! system calls a MiB; a JSON line for each row and round.
//!
//! Two builds are compared by running them in turns; nothing here says anything alone.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use nova_buf::{HugePages, Pool, PoolOptions, SharedBuf};
use nova_device::sync::join_all;
use nova_device::{Clock as _, Handler, Incoming, Listener as _, Peers as _, Request, Served, Shard as _};
use nova_shard::{RealShard, ShardOptions};
use nova_units::{BootId, NodeId, PeerAddr, Priority, TaskClass};
use novabulk_frame::page_sums;
use novabulk_link::{Admitted, BODY_BYTES_MAX, Link, LinkOptions, LocalIdentity};
use novabulk_tls::{Tls, TlsConfig, TlsOptions};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Calls under way at once.
const DEPTH: u64 = 4;
/// Bodies that are sent in turns: more than a core's cache holds, as with blocks that come from a disk.
const BODIES: usize = 48;
/// How often the server looks whether the other end is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SERVER: NodeId = NodeId(2);

/// Measures a link under TLS.
#[derive(Debug, Parser)]
#[command(name = "records", version, after_help = "Example:\n  records --mib 4096 --rounds 5")]
struct Arguments {
    /// MiB that each row moves in each round.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    mib: u64,
    /// Rounds; the rows alternate.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// What is asked, in the first byte of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

/// What one end of a connection used.
#[derive(Clone, Copy, Debug)]
struct Used {
    processor: Duration,
    enters: u64,
}

impl Used {
    fn now(shard: &RealShard) -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
        let processor = seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs());
        Self { processor, enters: shard.reactor().enters() }
    }

    fn since(self, before: Self) -> Self {
        Self { processor: self.processor - before.processor, enters: self.enters - before.enters }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for _ in 0..arguments.rounds {
        for way in [Way::Read, Way::Write] {
            println!("{}", over_a_link(way, arguments.mib)?);
        }
    }
    Ok(())
}

/// Moves `mib` bodies of 1 MiB between two shards, each a thread.
fn over_a_link(way: Way, mib: u64) -> anyhow::Result<serde_json::Value> {
    let (told, address) = mpsc::channel();
    let (used, server_used) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        nova_shard::run(options("server"), async |shard| serve(&shard, &told, &used, &ended).await)?
    });
    let address = address.recv_timeout(Duration::from_secs(10)).context("the server listens")?;
    let client = nova_shard::run(options("client"), async |shard| ask(&shard, address, way, mib).await)?;
    drop(end);
    let (took, client) = client?;
    server.join().expect("the server does not panic")?;
    let server = server_used.recv().context("what the server used")?;
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    let (gb, mib) = ((mib << 20) as f64 / 1e9, mib as f64);
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    let each = |count: u64| count as f64 / mib;
    Ok(json!({
        "bench": format!("link on the loopback, {way:?} of 1 MiB"),
        "gb_per_s": gb / took.as_secs_f64(),
        "cpu_s_per_gb": (client.processor + server.processor).as_secs_f64() / gb,
        "caller_cpu_s_per_gb": client.processor.as_secs_f64() / gb,
        "server_cpu_s_per_gb": server.processor.as_secs_f64() / gb,
        "caller_enters_per_mib": each(client.enters),
        "server_enters_per_mib": each(server.enters),
    }))
}

fn options(name: &str) -> ShardOptions {
    ShardOptions {
        name: name.to_owned(),
        pool: PoolOptions { bytes: 256 << 20, huge: HugePages::Never },
        ..ShardOptions::default()
    }
}

fn link(shard: &RealShard, node: NodeId) -> anyhow::Result<Link<RealShard>> {
    let (certificate, key): (&[u8], &[u8]) = if node == SERVER {
        (
            include_bytes!("../../../novabulk/tls/testdata/two.pem"),
            include_bytes!("../../../novabulk/tls/testdata/two.key"),
        )
    } else {
        (
            include_bytes!("../../../novabulk/tls/testdata/one.pem"),
            include_bytes!("../../../novabulk/tls/testdata/one.key"),
        )
    };
    let ca = include_bytes!("../../../novabulk/tls/testdata/ca.pem");
    let config = TlsConfig::from_pem(ca, certificate, key)?;
    let memory = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never })?;
    let tls = Tls::new(config, TlsOptions::default(), memory);
    let local = LocalIdentity { node, boot: BootId(shard.random()) };
    let link = Link::new(shard.clone(), local, LinkOptions::default(), tls);
    link.admit(Admitted::Anyone);
    Ok(link)
}

/// Lends bodies, and takes them.
struct Store {
    bodies: Vec<SharedBuf>,
    next: Cell<usize>,
}

impl Store {
    /// Bodies that carry the sums of their pages, as those of a store do.
    fn new(shard: &RealShard) -> anyhow::Result<Self> {
        let mut bodies = Vec::new();
        for number in 0..BODIES {
            let mut body = shard.pool().try_take(BODY_BYTES_MAX)?;
            body.fill(u8::try_from(number).context("a few bodies")?);
            body.set_page_sums(page_sums(&body).context("whole pages")?);
            bodies.push(body.freeze());
        }
        Ok(Self { bodies, next: Cell::new(0) })
    }

    fn next(&self) -> SharedBuf {
        self.next.set((self.next.get() + 1) % self.bodies.len());
        self.bodies[self.next.get()].clone()
    }
}

impl Handler for Store {
    async fn serve(&self, _from: NodeId, request: Incoming) -> Served {
        let body = request.body.is_none().then(|| self.next());
        Served { head: request.head, body }
    }
}

async fn serve(
    shard: &RealShard,
    told: &mpsc::Sender<SocketAddr>,
    used: &mpsc::Sender<Used>,
    ended: &mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let link = link(shard, SERVER)?;
    let listener = shard.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let store = Rc::new(Store::new(shard)?);
    told.send(listener.address().0)?;
    let before = Used::now(shard);
    shard.spawn(TaskClass::Control, async move {
        while let Ok((lane, from)) = listener.accept().await {
            link.accept(lane, from, Rc::clone(&store));
        }
    });
    while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
        shard.clock().sleep_until(shard.clock().now() + LOOK_EVERY).await;
    }
    used.send(Used::now(shard).since(before))?;
    Ok(())
}

async fn ask(shard: &RealShard, address: SocketAddr, way: Way, mib: u64) -> anyhow::Result<(Duration, Used)> {
    let link = link(shard, NodeId(1))?;
    link.set_peers([(SERVER, PeerAddr(address))].into());
    let store = Store::new(shard)?;
    let call = async |body: Option<SharedBuf>| {
        let answer_max = u32::try_from(BODY_BYTES_MAX).context("one frame")?;
        let request = Request {
            priority: Priority::P2,
            hop: 0,
            head: vec![0; 64],
            reply_bytes_max: if body.is_none() { answer_max } else { 0 },
            body,
            deadline: Duration::from_secs(20),
            control: false,
        };
        let reply = link.call(SERVER, request).await?;
        anyhow::Ok(reply.body)
    };
    call(Some(store.next())).await?;
    let (before, begun) = (Used::now(shard), Instant::now());
    let lanes = (0..DEPTH).map(async |lane| {
        for _ in (lane..mib).step_by(usize::try_from(DEPTH).expect("a few")) {
            let answer = call((way == Way::Write).then(|| store.next())).await?;
            if way == Way::Read {
                let answer = answer.context("a read has a body")?;
                ensure!(answer.page_sums().is_some_and(|sums| sums.len() == BODY_BYTES_MAX / 4096));
            }
        }
        anyhow::Ok(())
    });
    for done in join_all(lanes.collect::<Vec<_>>()).await {
        done?;
    }
    Ok((begun.elapsed(), Used::now(shard).since(before)))
}

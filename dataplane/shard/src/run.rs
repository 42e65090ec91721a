//! From options to a running shard, and back down.

use core::time::Duration;
use std::{io, net::SocketAddr, path::PathBuf};

use glommio::{LocalExecutorBuilder, Placement};
use nova_buf::{BufError, HugePages, Pool, PoolOptions};
use nova_device::uring::{DiskLimits, OpenError, Reactor, ReactorError, TcpListener, UringDisk};

use crate::{
    RealShard,
    driver::{self, Stop},
    queues::Queues,
    shard::Parts,
    tasks::Tasks,
};

/// How often glommio looks at its own rings while tasks are active. Nothing of ours happens there, and a thread that loses the
/// core for longer than this at the wrong moment sleeps for ever (docs/adr/0029).
const PREEMPT_TIMER: Duration = Duration::from_secs(3_600);

/// glommio's own buffers, which we do not use.
const EXECUTOR_IO_BYTES: usize = 64 << 10;

/// Depth of glommio's own rings, which carry a timer each.
const EXECUTOR_RING_DEPTH: usize = 128;

/// What a disk that cannot be used means to a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokenDisks {
    /// The shard does not start.
    #[default]
    Refuse,
    /// It starts without it: [`RealShard::disks`] says why, and nobody may ask for that disk.
    Leave,
}

/// How a shard is made.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Its name, for threads and logs.
    pub name: String,
    /// The core it is pinned to; `None` lets the kernel move it, which suits small and shared machines.
    pub core: Option<usize>,
    /// How long it looks for work before it sleeps. Zero on shared machines; 20 to 50 us on a core of its own.
    pub spin: Duration,
    /// Its memory.
    pub pool: PoolOptions,
    /// Its disks, by index: preallocated files or block devices.
    pub disks: Vec<PathBuf>,
    /// What a disk that cannot be used means.
    pub broken_disks: BrokenDisks,
    /// What each disk is given at a time.
    pub disk_limits: DiskLimits,
    /// Where it takes connections. What comes there is secured by whoever accepts it.
    pub listen: Option<SocketAddr>,
}

impl Default for ShardOptions {
    /// A small shard: unpinned, no spinning, 64 MiB, no disks, no listener.
    fn default() -> Self {
        Self {
            name: "shard-0".to_owned(),
            core: None,
            spin: Duration::ZERO,
            pool: PoolOptions { bytes: 64 << 20, huge: HugePages::Never },
            disks: Vec::new(),
            broken_disks: BrokenDisks::Refuse,
            disk_limits: DiskLimits::default(),
            listen: None,
        }
    }
}

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// glommio could not make its executor.
    #[error(
        "no executor on {placement}: check the core number, and that LimitMEMLOCK is at least 1 MiB a shard"
    )]
    Executor {
        /// Where it was to run.
        placement: String,
        /// What glommio says.
        #[source]
        source: Box<dyn core::error::Error + Send + Sync>,
    },
    /// No ring.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// No memory.
    #[error(transparent)]
    Pool(#[from] BufError),
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: is another process there?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Runs a shard on this thread until `main` ends.
///
/// Then every task of the shard is dropped where it waits, operations on sockets are cancelled, and operations on
/// disks run to their end; nothing is in flight when this returns.
///
/// # Errors
/// When the shard cannot start; `main` has not run then.
///
/// # Panics
/// When a task panics. A daemon ends then, by its panic hook: memory the kernel writes to must not be freed.
pub fn run<T>(options: ShardOptions, main: impl AsyncFnOnce(RealShard) -> T) -> Result<T, ShardError> {
    let ShardOptions { name, core, spin, pool, disks, broken_disks, disk_limits, listen } = options;
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name(&name)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .make()
        .map_err(|error| ShardError::Executor {
            placement: core.map_or("any core".to_owned(), |core| format!("core {core}")),
            source: error.to_string().into(),
        })?;
    let tasks = Tasks::default();
    let runnable = tasks.runnable().clone();
    executor.run(runnable.counted(async move {
        let reactor = Reactor::new()?;
        let pool = Pool::new(pool)?;
        // Refusal costs speed, not function; `describe` says which it is.
        reactor.register_pool(&pool);
        let mut opened = Vec::with_capacity(disks.len());
        for path in &disks {
            match UringDisk::open_with(&reactor, path, disk_limits) {
                Err(error) if broken_disks == BrokenDisks::Refuse => return Err(error.into()),
                disk => opened.push(disk),
            }
        }
        let bind = |address| {
            TcpListener::bind(&reactor, address).map_err(|source| ShardError::Listen { address, source })
        };
        let listener = listen.map(bind).transpose()?;
        let (queues, stop) = (Queues::new(), Stop::default());
        let driver = driver::drive(reactor.clone(), tasks.runnable().clone(), spin, stop.clone());
        let driving = glommio::spawn_local_into(driver, queues.driver).expect("the queue was just made");
        let watching = glommio::spawn_local_into(driver::keep_awake(tasks.runnable().clone()), queues.driver)
            .expect("the queue was just made");
        let parts = Parts {
            name,
            core,
            queues,
            tasks: tasks.clone(),
            disks: opened,
            disk_limits,
            listener,
            pool,
            reactor: reactor.clone(),
        };
        let output = main(RealShard::new(parts)).await;
        tasks.end_all().await;
        reactor.drain().await;
        stop.set();
        driving.await;
        watching.cancel().await;
        Ok(output)
    }))
}

//! The real shard, as the data plane sees it.

use core::{
    cell::{OnceCell, RefCell},
    fmt,
    future::Future,
};
use std::{io, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, rc::Rc, sync::mpsc, thread};

use nova_buf::{Backing, Pool};
use nova_device::{
    LaneError, Shard,
    sync::Semaphore,
    uring::{
        DiskLimits, OpenDisk, OpenError, Reactor, RealClock, RingMode, TcpLane, TcpListener, UringDisk, Watch,
    },
};
use nova_units::{DiskIndex, PeerAddr, TaskClass};
use rustix::event::{EventfdFlags, eventfd};

use crate::{queues::Queues, tasks::Tasks};

/// Blocking closures of one shard that run at the same time; the next waits.
pub const BLOCKING_MAX: usize = 4;

/// Disks that one shard may open in its life, those of its start among them. A number is never given twice, so that whoever
/// kept one finds its own disk or none.
pub const DISKS_OPENED_MAX: usize = 1024;

/// Tasks that may wait for their closure to start.
const BLOCKING_WAITERS_MAX: usize = 1 << 16;

/// Why a shard that runs could not open one more disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenDiskError {
    /// The disk is not one that can be used now.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// No thread could be made that opens it.
    #[error("no thread to open the disk with")]
    Thread(#[from] io::Error),
    /// The shard has opened as many as it ever does.
    #[error(
        "{DISKS_OPENED_MAX} disks were opened since this process started, which is the limit: restart it"
    )]
    TooMany,
}

/// One core, its ring, its memory and its disks. A clone is another handle; all stay on its thread.
#[derive(Clone)]
pub struct RealShard {
    inner: Rc<Inner>,
}

struct Inner {
    name: String,
    core: Option<usize>,
    queues: Queues,
    tasks: Tasks,
    clock: RealClock,
    /// By number; filled from the front.
    disks: Box<[OnceCell<Result<UringDisk, OpenError>>]>,
    disk_limits: DiskLimits,
    listener: Option<TcpListener>,
    random: RefCell<fastrand::Rng>,
    blocking: Semaphore,
    pool: Pool,
    reactor: Reactor,
}

/// What [`crate::run`] has prepared.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) core: Option<usize>,
    pub(crate) queues: Queues,
    pub(crate) tasks: Tasks,
    pub(crate) disks: Vec<Result<UringDisk, OpenError>>,
    pub(crate) disk_limits: DiskLimits,
    pub(crate) listener: Option<TcpListener>,
    pub(crate) pool: Pool,
    pub(crate) reactor: Reactor,
}

impl RealShard {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, core, queues, tasks, disks, disk_limits, listener, pool, reactor } = parts;
        assert!(disks.len() <= DISKS_OPENED_MAX, "a shard starts with at most {DISKS_OPENED_MAX} disks");
        let places = disks.into_iter().map(OnceCell::from);
        let disks = places.chain(std::iter::repeat_with(OnceCell::new)).take(DISKS_OPENED_MAX).collect();
        let mut seed = [0; 8];
        fill_random(&mut seed);
        Self {
            inner: Rc::new(Inner {
                name,
                core,
                queues,
                tasks,
                clock: RealClock::new(&reactor),
                disks,
                disk_limits,
                listener,
                random: RefCell::new(fastrand::Rng::with_seed(u64::from_le_bytes(seed))),
                blocking: Semaphore::new(BLOCKING_MAX, BLOCKING_WAITERS_MAX),
                pool,
                reactor,
            }),
        }
    }

    /// Its name, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its disks, by index, also those that were closed; the error of one that cannot be used, with
    /// [`crate::BrokenDisks::Leave`].
    pub fn disks(&self) -> impl Iterator<Item = &Result<UringDisk, OpenError>> {
        self.inner.disks.iter().map_while(OnceCell::get)
    }

    /// Opens one more disk, on another thread: a disk that answers nothing holds nobody up but the caller.
    ///
    /// # Errors
    /// When it is missing, in use, has holes, or cannot do direct I/O, and when the shard has opened
    /// [`DISKS_OPENED_MAX`].
    ///
    /// # Cancel safety
    /// Safe: a disk that was opened for nobody is closed again.
    pub async fn open_disk(&self, path: PathBuf) -> Result<DiskIndex, OpenDiskError> {
        let opened = self.run_blocking(move || OpenDisk::open(&path)).await??;
        let inner = &self.inner;
        let free = inner.disks.iter().position(|place| place.get().is_none());
        let free = free.ok_or(OpenDiskError::TooMany)?;
        let disk = UringDisk::drive(&inner.reactor, opened, inner.disk_limits);
        assert!(inner.disks[free].set(Ok(disk)).is_ok(), "the place was free");
        Ok(DiskIndex(u16::try_from(free).expect("fewer than DISKS_OPENED_MAX")))
    }

    /// Closes a disk: see [`UringDisk::close`]. Its number is not given again.
    pub fn close_disk(&self, index: DiskIndex) {
        if let Some(Ok(disk)) = self.inner.disks.get(usize::from(index.0)).and_then(OnceCell::get) {
            disk.close();
        }
    }

    /// The listener its options asked for.
    #[must_use]
    pub fn listener(&self) -> Option<&TcpListener> {
        self.inner.listener.as_ref()
    }

    /// Takes connections on one more address.
    ///
    /// # Errors
    /// When the address is taken or is not one of this host.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(&self.inner.reactor, address)
    }

    /// The ring, for counters.
    #[must_use]
    pub fn reactor(&self) -> &Reactor {
        &self.inner.reactor
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn tasks_running(&self) -> usize {
        self.inner.tasks.running()
    }

    /// Lets tasks wait for a descriptor that others write to, such as the doorbell of a ring.
    #[must_use]
    pub fn watch(&self, file: OwnedFd) -> Watch {
        Watch::new(&self.inner.reactor, file)
    }

    /// Waits once until `file` is readable; reads nothing from it. To wait again and again keep a [`RealShard::watch`].
    ///
    /// # Errors
    /// When the descriptor cannot be polled.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_fd(&self, file: OwnedFd) -> io::Result<()> {
        self.watch(file).readable().await.map_err(io::Error::other)
    }

    /// Runs a closure that may block on a thread of its own and waits for its result; at most [`BLOCKING_MAX`] at a
    /// time.
    ///
    /// # Errors
    /// When no thread or descriptor can be made for it, or the closure panicked.
    ///
    /// # Cancel safety
    /// Safe: the closure runs to its end, and its result is thrown away.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let permit = self.inner.blocking.acquire(1).await.map_err(io::Error::other)?;
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let done = Done(event.try_clone()?);
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::Builder::new().name(format!("{}-blocking", self.inner.name)).spawn(move || {
            // Signals when this ends, even by a panic.
            let _done = done;
            // Nobody may be waiting any more.
            let _ = sender.send(work());
        })?;
        let waited = self.wait_fd(event).await;
        drop(permit);
        waited?;
        receiver.recv().map_err(|_| io::Error::other("the blocking work panicked"))
    }

    /// What runs below this shard, a line each: executor, ring, memory, disks, network.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let inner = &self.inner;
        let core = inner.core.map_or("not pinned".to_owned(), |core| format!("pinned to core {core}"));
        let mode = match inner.reactor.mode() {
            RingMode::Deferred => "deferred task run".to_owned(),
            RingMode::Plain { reason } => format!("plain, {reason}"),
        };
        let backing = match inner.pool.backing() {
            Backing::HugePages => "huge pages",
            Backing::Pages => "ordinary pages",
            Backing::PagesForLackOfHuge => "ordinary pages, no huge pages were free (vm.nr_hugepages)",
        };
        let arena = inner.pool.bytes() >> 20;
        let mut lines = vec![
            format!("{}: glommio executor, {core}", inner.name),
            format!("{}: io_uring, {mode}, {}", inner.name, inner.reactor.registration()),
            format!("{}: arena of {arena} MiB in {backing}", inner.name),
        ];
        lines.extend(self.disks().enumerate().map(|(index, disk)| match disk {
            Ok(disk) => format!("{}: disk {index}: {}", inner.name, disk.facts()),
            Err(error) => format!("{}: disk {index}: not in use: {error}", inner.name),
        }));
        let listening = inner.listener.as_ref().map_or("no listener".to_owned(), |listener| {
            format!("listening on {}", nova_device::Listener::address(listener).0)
        });
        lines.push(format!("{}: kernel TCP through io_uring, {listening}", inner.name));
        lines
    }
}

/// Signals an eventfd when dropped.
struct Done(OwnedFd);

impl Drop for Done {
    fn drop(&mut self) {
        // An eventfd takes a one unless it counts to 2^64.
        let _ = rustix::io::write(&self.0, &1u64.to_le_bytes());
    }
}

/// Random bytes of the kernel.
fn fill_random(out: &mut [u8]) {
    getrandom::fill(out).expect("the kernel has random bytes from early boot on");
}

impl Shard for RealShard {
    type Disk = UringDisk;
    type Lane = TcpLane;
    type Clock = RealClock;

    fn disk(&self, index: DiskIndex) -> &UringDisk {
        let disk = self.inner.disks[usize::from(index.0)].get();
        let disk = disk.unwrap_or_else(|| panic!("{index} was asked for, and was never opened"));
        disk.as_ref().unwrap_or_else(|error| panic!("{index} was asked for, and cannot be used: {error}"))
    }

    fn clock(&self) -> &RealClock {
        &self.inner.clock
    }

    fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    async fn connect(&self, to: PeerAddr) -> Result<TcpLane, LaneError> {
        TcpLane::connect(&self.inner.reactor, to.0).await
    }

    fn random(&self) -> u64 {
        self.inner.random.borrow_mut().u64(..)
    }

    fn fill_secret(&self, out: &mut [u8]) {
        fill_random(out);
    }

    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.inner.tasks.spawn(self.inner.queues.of(class), class, task);
    }
}

impl fmt::Debug for RealShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealShard")
            .field("name", &self.inner.name)
            .field("core", &self.inner.core)
            .field("disks", &self.disks().count())
            .finish_non_exhaustive()
    }
}

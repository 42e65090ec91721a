//! The executor: tasks of all hosts on one thread, in an order drawn from the seed, over virtual time.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use super::{HostOptions, KillMode, MemShard, NetFaults, network::Network, shard::HostId};

/// More tasks than this at once are a leak.
const TASKS_MAX: usize = 1 << 18;

/// More polls than this without time passing are a busy loop.
const POLLS_AT_ONE_TIME_MAX: u32 = 4_000_000;

/// [`World::run`] gives up after this much virtual time.
const RUN_TIME_MAX: Duration = Duration::from_hours(24);

/// All simulated hosts, their network and their time. Dropping it drops every task.
#[derive(Debug)]
pub struct World {
    pub(super) inner: Rc<Inner>,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(super) struct Inner {
    rng: RefCell<fastrand::Rng>,
    now: Cell<Duration>,
    polls_now: Cell<u32>,
    fingerprint: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_task: Cell<u64>,
    ready: Arc<Ready>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next_timer: Cell<u64>,
    hosts: RefCell<Vec<Host>>,
    /// How far the calendars of all hosts are from the right one, in milliseconds.
    pub(super) calendar_ms: Cell<i64>,
    pub(super) network: Network,
}

struct Task {
    host: HostId,
    /// `None` while it is polled.
    future: Option<LocalFuture>,
    wake: Arc<TaskWake>,
}

struct Host {
    alive: bool,
    address: IpAddr,
    /// Tasks that became ready since the host was stopped; `None` while it runs.
    stopped: Option<Vec<u64>>,
}

/// Tasks to poll. Wakers are `Send` by contract, hence the lock; it is never contended.
#[derive(Debug, Default)]
struct Ready(Mutex<Vec<u64>>);

struct TaskWake {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

/// What one turn of the executor came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Progress,
    /// The next timer is after the limit.
    Limit,
    /// No task is ready and no timer is set.
    Idle,
}

impl World {
    /// An empty world at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Rc::new(Inner {
                rng: RefCell::new(fastrand::Rng::with_seed(seed)),
                now: Cell::default(),
                polls_now: Cell::default(),
                fingerprint: Cell::new(seed),
                tasks: RefCell::default(),
                next_task: Cell::default(),
                ready: Arc::default(),
                timers: RefCell::default(),
                next_timer: Cell::default(),
                hosts: RefCell::default(),
                calendar_ms: Cell::new(0),
                network: Network::default(),
            }),
        }
    }

    /// Starts a host, or starts one again: after a kill, give it the same address and disks.
    ///
    /// # Panics
    /// When a live host has the address.
    #[must_use]
    pub fn add_host(&self, options: HostOptions) -> MemShard {
        let mut hosts = self.inner.hosts.borrow_mut();
        let taken = hosts.iter().any(|host| host.alive && host.address == options.address);
        assert!(!taken, "a live host has the address {}", options.address);
        let id = HostId(hosts.len());
        let seed = self.inner.draw(|rng| rng.u64(..));
        hosts.push(Host { alive: true, address: options.address, stopped: None });
        MemShard::new(Rc::clone(&self.inner), id, options, seed)
    }

    /// Ends a host now: its tasks are dropped, its connections break, and with [`KillMode::Power`] its disks lose what
    /// was not flushed. A host that is dead already stays so.
    pub fn kill(&self, shard: &MemShard, mode: KillMode) {
        self.inner.kill(shard, mode);
    }

    /// Stops a host as SIGSTOP does: none of its tasks runs, while time goes on, its disks end what they began, and what
    /// is sent to it waits. One that is stopped or dead stays so.
    pub fn stop(&self, shard: &MemShard) {
        if let Some(host) = self.inner.hosts.borrow_mut().get_mut(shard.id().0)
            && host.alive
        {
            host.stopped.get_or_insert_default();
        }
    }

    /// Lets a host that was stopped go on, late for everything.
    pub fn resume(&self, shard: &MemShard) {
        let held = self.inner.hosts.borrow_mut().get_mut(shard.id().0).and_then(|host| host.stopped.take());
        let mut ready = self.inner.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        ready.extend(held.unwrap_or_default());
    }

    /// Virtual time since the start of the world.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.inner.now.get()
    }

    /// Sets the calendars of all hosts so many milliseconds before or behind the right one. Clocks go on as they did.
    pub fn set_calendar(&self, off_by_ms: i64) {
        self.inner.calendar_ms.set(off_by_ms);
    }

    /// A draw from the seed of the world, for scripts that inject faults.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.inner.draw(|rng| rng.u64(..))
    }

    /// A digest of everything scheduled so far: equal for equal seeds.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.inner.fingerprint.get()
    }

    /// Runs until `done` answers true or `limit` of virtual time has passed from now; tells which, true for `done`.
    ///
    /// # Panics
    /// When a task panics, with its panic; when tasks run in circles without time passing.
    pub fn run_until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = self.now().saturating_add(limit);
        loop {
            if done() {
                return true;
            }
            if self.inner.turn(end) != Turn::Progress {
                self.inner.advance(end);
                return done();
            }
        }
    }

    /// Runs for `time` of virtual time.
    ///
    /// # Panics
    /// As [`World::run_until`].
    pub fn run_for(&self, time: Duration) {
        self.run_until(time, || false);
    }

    /// Runs `future` as a task of `shard` until it ends, and everything else meanwhile.
    ///
    /// # Panics
    /// As [`World::run_until`]; also when the future can never end, or needs more than a virtual day.
    pub fn run<T: 'static>(&self, shard: &MemShard, future: impl Future<Output = T> + 'static) -> T {
        let output = Rc::new(Cell::new(None));
        let slot = Rc::clone(&output);
        self.inner.spawn(shard.id(), Box::pin(async move { slot.set(Some(future.await)) }));
        let end = self.now().saturating_add(RUN_TIME_MAX);
        loop {
            if let Some(output) = output.take() {
                return output;
            }
            match self.inner.turn(end) {
                Turn::Progress => {}
                Turn::Idle => panic!("deadlock at {:?}: every task waits and no timer is set", self.now()),
                Turn::Limit => panic!("not done after {RUN_TIME_MAX:?} of virtual time"),
            }
        }
    }

    /// Sets the faults of the network from now on.
    pub fn set_net_faults(&self, faults: NetFaults) {
        self.inner.network.set_faults(faults);
    }

    /// Lets nothing pass from one host to another, in this direction only. What is sent waits until it is healed.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.inner.network.cut(from, to);
    }

    /// Lets nothing pass between two hosts.
    pub fn part(&self, one: IpAddr, other: IpAddr) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Lets everything pass again from one host to another, what waited first.
    pub fn heal(&self, from: IpAddr, to: IpAddr) {
        self.inner.network.heal(Some((from, to)));
    }

    /// Heals the whole network.
    pub fn heal_all(&self) {
        self.inner.network.heal(None);
    }

    /// Breaks every connection between two hosts now; both ends are told.
    pub fn reset(&self, one: IpAddr, other: IpAddr) {
        self.inner.network.reset_between(one, other);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Tasks hold shards, which hold the world: cut the circle.
        for host in self.inner.hosts.borrow_mut().iter_mut() {
            host.alive = false;
        }
        let tasks = self.inner.tasks.take();
        drop(tasks);
        self.inner.network.clear();
    }
}

impl Inner {
    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    pub(super) fn is_alive(&self, host: HostId) -> bool {
        self.hosts.borrow().get(host.0).is_some_and(|host| host.alive)
    }

    /// Whether a live host has this address.
    pub(super) fn is_up(&self, address: IpAddr) -> bool {
        self.hosts.borrow().iter().any(|host| host.alive && host.address == address)
    }

    pub(super) fn spawn(&self, host: HostId, future: LocalFuture) {
        if !self.is_alive(host) {
            // A destructor of a dying host may spawn: there is nobody left to run it.
            return;
        }
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let wake = Arc::new(TaskWake { id, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        let mut tasks = self.tasks.borrow_mut();
        assert!(tasks.len() < TASKS_MAX, "more than {TASKS_MAX} tasks: some never end");
        wake.wake_by_ref();
        tasks.insert(id, Task { host, future: Some(future), wake });
    }

    fn kill(&self, shard: &MemShard, mode: KillMode) {
        let host = shard.id();
        match self.hosts.borrow_mut().get_mut(host.0) {
            Some(entry) if entry.alive => entry.alive = false,
            _ => return,
        }
        let dropped: Vec<_> = {
            let mut tasks = self.tasks.borrow_mut();
            let ids: Vec<u64> =
                tasks.iter().filter(|(_, task)| task.host == host).map(|(&id, _)| id).collect();
            ids.iter().filter_map(|id| tasks.remove(id)).collect()
        };
        // Outside the borrow: destructors wake, spawn and give back.
        drop(dropped);
        // Who loses power cannot say goodbye: half of the peers hear nothing at all.
        let silent = mode == KillMode::Power && self.draw(|rng| rng.bool());
        self.network.remove_host(host, silent);
        if mode == KillMode::Power {
            for disk in shard.disks() {
                disk.power_cut();
            }
        }
    }

    fn advance(&self, to: Duration) {
        if to > self.now.get() {
            self.now.set(to);
            self.polls_now.set(0);
        }
    }

    /// Polls one ready task, or moves time to the next timer.
    fn turn(&self, end: Duration) -> Turn {
        let next = {
            let mut ready = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
            match ready.len() {
                0 => None,
                count => {
                    let index = self.draw(|rng| rng.usize(0..count));
                    Some(ready.swap_remove(index))
                }
            }
        };
        if let Some(id) = next {
            self.poll_task(id);
            return Turn::Progress;
        }
        let Some(at) = self.timers.borrow().keys().next().map(|&(at, _)| at) else { return Turn::Idle };
        if at > end {
            return Turn::Limit;
        }
        self.advance(at);
        let due = {
            let mut timers = self.timers.borrow_mut();
            let later = timers.split_off(&(at, u64::MAX));
            core::mem::replace(&mut *timers, later)
        };
        for waker in due.into_values() {
            waker.wake();
        }
        Turn::Progress
    }

    /// Puts a task aside whose host is stopped. It counts as queued until the host goes on.
    fn is_held(&self, id: u64) -> bool {
        let Some(host) = self.tasks.borrow().get(&id).map(|task| task.host) else { return false };
        let mut hosts = self.hosts.borrow_mut();
        match hosts.get_mut(host.0).and_then(|host| host.stopped.as_mut()) {
            Some(held) => {
                held.push(id);
                true
            }
            None => false,
        }
    }

    fn poll_task(&self, id: u64) {
        if self.is_held(id) {
            return;
        }
        let polls = self.polls_now.get() + 1;
        assert!(polls < POLLS_AT_ONE_TIME_MAX, "tasks run in circles at {:?}", self.now());
        self.polls_now.set(polls);
        let Some((mut future, wake)) = self
            .tasks
            .borrow_mut()
            .get_mut(&id)
            .and_then(|task| task.future.take().map(|future| (future, Arc::clone(&task.wake))))
        else {
            return;
        };
        let time = self.now().as_nanos();
        let time = u64::try_from(time & u128::from(u64::MAX)).expect("masked to 64 bits");
        self.fingerprint
            .set(self.fingerprint.get().rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ id ^ time);
        // Cleared before the poll, so that a wake during the poll queues the task again.
        wake.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(wake);
        let mut context = Context::from_waker(&waker);
        if future.as_mut().poll(&mut context).is_ready() {
            let finished = self.tasks.borrow_mut().remove(&id);
            drop(finished);
        } else if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            task.future = Some(future);
        }
        // A future whose host was killed while it ran is in neither place: it is dropped here.
    }
}

impl core::fmt::Debug for Inner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now())
            .field("tasks", &self.tasks.borrow().len())
            .field("timers", &self.timers.borrow().len())
            .finish_non_exhaustive()
    }
}

/// A wait for virtual time.
pub(super) struct Sleep<'world> {
    world: &'world Inner,
    at: Duration,
    timer: Option<u64>,
}

impl Inner {
    pub(super) fn sleep_until(&self, at: Duration) -> Sleep<'_> {
        Sleep { world: self, at, timer: None }
    }
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.at {
            return Poll::Ready(());
        }
        let number = match self.timer {
            Some(number) => number,
            None => {
                let number = self.world.next_timer.get();
                self.world.next_timer.set(number + 1);
                self.timer = Some(number);
                number
            }
        };
        self.world.timers.borrow_mut().insert((self.at, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.timer {
            self.world.timers.borrow_mut().remove(&(self.at, number));
        }
    }
}

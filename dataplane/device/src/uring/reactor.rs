//! The ring and those who wait on it.

use core::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    task::Wake,
    time::Instant,
};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use nova_buf::Pool;

use super::{
    classes::Admission,
    clock::boot_time,
    file::File,
    operation::Flight,
    slots::{Abandoned, Key, Operation, Payload, Slots},
};
use crate::sync::Semaphore;

/// Operations of one shard that the kernel has, or that wait for room in the submission queue.
pub const IN_FLIGHT_MAX: u32 = 4096;

/// Tasks that may wait for one of those places; each is a task that exists, so this is only a guard.
const WAITERS_MAX: usize = 1 << 20;

/// The kernel's timeouts have limits of their own; nobody waits that long without looking.
const WAIT_MAX: Duration = Duration::from_secs(60);

const SUBMISSION_ENTRIES: u32 = 256;

/// Room for a completion of every operation and every cancel: the queue cannot overflow.
const COMPLETION_ENTRIES: u32 = 4 * IN_FLIGHT_MAX;

/// Files of disks registered with the ring.
const FIXED_FILES: u32 = 64;

/// Completions of cancels carry this and are not looked at.
const CANCEL: u64 = u64::MAX;

/// A reactor that is dropped waits this long for the kernel to give back its buffers; then the process must end.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);

/// How the ring was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// Completions run in this thread, when it asks: the mode every supported kernel has.
    Deferred,
    /// Without those flags, for the reason given; slower, otherwise the same.
    Plain {
        /// The kernel's answer to the better mode.
        reason: String,
    },
}

/// Whether the buffers of the pool are registered with the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// No pool was given.
    None,
    /// All of them.
    Registered {
        /// Size of the arena.
        bytes: u64,
    },
    /// None of them: every operation pins its pages anew.
    Unregistered {
        /// What to do about it.
        reason: String,
    },
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no buffers"),
            Self::Registered { bytes } => write!(f, "{} MiB of registered buffers", bytes >> 20),
            Self::Unregistered { reason } => write!(f, "unregistered buffers ({reason})"),
        }
    }
}

/// Why a reactor could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// The kernel has no `io_uring` for this process.
    #[error("io_uring is not available: Linux 6.1 or later is needed, with kernel.io_uring_disabled = 0")]
    Setup(#[source] io::Error),
}

/// One `io_uring` and everything that waits on it. A clone is another handle; all stay on the thread that made it.
///
/// Dropping the last handle waits for the operations in flight: the kernel must be done with their memory.
#[derive(Clone)]
pub struct Reactor {
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    /// First, so that it closes before the pool whose memory it has registered.
    ring: RefCell<IoUring>,
    slots: RefCell<Slots>,
    /// Entries the submission queue had no room for: at most one and a cancel for each slot.
    pending: RefCell<VecDeque<squeue::Entry>>,
    completions: RefCell<Vec<(u64, i32)>>,
    permits: Semaphore,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next_timer: Cell<u64>,
    /// Indices of the files of the ring that are free.
    fixed_files: RefCell<Vec<u32>>,
    pool: RefCell<Option<Pool>>,
    registration: RefCell<Registration>,
    mode: RingMode,
    enters: Cell<u64>,
}

impl Reactor {
    /// A ring for the thread that calls this.
    ///
    /// # Errors
    /// When the kernel has none for this process.
    pub fn new() -> Result<Self, ReactorError> {
        let (ring, mode) = match Self::deferred() {
            Ok(ring) => (ring, RingMode::Deferred),
            Err(error) => {
                let ring = IoUring::builder()
                    .setup_clamp()
                    .setup_cqsize(COMPLETION_ENTRIES)
                    .build(SUBMISSION_ENTRIES)
                    .map_err(ReactorError::Setup)?;
                (ring, RingMode::Plain { reason: format!("no deferred task run: {error}") })
            }
        };
        ring.submitter().register_files_sparse(FIXED_FILES).map_err(ReactorError::Setup)?;
        let inner = Inner {
            ring: RefCell::new(ring),
            slots: RefCell::new(Slots::new(IN_FLIGHT_MAX)),
            pending: RefCell::default(),
            completions: RefCell::default(),
            permits: Semaphore::new(IN_FLIGHT_MAX as usize, WAITERS_MAX),
            timers: RefCell::default(),
            next_timer: Cell::default(),
            fixed_files: RefCell::new((0..FIXED_FILES).rev().collect()),
            pool: RefCell::default(),
            registration: RefCell::new(Registration::None),
            mode,
            enters: Cell::default(),
        };
        Ok(Self { inner: Rc::new(inner) })
    }

    fn deferred() -> io::Result<IoUring> {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)
    }

    /// Registers the memory of `pool`, so that operations on its buffers do not pin their pages each time. Over the
    /// limit on locked memory nothing is registered; the answer says so and everything works, only slower.
    ///
    /// # Panics
    /// When a pool was registered before.
    pub fn register_pool(&self, pool: &Pool) -> Registration {
        assert!(self.inner.pool.borrow().is_none(), "a ring has one pool");
        let vectors: Vec<libc::iovec> = pool
            .regions()
            .into_iter()
            .map(|region| libc::iovec { iov_base: region.address.as_ptr().cast(), iov_len: region.bytes })
            .collect();
        // SAFETY: the regions stay mapped while `pool` lives, and `Inner` keeps a handle until after the ring closed.
        let registered = unsafe { self.inner.ring.borrow().submitter().register_buffers(&vectors) };
        let registration = match registered {
            Ok(()) => {
                self.inner.pool.replace(Some(pool.clone()));
                Registration::Registered { bytes: pool.bytes() }
            }
            Err(error) => Registration::Unregistered {
                reason: format!(
                    "{} MiB were refused: {error}; raise LimitMEMLOCK of the service",
                    pool.bytes() >> 20
                ),
            },
        };
        self.inner.registration.replace(registration.clone());
        registration
    }

    /// Whether buffers are registered.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.inner.registration.borrow().clone()
    }

    /// How the ring was set up.
    #[must_use]
    pub fn mode(&self) -> &RingMode {
        &self.inner.mode
    }

    /// Operations the kernel has or is about to get, orphans included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.slots.borrow().in_flight()
    }

    /// System calls made so far to submit and reap.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.inner.enters.get()
    }

    /// Submits what is new, collects what is done and wakes who waits for it; tells how much there was of all that.
    pub fn turn(&self) -> usize {
        self.inner.submit();
        self.collect()
    }

    /// Collects what is done and wakes who waits for it, without a system call; tells how much there was.
    pub fn collect(&self) -> usize {
        self.inner.fire_timers() + self.inner.reap()
    }

    /// Submits what is new without collecting anything.
    pub fn submit(&self) {
        self.inner.submit();
    }

    /// Submits what is new, then blocks this thread until something is done, a timer is due, or `most` has passed: in
    /// one system call. Collects nothing. Call it when no task can run: wakes by other threads are not seen meanwhile.
    pub fn wait(&self, most: Duration) {
        self.inner.wait(most);
    }

    /// Runs one future on this thread until it ends, sleeping in the kernel while it waits: for tools and tests.
    /// Wakes from other threads are not seen until something completes.
    ///
    /// # Panics
    /// When the future waits and nothing is in flight that could wake it.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(future);
        loop {
            if woken.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
            if self.collect() == 0 && !woken.0.load(Ordering::Relaxed) {
                let waits = self.in_flight() > 0 || self.inner.first_timer().is_some();
                assert!(waits, "deadlock: the future waits and nothing is in flight");
                self.wait(Duration::MAX);
            } else {
                self.submit();
            }
        }
    }

    /// Cancels what can be cancelled and waits until nothing is in flight. Call it when no task starts operations any
    /// more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn drain(&self) {
        self.inner.cancel_all();
        while self.in_flight() > 0 {
            let soon = boot_time() + Duration::from_millis(1);
            crate::Clock::sleep_until(&super::RealClock::new(self), soon).await;
        }
    }

    /// Starts an operation on a socket or another descriptor that a cancel ends early.
    pub(super) async fn socket_operation(
        &self,
        file: &Rc<File>,
        entry: squeue::Entry,
        payload: Payload,
    ) -> (i32, Payload) {
        let file = Some(Rc::clone(file));
        let operation = Operation { payload, file, admission: None, permit: None, cancellable: true };
        self.operate(entry, operation).await
    }

    /// Starts an operation on a disk, which runs to its end whatever happens.
    pub(super) async fn disk_operation(
        &self,
        file: &Rc<File>,
        entry: squeue::Entry,
        payload: Payload,
        admission: Option<Admission>,
    ) -> (i32, Payload) {
        let file = Some(Rc::clone(file));
        let operation = Operation { payload, file, admission, permit: None, cancellable: false };
        self.operate(entry, operation).await
    }

    async fn operate(&self, entry: squeue::Entry, mut operation: Operation) -> (i32, Payload) {
        let inner = &self.inner;
        let permit = inner.permits.acquire(1).await.expect("fewer tasks than the bound on waiters");
        operation.permit = Some(permit);
        let key = inner.slots.borrow_mut().insert(operation);
        inner.pending.borrow_mut().push_back(entry.user_data(key.user_data()));
        Flight::new(Rc::clone(inner), key).await
    }

    /// Takes over a file this process has locked, registered with the ring if it has room for it.
    pub(super) fn register_file(&self, fd: OwnedFd) -> File {
        let index = self.inner.fixed_files.borrow_mut().pop();
        let registered = index.filter(|&index| {
            let ring = self.inner.ring.borrow();
            let updated = ring.submitter().register_files_update(index, &[fd.as_raw_fd()]).is_ok();
            if !updated {
                self.inner.fixed_files.borrow_mut().push(index);
            }
            updated
        });
        File::locked(fd, registered.map(|index| (Rc::downgrade(&self.inner), index)))
    }

    /// The index under which a buffer of this pool is registered.
    pub(super) fn buffer_index(&self, pool_id: u64, region_index: usize) -> Option<u16> {
        let registered = self.inner.pool.borrow().as_ref().is_some_and(|pool| pool.id() == pool_id);
        registered.then(|| u16::try_from(region_index).expect("an arena has at most 2^14 regions"))
    }

    pub(super) fn set_timer(&self, at: Duration, number: Option<u64>, waker: Waker) -> u64 {
        let number = number.unwrap_or_else(|| {
            let number = self.inner.next_timer.get();
            self.inner.next_timer.set(number + 1);
            number
        });
        self.inner.timers.borrow_mut().insert((at, number), waker);
        number
    }

    pub(super) fn clear_timer(&self, at: Duration, number: u64) {
        self.inner.timers.borrow_mut().remove(&(at, number));
    }
}

impl Inner {
    pub(super) fn poll_operation(&self, key: Key, waker: &Waker) -> Option<(i32, Payload)> {
        self.slots.borrow_mut().poll(key, waker)
    }

    pub(super) fn abandon(&self, key: Key) {
        let abandoned = self.slots.borrow_mut().abandon(key);
        match abandoned {
            Abandoned::Landed(operation) => drop(operation),
            Abandoned::Cancel(user_data) => self.cancel(user_data),
            Abandoned::Flying => {}
        }
    }

    /// Frees an index that no operation uses any more.
    pub(super) fn unregister_file(&self, index: u32) {
        let ring = self.ring.borrow();
        if ring.submitter().register_files_update(index, &[-1]).is_ok() {
            self.fixed_files.borrow_mut().push(index);
        }
    }

    fn cancel(&self, user_data: u64) {
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(CANCEL);
        self.pending.borrow_mut().push_back(entry);
    }

    fn cancel_all(&self) {
        let cancellable = self.slots.borrow().cancellable();
        for user_data in cancellable {
            self.cancel(user_data);
        }
    }

    fn fire_timers(&self) -> usize {
        let Some(first) = self.first_timer() else { return 0 };
        let now = boot_time();
        if first > now {
            return 0;
        }
        let due = {
            let mut timers = self.timers.borrow_mut();
            let later = timers.split_off(&(now, u64::MAX));
            core::mem::replace(&mut *timers, later)
        };
        let count = due.len();
        for waker in due.into_values() {
            waker.wake();
        }
        count
    }

    fn first_timer(&self) -> Option<Duration> {
        self.timers.borrow().keys().next().map(|&(at, _)| at)
    }

    /// Moves pending entries into the submission queue.
    fn fill_queue(&self, ring: &mut IoUring) {
        let mut pending = self.pending.borrow_mut();
        let mut queue = ring.submission();
        while let Some(entry) = pending.pop_front() {
            // SAFETY: what the entry points to is owned by its slot until the completion is reaped, and `Inner` does
            // not drop its slots while anything is in flight. Entries of cancels point to nothing.
            if unsafe { queue.push(&entry) }.is_err() {
                pending.push_front(entry);
                return;
            }
        }
    }

    /// Gives the kernel everything pending. Runs deferred work whenever there is any: with DEFER_TASKRUN a completion
    /// appears only in an enter that asks for events.
    fn submit(&self) {
        let mut ring = self.ring.borrow_mut();
        loop {
            self.fill_queue(&mut ring);
            let (count, has_work) = {
                let queue = ring.submission();
                (queue.len(), queue.taskrun() || queue.cq_overflow())
            };
            if count == 0 && !has_work {
                return;
            }
            let count = u32::try_from(count).expect("the queue has few entries");
            let is_last = self.pending.borrow().is_empty();
            self.enters.set(self.enters.get() + 1);
            // SAFETY: no argument is passed, and entries are valid as `fill_queue` says.
            let entered = unsafe {
                ring.submitter().enter::<libc::sigset_t>(count, 0, EnterFlags::GETEVENTS.bits(), None)
            };
            if !Self::went_well(entered) || is_last {
                return;
            }
        }
    }

    /// Like [`Inner::submit`], then waits for a completion, until the first timer is due or `most` has passed.
    fn wait(&self, most: Duration) {
        let mut ring = self.ring.borrow_mut();
        self.fill_queue(&mut ring);
        if !self.pending.borrow().is_empty() {
            drop(ring);
            return self.submit();
        }
        let until_timer = self.first_timer().map(|at| at.saturating_sub(boot_time()));
        let most = until_timer.map_or(most, |until| until.min(most)).min(WAIT_MAX);
        if most == Duration::ZERO {
            drop(ring);
            return self.submit();
        }
        let time = types::Timespec::from(most);
        self.enters.set(self.enters.get() + 1);
        // Entries are valid as `fill_queue` says. A completion that is there already ends the wait at once.
        Self::went_well(ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time)));
    }

    /// Whether the kernel took everything; when not, the next turn goes on.
    fn went_well(entered: io::Result<usize>) -> bool {
        let Err(error) = entered else { return true };
        match error.raw_os_error() {
            // Time is over, interrupted, or short of memory or of completion room: reap first.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => false,
            _ => panic!("io_uring_enter failed, which only a mistake of ours can cause: {error}"),
        }
    }

    /// Collects completions and wakes who waits for them.
    fn reap(&self) -> usize {
        let mut completions = self.completions.take();
        completions
            .extend(self.ring.borrow_mut().completion().map(|entry| (entry.user_data(), entry.result())));
        let count = completions.len();
        for (user_data, result) in completions.drain(..) {
            if user_data == CANCEL {
                continue;
            }
            let released = self.slots.borrow_mut().complete(user_data, result);
            if let Some(waker) = released.waker {
                waker.wake();
            }
            // The rest of `released` is dropped here, outside the borrow of the table: it wakes others in turn.
        }
        self.completions.replace(completions);
        count
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Futures hold a handle, so what is still in flight here has none: orphans.
        self.cancel_all();
        let give_up = Instant::now() + DROP_WAIT_MAX;
        while self.slots.borrow().in_flight() > 0 {
            self.wait(Duration::from_secs(1));
            self.reap();
            if Instant::now() > give_up {
                // Freeing memory that the kernel may still write to is worse than ending.
                eprintln!("io_uring: operations did not end within {DROP_WAIT_MAX:?}; ending the process");
                std::process::abort();
            }
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("mode", &self.inner.mode)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

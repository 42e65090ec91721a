//! The ring and those who wait on it.

use core::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    pin::pin,
    sync::atomic::{Ordering, fence},
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    task::Wake,
    time::Instant,
};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use nova_buf::Pool;
use rustix::event::{EventfdFlags, eventfd};

use super::{
    classes::Admission,
    clock::boot_time,
    file::File,
    operation::Flight,
    slots::{Abandoned, Key, Operation, Payload, Slots},
};
use crate::sync::{Notify, Semaphore};

/// Operations of one shard that the kernel has, or that wait for room in the submission queue.
pub const IN_FLIGHT_MAX: u32 = 4096;

/// Tasks that may wait for one of those places; each is a task that exists, so this is only a guard.
const WAITERS_MAX: usize = 1 << 20;

/// Slots for the reactor's own timeouts.
const OWN_SLOTS: u32 = 16;

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
    /// The wake-up descriptor could not be made.
    #[error("no eventfd for the ring: raise the limit on open files")]
    EventFd(#[source] io::Error),
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
    /// The timeout the kernel has: when it fires, and its user data.
    armed: Cell<Option<(Duration, u64)>>,
    /// Timeouts in flight, cancelled ones included.
    own_in_flight: Cell<u32>,
    work: Notify,
    event: OwnedFd,
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
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| ReactorError::EventFd(errno.into()))?;
        ring.submitter().register_eventfd(event.as_raw_fd()).map_err(ReactorError::Setup)?;
        ring.submitter().register_files_sparse(FIXED_FILES).map_err(ReactorError::Setup)?;
        let inner = Inner {
            ring: RefCell::new(ring),
            slots: RefCell::new(Slots::new(IN_FLIGHT_MAX + OWN_SLOTS)),
            pending: RefCell::default(),
            completions: RefCell::default(),
            permits: Semaphore::new(IN_FLIGHT_MAX as usize, WAITERS_MAX),
            timers: RefCell::default(),
            next_timer: Cell::default(),
            armed: Cell::default(),
            own_in_flight: Cell::default(),
            work: Notify::new(),
            event,
            fixed_files: RefCell::new((0..FIXED_FILES).rev().collect()),
            pool: RefCell::default(),
            registration: RefCell::new(Registration::None),
            mode,
            enters: Cell::default(),
        };
        inner.ring.borrow_mut().completion().disable_eventfd();
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

    /// Operations the kernel has or is about to get, orphans and timeouts included.
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
        let fired = self.inner.fire_timers();
        self.inner.submit(0);
        fired + self.inner.reap()
    }

    /// The descriptor that becomes readable when something completes while the driver sleeps; see
    /// [`Reactor::prepare_park`].
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.inner.event.as_fd()
    }

    /// Completes when something was submitted or scheduled after the last [`Reactor::turn`], or [`Reactor::notify`]
    /// was called. The driver waits on it while it is parked.
    pub async fn new_work(&self) {
        self.inner.work.notified().await;
    }

    /// Completes a [`Reactor::new_work`], now or the next.
    pub fn notify(&self) {
        self.inner.work.notify_one();
    }

    /// Gets ready to sleep. With true, any completion from now on makes [`Reactor::event`] readable and any timer due
    /// is a completion: the driver may sleep until then, or until [`Reactor::new_work`]. With false there is something
    /// to do first.
    #[must_use]
    pub fn prepare_park(&self) -> bool {
        let inner = &self.inner;
        if !inner.arm_timeout() {
            return false;
        }
        inner.submit(0);
        inner.ring.borrow_mut().completion().enable_eventfd();
        // The kernel adds work, then looks whether to signal; we ask it to signal, then look for work.
        fence(Ordering::SeqCst);
        if inner.is_quiet() {
            return true;
        }
        inner.ring.borrow_mut().completion().disable_eventfd();
        false
    }

    /// Ends what [`Reactor::prepare_park`] began.
    pub fn unpark(&self) {
        self.inner.ring.borrow_mut().completion().disable_eventfd();
        self.clear_event();
    }

    /// Makes [`Reactor::event`] readable, as a completion would: to end who waits for it.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.inner.event, &1u64.to_le_bytes());
    }

    /// Makes [`Reactor::event`] unreadable until the next signal.
    pub fn clear_event(&self) {
        let mut count = [0; 8];
        // Not readable is the usual case.
        let _ = rustix::io::read(&self.inner.event, &mut count);
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
            if self.turn() == 0 && !woken.0.load(Ordering::Relaxed) && self.inner.arm_timeout() {
                assert!(self.in_flight() > 0, "deadlock: the future waits and nothing is in flight");
                self.inner.submit(1);
            }
        }
    }

    /// Cancels what can be cancelled and waits until nothing is in flight but the reactor's own timeouts. Call it when
    /// no task starts operations any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn drain(&self) {
        self.inner.cancel_all();
        while self.in_flight() > self.inner.own_in_flight.get() as usize {
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
        inner.work.notify_one();
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
        if self.inner.armed.get().is_none_or(|(armed_at, _)| at < armed_at) {
            // A parked driver has to arm an earlier timeout.
            self.inner.work.notify_one();
        }
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
        self.work.notify_one();
    }

    fn cancel_all(&self) {
        let cancellable = self.slots.borrow().cancellable();
        for user_data in cancellable {
            self.cancel(user_data);
        }
    }

    fn fire_timers(&self) -> usize {
        let Some(first) = self.timers.borrow().keys().next().map(|&(at, _)| at) else { return 0 };
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

    /// Sees to it that the kernel has a timeout for the first timer. False when there is something to do first: the
    /// timer is due, or cancelled timeouts have to be collected.
    fn arm_timeout(&self) -> bool {
        let Some(first) = self.timers.borrow().keys().next().map(|&(at, _)| at) else { return true };
        match self.armed.get() {
            Some((at, _)) if at <= first => return true,
            _ => {}
        }
        if first <= boot_time() || self.own_in_flight.get() >= OWN_SLOTS {
            return false;
        }
        if let Some((_, user_data)) = self.armed.take() {
            self.cancel(user_data);
        }
        let time = Box::new(types::Timespec::from(first));
        let flags = types::TimeoutFlags::ABS | types::TimeoutFlags::BOOTTIME;
        let entry = opcode::Timeout::new(&raw const *time).flags(flags).build();
        let payload = Payload::Time(time);
        let operation = Operation { payload, file: None, admission: None, permit: None, cancellable: true };
        let key = self.slots.borrow_mut().insert(operation);
        // Nobody polls for it: its completion is found by its user data.
        let _ = self.slots.borrow_mut().abandon(key);
        self.own_in_flight.set(self.own_in_flight.get() + 1);
        self.armed.set(Some((first, key.user_data())));
        self.pending.borrow_mut().push_back(entry.user_data(key.user_data()));
        true
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

    /// Gives the kernel everything pending; waits for `want` completions. Runs deferred work whenever there is any:
    /// with DEFER_TASKRUN a completion appears only in an enter that asks for events.
    fn submit(&self, want: u32) {
        let mut ring = self.ring.borrow_mut();
        loop {
            self.fill_queue(&mut ring);
            let (count, has_work) = {
                let queue = ring.submission();
                (queue.len(), queue.taskrun() || queue.cq_overflow())
            };
            if count == 0 && !has_work && want == 0 {
                return;
            }
            let count = u32::try_from(count).expect("the queue has few entries");
            let is_last = self.pending.borrow().is_empty();
            let want = if is_last { want } else { 0 };
            self.enters.set(self.enters.get() + 1);
            // SAFETY: no argument is passed, and entries are valid as `fill_queue` says.
            let entered = unsafe {
                ring.submitter().enter::<libc::sigset_t>(count, want, EnterFlags::GETEVENTS.bits(), None)
            };
            match entered {
                Ok(_) if is_last => return,
                Ok(_) => {}
                // Short of memory or of completion room: reap first, the next turn submits again.
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => return,
                    _ => panic!("io_uring_enter failed, which only a mistake of ours can cause: {error}"),
                },
            }
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
            if released.orphan.as_ref().is_some_and(|orphan| matches!(orphan.payload, Payload::Time(_))) {
                self.own_in_flight.set(self.own_in_flight.get() - 1);
                if self.armed.get().is_some_and(|(_, armed)| armed == user_data) {
                    self.armed.set(None);
                }
            }
            if let Some(waker) = released.waker {
                waker.wake();
            }
            // The rest of `released` is dropped here, outside the borrow of the table: it wakes others in turn.
        }
        self.completions.replace(completions);
        count
    }

    /// Whether there is nothing to submit, to run or to reap.
    fn is_quiet(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        let queue = ring.submission();
        let quiet = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        quiet && ring.completion().is_empty() && self.pending.borrow().is_empty()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Futures hold a handle, so what is still in flight here has none: orphans and timeouts.
        self.cancel_all();
        let give_up = Instant::now() + DROP_WAIT_MAX;
        while self.slots.borrow().in_flight() > 0 {
            self.submit(1);
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

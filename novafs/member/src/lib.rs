//! Drives the replica groups of one storage host over its store and its peers.
//!
//! `novafs-replica` decides, `novafs-store` keeps, the peers carry: this crate is what stands between. It checks the
//! page sums of every body before the machine hears of it, begins what the machine asks for, and hands the ends back.
//! A body is never copied on the way from the wire to the device and to other members.
#![forbid(unsafe_code)]

mod call;
mod collect;
mod compact;
mod compare;
mod drive;
mod fill;
mod health;
mod leave;
mod pace;
mod read;
mod record;
mod repair;
mod scrub;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

pub use collect::Collected;
use nova_buf::SharedBuf;
use nova_device::sync::{Gate, Semaphore, oneshot};
use nova_device::{Clock, Handler, Incoming, Peers, Served, Shard};
use nova_units::{BlockId, BootId, DeviceId, Epoch, GroupId, NodeId, Seq, TaskClass, UnitIndex};
use novafs_replica::options::CHAIN_BYTES_MIN;
use novafs_replica::{
    Answer, Configuration, Host, HostCounters, HostIdentity, Input, Message, Report, Ticket,
    options::{RETRY_SOON_MS, TICK_EVERY},
};
use novafs_store::{Opened, Store, StoreError};

pub use health::{GroupHealth, LOST_NAMED_MAX};
pub use pace::Pace;
pub use scrub::ScrubOptions;

/// Reports that wait for the agent; the oldest go first, and what still holds is reported again.
pub const REPORTS_MAX: usize = 1_024;

/// Limits of a member.
#[derive(Clone, Copy, Debug)]
pub struct MemberOptions {
    /// Reads served at once; more wait.
    pub reads_max: usize,
    /// Reads that wait; more are told to come back.
    pub reads_waiting_max: usize,
    /// Repairs under way at once; what is found beyond them is found again by the next read.
    pub repairs_max: usize,
    /// How long [`Member::stop`] waits for requests being served.
    pub stop_within: Duration,
    /// Entries with at least this many bytes go along a chain of members ([`CHAIN_BYTES_MIN`]).
    pub chain_bytes_min: usize,
    /// The pace of the scrub; without one, damage is found when it is read.
    pub scrub: Option<ScrubOptions>,
}

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            reads_max: 64,
            reads_waiting_max: 1_024,
            repairs_max: 8,
            stop_within: Duration::from_secs(2),
            chain_bytes_min: CHAIN_BYTES_MIN,
            scrub: None,
        }
    }
}

/// What a member did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounters {
    /// What its machine did.
    pub host: HostCounters,
    /// Reads answered with units.
    pub reads: u64,
    /// Units in them.
    pub units_read: u64,
    /// Stored bytes in them, padding included.
    pub bytes_read: u64,
    /// Entries given to the store.
    pub appends: u64,
    /// Bytes of sealed units in them, padding included.
    pub bytes_appended: u64,
    /// Requests whose body or head was damaged.
    pub damaged: u64,
    /// Times a read or the scrub found a bad copy.
    pub corrupt_found: u64,
    /// Bad copies written anew.
    pub units_repaired: u64,
    /// Times the scrub went over everything.
    pub scrub_passes: u64,
    /// Ranges compared with other members.
    pub compares: u64,
    /// Members that did not say what they hold of one.
    pub compares_unanswered: u64,
    /// Units and fences that were missing or old here, or are disputed.
    pub differences_found: u64,
    /// Those that were taken from another member.
    pub differences_settled: u64,
    /// Times the scrub came to metadata that is damaged.
    pub metadata_damaged: u64,
    /// Groups whose data were dropped because other hosts hold them.
    pub groups_left: u64,
    /// Reports dropped because nobody took them.
    pub reports_dropped: u64,
}

/// The replica groups of one storage host, running.
#[derive(Debug)]
pub struct Member<S: Shard, P: Peers> {
    shard: S,
    peers: P,
    store: Rc<Store<S>>,
    device: DeviceId,
    options: MemberOptions,
    drive: RefCell<Drive>,
    reads: Semaphore,
    gate: Gate,
    stopped: Cell<bool>,
    /// The next tick that was asked for besides the regular ones.
    wake_at: Cell<Option<Duration>>,
    repairing: RefCell<BTreeSet<(GroupId, BlockId, UnitIndex)>>,
    health: RefCell<health::Health>,
    /// Groups that this host left, and when that was first seen.
    left: RefCell<BTreeMap<GroupId, Duration>>,
    pace: RefCell<pace::Windows>,
    counters: Cell<MemberCounters>,
}

/// The machine and what waits for it.
#[derive(Debug)]
struct Drive {
    host: Host<SharedBuf>,
    inputs: VecDeque<Input<SharedBuf>>,
    /// Set while inputs are being worked off, further down the stack.
    running: bool,
    waiting: BTreeMap<Ticket, oneshot::Sender<(Answer, Option<SharedBuf>)>>,
    next_ticket: u64,
    reports: VecDeque<Report>,
    configuration: Configuration,
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// Starts the groups that `opened` holds, on `node`, for this start `boot` of its daemon.
    ///
    /// Nothing is served before [`Member::configure`] brings a configuration that confirms the host.
    pub fn start(
        shard: S,
        peers: P,
        opened: Opened<S>,
        node: NodeId,
        boot: BootId,
        options: MemberOptions,
    ) -> Rc<Self> {
        let me = HostIdentity { node, boot, incarnation: opened.incarnation };
        let now = shard.clock().now();
        let host = Host::new(me, now, record::recovered(&opened)).with_chains_from(options.chain_bytes_min);
        let drive = Drive {
            host,
            inputs: VecDeque::new(),
            running: false,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            reports: VecDeque::new(),
            configuration: Configuration::default(),
        };
        let member = Rc::new(Self {
            shard: shard.clone(),
            peers,
            store: opened.store,
            device: opened.device,
            options,
            drive: RefCell::new(drive),
            reads: Semaphore::new(options.reads_max, options.reads_waiting_max),
            gate: Gate::new(),
            stopped: Cell::new(false),
            wake_at: Cell::new(None),
            repairing: RefCell::new(BTreeSet::new()),
            health: RefCell::default(),
            left: RefCell::default(),
            pace: RefCell::new(pace::Windows::new(now)),
            counters: Cell::new(MemberCounters::default()),
        });
        shard.spawn(TaskClass::Control, Rc::clone(&member).run_ticks());
        shard.spawn(TaskClass::Background, Rc::clone(&member).run_compaction());
        if let Some(scrub) = options.scrub {
            shard.spawn(TaskClass::Background, Rc::clone(&member).run_scrub(scrub));
        }
        member
    }

    /// Takes up what the controllers decided. Older versions than the one in use change nothing.
    pub fn configure(self: &Rc<Self>, configuration: &Configuration) {
        {
            let mut drive = self.drive.borrow_mut();
            if configuration.version >= drive.configuration.version {
                drive.configuration = configuration.clone();
            }
        }
        self.feed(Input::Configure(configuration.clone()));
    }

    /// Takes the reports that wait. The same report comes again every 100 ms until the configuration answers it.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.drive.borrow_mut().reports.drain(..).collect()
    }

    /// What this member did since it started.
    #[must_use]
    pub fn counters(&self) -> MemberCounters {
        MemberCounters { host: self.drive.borrow().host.counters(), ..self.counters.get() }
    }

    /// How long its device lately took to make entries durable.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace.borrow_mut().pace(self.shard.clock().now())
    }

    /// Who this host is; the incarnation may change.
    #[must_use]
    pub fn identity(&self) -> HostIdentity {
        self.drive.borrow().host.identity()
    }

    /// Epoch and last committed number of a group that this host takes part in.
    #[must_use]
    pub fn position(&self, group: GroupId) -> Option<(Epoch, Seq)> {
        self.drive.borrow().host.position(group)
    }

    /// How this host stands in a group, in words for a person who looks for what holds it up.
    #[must_use]
    pub fn describe(&self, group: GroupId) -> String {
        self.drive.borrow().host.describe(group)
    }

    /// The store under the member.
    #[must_use]
    pub fn store(&self) -> &Rc<Store<S>> {
        &self.store
    }

    /// Ends: new requests are refused, those being served end or are given up, and the store is closed.
    ///
    /// # Errors
    /// When the store cannot be closed in order; the next start recovers it.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.stopped.set(true);
        let until = self.shard.clock().now() + self.options.stop_within;
        // Whoever is still inside then waits for peers that do not answer; the store closes under it.
        let _ = nova_device::sync::timeout_at(self.shard.clock(), until, self.gate.close()).await;
        self.drive.borrow_mut().waiting.clear();
        self.store.close().await
    }

    async fn run_ticks(self: Rc<Self>) {
        while !self.stopped.get() {
            self.tick();
            let next = self.shard.clock().now() + TICK_EVERY;
            self.shard.clock().sleep_until(next).await;
        }
    }

    fn tick(self: &Rc<Self>) {
        if self.store.has_failed() {
            self.fail_device();
        }
        self.feed(Input::Tick { bytes_free: self.store.usage().bytes_free });
    }

    fn count(&self, change: impl FnOnce(&mut MemberCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Lets the machine answer one request.
    async fn serve_by_host(
        self: &Rc<Self>,
        from: NodeId,
        message: Message,
        body: Option<SharedBuf>,
    ) -> (Answer, Option<SharedBuf>) {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut drive = self.drive.borrow_mut();
            drive.next_ticket += 1;
            let ticket = Ticket(drive.next_ticket);
            drive.waiting.insert(ticket, sender);
            ticket
        };
        self.feed(Input::Request { ticket, from, message, body });
        receiver.await.unwrap_or((Answer::NotMember, None))
    }

    async fn answer(self: &Rc<Self>, from: NodeId, request: Incoming) -> (Answer, Option<SharedBuf>) {
        let Some(_pass) = self.gate.enter() else { return (Answer::NotMember, None) };
        if self.stopped.get() {
            return (Answer::NotMember, None);
        }
        let message = match Message::decode(&request.head) {
            Ok(message) => message,
            Err(_) => {
                self.count(|counters| counters.damaged += 1);
                return (Answer::Damaged, None);
            }
        };
        let body = request.body.map(nova_buf::DmaBuf::freeze).filter(|body| !body.is_empty());
        match message {
            Message::Read { group, epoch, block, first, count } => {
                let Ok(_permit) = self.reads.acquire(1).await else {
                    return (Answer::Busy { retry_after_ms: RETRY_SOON_MS }, None);
                };
                self.serve_read(read::Wanted { group, epoch, block, first, count }).await
            }
            Message::Locate { group, block, first, count } => {
                (self.serve_locate(group, block, first, count).await, None)
            }
            Message::Copy { group, block, unit, generation, counter } => {
                self.serve_copy(group, block, unit, generation, counter).await
            }
            Message::Compare { group, from, to, commit, digest } => {
                let Ok(_permit) = self.reads.acquire(1).await else {
                    return (Answer::Busy { retry_after_ms: RETRY_SOON_MS }, None);
                };
                (self.serve_compare(group, from, to, commit, &digest).await, None)
            }
            message if call::body_is_whole(message.body_units(), body.as_ref()) => {
                self.serve_by_host(from, message, body).await
            }
            _ => {
                self.count(|counters| counters.damaged += 1);
                (Answer::Damaged, None)
            }
        }
    }
}

/// Requests of edges and members.
#[derive(Clone, Debug)]
pub struct Service<S: Shard, P: Peers>(pub Rc<Member<S, P>>);

impl<S: Shard, P: Peers> Handler for Service<S, P> {
    async fn serve(&self, from: NodeId, request: Incoming) -> Served {
        let (answer, body) = self.0.answer(from, request).await;
        Served { head: answer.encode(), body }
    }
}

//! A host: its storage, its edge and the link between hosts, brought up by the agent's first map and led by the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nova_device::{Clock, Listener, Shard};
use nova_ring::abi::{AgentEvent, BlockRuns, PEERS_MAX, PeerHeard, PeersHeard};
use nova_ring::snapshot::HostMap;
use nova_ring::{Counter, Counters};
use nova_shard::RealShard;
use nova_units::{BlockId, BootId, DeviceId, GroupId, Incarnation, NodeId, TaskClass};
use novabulk_link::{Link, LinkOptions, LocalIdentity};
use novafs_edge::{Edge, EdgeOptions, Keyring};
use novafs_member::{MemberOptions, ScrubOptions};
use novafs_replica::{Configuration, Report};

use crate::attendance::{self, Events, GivenKey, Ordered};
use crate::collection::Collection;
use crate::desk::Desk;
use crate::devices::Devices;
use crate::door::{Arrival, Door};
use crate::doorbell::Doorbells;
use crate::hosts::{Here, Hosts};
use crate::map::configuration_of;
use crate::{program, storage};

/// How often the member's reports are taken to the agent; its own pace is 100 ms.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// How often the agent hears how full the devices are.
const USAGE_EVERY: Duration = Duration::from_secs(1);
/// How often keys are looked through for those whose time is over.
const EXPIRE_KEYS_EVERY: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for lack of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What runs once the first map has said who this host is.
struct Up {
    link: Link<RealShard>,
    edge: Option<Rc<Edge<RealShard, Hosts>>>,
}

/// What an edge works with.
pub(crate) struct Keys {
    /// None on a host that is no edge.
    pub(crate) ring: Option<Keyring>,
    /// None where no keys are to come: the ring has what it needs from a file.
    pub(crate) desk: Option<Desk>,
}

/// The host. One shard for now, so one of these.
pub(crate) struct Host {
    shard: RealShard,
    door: Arc<Door>,
    boot: BootId,
    keys: Keys,
    scrub: ScrubOptions,
    devices: Rc<Devices>,
    up: RefCell<Option<Up>>,
    map: RefCell<Option<HostMap>>,
    lease_until: Cell<Duration>,
    events: Rc<Events>,
    /// Which agent attached last; an earlier one is let go.
    agents: Cell<u64>,
    programs_broken: Cell<u64>,
    collection: Rc<Collection>,
}

impl Host {
    pub(crate) fn new(
        shard: RealShard,
        door: Arc<Door>,
        boot: BootId,
        keys: Keys,
        devices: storage::Devices,
        scrub: ScrubOptions,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            door,
            boot,
            keys,
            scrub,
            devices: Rc::new(Devices::new(devices)),
            up: RefCell::new(None),
            map: RefCell::new(None),
            lease_until: Cell::new(Duration::ZERO),
            events: Rc::default(),
            agents: Cell::new(0),
            programs_broken: Cell::new(0),
            collection: Rc::default(),
        })
    }

    /// Serves until somebody asks to stop; then closes the devices in order.
    pub(crate) async fn run(self: Rc<Self>) -> Result<(), novafs_store::StoreError> {
        self.shard.spawn(TaskClass::Control, Rc::clone(&self).report());
        let bell =
            self.shard.watch(self.door.bell().try_clone_to_owned().expect("a descriptor for the bell"));
        while !self.door.stop_asked() {
            while let Some(arrival) = self.door.next() {
                self.welcome(arrival);
            }
            if bell.readable().await.is_err() {
                // The bell is ours: this is a lack of resources, and arrivals can wait for a moment.
                self.pause(ACCEPT_PAUSE).await;
            }
            self.door.silence_bell();
        }
        self.door.set_open(false);
        tracing::info!("stopping: requests end, then the devices are closed");
        let up = self.up.borrow_mut().take();
        if let Some(up) = up {
            up.link.drain();
        }
        self.devices.stop(&self.shard).await
    }

    async fn pause(&self, pause: Duration) {
        let clock = self.shard.clock();
        clock.sleep_until(clock.now() + pause).await;
    }

    fn welcome(self: &Rc<Self>, arrival: Arrival) {
        let host = Rc::clone(self);
        match arrival {
            Arrival::Agent(link) => {
                let mine = self.agents.get() + 1;
                self.agents.set(mine);
                self.shard.spawn(TaskClass::Control, async move {
                    tracing::info!("the agent attached");
                    let (orders, replaced) = (Rc::clone(&host), || host.agents.get() != mine);
                    let tickets = &host.door.tickets;
                    let why =
                        attendance::serve(&host.shard, link, &orders, &host.events, tickets, replaced).await;
                    tracing::warn!("the agent detached: {why}; serving on the last map");
                });
            }
            Arrival::Program(link) => {
                let edge = self.up.borrow().as_ref().and_then(|up| up.edge.clone());
                self.shard.spawn(TaskClass::Client, async move {
                    if let Some(edge) = edge {
                        match program::serve(host.shard.clone(), edge, link).await {
                            program::Detached::Gone => {}
                            why => {
                                host.programs_broken.set(host.programs_broken.get() + 1);
                                tracing::warn!("detached a program: {why}");
                            }
                        }
                    }
                    host.door.programs.fetch_sub(1, Ordering::AcqRel);
                });
            }
        }
    }

    /// Makes everything that needs to know who this host is.
    fn bring_up(self: &Rc<Self>, node: NodeId) {
        let options = LinkOptions { port_count: 1, ..LinkOptions::default() };
        let link = Link::new(self.shard.clone(), LocalIdentity { node, boot: self.boot }, options);
        let here = Here::new(node, self.boot, self.shard.pool().clone(), Rc::clone(&self.devices));
        let hosts = Hosts::new(link.clone(), Rc::clone(&here));
        let options = MemberOptions { scrub: Some(self.scrub), ..MemberOptions::default() };
        self.devices.start(&self.shard, &hosts, node, self.boot, options);
        let devices = self.devices.iter().count();
        let edge = self.keys.ring.clone().map(|keys| {
            let pending_bytes_max = usize::try_from(self.shard.pool().free_bytes() / 4).unwrap_or(usize::MAX);
            let options = EdgeOptions { pending_bytes_max, ..EdgeOptions::default() };
            Edge::new(self.shard.clone(), hosts, keys, options)
        });
        let (host, accepting) = (Rc::clone(self), link.clone());
        self.shard.spawn(TaskClass::Control, async move { host.accept(accepting, here).await });
        tracing::info!(%node, devices, edge = edge.is_some(), "the controllers have this host");
        let is_edge = edge.is_some();
        self.up.replace(Some(Up { link, edge }));
        self.door.set_open(is_edge);
    }

    /// Takes connections of other hosts, for ever.
    async fn accept(&self, link: Link<RealShard>, here: Rc<Here>) {
        let listener = self.shard.listener().expect("the options asked for one");
        loop {
            match listener.accept().await {
                Ok((lane, _)) => link.accept(lane, Rc::clone(&here)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection now");
                    self.pause(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives the newest map to everyone.
    fn spread(self: &Rc<Self>) {
        let map = self.map.borrow();
        let Some(map) = map.as_ref() else { return };
        let configuration = match configuration_of(map, self.lease_until.get()) {
            Ok(configuration) => configuration,
            Err(error) => {
                tracing::error!(%error, "the agent gave a map that cannot be used; serving on the last one");
                return;
            }
        };
        if self.up.borrow().is_none() {
            self.bring_up(configuration.self_node);
        }
        let up = self.up.borrow();
        let up = up.as_ref().expect("just brought up");
        up.link.set_peers(addresses(&configuration));
        self.devices.configure(map, &configuration);
        if let Some(edge) = &up.edge {
            edge.configure(Rc::new(configuration));
        }
    }

    /// Carries the members' reports and the devices' room to the agent.
    async fn report(self: Rc<Self>) {
        let mut usage_at = Duration::ZERO;
        let mut expire_at = Duration::ZERO;
        loop {
            self.pause(REPORT_EVERY).await;
            self.say_wanted_keys();
            if self.shard.clock().now() >= expire_at {
                expire_at = self.shard.clock().now() + EXPIRE_KEYS_EVERY;
                if let Some(edge) = self.edge() {
                    edge.expire_keys();
                }
            }
            for device in self.devices.iter() {
                let Some(member) = device.member() else { continue };
                for report in member.reports() {
                    self.tell(device.id, report);
                }
            }
            let now = self.shard.clock().now();
            if now >= usage_at {
                usage_at = now + USAGE_EVERY;
                for event in self.devices.news() {
                    self.events.push(event);
                }
            }
        }
    }

    fn tell(&self, device: DeviceId, report: Report) {
        match report {
            Report::Silence { peer, boot, device: Some(incarnation), .. } => {
                let boot = boot.unwrap_or_default();
                self.events.push(AgentEvent::DeviceSilent { node: peer, boot, incarnation });
            }
            Report::Silence { peer, boot, hears, .. } => {
                let silent = PeerHeard { node: peer, boot, heard: false };
                let hears = hears.into_iter().map(|node| PeerHeard { node, boot: None, heard: true });
                let peers: Vec<_> = std::iter::once(silent).chain(hears).take(PEERS_MAX).collect();
                self.events.push(AgentEvent::Peers { peers: PeersHeard::new(&peers) });
            }
            Report::JoinReady { group, epoch, node } => {
                self.events.push(AgentEvent::JoinReady { group, epoch, node });
            }
            Report::DeviceFailed => {
                self.events.push(AgentEvent::DeviceFailed { device, errno: EIO });
            }
            Report::PageRepaired { group, block, unit } => {
                tracing::warn!(%group, %block, %unit, "found a bad copy and wrote it anew from another member");
            }
        }
    }

    fn edge(&self) -> Option<Rc<Edge<RealShard, Hosts>>> {
        self.up.borrow().as_ref().and_then(|up| up.edge.clone())
    }

    /// Tells the agent of key domains that were asked for here and are not here.
    fn say_wanted_keys(&self) {
        if let (Some(ring), Some(desk)) = (&self.keys.ring, &self.keys.desk) {
            for domain in ring.take_unsaid() {
                self.events.push(AgentEvent::KeyWanted { domain, public: desk.public() });
            }
        }
    }
}

/// What a failed device is reported with: the store keeps the first error in its log.
const EIO: i32 = 5;

fn addresses(configuration: &Configuration) -> BTreeMap<NodeId, nova_units::PeerAddr> {
    configuration
        .nodes
        .iter()
        .filter(|(node, _)| **node != configuration.self_node)
        .filter_map(|(node, view)| view.addr.map(|addr| (*node, addr)))
        .collect()
}

impl Ordered for Rc<Host> {
    fn take_map(&self, map: HostMap) {
        let older = self
            .map
            .borrow()
            .as_ref()
            .is_some_and(|known| (known.term, known.version) > (map.term, map.version));
        if older {
            return;
        }
        self.map.replace(Some(map));
        self.spread();
    }

    fn take_lease(&self, sent: Duration, lease: Duration) {
        self.lease_until.set(if lease.is_zero() {
            Duration::ZERO
        } else {
            self.lease_until.get().max(sent + lease)
        });
        self.spread();
    }

    fn incarnate(&self, device: DeviceId, incarnation: Incarnation, wipe: bool) {
        self.devices.incarnate(device, incarnation, wipe);
    }

    fn delete_blocks(&self, group: GroupId, runs: BlockRuns) {
        let Some(member) = self.devices.member_of(group) else { return };
        let (host, work) = (Rc::clone(self), self.collection.clone());
        self.shard.spawn(TaskClass::Background, async move {
            work.delete(&member, group, runs, &host.events).await;
        });
    }

    fn list_blocks(&self, request: u64, group: GroupId, from: BlockId, limit: u16) {
        let Some(member) = self.devices.member_of(group) else { return };
        let (host, work) = (Rc::clone(self), self.collection.clone());
        self.shard.spawn(TaskClass::Background, async move {
            work.list(&member, request, group, from, limit, &host.events).await;
        });
    }

    fn take_key(&self, given: GivenKey) {
        let (Some(ring), Some(desk)) = (&self.keys.ring, &self.keys.desk) else {
            tracing::warn!(domain = given.domain, "a key came to a host that takes none");
            return;
        };
        match desk.unpack(&given) {
            Ok(key) => {
                let (domain, version, current) = (given.domain, given.version, given.current);
                if ring.find(domain, version).is_err() {
                    tracing::info!(domain, version, current, "a key came");
                }
                ring.give(key, current, Some(self.shard.clock().now() + given.held));
            }
            Err(error) => tracing::error!(domain = given.domain, version = given.version, "{error}"),
        }
    }

    fn drop_keys(&self, domain: u32) {
        tracing::warn!(domain, "a key domain was dropped: its keys are forgotten, its data erased");
        match (self.edge(), &self.keys.ring) {
            (Some(edge), _) => edge.drop_domain(domain),
            (None, Some(ring)) => ring.drop_domain(domain),
            (None, None) => {}
        }
    }

    fn stop(&self) {
        self.door.ask_stop();
    }

    fn full_report(&self) -> Vec<AgentEvent> {
        let wanted = match (&self.keys.ring, &self.keys.desk) {
            (Some(ring), Some(desk)) => {
                let public = desk.public();
                ring.wanted().into_iter().map(|domain| AgentEvent::KeyWanted { domain, public }).collect()
            }
            _ => Vec::new(),
        };
        self.devices.full_report().into_iter().chain(wanted).collect()
    }

    fn count_into(&self, counters: &Counters) {
        let now = self.shard.clock().now();
        counters.set(Counter::AliveBoottimeMs, u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        counters.set(Counter::ClientsAttached, self.door.programs.load(Ordering::Acquire) as u64);
        counters.set(Counter::ClientsBroken, self.programs_broken.get());
        let up = self.up.borrow();
        let Some(up) = up.as_ref() else { return };
        let link = up.link.counters();
        counters.set(Counter::FramesSent, link.frames_sent);
        counters.set(Counter::FramesReceived, link.frames_received);
        counters.set(Counter::CrcFailures, link.checksum_failures);
        counters.set(Counter::PeersRefused, link.violations + link.garbled);
        if let Some(edge) = &up.edge {
            let edge = edge.counters();
            counters.set(Counter::BytesWritten, edge.bytes_written);
            counters.set(Counter::BytesRead, edge.bytes_read);
            counters.set(Counter::UnitsSealed, edge.units_sealed);
            counters.set(Counter::UnitsOpened, edge.units_opened);
            counters.set(Counter::ReadsRetried, edge.retries);
            counters.set(Counter::ReadsHedged, edge.reads_hedged);
            counters.set(Counter::HedgesWon, edge.hedges_won);
            counters.set(Counter::HedgesHeldBack, edge.hedges_held_back);
            counters.set(Counter::GroupStallMsMax, edge.write_stall_ms_max);
        }
        self.devices.count_into(counters);
    }
}

impl Doorbells for RealShard {
    fn readable(&self, fd: std::os::fd::BorrowedFd<'_>) -> impl Future<Output = ()> + use<> {
        let watch = fd.try_clone_to_owned().map(|fd| self.watch(fd));
        async move {
            // An error is a lack of resources: the caller looks again within 100 ms anyway.
            let Ok(watch) = watch else { return std::future::pending().await };
            if watch.readable().await.is_err() {
                std::future::pending().await
            }
        }
    }
}

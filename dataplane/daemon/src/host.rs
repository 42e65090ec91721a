//! A host as one of its shards sees it: the devices of the shard, its edge and its link to other hosts, brought up by the
//! agent's first map and led by the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nova_device::sync::Notify;
use nova_device::{Clock, Listener, Served, Shard};
use nova_shard::RealShard;
use nova_units::{BootId, NodeId, TaskClass};
use novabulk_link::{Admitted, Link, LinkOptions, LocalIdentity};
use novabulk_tls::Tls;
use novafs_edge::{Edge, EdgeOptions, Keyring};
use novafs_member::{MemberOptions, ScrubOptions};
use novafs_replica::{Configuration, Message};

use crate::attendance::{self, GivenKey};
use crate::certificates::SERVICE;
use crate::collection::Collection;
use crate::desk::Desk;
use crate::devices::Devices;
use crate::door::Door;
use crate::doorbell::Doorbells;
use crate::hosts::{Here, Hosts, Parts};
use crate::map::configuration_of;
use crate::neighbours::{Ask, Neighbours};
use crate::openings::Openings;
use crate::program;
use crate::roster::Roster;
use crate::storage::Placed;
use crate::switchboard::{Board, FRONT, Order, Post, Switchboard};

/// Pause after an accept that failed for lack of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What runs once the first map has said who this host is.
pub(crate) struct Up {
    pub(crate) link: Link<RealShard>,
    pub(crate) edge: Option<Rc<Edge<RealShard, Hosts>>>,
    hosts: Hosts,
}

/// What an edge works with.
pub(crate) struct Keys {
    /// None on a host that is no edge.
    pub(crate) ring: Option<Keyring>,
    /// None where no keys are to come: the ring has what it needs from a file.
    pub(crate) desk: Option<Arc<Desk>>,
}

/// What one shard of a host starts with.
pub(crate) struct Setup {
    pub(crate) shard: RealShard,
    /// Its number.
    pub(crate) own: usize,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) door: Arc<Door>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) boot: BootId,
    pub(crate) keys: Keys,
    /// Those of its devices that serve.
    pub(crate) devices: Vec<Placed>,
    pub(crate) scrub: ScrubOptions,
    /// Port of the first shard; 0 when the kernel chose one for each.
    pub(crate) port_base: u16,
    pub(crate) tls: Tls,
    /// The configuration of this novad, and the paths of the devices in it.
    pub(crate) config_path: PathBuf,
    pub(crate) paths: Vec<PathBuf>,
}

/// The host. One of these on each shard; the one on the first shard is its front, which has the ring of the agent.
pub(crate) struct Host {
    pub(crate) shard: RealShard,
    pub(crate) own: usize,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) door: Arc<Door>,
    boot: BootId,
    port_base: u16,
    tls: Tls,
    pub(crate) keys: Keys,
    scrub: ScrubOptions,
    pub(crate) devices: Rc<Devices>,
    neighbours: Rc<Neighbours>,
    pub(crate) here: Rc<Here>,
    pub(crate) up: RefCell<Option<Up>>,
    /// What this shard has last read.
    board: RefCell<Board>,
    /// There is something for the agent.
    told: Notify,
    stopping: Notify,
    /// Which agent attached last; an earlier one is let go.
    agents: Cell<u64>,
    pub(crate) programs_broken: Cell<u64>,
    collection: Rc<Collection>,
    pub(crate) openings: Openings,
}

impl Host {
    pub(crate) fn new(setup: Setup) -> Rc<Self> {
        let Setup { shard, own, switchboard, door, roster, boot, keys, devices, .. } = setup;
        let Setup { scrub, port_base, tls, config_path, paths, .. } = setup;
        let devices = Rc::new(Devices::new(devices));
        let neighbours = Rc::new(Neighbours::new(own, Arc::clone(&switchboard), shard.pool().bytes()));
        let here = Here::new(Parts {
            boot,
            shard: shard.clone(),
            switchboard: Arc::clone(&switchboard),
            roster,
            devices: Rc::clone(&devices),
            neighbours: Rc::clone(&neighbours),
        });
        Rc::new(Self {
            shard,
            own,
            switchboard,
            door,
            boot,
            port_base,
            tls,
            keys,
            scrub,
            devices,
            neighbours,
            here,
            up: RefCell::new(None),
            board: RefCell::default(),
            told: Notify::new(),
            stopping: Notify::new(),
            agents: Cell::new(0),
            programs_broken: Cell::new(0),
            collection: Rc::default(),
            openings: Openings::new(config_path, paths),
        })
    }

    /// Serves until somebody asks to stop; then closes the devices in order.
    pub(crate) async fn run(self: Rc<Self>) -> Result<(), novafs_store::StoreError> {
        self.shard.spawn(TaskClass::Control, Rc::clone(&self).report());
        // Its neighbours are answered while this shard stops, too: they may be waiting to stop.
        self.shard.spawn(TaskClass::Control, Rc::clone(&self).mind_mailbox());
        while !self.switchboard.stop_asked() {
            self.stopping.notified().await;
        }
        self.switchboard.seats.set_open(self.own, false);
        tracing::info!(shard = self.own, "stopping: requests end, then the devices are closed");
        let up = self.up.borrow_mut().take();
        if let Some(up) = up {
            up.link.drain();
        }
        self.devices.stop(&self.shard).await
    }

    /// Takes what is left for this shard, and reads the board, as long as the shard lives.
    async fn mind_mailbox(self: Rc<Self>) {
        let mailbox = self.switchboard.mailbox(self.own);
        let bell = self.shard.watch(mailbox.bell().try_clone_to_owned().expect("a descriptor for the bell"));
        loop {
            self.read_board();
            for post in mailbox.take_all() {
                self.take(post);
            }
            if self.own == FRONT && self.switchboard.has_events() {
                self.told.notify_all();
            }
            if self.switchboard.stop_asked() {
                self.stopping.notify_all();
            }
            if bell.readable().await.is_err() {
                // The bell is ours: this is a lack of resources, and what was left can wait for a moment.
                self.pause(ACCEPT_PAUSE).await;
            }
            mailbox.silence();
        }
    }

    pub(crate) async fn pause(&self, pause: Duration) {
        let clock = self.shard.clock();
        clock.sleep_until(clock.now() + pause).await;
    }

    fn take(self: &Rc<Self>, post: Post) {
        match post {
            Post::Agent(link) => self.welcome_agent(link),
            Post::Program(link) => self.welcome_program(link),
            Post::Ask(ask) => self.serve(ask),
            Post::Answer { number, given } => self.neighbours.take_answer(number, given),
            Post::Order(order) => self.carry_out(order),
            Post::Opened { place, opened } => self.openings.has_opened(place, opened),
            Post::Closed { device } => self.openings.has_closed(device),
        }
    }

    fn welcome_agent(self: &Rc<Self>, link: nova_ring::Link) {
        let (host, mine) = (Rc::clone(self), self.agents.get() + 1);
        self.agents.set(mine);
        self.shard.spawn(TaskClass::Control, async move {
            tracing::info!("the agent attached");
            let (shard, switchboard, tickets) = (&host.shard, &host.switchboard, &host.door.tickets);
            let replaced = || host.agents.get() != mine;
            let why = attendance::serve(shard, link, &host, switchboard, &host.told, tickets, replaced).await;
            tracing::warn!("the agent detached: {why}; serving on the last map");
        });
    }

    fn welcome_program(self: &Rc<Self>, link: nova_ring::Link) {
        let (host, edge) = (Rc::clone(self), self.edge());
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
            host.door.program_left(host.own);
        });
    }

    /// Serves what came to another shard for a device of this one.
    fn serve(self: &Rc<Self>, ask: Ask) {
        let host = Rc::clone(self);
        // What is about several groups is short and urgent.
        let class = match Message::group_of(ask.head()) {
            Some(_) => TaskClass::Client,
            None => TaskClass::Control,
        };
        self.shard.spawn(class, async move {
            let from = ask.from;
            let (request, asker) = ask.unpack(host.shard.pool()).await;
            let served = match request {
                Some(request) => host.here.serve_here(from, request).await,
                None => Served { head: Vec::new(), body: None },
            };
            host.neighbours.answer(asker, served);
        });
    }

    fn carry_out(self: &Rc<Self>, order: Order) {
        let (switchboard, work) = (Arc::clone(&self.switchboard), Rc::clone(&self.collection));
        match order {
            Order::Incarnate { device, incarnation, wipe } => {
                self.devices.incarnate(device, incarnation, wipe);
            }
            Order::TakeKey(given) => self.take_key(&given),
            Order::OpenDevice { place, path, expected } => self.open_here(place, path, expected),
            Order::CloseDevice { device } => self.close_here(device),
            Order::DeleteBlocks { group, runs } => {
                let Some(member) = self.devices.member_of(group) else { return };
                self.shard.spawn(TaskClass::Background, async move {
                    work.delete(&member, group, runs, &switchboard).await;
                });
            }
            Order::ListBlocks { request, group, from, limit } => {
                let Some(member) = self.devices.member_of(group) else { return };
                self.shard.spawn(TaskClass::Background, async move {
                    work.list(&member, request, group, from, limit, &switchboard).await;
                });
            }
        }
    }

    fn take_key(&self, given: &GivenKey) {
        let (Some(ring), Some(desk)) = (&self.keys.ring, &self.keys.desk) else { return };
        match desk.unpack(given) {
            Ok(key) => {
                let (domain, version, current) = (given.domain, given.version, given.current);
                if ring.find(domain, version).is_err() {
                    tracing::info!(shard = self.own, domain, version, current, "a key came");
                }
                ring.give(key, current, Some(self.shard.clock().now() + given.held));
            }
            Err(error) => tracing::error!(domain = given.domain, version = given.version, "{error}"),
        }
    }

    fn drop_keys(&self, domain: u32) {
        match (self.edge(), &self.keys.ring) {
            (Some(edge), _) => edge.drop_domain(domain),
            (None, Some(ring)) => ring.drop_domain(domain),
            (None, None) => {}
        }
    }

    /// Does what the board says that it did not say before.
    pub(crate) fn read_board(self: &Rc<Self>) {
        let known = self.board.borrow().version;
        let Some(board) = self.switchboard.read_board(known) else { return };
        let before = self.board.replace(board.clone());
        for domain in board.dropped.difference(&before.dropped) {
            self.drop_keys(*domain);
        }
        if board.certificates != before.certificates
            && let Some(certificates) = &board.certificates
        {
            self.tls.replace(certificates.clone());
        }
        if board.agents != before.agents {
            self.tell_all();
        }
        let devices_changed = match (&board.roster, &before.roster) {
            (Some(roster), known) => known.as_ref().is_none_or(|known| !Arc::ptr_eq(roster, known)),
            (None, _) => false,
        };
        if let Some(roster) = board.roster.as_ref().filter(|_| devices_changed) {
            self.here.set_roster(Arc::clone(roster));
        }
        let same_map = match (&board.map, &before.map) {
            (Some(map), Some(known)) => Arc::ptr_eq(map, known),
            (map, known) => map.is_none() && known.is_none(),
        };
        if !same_map || devices_changed || board.lease_until != before.lease_until {
            self.spread(&board);
        }
    }

    /// A new agent has to know what this shard told an earlier one.
    fn tell_all(&self) {
        self.devices.forget_told();
        if let (Some(ring), Some(desk)) = (&self.keys.ring, &self.keys.desk) {
            self.want_keys(desk, ring.wanted());
        }
    }

    /// Makes everything that needs to know who this host is.
    fn bring_up(self: &Rc<Self>, node: NodeId) {
        let port_count = u16::try_from(self.switchboard.shards()).expect("a host has at most 24 shards");
        let options = LinkOptions { port_base: self.port_base, port_count, ..LinkOptions::default() };
        let local = LocalIdentity { node, boot: self.boot };
        let link = Link::new(self.shard.clone(), local, options, self.tls.clone());
        self.here.set_node(node);
        let hosts = Hosts::new(link.clone(), Rc::clone(&self.here));
        self.start_members(&hosts);
        let devices = self.devices.all().len();
        let edge = self.keys.ring.clone().map(|keys| {
            let pending_bytes_max = usize::try_from(self.shard.pool().free_bytes() / 4).unwrap_or(usize::MAX);
            let options = EdgeOptions { pending_bytes_max, ..EdgeOptions::default() };
            Edge::new(self.shard.clone(), hosts.clone(), keys, options)
        });
        let (host, accepting) = (Rc::clone(self), link.clone());
        self.shard.spawn(TaskClass::Control, async move { host.accept(accepting).await });
        let is_edge = edge.is_some();
        tracing::info!(%node, shard = self.own, devices, edge = is_edge, "the controllers have this host");
        self.up.replace(Some(Up { link, edge, hosts }));
        self.switchboard.seats.set_open(self.own, is_edge);
    }

    /// A member on each device that has none.
    fn start_members(&self, hosts: &Hosts) {
        let options = MemberOptions { scrub: Some(self.scrub), ..MemberOptions::default() };
        self.devices.start(&self.shard, hosts, self.here.node(), self.boot, options);
    }

    /// A member on a device that was opened since this host came up.
    pub(crate) fn start_new_members(&self) {
        if let Some(up) = self.up.borrow().as_ref() {
            self.start_members(&up.hosts);
        }
    }

    /// Takes connections of other hosts, for ever.
    async fn accept(&self, link: Link<RealShard>) {
        let listener = self.shard.listener().expect("the options asked for one");
        loop {
            match listener.accept().await {
                Ok((lane, from)) => link.accept(lane, from, Rc::clone(&self.here)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection now");
                    self.pause(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives the newest map to everyone on this shard.
    fn spread(self: &Rc<Self>, board: &Board) {
        let Some(map) = board.map.as_deref().filter(|_| !self.switchboard.stop_asked()) else { return };
        let configuration = match configuration_of(map, board.lease_until) {
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
        let hosts = map.nodes.iter().map(|host| (NodeId(host.node), host.name.clone())).collect();
        up.link.admit(Admitted::Named { service: SERVICE, hosts });
        self.here.configure(map, &configuration);
        self.devices.configure(map, &configuration);
        self.switchboard.publish_held(self.own, self.devices.held());
        if let Some(edge) = &up.edge {
            edge.configure(Rc::new(configuration));
        }
    }

    pub(crate) fn edge(&self) -> Option<Rc<Edge<RealShard, Hosts>>> {
        self.up.borrow().as_ref().and_then(|up| up.edge.clone())
    }
}

fn addresses(configuration: &Configuration) -> BTreeMap<NodeId, nova_units::PeerAddr> {
    configuration
        .nodes
        .iter()
        .filter(|(node, _)| **node != configuration.self_node)
        .filter_map(|(node, view)| view.addr.map(|addr| (*node, addr)))
        .collect()
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

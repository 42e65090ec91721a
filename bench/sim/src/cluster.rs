//! Storage hosts: a simulated disk, the real store, the real member, and an agent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{
    DiskCounters, DiskFaults, DiskImage, HostOptions, KillMode, MemDisk, MemShard, World,
};
use nova_device::sync::oneshot;
use nova_device::{Clock, Shard};
use nova_groups::Mount;
use nova_units::{BlockId, BootId, DeviceId, DiskIndex, GroupId, MountTrail, NodeId, TaskClass};
use novafs_member::{Collected, Member, MemberOptions, Service};
use novafs_replica::Answer;
use novafs_store::{FormatOptions, OpenOptions, Store};

use crate::controller::{CONTROLLER, Controller, News};
use crate::net::{Net, SimPeers};
use crate::scenario::Scenario;

/// How often an agent carries reports.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// How often an agent beats.
const BEAT_EVERY: Duration = Duration::from_millis(1_000);
/// How long a node lease lasts.
const NODE_LEASE: Duration = Duration::from_secs(25);
const POOL_BYTES: u64 = 16 << 20;
const DISK: DiskIndex = DiskIndex(0);

pub(crate) type SimMember = Member<MemShard, SimPeers>;

/// A storage host, through all its lives.
#[derive(Debug)]
pub(crate) struct StorageHost {
    address: IpAddr,
    disk: RefCell<MemDisk>,
    disk_bytes: u64,
    device: Cell<DeviceId>,
    formatted: Rc<Cell<bool>>,
    boots: Cell<u64>,
    drift_ppm: i32,
    pub(crate) shard: RefCell<Option<MemShard>>,
    pub(crate) member: Rc<RefCell<Option<Rc<SimMember>>>>,
    /// The device is of no use: a person has to bring another.
    pub(crate) wants_disk: Rc<Cell<bool>>,
}

impl StorageHost {
    /// Begins to collect a block here, as this host's own task: it dies with the host. `None`: the host is down.
    pub(crate) fn collect(
        &self,
        group: GroupId,
        block: BlockId,
    ) -> Option<oneshot::Receiver<Result<Collected, Answer>>> {
        let (shard, member) = (self.shard.borrow().clone()?, self.member.borrow().clone()?);
        let (sender, receiver) = oneshot::channel();
        shard.spawn(TaskClass::Background, async move {
            let _ = sender.send(member.collect(group, block..=block).await);
        });
        Some(receiver)
    }
}

/// All storage hosts and what they need.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) net: Rc<Net>,
    pub(crate) controller: Rc<Controller>,
    pub(crate) hosts: BTreeMap<NodeId, Rc<StorageHost>>,
    options: MemberOptions,
    devices: Cell<u128>,
}

fn address(node: NodeId) -> IpAddr {
    let low = u8::try_from(node.0).expect("a simulated host has a small number");
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, low))
}

/// A host without a disk: an edge, the controllers, the network itself.
pub(crate) fn bare_host(world: &World, node: NodeId, drift_ppm: i32, pool_bytes: u64) -> MemShard {
    world.add_host(HostOptions {
        address: address(node),
        disks: Vec::new(),
        pool_bytes,
        clock_offset: Duration::from_secs(node.0 * 10),
        clock_drift_ppm: drift_ppm,
    })
}

impl Cluster {
    pub(crate) fn new(world: World, net: Rc<Net>, controller: Rc<Controller>, scenario: &Scenario) -> Self {
        let Scenario { scrub, chain_bytes_min, .. } = *scenario;
        let options = MemberOptions { scrub, chain_bytes_min, ..MemberOptions::default() };
        Self { world, net, controller, hosts: BTreeMap::new(), options, devices: Cell::new(0) }
    }

    pub(crate) fn add_host(&mut self, node: NodeId, disk_bytes: u64, drift_ppm: i32) {
        let host = StorageHost {
            address: address(node),
            disk: RefCell::new(MemDisk::new(&self.world, disk_bytes)),
            disk_bytes,
            device: Cell::new(self.fresh_device(node)),
            formatted: Rc::default(),
            boots: Cell::new(node.0 * 1_000),
            drift_ppm,
            shard: RefCell::default(),
            member: Rc::default(),
            wants_disk: Rc::default(),
        };
        self.hosts.insert(node, Rc::new(host));
    }

    fn fresh_device(&self, node: NodeId) -> DeviceId {
        self.devices.set(self.devices.get() + 1);
        DeviceId((u128::from(node.0) << 64) | self.devices.get())
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.hosts[&node].shard.borrow().is_some()
    }

    /// Starts a host that is down.
    pub(crate) fn start(&self, node: NodeId) {
        let host = &self.hosts[&node];
        if self.is_up(node) {
            return;
        }
        host.boots.set(host.boots.get() + 1);
        let boot = BootId(host.boots.get());
        let shard = self.world.add_host(HostOptions {
            address: host.address,
            disks: vec![host.disk.borrow().clone()],
            pool_bytes: POOL_BYTES,
            clock_offset: Duration::from_secs(node.0 * 100),
            clock_drift_ppm: host.drift_ppm,
        });
        host.shard.replace(Some(shard.clone()));
        let life = Life {
            node,
            boot,
            device: host.device.get(),
            bytes: host.disk_bytes,
            shard: shard.clone(),
            net: Rc::clone(&self.net),
            controller: Rc::clone(&self.controller),
            options: self.options,
        };
        let (formatted, slot, wants_disk) =
            (Rc::clone(&host.formatted), Rc::clone(&host.member), Rc::clone(&host.wants_disk));
        shard.spawn(TaskClass::Control, life.run(formatted, slot, wants_disk));
    }

    /// Ends a host at once.
    pub(crate) fn kill(&self, node: NodeId, mode: KillMode) {
        let host = &self.hosts[&node];
        let Some(shard) = host.shard.take() else { return };
        self.net.detach(node);
        let member = host.member.take();
        self.world.kill(&shard, mode);
        drop(member);
    }

    /// Stops a host that runs; it keeps what it has in memory.
    pub(crate) fn stop(&self, node: NodeId) {
        if let Some(shard) = &*self.hosts[&node].shard.borrow() {
            self.world.stop(shard);
        }
    }

    /// Lets it go on, if it was not killed meanwhile.
    pub(crate) fn resume(&self, node: NodeId) {
        if let Some(shard) = &*self.hosts[&node].shard.borrow() {
            self.world.resume(shard);
        }
    }

    /// Gives a host that is down a new disk.
    pub(crate) fn replace_disk(&self, node: NodeId) {
        let host = &self.hosts[&node];
        assert!(!self.is_up(node), "disks are changed while the host is off");
        host.disk.replace(MemDisk::new(&self.world, host.disk_bytes));
        host.device.set(self.fresh_device(node));
        host.formatted.set(false);
        host.wants_disk.set(false);
    }

    pub(crate) fn set_disk_faults(&self, node: NodeId, faults: DiskFaults) {
        self.hosts[&node].disk.borrow().set_faults(faults);
    }

    /// What a host's disk did and suffered.
    pub(crate) fn disk_counters(&self, node: NodeId) -> DiskCounters {
        self.hosts[&node].disk.borrow().counters()
    }

    /// What a host's disk holds now.
    pub(crate) fn disk_image(&self, node: NodeId) -> DiskImage {
        self.hosts[&node].disk.borrow().image()
    }

    /// Sets the disk of a host that is down back to an image of it.
    pub(crate) fn restore_disk(&self, node: NodeId, image: DiskImage) {
        assert!(!self.is_up(node), "disks are changed while the host is off");
        self.hosts[&node].disk.replace(MemDisk::from_image(&self.world, image));
    }

    /// The device that a host has now.
    pub(crate) fn device(&self, node: NodeId) -> DeviceId {
        self.hosts[&node].device.get()
    }

    /// Whether every host runs and is known to the controllers.
    pub(crate) fn is_sound(&self) -> bool {
        self.hosts.iter().all(|(node, host)| {
            let boot = BootId(host.boots.get());
            self.is_up(*node) && !self.disk_failed(*node) && self.controller.confirmed(*node, boot).is_some()
        })
    }

    /// Flips a bit of what is stored on a host's disk.
    pub(crate) fn flip_bit(&self, node: NodeId, byte: u64, bit: u8) {
        self.hosts[&node].disk.borrow().flip_bit(byte, bit);
    }

    /// The members that run.
    pub(crate) fn members(&self) -> Vec<(NodeId, Rc<SimMember>)> {
        let running =
            |(node, host): (&NodeId, &Rc<StorageHost>)| Some((*node, host.member.borrow().clone()?));
        self.hosts.iter().filter_map(running).collect()
    }

    /// What the hosts think of their groups, for a person.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (node, host) in &self.hosts {
            let Some(member) = host.member.borrow().clone() else {
                lines.push(format!("{node} is down"));
                continue;
            };
            lines.push(format!("{node} {:?} {:?}", member.counters(), member.store().usage()));
            for group in self.controller.members().into_keys() {
                lines.push(format!("{node} {group} {}", member.describe(group)));
            }
        }
        lines
    }

    pub(crate) fn disk_failed(&self, node: NodeId) -> bool {
        let host = &self.hosts[&node];
        host.disk.borrow().is_failed() || host.wants_disk.get()
    }
}

/// One start of a host.
struct Life {
    node: NodeId,
    boot: BootId,
    device: DeviceId,
    bytes: u64,
    shard: MemShard,
    net: Rc<Net>,
    controller: Rc<Controller>,
    options: MemberOptions,
}

impl Life {
    async fn run(
        self,
        formatted: Rc<Cell<bool>>,
        slot: Rc<RefCell<Option<Rc<SimMember>>>>,
        wants_disk: Rc<Cell<bool>>,
    ) {
        if !formatted.get() {
            if Store::format(&self.shard, DISK, FormatOptions::new(self.device)).await.is_err() {
                wants_disk.set(true);
                return;
            }
            formatted.set(true);
        }
        let Ok(opened) = Store::open(self.shard.clone(), DISK, OpenOptions::default()).await else {
            wants_disk.set(true);
            return;
        };
        let (mount_counter, trail) = (opened.mount_counter, opened.trail);
        let peers = SimPeers { net: Rc::clone(&self.net), me: self.node, shard: self.shard.clone() };
        let member = Member::start(self.shard.clone(), peers, opened, self.node, self.boot, self.options);
        self.net.attach(self.node, self.shard.clone(), Service(Rc::clone(&member)));
        slot.replace(Some(Rc::clone(&member)));
        self.run_agent(member, (mount_counter, trail), wants_disk).await;
    }

    /// Carries reports up and configurations down; both may be late or lost.
    async fn run_agent(
        self,
        member: Rc<SimMember>,
        (mount_counter, trail): (u64, MountTrail),
        wants_disk: Rc<Cell<bool>>,
    ) {
        let clock = self.shard.clock();
        let mut beat_at = clock.now();
        let mut known = 0;
        let life = Rc::new(self);
        loop {
            let now = life.shard.clock().now();
            let reports = member.reports();
            if reports.contains(&novafs_replica::Report::DeviceFailed) {
                wants_disk.set(true);
            }
            let beats = now >= beat_at;
            if beats || !reports.is_empty() {
                if beats {
                    beat_at = now + BEAT_EVERY;
                }
                let mount = Mount {
                    node: life.node.0,
                    boot: life.boot.0,
                    device: life.device.0.to_be_bytes().to_vec(),
                    mount_counter,
                    incarnation: member.identity().incarnation.0,
                    bytes_total: life.bytes,
                    trail: trail.as_slice().iter().map(|mount| mount.0).collect(),
                };
                let paging =
                    member.health().into_iter().filter(|health| health.filling).map(|health| health.group);
                let paging = paging.collect();
                let news = News { node: life.node, boot: life.boot, mount, reports, paging };
                life.shard
                    .spawn(TaskClass::Control, Rc::clone(&life).exchange(Rc::clone(&member), news, now));
            } else if life.controller.version.get() != known {
                // A change is pushed, not asked for.
                known = life.controller.version.get();
                life.shard.spawn(TaskClass::Control, Rc::clone(&life).fetch(Rc::clone(&member)));
            }
            life.shard.clock().sleep_until(now + REPORT_EVERY).await;
        }
    }

    async fn exchange(self: Rc<Self>, member: Rc<SimMember>, news: News, sent: Duration) {
        if !self.net.travel(self.node, CONTROLLER).await {
            return;
        }
        self.controller.hear(news);
        if !self.net.travel(CONTROLLER, self.node).await {
            return;
        }
        member.configure(&self.controller.configuration(self.node, self.boot, sent + NODE_LEASE));
    }

    async fn fetch(self: Rc<Self>, member: Rc<SimMember>) {
        let map = self.controller.configuration(self.node, self.boot, Duration::ZERO);
        if self.net.travel(CONTROLLER, self.node).await {
            member.configure(&map);
        }
    }
}

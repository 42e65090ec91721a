//! The devices of one shard, and the member that runs on each.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nova_device::{Shard, sync::oneshot};
use nova_ring::Counter;
use nova_ring::abi::{AgentEvent, LostUnits};
use nova_ring::snapshot::HostMap;
use nova_shard::RealShard;
use nova_units::{BootId, DeviceId, DiskIndex, GroupId, Incarnation, NodeId, TaskClass};
use novafs_member::{GroupHealth, Member, MemberOptions};
use novafs_replica::Configuration;
use novafs_store::{Opened, StoreError};

use crate::hosts::Hosts;
use crate::map::confirmed_devices;
use crate::storage::Placed;
use crate::tally::Tally;

pub(crate) type RealMember = Member<RealShard, Hosts>;

/// One device that serves, until it is closed.
pub(crate) struct Device {
    /// Its place in the configuration.
    place: u8,
    pub(crate) id: DeviceId,
    /// Which of the disks of its shard it is.
    disk: DiskIndex,
    /// Until the first map says who this host is.
    opened: RefCell<Option<Opened<RealShard>>>,
    /// From then on.
    member: RefCell<Option<Rc<RealMember>>>,
    /// The life that the controllers last named.
    told_life: Cell<Incarnation>,
    /// What the agent was told of the copies here.
    told_health: RefCell<BTreeMap<GroupId, GroupHealth>>,
    /// The last window of its pace that the agent was told of.
    told_window: Cell<u64>,
}

impl Device {
    fn new(placed: Placed) -> Rc<Self> {
        let Placed { place, disk, opened } = placed;
        Rc::new(Self {
            place,
            id: opened.device,
            disk,
            opened: RefCell::new(Some(opened)),
            member: RefCell::default(),
            told_life: Cell::new(Incarnation(0)),
            told_health: RefCell::default(),
            told_window: Cell::new(0),
        })
    }

    pub(crate) fn member(&self) -> Option<Rc<RealMember>> {
        self.member.borrow().clone()
    }

    /// Ends the member, or closes the store that has none yet.
    async fn end(&self) -> Result<(), StoreError> {
        let (member, opened) = (self.member.take(), self.opened.take());
        match (member, opened) {
            (Some(member), _) => member.stop().await,
            (None, Some(opened)) => opened.store.close().await,
            (None, None) => Ok(()),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Devices {
    serving: RefCell<Vec<Rc<Device>>>,
    /// Which of `serving` holds each group, by the newest map.
    routes: RefCell<BTreeMap<GroupId, Rc<Device>>>,
    /// What devices did that were closed since.
    closed: RefCell<Tally>,
}

impl Devices {
    pub(crate) fn new(opened: Vec<Placed>) -> Self {
        let serving = opened.into_iter().map(Device::new).collect();
        Self { serving: RefCell::new(serving), ..Self::default() }
    }

    /// One more. It has a member after the next [`Devices::start`], and a part in groups after the next
    /// [`Devices::configure`].
    pub(crate) fn add(&self, placed: Placed) {
        self.serving.borrow_mut().push(Device::new(placed));
    }

    /// Closes a device: from now on nothing here leads to it. Returns when its last request has ended.
    pub(crate) async fn close(&self, shard: &RealShard, id: DeviceId) -> Result<(), StoreError> {
        let found = self.serving.borrow().iter().position(|device| device.id == id);
        let Some(found) = found else { return Ok(()) };
        let device = self.serving.borrow_mut().remove(found);
        self.routes.borrow_mut().retain(|_, held| held.id != id);
        let member = device.member();
        let ended = device.end().await;
        if let Some(member) = member {
            let mut tally = Tally::default();
            count(&member, &mut tally);
            self.closed.borrow_mut().join_sums(&tally);
        }
        shard.close_disk(device.disk);
        ended
    }

    pub(crate) fn all(&self) -> Vec<Rc<Device>> {
        self.serving.borrow().clone()
    }

    /// The members that run.
    pub(crate) fn members(&self) -> impl Iterator<Item = Rc<RealMember>> {
        self.all().into_iter().filter_map(|device| device.member())
    }

    /// Starts a member on each device that has none, once it is known who this host is.
    pub(crate) fn start(
        &self,
        shard: &RealShard,
        peers: &Hosts,
        node: NodeId,
        boot: BootId,
        options: MemberOptions,
    ) {
        for device in self.all() {
            // A map that comes while the host stops starts nothing any more.
            let Some(opened) = device.opened.borrow_mut().take() else { continue };
            let member = Member::start(shard.clone(), peers.clone(), opened, node, boot, options);
            device.member.replace(Some(member));
        }
    }

    /// Gives a map to every member, each with the life that is confirmed for its own device.
    pub(crate) fn configure(&self, map: &HostMap, configuration: &Configuration) {
        let confirmed = confirmed_devices(map);
        let me = configuration.self_node;
        let serving = self.all();
        let life = |device: &Device| confirmed.get(&device.id).copied();
        self.routes.replace(
            configuration
                .groups
                .iter()
                .filter_map(|(group, view)| {
                    let member = view.member(me)?;
                    let found = serving.iter().find(|it| life(it) == Some(member.incarnation))?;
                    Some((*group, Rc::clone(found)))
                })
                .collect(),
        );
        for device in &serving {
            if let Some(member) = device.member() {
                member.configure(&Configuration { confirmed: life(device), ..configuration.clone() });
            }
        }
    }

    /// The member on the device that holds `group`: as the map says, or else where its data still lie.
    pub(crate) fn member_of(&self, group: GroupId) -> Option<Rc<RealMember>> {
        if let Some(device) = self.routes.borrow().get(&group) {
            return device.member();
        }
        self.members().find(|member| member.store().group(group).is_some())
    }

    /// Groups of which some device here has data.
    pub(crate) fn held(&self) -> BTreeSet<GroupId> {
        self.members().flat_map(|member| member.store().group_ids()).collect()
    }

    /// A new agent is told everything again, with the next look.
    pub(crate) fn forget_told(&self) {
        for device in self.all() {
            device.told_health.borrow_mut().clear();
            device.told_window.set(0);
        }
    }

    /// Room on every device, and what is new of the copies there.
    pub(crate) fn news(&self) -> Vec<AgentEvent> {
        let mut news = Vec::new();
        for device in self.all() {
            let Some(member) = device.member() else { continue };
            let usage = member.store().usage();
            news.push(AgentEvent::Usage {
                device: device.id,
                bytes_total: usage.bytes_total,
                bytes_free: usage.bytes_free,
            });
            let pace = member.pace();
            if device.told_window.replace(pace.window) != pace.window {
                news.push(AgentEvent::DevicePace {
                    device: device.id,
                    window: pace.window,
                    entries: pace.entries,
                    median_us: pace.median_us,
                    p99_us: pace.p99_us,
                });
            }
            for health in member.health() {
                // A replica that moved to another device here may have left data behind.
                let routes = self.routes.borrow();
                let elsewhere = routes.get(&health.group).is_some_and(|held| held.id != device.id);
                if !elsewhere {
                    news.extend(device.news_of(health));
                }
            }
        }
        news
    }

    /// The controllers gave a device its life. The map says the same, and says it together with the roles: the member
    /// acts on that. The order comes again with every report of the mounts.
    pub(crate) fn incarnate(&self, id: DeviceId, incarnation: Incarnation, wipe: bool) {
        let serving = self.serving.borrow();
        let Some(device) = serving.iter().find(|device| device.id == id) else { return };
        if device.told_life.replace(incarnation) != incarnation {
            tracing::info!(device = %id, place = device.place, %incarnation, wipe, "the controllers gave a device its life");
        }
    }

    /// Ends every member and closes every device, all at the same time.
    pub(crate) async fn stop(&self, shard: &RealShard) -> Result<(), StoreError> {
        let mut ending = Vec::new();
        for device in self.all() {
            let (sender, receiver) = oneshot::channel();
            shard.spawn(TaskClass::Control, async move {
                // Whoever stops waits for all of them.
                let _ = sender.send(device.end().await);
            });
            ending.push(receiver);
        }
        let mut all = Ok(());
        for ended in ending {
            all = all.and(ended.await.unwrap_or(Ok(())));
        }
        all
    }

    /// What the members have counted, also those of devices that were closed.
    pub(crate) fn count_into(&self, tally: &mut Tally) {
        tally.join(&self.closed.borrow());
        for member in self.members() {
            count(&member, tally);
        }
    }
}

/// What a member has counted.
fn count(member: &RealMember, tally: &mut Tally) {
    let (store, counted, pace) = (member.store().counters(), member.counters(), member.pace());
    let mark = member.store().scrub_mark();
    let values = [
        (Counter::PagesBad, counted.corrupt_found),
        (Counter::PagesRepaired, counted.units_repaired),
        (Counter::Commits, counted.host.entries_committed),
        (Counter::EntriesChained, counted.host.entries_chained),
        (Counter::ChainsBroken, counted.host.chains_broken),
        (Counter::UnitsBackfilled, store.units_installed),
        (Counter::ScrubBytes, store.bytes_verified),
        (Counter::ScrubUnits, store.units_verified),
        (Counter::ScrubPasses, counted.scrub_passes),
        (Counter::ScrubCompares, counted.compares),
        (Counter::ScrubComparesUnanswered, counted.compares_unanswered),
        (Counter::DifferencesFound, counted.differences_found),
        (Counter::DifferencesSettled, counted.differences_settled),
        (Counter::MetadataRewritten, store.pages_rewritten),
        (Counter::MetadataDamaged, counted.metadata_damaged),
        // One flush a batch (docs/adr/0004).
        (Counter::WalBatches, store.batches),
        (Counter::Flushes, store.batches),
        (Counter::Checkpoints, store.checkpoints),
        (Counter::DeviceBytesWritten, bytes_written(&store)),
        (Counter::SlotsEmptied, store.slots_emptied),
        (Counter::CompactedBytes, store.bytes_compacted),
        (Counter::DeviceBytesRead, counted.bytes_read),
        (Counter::PaceWindow, pace.window),
        (Counter::PaceEntries, pace.entries),
        (Counter::PaceMedianUs, pace.median_us),
        (Counter::PaceP99Us, pace.p99_us),
        (Counter::ScrubBeganMs, mark.started.0),
        (Counter::ScrubLastBeganMs, mark.last_started.0),
        (Counter::ScrubLastEndedMs, mark.last_ended.0),
    ];
    for (counter, value) in values {
        tally.add(counter, value);
    }
}

/// Bytes of bodies and log. A body that rides is part of the log, and written once more when it is moved.
const fn bytes_written(store: &novafs_store::Counters) -> u64 {
    let to_cells = store.body_bytes - store.inline_bytes + store.moved_bytes;
    to_cells + store.log_bytes + store.bytes_compacted
}

impl Device {
    /// What to tell of a copy, when it is new.
    fn news_of(&self, now: GroupHealth) -> Vec<AgentEvent> {
        let before = self.told_health.borrow_mut().insert(now.group, now);
        if before == Some(now) {
            return Vec::new();
        }
        let before = before.unwrap_or_default();
        if now.disputed_units > before.disputed_units {
            tracing::error!(group = %now.group, units = now.disputed_units, "members hold units differently, and their log does not say who is right: see `nova fs health`");
        }
        if now.damaged && !before.damaged {
            tracing::error!(group = %now.group, device = %self.id, place = self.place, "metadata of the device is damaged: drain this host and replace the device");
        }
        let mut news = vec![AgentEvent::Health {
            group: now.group,
            units: now.units,
            blocks: now.blocks,
            bytes_verified: now.bytes_verified,
            verified_since_ms: now.verified_since.0,
            bad_units: now.bad_units,
            risky_blocks: now.risky_blocks,
            disputed_units: now.disputed_units,
            repaired: now.repaired,
            filled_units: now.filled_units,
            damaged: now.damaged,
        }];
        let filling = |of: &GroupHealth| (of.filling, of.filled_to, of.followed);
        if filling(&now) != filling(&before) {
            let (filling, followed, (block, unit)) = (now.filling, now.followed, now.filled_to);
            let unit = unit.0;
            news.push(AgentEvent::Filling { group: now.group, filling, block, unit, followed });
        }
        if (now.lost_units, now.lost) != (before.lost_units, before.lost) {
            if now.lost_units > before.lost_units {
                tracing::error!(group = %now.group, units = now.lost_units, "no host in reach has a good copy of these units: see `nova fs health`");
            }
            let named = LostUnits::new(now.lost.iter().flatten().map(|(block, unit)| (*block, unit.0)));
            news.push(AgentEvent::Lost { group: now.group, units: now.lost_units, named });
        }
        news
    }
}

//! What the leader of the cluster group observes and need not remember: heartbeats, silence, mounts, joins.
//!
//! A new leader begins empty: every host reports again, and every timer starts when the leader begins to look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_api::cluster as pb;
use nova_api::cluster::host_order::Order;
use nova_api::cluster::host_report::Report;
use nova_fleet::{Heartbeats, storms};
use nova_groups::{
    DeviceState, FillReport, Fillings, HEARD_WITHIN, Heard, Mount, MountReport, Observed, Paces,
    REPLICAS_A_DEVICE, REPORT_FRESH, ReadyReport, Role, SilenceReport,
};
use nova_state::ClusterState;
use nova_units::{BlockId, BootId, DeviceId, Epoch, GroupId, Incarnation, NodeId, Replicas, Timestamp};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Status;

use crate::clock;

/// Orders that wait in the stream of one host; a host that does not take them loses its stream.
pub(crate) const ORDERS_WAITING_MAX: usize = 64;
/// Counters kept of one host.
const COUNTERS_MAX: usize = 1024;
/// Reports of deleted blocks that wait; what is dropped is ordered and reported again.
const DELETED_MAX: usize = 65_536;
/// A host lists a page of blocks within this, or is asked again.
const LIST_WITHIN: Duration = Duration::from_secs(5);
/// Far more numbers than a leader gives in a millisecond: two leaders do not give the same one.
const NUMBERS_PER_MS_LOG2: u32 = 12;
/// Devices that one host may have.
const DEVICES_MAX: usize = 24;
/// Of each of them why it does not serve, and of the configuration.
const TROUBLES_MAX: usize = DEVICES_MAX + 1;
/// Groups whose health is kept of one host: as many as a region may have.
const HEALTH_MAX: usize = 4096;

/// The way back to a host.
pub(crate) type Orders = mpsc::Sender<Result<pb::HostOrder, Status>>;

/// What a host last said about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vitals {
    pub(crate) last: Timestamp,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_free: u64,
    pub(crate) counters: Vec<pb::Counter>,
    /// What it knows of its copies, by group.
    pub(crate) groups: Vec<pb::GroupHealth>,
    /// Room on each of its devices.
    pub(crate) usage: Vec<pb::DeviceUsage>,
    /// Its devices, as its novad mounted them.
    pub(crate) mounted: pb::DevicesMounted,
}

impl Vitals {
    /// How full its fullest device is, as bytes in all and bytes free.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.usage.iter().map(|usage| (usage.bytes_total, usage.bytes_free))
    }

    /// The same of one device, when the host said something of it.
    pub(crate) fn room_of(&self, device: u128) -> Option<(u64, u64)> {
        let id = device.to_be_bytes();
        let usage = self.usage.iter().find(|usage| *usage.device == id)?;
        Some((usage.bytes_total, usage.bytes_free))
    }
}

/// Which groups a region should have.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// For each number of copies.
    pub(crate) groups: usize,
    /// The numbers of copies.
    pub(crate) replicas: BTreeSet<Replicas>,
}

/// The soft state of one controller.
#[derive(Debug, Default)]
pub(crate) struct Attendance(Mutex<Soft>);

#[derive(Debug, Default)]
struct Soft {
    leading_since: Duration,
    heartbeats: Heartbeats,
    paces: Paces,
    fillings: Fillings,
    heard: BTreeMap<NodeId, Heard>,
    /// By reporter, silent host, and the device that is meant.
    silences: BTreeMap<(NodeId, NodeId, Option<Incarnation>), SilenceReport>,
    mounts: BTreeMap<NodeId, MountReport>,
    ready: BTreeMap<GroupId, ReadyReport>,
    failed: BTreeMap<DeviceId, String>,
    vitals: BTreeMap<NodeId, Vitals>,
    orders: BTreeMap<NodeId, Orders>,
    deleted: Vec<pb::BlocksDeleted>,
    /// Lists that were asked for: of whom, and who waits.
    lists: BTreeMap<u64, (NodeId, oneshot::Sender<pb::BlocksHeld>)>,
    /// Of lists and of orders about devices.
    last_number: u64,
}

/// A device that answers nothing, as its own host says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hanging {
    pub(crate) node: NodeId,
    /// The life of the device.
    pub(crate) incarnation: Incarnation,
    /// For how long its host has said so.
    pub(crate) since: Duration,
}

impl Attendance {
    fn soft(&self) -> MutexGuard<'_, Soft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: this controller begins to lead.
    pub(crate) fn restart(&self) {
        // Numbers that no earlier leader gave: an answer to one of its questions is not taken for one to ours.
        let last_number = clock::wall().0 << NUMBERS_PER_MS_LOG2;
        *self.soft() = Soft { leading_since: clock::monotonic(), last_number, ..Soft::default() };
    }

    /// A stream of `node` began; it takes the place of an earlier one.
    pub(crate) fn enter(&self, node: NodeId, orders: Orders) {
        self.soft().orders.insert(node, orders);
    }

    /// The stream with these orders ended.
    pub(crate) fn leave(&self, node: NodeId, orders: &Orders) {
        let mut soft = self.soft();
        if soft.orders.get(&node).is_some_and(|known| known.same_channel(orders)) {
            soft.orders.remove(&node);
        }
    }

    /// Takes a report of `node` under its registered start. Tells whether its data plane is up.
    pub(crate) fn take(&self, node: NodeId, boot: BootId, report: Option<Report>) -> bool {
        let now = clock::monotonic();
        let mut soft = self.soft();
        let mut up = soft.heard.get(&node).is_none_or(|heard| heard.up || heard.boot != boot);
        match report {
            Some(Report::Heartbeat(beat)) => {
                up = beat.novad_up;
                let mut counters = beat.counters;
                counters.truncate(COUNTERS_MAX);
                let (bytes_total, bytes_free) = (beat.bytes_total, beat.bytes_free);
                let mut groups = beat.groups;
                groups.truncate(HEALTH_MAX);
                let known = soft.vitals.remove(&node).unwrap_or_default();
                if !beat.groups_told {
                    groups = known.groups;
                }
                let (last, mounted, mut usage) = (clock::wall(), known.mounted, beat.devices);
                usage.truncate(DEVICES_MAX);
                for told in &usage {
                    if let (Ok(id), Some(pace)) = (<[u8; 16]>::try_from(&told.device[..]), told.pace) {
                        let device = DeviceId(u128::from_be_bytes(id));
                        soft.paces.hear(device, pace.window, pace.median_us, now);
                    }
                }
                let vitals = Vitals { last, bytes_total, bytes_free, counters, groups, usage, mounted };
                soft.vitals.insert(node, vitals);
            }
            Some(Report::Silence(silence)) => {
                let boots = silence.silent_boots.into_iter().chain(std::iter::repeat(0));
                for (silent, silent_boot) in silence.silent.into_iter().map(NodeId).zip(boots) {
                    let silent_boot = (silent_boot != 0).then_some(BootId(silent_boot));
                    let (first, last) = (now, now);
                    soft.take_silence(SilenceReport {
                        reporter: node,
                        boot,
                        silent,
                        device: None,
                        silent_boot,
                        first,
                        last,
                    });
                }
            }
            Some(Report::DeviceSilent(silence)) => {
                let boots = (silence.boot != 0).then_some(BootId(silence.boot));
                soft.take_silence(SilenceReport {
                    reporter: node,
                    boot,
                    silent: NodeId(silence.node),
                    device: Some(Incarnation(silence.incarnation)),
                    silent_boot: boots,
                    first: now,
                    last: now,
                });
            }
            Some(Report::DevicesMounted(mut mounted)) => {
                mounted.devices.truncate(DEVICES_MAX);
                mounted.broken.truncate(DEVICES_MAX);
                mounted.troubles.truncate(TROUBLES_MAX);
                let mount = |it: &pb::DeviceMounted| Mount {
                    node: node.0,
                    boot: boot.0,
                    device: it.device.to_vec(),
                    mount_counter: it.mount_counter,
                    incarnation: it.incarnation,
                    bytes_total: it.bytes_total,
                    trail: it.trail.clone(),
                };
                let mounts: Vec<Mount> = mounted.devices.iter().map(mount).collect();
                let same = soft.mounts.get(&node).filter(|known| known.mounts == mounts);
                let first = same.map_or(now, |known| known.first);
                let sound = |mount: &Mount| mount.device_id().is_some() && mount.mount_trail().is_some();
                if mounts.is_empty() {
                    // It has closed the last one.
                    soft.mounts.remove(&node);
                } else if mounts.iter().all(sound) {
                    soft.mounts.insert(node, MountReport { node, mounts, first });
                }
                soft.vitals.entry(node).or_default().mounted = mounted;
            }
            Some(Report::JoinReady(ready)) => {
                let (group, epoch) = (GroupId(ready.group), Epoch(ready.epoch));
                soft.ready
                    .insert(group, ReadyReport { reporter: node, node: NodeId(ready.node), group, epoch });
            }
            Some(Report::DeviceFailed(failed)) => {
                if let Ok(id) = <[u8; 16]>::try_from(failed.device.as_ref()) {
                    soft.failed.insert(DeviceId(u128::from_be_bytes(id)), failed.reason);
                }
            }
            Some(Report::BlocksDeleted(deleted)) if soft.deleted.len() < DELETED_MAX => {
                soft.deleted.push(deleted);
            }
            Some(Report::BlocksHeld(held)) => {
                if soft.lists.get(&held.request).is_some_and(|(asked, _)| *asked == node)
                    && let Some((_, waiter)) = soft.lists.remove(&held.request)
                {
                    // Whoever asked may have given up.
                    let _ = waiter.send(held);
                }
            }
            Some(Report::BlocksDeleted(_)) | None => {}
        }
        if up {
            soft.heartbeats.beat(node, boot, now);
            soft.heard.insert(node, Heard { boot, last: now, up });
        } else if let Some(heard) = soft.heard.get_mut(&node) {
            heard.up = false;
        }
        up
    }

    /// Answers the mounts that are in the state, and forgets what is about something that is no more.
    pub(crate) fn answer(&self, state: &ClusterState) {
        let now = clock::monotonic();
        let mut soft = self.soft();
        let soft = &mut *soft;
        soft.silences.retain(|_, report| now.saturating_sub(report.last) <= REPORT_FRESH);
        soft.failed.retain(|id, _| {
            state.groups.devices().any(|(known, device)| known == *id && device.state != DeviceState::Failed)
        });
        soft.ready
            .retain(|id, ready| state.groups.group(*id).is_some_and(|group| group.epoch <= ready.epoch));
        let orders = &soft.orders;
        soft.mounts.retain(|node, report| {
            if !report.mounts.iter().all(|mount| state.groups.has_judged(mount)) {
                return true;
            }
            // A host whose stream is gone mounts again in its next one.
            let Some(orders) = orders.get(node) else { return false };
            // All of them or none, and none is lost: a host that has no room for them now is answered at the next look.
            let mut room = match orders.try_reserve_many(report.mounts.len()) {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return true,
                Err(TrySendError::Closed(())) => return false,
            };
            for mount in &report.mounts {
                let mut serving = state.groups.devices_of(*node);
                let Some((_, device)) = serving.find(|(id, _)| mount.device_id() == Some(*id)) else {
                    // It failed under this mount: it is never answered.
                    continue;
                };
                let incarnation = device.incarnation.0;
                let wipe = mount.incarnation != incarnation;
                let incarnate = pb::Incarnate { device: mount.device.clone().into(), incarnation, wipe };
                let order =
                    pb::HostOrder { order: Some(Order::Incarnate(incarnate)), ..pb::HostOrder::default() };
                room.next().expect("there is room for all mounts").send(Ok(order));
            }
            false
        });
    }

    /// The view that plans are made on.
    pub(crate) fn observe(&self, state: &ClusterState, wanted: Wanted) -> Observed {
        let mut soft = self.soft();
        let (now, wall) = (clock::monotonic(), clock::wall());
        let storm = !storms(&state.fleet, &mut soft.heartbeats, now).is_empty();
        let Soft { fillings, vitals, .. } = &mut *soft;
        fillings.look(&state.groups, now, |node, group| fill_report(vitals.get(&node)?, group));
        let is_stalled = |(group, node): &(GroupId, NodeId)| {
            soft.fillings.state(*group, *node, now).is_some_and(|it| it.stalled)
        };
        let joiners =
            || state.groups.iter().flat_map(|(id, group)| group.members.iter().map(move |it| (id, it.node)));
        let is_paging = |(group, node): &(GroupId, NodeId)| {
            let said = soft.vitals.get(node).and_then(|vitals| fill_report(vitals, *group));
            said.is_some_and(|said| said.paging)
        };
        Observed {
            stalled: joiners().filter(is_stalled).collect(),
            paging: joiners().filter(is_paging).collect(),
            shunned: soft.fillings.shunned(),
            now,
            wall,
            leading_since: soft.leading_since,
            silences: soft.silences.values().copied().collect(),
            mounts: soft.mounts.values().cloned().collect(),
            ready: soft.ready.values().copied().collect(),
            failed: soft.failed.iter().map(|(id, reason)| (*id, reason.clone())).collect(),
            heard: soft.heard.clone(),
            storage: state.fleet.iter().filter(|(_, node)| node.stores()).map(|(id, _)| id).collect(),
            groups_wanted: wanted.groups,
            replicas_a_device: REPLICAS_A_DEVICE,
            replicas_wanted: wanted.replicas,
            storm,
            draining: nodes_with(state, |node| node.draining.is_some()),
        }
    }

    /// Changes of hosts' states that are due.
    pub(crate) fn plan_fleet(&self, state: &ClusterState) -> Vec<nova_fleet::Op> {
        nova_fleet::plan(&state.fleet, &mut self.soft().heartbeats, clock::monotonic())
    }

    /// Devices that became slow, or keep up again.
    pub(crate) fn plan_paces(&self, state: &ClusterState) -> Vec<nova_groups::Op> {
        nova_groups::plan_paces(&state.groups, &mut self.soft().paces, clock::monotonic())
    }

    /// Zones in which too many hosts are silent at once.
    pub(crate) fn storms(&self, state: &ClusterState) -> nova_fleet::Zones {
        storms(&state.fleet, &mut self.soft().heartbeats, clock::monotonic())
    }

    /// Gives a host an order. False when it attends not here now, or takes none.
    pub(crate) fn order(&self, node: NodeId, order: Order) -> bool {
        let order = pb::HostOrder { order: Some(order), ..pb::HostOrder::default() };
        self.soft().orders.get(&node).is_some_and(|orders| orders.try_send(Ok(order)).is_ok())
    }

    /// Has a host open the devices in its configuration, of which these are known to be its own. Answers the number of the
    /// order; `None` when the host attends not here now, or takes none.
    pub(crate) fn order_open(&self, node: NodeId, known: Vec<pb::KnownDevice>) -> Option<u64> {
        let order = self.soft().next_number();
        self.order(node, Order::OpenDevices(pb::OpenDevices { order, known })).then_some(order)
    }

    /// Has a host close a device; answered as [`Self::order_open`].
    pub(crate) fn order_close(&self, node: NodeId, device: DeviceId) -> Option<u64> {
        let order = self.soft().next_number();
        let device = device.0.to_be_bytes().to_vec().into();
        self.order(node, Order::CloseDevice(pb::CloseDevice { order, device })).then_some(order)
    }

    /// Takes what hosts have said of blocks that they deleted.
    pub(crate) fn take_deleted(&self) -> Vec<pb::BlocksDeleted> {
        std::mem::take(&mut self.soft().deleted)
    }

    /// Asks a host which blocks of a group its device holds, from an id on. `None`: it did not answer in time.
    pub(crate) async fn list_blocks(
        &self,
        node: NodeId,
        group: GroupId,
        from: BlockId,
        limit: u32,
    ) -> Option<pb::BlocksHeld> {
        let (waiter, answered) = oneshot::channel();
        let request = {
            let mut soft = self.soft();
            let request = soft.next_number();
            soft.lists.insert(request, (node, waiter));
            request
        };
        // Also when whoever asks is dropped while it waits.
        let _asked = Asked { attendance: self, request };
        let list = pb::ListBlocks { request, group: group.0, from: from.0, limit };
        match self.order(node, Order::ListBlocks(list)) {
            true => timeout(LIST_WITHIN, answered).await.ok().and_then(Result::ok),
            false => None,
        }
    }

    /// Devices of which their own hosts say that they answer nothing.
    pub(crate) fn hanging(&self) -> Vec<Hanging> {
        let now = clock::monotonic();
        let soft = self.soft();
        let says_itself = |report: &&SilenceReport| {
            report.reporter == report.silent && now.saturating_sub(report.last) <= REPORT_FRESH
        };
        let hanging = |report: &SilenceReport| {
            let since = now.saturating_sub(report.first);
            Some(Hanging { node: report.silent, incarnation: report.device?, since })
        };
        soft.silences.values().filter(says_itself).filter_map(hanging).collect()
    }

    /// Hosts whose agent is heard and says that their novad is not up.
    pub(crate) fn without_novad(&self) -> Vec<NodeId> {
        let now = clock::monotonic();
        let soft = self.soft();
        let down = |heard: &Heard| !heard.up && now.saturating_sub(heard.last) <= HEARD_WITHIN;
        soft.heard.iter().filter(|(_, heard)| down(heard)).map(|(node, _)| *node).collect()
    }

    /// How the filling of every joining member stands.
    pub(crate) fn fills(&self, state: &ClusterState) -> Vec<pb::Fill> {
        let now = clock::monotonic();
        let soft = self.soft();
        let said = |node: NodeId, group: GroupId| {
            soft.vitals.get(&node)?.groups.iter().find(|health| health.group == group.0)
        };
        let fill = |(id, group): (GroupId, &nova_groups::Group)| {
            let node = group.members.iter().find(|member| member.role == Role::Joining)?.node;
            let found = soft.fillings.state(id, node, now)?;
            let units = group.in_sync().filter_map(|member| said(member.node, id)).map(|health| health.units);
            let here = said(node, id);
            Some(pb::Fill {
                group: id.0,
                node: node.0,
                units_done: found.units,
                units_total: units.max().unwrap_or(0),
                units_per_second: found.units_per_second,
                idle_ms: u64::try_from(found.idle.as_millis()).unwrap_or(u64::MAX),
                stalled: found.stalled,
                block: here.map_or(0, |health| health.filled_block),
                unit: here.map_or(0, |health| health.filled_unit),
            })
        };
        state.groups.iter().filter_map(fill).collect()
    }

    /// What each host last said about itself.
    pub(crate) fn vitals(&self) -> BTreeMap<NodeId, Vitals> {
        self.soft().vitals.clone()
    }
}

/// A list that was asked for; forgotten with this.
struct Asked<'a> {
    attendance: &'a Attendance,
    request: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.attendance.soft().lists.remove(&self.request);
    }
}

fn nodes_with(state: &ClusterState, test: impl Fn(&nova_fleet::Node) -> bool) -> BTreeSet<NodeId> {
    state.fleet.iter().filter(|(_, node)| test(node)).map(|(id, _)| id).collect()
}

/// What a host said of a group that it joins.
fn fill_report(vitals: &Vitals, group: GroupId) -> Option<FillReport> {
    let health = vitals.groups.iter().find(|health| health.group == group.0)?;
    Some(FillReport { units: health.filled_units, paging: health.filling, followed: health.followed })
}

impl Soft {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A silence that goes on keeps its beginning.
    fn take_silence(&mut self, mut report: SilenceReport) {
        let between = (report.reporter, report.silent, report.device);
        if let Some(known) = self.silences.get(&between) {
            let goes_on = (known.boot, known.silent_boot) == (report.boot, report.silent_boot)
                && report.last.saturating_sub(known.last) <= REPORT_FRESH;
            if goes_on {
                report.first = known.first;
            }
        }
        self.silences.insert(between, report);
    }
}

#[cfg(test)]
mod tests {
    use nova_groups::{Command, Op, Restart};

    use super::*;

    #[test]
    fn a_host_without_room_for_its_answers_gets_all_of_them_at_a_later_look() {
        let (node, boot) = (NodeId(1), BootId(7));
        let device = |id: u8| vec![id; 16];
        let mount = |id: u8| Mount {
            node: node.0,
            boot: boot.0,
            device: device(id),
            mount_counter: 1,
            incarnation: 0,
            bytes_total: 1 << 30,
            trail: Vec::new(),
        };
        let mut state = ClusterState::default();
        let restart = Restart { mounts: vec![mount(1), mount(2)], confirm: Vec::new() };
        assert!(state.groups.apply(&Command { at_ms: 0, op: Some(Op::Restart(restart)) }).accepted());

        let attendance = Attendance::default();
        let mounted = |id: u8| pb::DeviceMounted {
            device: device(id).into(),
            mount_counter: 1,
            bytes_total: 1 << 30,
            ..pb::DeviceMounted::default()
        };
        let told =
            pb::DevicesMounted { devices: vec![mounted(1), mounted(2)], ..pb::DevicesMounted::default() };
        attendance.take(node, boot, Some(Report::DevicesMounted(told)));

        let (orders, mut received) = mpsc::channel(2);
        attendance.enter(node, orders.clone());
        orders.try_send(Err(Status::unavailable("something that waits"))).unwrap();
        attendance.answer(&state);
        assert!(received.try_recv().unwrap().is_err());
        assert!(received.try_recv().is_err(), "one answer would have found room, and the other been lost");

        attendance.answer(&state);
        for _ in 0..2 {
            let order = received.try_recv().unwrap().unwrap().order;
            assert!(matches!(order, Some(Order::Incarnate(_))), "{order:?}");
        }
        attendance.answer(&state);
        assert!(received.try_recv().is_err(), "answered once");
    }
}

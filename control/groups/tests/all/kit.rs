//! A region of hosts with a device each or several, and what holds in every state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nova_groups::{
    Answer, Command, DeviceState, Group, Groups, Heard, Mount, MountReport, Observed, Op, Restart,
    SilenceReport,
};
use nova_units::{BootId, DeviceId, GroupId, Incarnation, NodeId, Replicas, Timestamp};

/// Groups, a clock, and the soft state that a leader would have.
#[derive(Clone)]
pub(crate) struct Region {
    pub(crate) groups: Groups,
    pub(crate) observed: Observed,
    /// Of each host: its devices, by id with their sizes in GiB.
    devices: BTreeMap<u64, BTreeMap<u128, u64>>,
    counters: BTreeMap<u128, u64>,
}

/// The device of `host` with this index.
pub(crate) const fn device(host: u64, index: u128) -> u128 {
    host as u128 + 1000 * index
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Region {
    /// `hosts` hosts with mounted devices, and `groups` groups over them, made by the plan.
    pub(crate) fn new(hosts: u64, groups: usize) -> Self {
        Self::with_devices(&vec![&[1][..]; usize::try_from(hosts).unwrap()], groups)
    }

    /// A host for each entry, with a mounted device for each size in it, in GiB; and `groups` groups over them.
    pub(crate) fn with_devices(hosts: &[&[u64]], groups: usize) -> Self {
        Self::with_replicas(hosts, groups, &[Replicas::DEFAULT])
    }

    /// The same, with `groups` groups for each of these numbers of replicas.
    pub(crate) fn with_replicas(hosts: &[&[u64]], groups: usize, wanted: &[Replicas]) -> Self {
        let devices: BTreeMap<u64, BTreeMap<u128, u64>> = (1..)
            .zip(hosts)
            .map(|(host, sizes)| {
                (host, (0..).map(|index| device(host, index)).zip(sizes.iter().copied()).collect())
            })
            .collect();
        let storage = devices.keys().copied().map(NodeId).collect();
        let observed = Observed {
            now: secs(100),
            wall: Timestamp(1_000_000),
            leading_since: secs(100),
            groups_wanted: groups,
            replicas_wanted: wanted.iter().copied().collect(),
            storage,
            ..Observed::default()
        };
        let hosts: Vec<u64> = devices.keys().copied().collect();
        let mut region = Self { groups: Groups::default(), observed, devices, counters: BTreeMap::new() };
        for host in hosts {
            region.start(host, host * 1000);
        }
        region.settle();
        region
    }

    pub(crate) fn apply(&mut self, op: Op) -> Answer {
        let before = self.groups.clone();
        let answer = self.groups.apply(&Command { at_ms: self.observed.wall.0, op: Some(op) });
        check_step(&before, &self.groups);
        answer
    }

    /// Time passes; hosts that were running are heard.
    pub(crate) fn pass(&mut self, time: Duration, running: &[u64]) {
        self.observed.now += time;
        self.observed.wall = self.observed.wall.after(time);
        for host in running {
            let now = self.observed.now;
            self.observed.heard.get_mut(&NodeId(*host)).unwrap().last = now;
        }
    }

    /// Host `node` starts as `boot`, mounts its devices and is heard.
    pub(crate) fn start(&mut self, node: u64, boot: u64) {
        self.start_without(node, boot, &[]);
    }

    /// The same, but these of its devices do not open.
    pub(crate) fn start_without(&mut self, node: u64, boot: u64, broken: &[u128]) {
        let devices = self.devices.entry(node).or_insert_with(|| BTreeMap::from([(device(node, 0), 1)]));
        let mut mounts = Vec::new();
        for (id, gib) in devices.iter().filter(|(id, _)| !broken.contains(id)) {
            let counter = self.counters.entry(*id).or_default();
            *counter += 1;
            let known = self.groups.devices().find(|(known, _)| known.0 == *id);
            let trail = [known.map_or(0, |(_, device)| device.mount.0), node << 32 | *counter];
            mounts.push(Mount {
                node,
                boot,
                device: id.to_be_bytes().to_vec(),
                mount_counter: *counter,
                incarnation: known.map_or(0, |(_, device)| device.incarnation.0),
                bytes_total: gib << 30,
                trail: trail.to_vec(),
            });
        }
        let now = self.observed.now;
        self.observed.heard.insert(NodeId(node), Heard { boot: BootId(boot), last: now, up: true });
        self.observed.mounts.retain(|report| report.node != NodeId(node));
        self.observed.mounts.push(MountReport { node: NodeId(node), mounts, first: now });
    }

    /// A device became slow, or keeps up again.
    pub(crate) fn pace(&mut self, id: u128, slow: bool) {
        let pace = nova_groups::PaceDevice { device: id.to_be_bytes().to_vec(), slow };
        assert!(self.apply(Op::PaceDevice(pace)).accepted());
    }

    /// All devices of a host became slow, or keep up again.
    pub(crate) fn pace_host(&mut self, host: u64, slow: bool) {
        let ids: Vec<u128> = self.groups.devices_of(NodeId(host)).map(|(id, _)| id.0).collect();
        ids.into_iter().for_each(|id| self.pace(id, slow));
    }

    /// Host `node` opens a device while it runs, and says so with those that it has.
    pub(crate) fn open(&mut self, node: u64, id: u128, gib: u64) {
        self.devices.get_mut(&node).unwrap().insert(id, gib);
        let counter = self.counters.entry(id).or_default();
        *counter += 1;
        let (boot, counter) = (self.observed.heard[&NodeId(node)].boot, *counter);
        let mut mounts: Vec<Mount> =
            self.groups.devices_of(NodeId(node)).map(|(id, it)| mount(id, it)).collect();
        let known = self.groups.devices().find(|(known, _)| known.0 == id);
        let trail = vec![known.map_or(0, |(_, device)| device.mount.0), node << 32 | counter];
        mounts.push(Mount {
            node,
            boot: boot.0,
            device: id.to_be_bytes().to_vec(),
            mount_counter: counter,
            incarnation: known.map_or(0, |(_, device)| device.incarnation.0),
            bytes_total: gib << 30,
            trail,
        });
        let now = self.observed.now;
        self.observed.mounts.push(MountReport { node: NodeId(node), mounts, first: now });
    }

    /// The life of a device.
    pub(crate) fn life(&self, id: u128) -> Incarnation {
        self.groups.devices().find(|(known, _)| known.0 == id).unwrap().1.incarnation
    }

    /// Groups with a replica on a device.
    pub(crate) fn on_device(&self, id: u128) -> Vec<u32> {
        let life = self.life(id);
        let on_it = |group: &Group| group.members.iter().any(|member| member.incarnation == life);
        self.groups.iter().filter(|(_, group)| on_it(group)).map(|(id, _)| id.0).collect()
    }

    /// `reporter` has not heard `silent`, as they run now, and hears the others again.
    pub(crate) fn report(&mut self, reporter: u64, silent: &[u64]) {
        self.observed.silences.retain(|report| report.reporter != NodeId(reporter));
        for silent in silent {
            let boot = self.observed.heard.get(&NodeId(*silent)).map(|heard| heard.boot);
            self.report_start(reporter, *silent, boot);
        }
    }

    /// `reporter` has not heard the start `boot` of `silent`.
    pub(crate) fn report_start(&mut self, reporter: u64, silent: u64, boot: Option<BootId>) {
        let now = self.observed.now;
        self.observed.silences.push(SilenceReport {
            reporter: NodeId(reporter),
            boot: self.observed.heard[&NodeId(reporter)].boot,
            silent: NodeId(silent),
            silent_boot: boot,
            device: None,
            first: now,
            last: now,
        });
    }

    /// One round: what is planned is accepted, and mounts that are in the state are forgotten.
    pub(crate) fn round(&mut self) -> Vec<Op> {
        let ops = nova_groups::plan(&self.groups, &self.observed);
        for op in &ops {
            let answer = self.apply(op.clone());
            assert!(answer.accepted(), "{op:?} was planned on this state and answered {answer:?}");
            if let Op::FailDevice(failed) = op {
                let id = |device: &DeviceId| device.0.to_be_bytes().to_vec();
                self.observed.failed.retain(|(device, _)| id(device) != failed.device);
            }
            if let Op::Restart(Restart { mounts, .. }) = op {
                self.observed.mounts.retain(|report| !report.mounts.iter().all(|it| mounts.contains(it)));
            }
        }
        ops
    }

    /// Rounds until nothing is planned.
    pub(crate) fn settle(&mut self) -> Vec<Op> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let ops = self.round();
            if ops.is_empty() {
                return all;
            }
            all.extend(ops);
        }
        panic!("plans never end: {all:?}");
    }

    pub(crate) fn group(&self, id: u32) -> &Group {
        self.groups.group(GroupId(id)).unwrap()
    }

    pub(crate) fn in_sync(&self, id: u32) -> Vec<u64> {
        self.group(id).in_sync().map(|member| member.node.0).collect()
    }
}

/// A mount of a device that serves, as its host says it again and again.
pub(crate) fn mount(id: DeviceId, device: &nova_groups::Device) -> Mount {
    let DeviceState::Mounted { boot } = device.state else { panic!("{id} does not serve") };
    Mount {
        node: device.node.0,
        boot: boot.0,
        device: id.0.to_be_bytes().to_vec(),
        mount_counter: device.mount_counter,
        incarnation: device.incarnation.0,
        bytes_total: device.bytes_total,
        trail: vec![device.mount.0],
    }
}

/// What no command may break.
pub(crate) fn check_step(before: &Groups, after: &Groups) {
    for (id, group) in after.iter() {
        let nodes: BTreeSet<NodeId> = group.members.iter().map(|member| member.node).collect();
        assert_eq!(nodes.len(), group.members.len(), "{id} has a member twice");
        let replicas = group.replicas.count();
        assert!(group.members.len() <= replicas + 1 && group.in_sync().count() <= replicas);
        assert!(group.homes.len() <= replicas, "{id} has too many homes");
        let in_sync: BTreeSet<(NodeId, Incarnation)> =
            group.in_sync().map(|member| (member.node, member.incarnation)).collect();
        assert!(!in_sync.is_empty(), "{id} lost its last in-sync member");
        assert!(
            in_sync.iter().any(|(node, _)| *node == group.primary),
            "{id} has a primary that is not in sync"
        );
        assert_eq!(group.frozen(), in_sync.len() < 2);
        let Some(old) = before.group(id) else { continue };
        assert_eq!(group.replicas, old.replicas, "{id} keeps its number of replicas");
        if old == group {
            continue;
        }
        assert_eq!(group.epoch, old.epoch.next(), "{id} changed by more or less than one epoch");
        let old_in_sync: BTreeSet<(NodeId, Incarnation)> =
            old.in_sync().map(|member| (member.node, member.incarnation)).collect();
        let came: Vec<_> = in_sync.difference(&old_in_sync).collect();
        let admitted = came.len() == 1
            && old
                .members
                .iter()
                .any(|it| !old_in_sync.contains(&(it.node, it.incarnation)) && it.node == came[0].0);
        let reinstated = old.frozen() && came.iter().all(|it| old.last_writable.contains(it));
        assert!(came.is_empty() || admitted || reinstated, "{id}: {came:?} came from nowhere");
        let joining = |group: &Group| group.members.len() - group.in_sync().count();
        assert!(joining(group) <= 1, "one joins at a time");
    }
    for (_, group) in after.iter() {
        for (node, life) in group.last_writable.iter().chain(&group.homes) {
            assert!(*life != Incarnation(0), "{node} has a device that was never given a life");
        }
    }
    for (id, device) in before.devices() {
        let Some((_, now)) = after.devices().find(|(other, _)| *other == id) else {
            assert!(!matches!(device.state, DeviceState::Mounted { .. }), "{id} served and is forgotten");
            continue;
        };
        // Another life may be that of an old image, and counts from there.
        let same = now.incarnation == device.incarnation && now.mount_counter >= device.mount_counter;
        let is_closed =
            matches!(device.state, DeviceState::Mounted { .. }) && now.state == DeviceState::Absent;
        assert!(!is_closed || same, "a device that is closed keeps its life");
        assert!(same || now.incarnation > device.incarnation);
    }
    assert!(before.iter().all(|(id, _)| after.group(id).is_some()));
}

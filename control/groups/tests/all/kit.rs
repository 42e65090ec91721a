//! A region of hosts with one device each, and what holds in every state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nova_groups::{
    Answer, Command, Group, Groups, Heard, Mount, MountReport, Observed, Op, Restart, SilenceReport,
};
use nova_units::{BootId, GroupId, Incarnation, NodeId, Timestamp};

/// Groups, a clock, and the soft state that a leader would have.
#[derive(Clone)]
pub(crate) struct Region {
    pub(crate) groups: Groups,
    pub(crate) observed: Observed,
    counters: BTreeMap<u64, u64>,
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Region {
    /// `hosts` hosts with mounted devices, and `groups` groups over them, made by the plan.
    pub(crate) fn new(hosts: u64, groups: usize) -> Self {
        let storage = (1..=hosts).map(NodeId).collect();
        let observed = Observed {
            now: secs(100),
            wall: Timestamp(1_000_000),
            leading_since: secs(100),
            groups_wanted: groups,
            storage,
            ..Observed::default()
        };
        let mut region = Self { groups: Groups::default(), observed, counters: BTreeMap::new() };
        for host in 1..=hosts {
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

    /// Host `node` starts as `boot`, mounts its device and is heard.
    pub(crate) fn start(&mut self, node: u64, boot: u64) {
        let counter = self.counters.entry(node).or_default();
        *counter += 1;
        let mount = Mount {
            node,
            boot,
            device: u128::from(node).to_be_bytes().to_vec(),
            mount_counter: *counter,
            incarnation: self.groups.device_of(NodeId(node)).map_or(0, |(_, device)| device.incarnation.0),
            bytes_total: 1 << 30,
        };
        let now = self.observed.now;
        self.observed.heard.insert(NodeId(node), Heard { boot: BootId(boot), last: now, up: true });
        self.observed.mounts.retain(|report| report.mount.node != node);
        self.observed.mounts.push(MountReport { mount, first: now });
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
            if let Op::Restart(Restart { mounts, .. }) = op {
                self.observed.mounts.retain(|report| !mounts.contains(&report.mount));
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

/// What no command may break.
pub(crate) fn check_step(before: &Groups, after: &Groups) {
    for (id, group) in after.iter() {
        let nodes: BTreeSet<NodeId> = group.members.iter().map(|member| member.node).collect();
        assert_eq!(nodes.len(), group.members.len(), "{id} has a member twice");
        assert!(group.members.len() <= 4 && group.in_sync().count() <= 3);
        assert!(group.homes.len() <= 3, "{id} has too many homes");
        let in_sync: BTreeSet<(NodeId, Incarnation)> =
            group.in_sync().map(|member| (member.node, member.incarnation)).collect();
        assert!(!in_sync.is_empty(), "{id} lost its last in-sync member");
        assert!(
            in_sync.iter().any(|(node, _)| *node == group.primary),
            "{id} has a primary that is not in sync"
        );
        assert_eq!(group.frozen(), in_sync.len() < 2);
        let Some(old) = before.group(id) else { continue };
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
    for (id, device) in before.devices() {
        let now = after.devices().find(|(other, _)| *other == id).unwrap().1;
        assert!(now.incarnation >= device.incarnation && now.mount_counter >= device.mount_counter);
    }
    assert!(before.iter().all(|(id, _)| after.group(id).is_some()));
}

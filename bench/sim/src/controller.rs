//! The controllers as an oracle: the real slice of groups behind random delays.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::MemShard;
use nova_device::{Clock, Shard};
use nova_groups::{
    Command, DeviceState, Groups, Heard, Mount, MountReport, Observed, Op, PaceDevice, Paces, ReadyReport,
    Role, SilenceReport, plan, plan_paces,
};
use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, NodeId, Replicas, Timestamp};
use novafs_replica as replica;
use novafs_replica::{Configuration, GroupView, MemberView, NodeView, Report};

/// Where the controllers are.
pub(crate) const CONTROLLER: NodeId = NodeId(200);
/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The calendar runs faster than the clock, so that waits of minutes pass in a short run.
const WALL_SPEED: u64 = 20;
/// What the calendar shows at first, in milliseconds: some days, so that it can be set back.
const CALENDAR_BEGINS: u64 = 1_000_000_000;
/// Reports of silence not repeated within this time are over.
const SILENCE_OVER: Duration = Duration::from_millis(350);

/// What an agent tells.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) node: NodeId,
    pub(crate) boot: BootId,
    pub(crate) mount: Mount,
    pub(crate) reports: Vec<Report>,
    /// Groups that it is filled with, page by page.
    pub(crate) paging: Vec<GroupId>,
}

/// Who says so, of which host, and of which device of it.
type Between = (NodeId, NodeId, Option<Incarnation>);

/// The oracle.
#[derive(Debug)]
pub(crate) struct Controller {
    shard: MemShard,
    rng: RefCell<fastrand::Rng>,
    groups: RefCell<Groups>,
    silences: RefCell<BTreeMap<Between, SilenceReport>>,
    mounts: RefCell<BTreeMap<NodeId, MountReport>>,
    ready: RefCell<BTreeMap<(GroupId, Epoch, NodeId), NodeId>>,
    failed: RefCell<BTreeSet<DeviceId>>,
    heard: RefCell<BTreeMap<NodeId, Heard>>,
    groups_wanted: usize,
    replicas: Replicas,
    /// Joiners that say that they are filled with pages.
    paging: RefCell<BTreeSet<(GroupId, NodeId)>>,
    /// How far the calendar of the controllers is from the right one, in milliseconds.
    pub(crate) jumped_ms: Cell<i64>,
    /// Hosts that everything is moved off.
    pub(crate) draining: RefCell<BTreeSet<NodeId>>,
    pub(crate) version: Cell<u64>,
    /// No leader until then.
    pub(crate) away_until: Cell<Duration>,
    pub(crate) log: RefCell<Vec<(Duration, String)>>,
}

impl Controller {
    pub(crate) fn new(shard: MemShard, seed: u64, groups_wanted: usize, replicas: Replicas) -> Rc<Self> {
        Rc::new(Self {
            shard,
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            groups: RefCell::default(),
            silences: RefCell::default(),
            mounts: RefCell::default(),
            ready: RefCell::default(),
            failed: RefCell::default(),
            heard: RefCell::default(),
            groups_wanted,
            replicas,
            paging: RefCell::default(),
            jumped_ms: Cell::default(),
            draining: RefCell::default(),
            version: Cell::new(1),
            away_until: Cell::default(),
            log: RefCell::default(),
        })
    }

    fn now(&self) -> Duration {
        self.shard.clock().now()
    }

    /// The calendar of all controllers.
    pub(crate) fn wall(&self) -> Timestamp {
        let millis = u64::try_from(self.now().as_millis()).expect("a run is short");
        Timestamp((CALENDAR_BEGINS + millis * WALL_SPEED).saturating_add_signed(self.jumped_ms.get()))
    }

    /// An agent was heard.
    pub(crate) fn hear(&self, news: News) {
        let now = self.now();
        let News { node, boot, mount, reports, paging } = news;
        let known = self.heard.borrow().get(&node).map(|heard| heard.boot);
        let older = known.is_some_and(|known| boot.0 < known.0);
        if older {
            return;
        }
        self.heard.borrow_mut().insert(node, Heard { boot, last: now, up: true });
        self.paging.borrow_mut().retain(|(_, joiner)| *joiner != node);
        self.paging.borrow_mut().extend(paging.into_iter().map(|group| (group, node)));
        if self.confirmed(node, boot).is_none() {
            let first = MountReport { node, mounts: vec![mount.clone()], first: now };
            let mut mounts = self.mounts.borrow_mut();
            let report = mounts.entry(node).or_insert_with(|| first.clone());
            if report.mounts != first.mounts {
                *report = first;
            }
        }
        for report in reports {
            match report {
                Report::Silence { peer: silent, boot: silent_boot, device, .. } => {
                    let mut silences = self.silences.borrow_mut();
                    let (reporter, first, last) = (node, now, now);
                    let fresh = SilenceReport { reporter, boot, silent, device, silent_boot, first, last };
                    let known = silences.entry((node, silent, device)).or_insert(fresh);
                    let goes_on = (known.boot, known.silent_boot) == (boot, silent_boot);
                    *known = SilenceReport { first: if goes_on { known.first } else { now }, ..fresh };
                }
                Report::JoinReady { group, epoch, node: joiner } => {
                    self.ready.borrow_mut().insert((group, epoch, joiner), node);
                }
                Report::DeviceFailed => {
                    self.failed.borrow_mut().extend(mount.device_id());
                }
                Report::PageRepaired { .. } => {}
            }
        }
    }

    fn observe(&self) -> Observed {
        let now = self.now();
        let mut silences = self.silences.borrow_mut();
        silences.retain(|_, report| now.saturating_sub(report.last) <= SILENCE_OVER);
        let silences = silences.values().copied().collect();
        let heard = self.heard.borrow().clone();
        let ready = self.ready.borrow();
        Observed {
            now,
            wall: self.wall(),
            leading_since: self.away_until.get(),
            silences,
            mounts: self.mounts.borrow().values().cloned().collect(),
            ready: ready
                .iter()
                .map(|((group, epoch, node), reporter)| ReadyReport {
                    reporter: *reporter,
                    node: *node,
                    group: *group,
                    epoch: *epoch,
                })
                .collect(),
            failed: self.failed.borrow().iter().map(|device| (*device, "failed".to_owned())).collect(),
            storage: heard.keys().copied().collect(),
            heard,
            groups_wanted: self.groups_wanted,
            replicas_a_device: 0,
            replicas_wanted: BTreeSet::from([self.replicas]),
            paging: self.paging.borrow().clone(),
            storm: false,
            draining: self.draining.borrow().clone(),
            stalled: BTreeSet::new(),
            shunned: BTreeSet::new(),
        }
    }

    /// Looks, plans, and lets the log take its time.
    pub(crate) async fn lead(self: Rc<Self>) {
        let clock = self.shard.clock();
        loop {
            let pause = if self.now() < self.away_until.get() {
                self.away_until.get()
            } else {
                self.now() + LOOK_EVERY
            };
            clock.sleep_until(pause).await;
            if self.now() < self.away_until.get() {
                continue;
            }
            let ops = plan(&self.groups.borrow(), &self.observe());
            if ops.is_empty() {
                continue;
            }
            let delay = self.rng.borrow_mut().u64(1..40);
            clock.sleep_until(self.now() + Duration::from_millis(delay)).await;
            for op in ops {
                let command = Command { at_ms: self.wall().0, op: Some(op) };
                let answer = self.groups.borrow_mut().apply(&command);
                self.log.borrow_mut().push((self.now(), format!("{:?} -> {:?}", command.op, answer)));
                for taken in &answer.incarnated {
                    self.mounts.borrow_mut().remove(&taken.node);
                }
            }
            let groups = self.groups.borrow();
            self.ready
                .borrow_mut()
                .retain(|(id, epoch, _), _| groups.group(*id).is_some_and(|group| group.epoch == *epoch));
            self.version.set(self.version.get() + 1);
        }
    }

    /// Devices that became slow, or keep up again, by what was heard of their pace until `now`; decided at once.
    pub(crate) fn judge_paces(&self, paces: &mut Paces, now: Duration) -> Vec<PaceDevice> {
        let ops = plan_paces(&self.groups.borrow(), paces, now);
        let judged = ops.into_iter().map(|op| {
            let answer =
                self.groups.borrow_mut().apply(&Command { at_ms: self.wall().0, op: Some(op.clone()) });
            assert!(answer.accepted(), "{op:?} was planned on this state and answered {answer:?}");
            let Op::PaceDevice(pace) = op else { panic!("{op:?} is not about a pace") };
            pace
        });
        judged.collect()
    }

    /// The life under which this start of a host may serve.
    pub(crate) fn confirmed(&self, node: NodeId, boot: BootId) -> Option<Incarnation> {
        let groups = self.groups.borrow();
        let (_, device) = groups.devices_of(node).next()?;
        (device.state == DeviceState::Mounted { boot }).then_some(device.incarnation)
    }

    /// The life of the device that serves on a host.
    pub(crate) fn life(&self, node: NodeId) -> Option<Incarnation> {
        self.groups.borrow().devices_of(node).map(|(_, device)| device.incarnation).next()
    }

    /// How many groups have their primary on a host.
    pub(crate) fn primaries(&self, node: NodeId) -> usize {
        self.groups.borrow().iter().filter(|(_, group)| group.primary == node).count()
    }

    /// Whether a device may serve.
    pub(crate) fn serves(&self, device: DeviceId) -> bool {
        let groups = self.groups.borrow();
        groups.devices().any(|(id, it)| id == device && matches!(it.state, DeviceState::Mounted { .. }))
    }

    /// The map for one host.
    pub(crate) fn configuration(&self, node: NodeId, boot: BootId, lease_until: Duration) -> Configuration {
        let groups = self.groups.borrow();
        let boots = groups.devices().filter_map(|(_, device)| match device.state {
            DeviceState::Mounted { boot } => Some((device.node, NodeView { boot: Some(boot), addr: None })),
            DeviceState::Absent | DeviceState::Failed => None,
        });
        let views = groups.iter().map(|(id, group)| {
            let members = group.members.iter().map(|member| MemberView {
                node: member.node,
                incarnation: member.incarnation,
                role: match member.role {
                    Role::InSync => replica::Role::InSync,
                    Role::Joining => replica::Role::Joining,
                },
            });
            let view = GroupView {
                epoch: group.epoch,
                primary: group.primary,
                replicas: group.replicas,
                members: members.collect(),
                frozen: group.frozen(),
                former: group.former().into_iter().collect(),
            };
            (id, view)
        });
        Configuration {
            version: self.version.get(),
            self_node: node,
            nodes: boots.collect(),
            groups: views.collect(),
            confirmed: self.confirmed(node, boot),
            node_lease_until: lease_until,
        }
    }

    /// Whether every group has all its members in sync.
    pub(crate) fn is_whole(&self) -> bool {
        let groups = self.groups.borrow();
        groups.iter().next().is_some() && groups.iter().all(|(_, group)| group.is_whole())
    }

    /// The groups that take writes now.
    pub(crate) fn writable(&self) -> Vec<GroupId> {
        self.groups.borrow().writable("", self.replicas).collect()
    }

    /// Groups and the hosts of their members.
    pub(crate) fn members(&self) -> BTreeMap<GroupId, Vec<NodeId>> {
        let groups = self.groups.borrow();
        groups.iter().map(|(id, group)| (id, group.members.iter().map(|it| it.node).collect())).collect()
    }

    /// The groups, for a person.
    pub(crate) fn describe(&self) -> String {
        let groups = self.groups.borrow();
        let lines = groups.iter().map(|(id, group)| {
            let members: Vec<_> = group
                .members
                .iter()
                .map(|it| format!("{}{:?}/{}", it.node, it.role, it.incarnation))
                .collect();
            format!("{id} {} primary {} [{}]", group.epoch, group.primary, members.join(" "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

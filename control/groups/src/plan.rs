//! State and what was observed make commands. A plan decides nothing: `apply` judges each change again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, NodeId, Replicas, Timestamp};

use crate::command::{
    AddJoining, Admit, ConfirmGroup, CreateGroups, Drop, DropMembers, FailDevice, Joining, Mount,
    MovePrimary, NewGroup, Op, Reinstate, ReinstateGroup, Restart,
};
use crate::load::Load;
use crate::model::{DeviceState, Group, Groups, Member, Role};
use crate::moves::{even_primaries, plan_moves, plan_primaries, plan_rebuild};
use crate::placement::lay_out;

/// From the first report of silence to the decision: time for the others to report too.
pub const GATHER: Duration = Duration::from_millis(50);
/// A report of silence counts this long; members repeat it every 100 ms while it lasts.
pub const REPORT_FRESH: Duration = Duration::from_millis(1000);
/// A host heard within this time is running; its agent beats every second.
pub const HEARD_WITHIN: Duration = Duration::from_millis(3000);
/// How long restarted hosts wait for the others of their groups when none of these is heard.
pub const COLD_START_WAIT: Duration = Duration::from_secs(10);
/// How long they wait when the others are heard now and then, but their devices are not mounted.
pub const COLD_START_WAIT_MAX: Duration = Duration::from_secs(30);
/// After this silence the node lease of 25 s has run out, with the clocks' drift: a lone survivor serves no more.
pub const LEASE_OUT: Duration = Duration::from_secs(30);
/// Calendars of controllers that are set right differ by far less.
const CLOCK_JUMP_MIN: Duration = Duration::from_secs(60);
/// A member that was away this long is replaced on another host.
pub const REPLACE_AFTER: Duration = Duration::from_secs(600);
/// A device that was slow this long, and not merely for a moment, is emptied where another can take its replicas: every
/// write waits for the slowest member.
pub const SLOW_MOVES_AFTER: Duration = Duration::from_secs(600);
/// The same where one member in sync is left: no write goes on before another has joined, and there is one copy. A host
/// that was away this long is taken for failed (Spec 1.4). One that comes back with all but a tail is taken instead of
/// one that is being filled.
pub const REPLACE_FROZEN_AFTER: Duration = Duration::from_secs(30);
/// A host that was dropped again and again waits no longer than this to join a group that takes no writes without it.
const FROZEN_REST_MAX: Duration = Duration::from_secs(5);
/// Replicas that each device may hold of the groups of each number of copies: with fewer some would hold nothing, and the rest of
/// a lost one would fall on few.
pub const REPLICAS_A_DEVICE: usize = 3;
/// Groups of a region, at most.
pub const GROUPS_MAX: usize = 4096;
/// Groups made at least for each number of copies when nothing else is said.
pub const GROUPS_DEFAULT: usize = 12;

/// A member has not heard a peer for a second, or its own device answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SilenceReport {
    /// Who says so.
    pub reporter: NodeId,
    /// Its start.
    pub boot: BootId,
    /// Whom it does not hear; itself when its own device hangs.
    pub silent: NodeId,
    /// The life of the one device of that host that does not keep up; `None` when the host itself is not heard.
    pub device: Option<Incarnation>,
    /// The start of that peer which it does not hear; `None` when it never heard one.
    pub silent_boot: Option<BootId>,
    /// When it first said so.
    pub first: Duration,
    /// When it last said so.
    pub last: Duration,
}

/// A host has started, mounted its devices, and waits for their incarnations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountReport {
    /// The host.
    pub node: NodeId,
    /// All that it mounted at this start; at least one.
    pub mounts: Vec<Mount>,
    /// When it first said so.
    pub first: Duration,
}

/// A joining member is complete and durable, and its primary commits nothing without it from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyReport {
    /// Who says so; only the primary's word counts.
    pub reporter: NodeId,
    /// Who is complete.
    pub node: NodeId,
    /// In which group.
    pub group: GroupId,
    /// In which epoch.
    pub epoch: Epoch,
}

/// When a host's agent was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The start of its data plane.
    pub boot: BootId,
    /// When.
    pub last: Duration,
    /// Its data plane answers the agent.
    pub up: bool,
}

/// What the leader observed since it leads. All times are on its monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Now.
    pub now: Duration,
    /// Now, on its wall clock.
    pub wall: Timestamp,
    /// Since when it leads; hosts it has not heard count as heard then.
    pub leading_since: Duration,
    /// The last report of silence of each host about each other.
    pub silences: Vec<SilenceReport>,
    /// Mounts of hosts of which not all are in the state yet.
    pub mounts: Vec<MountReport>,
    /// Joining members that are complete.
    pub ready: Vec<ReadyReport>,
    /// Devices that answered with an error.
    pub failed: Vec<(DeviceId, String)>,
    /// Hosts that were heard.
    pub heard: BTreeMap<NodeId, Heard>,
    /// Hosts that may hold replicas.
    pub storage: BTreeSet<NodeId>,
    /// Groups a region should have at least for each number of copies that is wanted.
    pub groups_wanted: usize,
    /// There are so many more that each device may hold this many replicas of groups of each number of copies.
    pub replicas_a_device: usize,
    /// How many copies of their blocks namespaces want. What was wanted once may be named longer; it is no harm.
    pub replicas_wanted: BTreeSet<Replicas>,
    /// Too many hosts of a zone fell silent at once: nothing is moved to other hosts.
    pub storm: bool,
    /// Hosts that everything is moved off.
    pub draining: BTreeSet<NodeId>,
    /// Joiners that get no further.
    pub stalled: BTreeSet<(GroupId, NodeId)>,
    /// Hosts that got no further with a group lately: asked again only when there is no other.
    pub shunned: BTreeSet<(GroupId, NodeId)>,
    /// Joiners that are filled with pages: they lack more than a tail.
    pub paging: BTreeSet<(GroupId, NodeId)>,
}

impl Observed {
    fn silent_for(&self, node: NodeId) -> Duration {
        let last =
            self.heard.get(&node).map_or(self.leading_since, |heard| heard.last.max(self.leading_since));
        self.now.saturating_sub(last)
    }

    pub(crate) fn is_running(&self, node: NodeId) -> bool {
        self.heard
            .get(&node)
            .is_some_and(|heard| heard.up && self.now.saturating_sub(heard.last) <= HEARD_WITHIN)
    }
}

/// Whether `wait` has passed since a moment of the calendar. One far in the future was written before the calendar was
/// set back: nothing is known of it then, and nobody waits a day for it.
pub(crate) fn has_passed(wait: Duration, since: Timestamp, wall: Timestamp) -> bool {
    since.since(wall) >= CLOCK_JUMP_MIN || wall.since(since) >= wait
}

/// What should change now. The commands are for one batch, in this order.
#[must_use]
pub fn plan(groups: &Groups, observed: &Observed) -> Vec<Op> {
    let mut ops = Vec::new();
    for (device, reason) in &observed.failed {
        let known = groups.devices.get(device).is_some_and(|known| known.state != DeviceState::Failed);
        if known {
            ops.push(Op::FailDevice(FailDevice {
                device: device.0.to_be_bytes().to_vec(),
                reason: reason.clone(),
            }));
        }
    }
    ops.extend(plan_restart(groups, observed).map(Op::Restart));
    if !ops.is_empty() {
        // These change members and epochs; what else is due is planned on the state after them.
        return ops;
    }
    let mut changed = BTreeSet::new();
    let mut note = |id: GroupId| changed.insert(id);
    let mut load = Load::of(groups);

    let dropped: Vec<DropMembers> = groups
        .iter()
        .filter_map(|(id, group)| {
            let mut nodes = lost_members(group, observed);
            nodes.extend(stalled_joiner(groups, (id, group), observed, &load));
            nodes.extend(outrun_joiner(groups, (id, group), observed, &load));
            (!nodes.is_empty() && note(id)).then(|| DropMembers {
                group: id.0,
                epoch: group.epoch.0,
                nodes: nodes.into_iter().map(|node| node.0).collect(),
            })
        })
        .collect();
    let reinstated: Vec<ReinstateGroup> = groups
        .iter()
        .filter_map(|(id, group)| {
            let nodes = reinstatable(groups, group, observed);
            (!nodes.is_empty() && note(id)).then(|| ReinstateGroup {
                group: id.0,
                epoch: group.epoch.0,
                nodes: nodes.into_iter().map(|node| node.0).collect(),
            })
        })
        .collect();
    let admitted: Vec<Joining> = observed
        .ready
        .iter()
        .filter_map(|ready| {
            let group = groups.group(ready.group)?;
            let member = group.joining()?;
            let ripe = ready.reporter == group.primary
                && member.node == ready.node
                && group.epoch == ready.epoch
                && groups.serves(member.node, member.incarnation);
            (ripe && note(ready.group)).then_some(Joining {
                group: ready.group.0,
                epoch: ready.epoch.0,
                node: ready.node.0,
                replaces: 0,
            })
        })
        .collect();
    let joining: Vec<Joining> = groups
        .iter()
        .filter_map(|(id, group)| {
            let node = joiner(groups, (id, group), observed, &load)?;
            if let Some(device) = load.device_for(groups, group, node) {
                load.add(device);
            }
            note(id).then_some(Joining { group: id.0, epoch: group.epoch.0, node: node.0, replaces: 0 })
        })
        .collect();
    let mut moved = plan_primaries(groups, observed, &changed);
    changed.extend(moved.iter().map(|entry| GroupId(entry.group)));
    let moving = plan_moves(groups, observed, &changed, &load);
    let mut rebuilt = None;
    if moving.is_empty() {
        rebuilt = plan_rebuild(groups, observed, &changed, &load);
        changed.extend(rebuilt.iter().map(|entry| GroupId(entry.group)));
        moved.extend(even_primaries(groups, observed, &changed));
    }

    let mut push = |some: bool, op: Op| ops.extend(some.then_some(op));
    push(!dropped.is_empty(), Op::Drop(Drop { groups: dropped, rebuilt: false }));
    let rebuilt: Vec<DropMembers> = rebuilt.into_iter().collect();
    push(!rebuilt.is_empty(), Op::Drop(Drop { groups: rebuilt, rebuilt: true }));
    push(!reinstated.is_empty(), Op::Reinstate(Reinstate { groups: reinstated }));
    push(!admitted.is_empty(), Op::Admit(Admit { groups: admitted }));
    let joining: Vec<Joining> = joining.into_iter().chain(moving).collect();
    push(!joining.is_empty(), Op::AddJoining(AddJoining { groups: joining }));
    push(!moved.is_empty(), Op::MovePrimary(MovePrimary { groups: moved }));
    let laid = plan_groups(groups, observed);
    push(!laid.is_empty(), Op::CreateGroups(CreateGroups { namespace: String::new(), groups: laid }));
    ops
}

/// Groups that are lacking of a number of copies that is wanted, once enough hosts run; one number at a time, because
/// what is laid out first counts for the next. Devices that come later so get groups too. Groups never go again.
fn plan_groups(groups: &Groups, observed: &Observed) -> Vec<NewGroup> {
    let may_hold = |host: &NodeId| {
        groups.stores(*host) && observed.is_running(*host) && !observed.draining.contains(host)
    };
    let hosts: Vec<NodeId> = observed.storage.iter().copied().filter(may_hold).collect();
    let devices = hosts.iter().map(|host| groups.devices_of(*host).count()).sum::<usize>();
    let lacking = |replicas: Replicas| {
        let for_devices = (devices * observed.replicas_a_device).div_ceil(replicas.count());
        let wanted = observed.groups_wanted.max(for_devices).saturating_sub(groups.kept(replicas));
        wanted.min(GROUPS_MAX.saturating_sub(groups.iter().count()))
    };
    let wanted = observed.replicas_wanted.iter();
    let mut laid = wanted.map(|replicas| lay_out(groups, &hosts, *replicas, lacking(*replicas)));
    laid.find(|laid| !laid.is_empty()).unwrap_or_default()
}

/// Members to drop: those outside the largest set of in-sync members that all hear each other, and a joining one
/// that this set does not hear. Nothing is decided before [`GATHER`] has passed since the first report.
///
/// A member whose own device hangs, as it says itself, hears nobody whose device does not.
///
/// When only hosts outside that set say something, they hear nobody, or are the only ones that live: hosts that died
/// together are as silent about each other as hosts that are well. Then the set must have been heard since, and when it
/// was not for [`HEARD_WITHIN`], those count that speak. Any choice is safe, for every member in sync holds everything.
fn lost_members(group: &Group, observed: &Observed) -> BTreeSet<NodeId> {
    let fresh = fresh_reports(observed);
    let cut = |a: &Member, b: &Member| is_cut(&fresh, Place::of(a), Place::of(b));
    let is_within = |report: &&&SilenceReport| {
        group.member(report.reporter).is_some()
            && group.member(report.silent).is_some_and(|member| is_about(report, Place::of(member)))
    };
    let Some(first) = fresh.iter().filter(is_within).map(|report| report.first).min() else {
        return BTreeSet::new();
    };
    if observed.now.saturating_sub(first) < GATHER {
        return BTreeSet::new();
    }
    let in_sync: Vec<Member> = group.in_sync().copied().collect();
    let reports = |node: NodeId| fresh.iter().any(|report| report.reporter == node);
    let heard_since =
        |node: NodeId| observed.heard.get(&node).is_some_and(|heard| heard.up && heard.last > first);
    let hangs = |member: &Member| says_it_hangs(&fresh, Place::of(member));
    let largest = |lives: &dyn Fn(NodeId) -> bool| {
        let connected = |set: &Vec<Member>| {
            set.iter().enumerate().all(|(index, a)| set[index + 1..].iter().all(|b| !cut(a, b)))
        };
        subsets(&in_sync)
            .filter(connected)
            .max_by_key(|set| {
                let nodes: Vec<NodeId> = set.iter().map(|member| member.node).collect();
                let well = set.iter().filter(|member| lives(member.node) && !hangs(member)).count();
                let alive = nodes.iter().filter(|node| lives(**node)).count();
                let reporters = nodes.iter().filter(|node| reports(**node)).count();
                let running = nodes.iter().filter(|node| observed.is_running(**node)).count();
                let primary = nodes.contains(&group.primary);
                (well, alive, set.len(), reporters, running, primary, core::cmp::Reverse(nodes))
            })
            .expect("a single member hears itself")
    };
    let mut kept = largest(&|_| true);
    let is_one_sided = kept.len() < in_sync.len() && !kept.iter().any(|member| reports(member.node));
    if is_one_sided && !kept.iter().all(|member| heard_since(member.node)) {
        if observed.now.saturating_sub(first) < HEARD_WITHIN {
            return BTreeSet::new();
        }
        kept = largest(&|node| reports(node) || heard_since(node));
    }
    let mut lost: BTreeSet<NodeId> =
        in_sync.iter().filter(|member| !kept.contains(member)).map(|member| member.node).collect();
    if let Some(joining) = group.joining()
        && kept.iter().any(|member| cut(member, joining))
    {
        lost.insert(joining.node);
    }
    lost
}

/// A joiner that gets no further although a member could fill it, when another host may have its place.
fn stalled_joiner(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    load: &Load,
) -> Option<NodeId> {
    let joiner = group.joining()?.node;
    let to_blame = observed.stalled.contains(&(id, joiner))
        && !observed.storm
        && group.in_sync().any(|member| observed.is_running(member.node));
    let other = |node: &NodeId| *node != joiner && is_welcome(groups, (id, group), observed, load, *node);
    (to_blame && observed.storage.iter().any(other)).then_some(joiner)
}

/// A joiner of a frozen group that is filled with pages, when a host is there again that lacks a tail at most: writes go
/// on at once with that one. Joining costs a host this rank, so it ends.
fn outrun_joiner(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    load: &Load,
) -> Option<NodeId> {
    let joiner = group.joining()?.node;
    let is_slower = group.frozen() && observed.paging.contains(&(id, joiner));
    let mut complete = complete_hosts(groups, group).filter(|node| *node != joiner);
    let outrun = is_slower && complete.any(|node| is_welcome(groups, (id, group), observed, load, node));
    outrun.then_some(joiner)
}

/// Hosts that are no members and lack at most a tail: those of the last epoch that took writes, when it is over.
fn complete_hosts<'a>(groups: &'a Groups, group: &'a Group) -> impl Iterator<Item = NodeId> + 'a {
    let held = group.last_writable.iter().filter(|(node, life)| groups.serves(*node, *life));
    held.map(|(node, _)| *node).filter(|node| group.member(*node).is_none())
}

/// Reports of silence that still count: said lately, by and about the present starts of the two hosts.
///
/// A host that came back under another start is heard or not as that one; what an agent or a stream held back about
/// the start before must not drop it.
fn fresh_reports(observed: &Observed) -> Vec<&SilenceReport> {
    let is_present =
        |node: NodeId, boot: BootId| observed.heard.get(&node).is_none_or(|heard| heard.boot == boot);
    observed
        .silences
        .iter()
        .filter(|report| observed.now.saturating_sub(report.last) <= REPORT_FRESH)
        .filter(|report| is_present(report.reporter, report.boot))
        .filter(|report| report.silent_boot.is_none_or(|boot| is_present(report.silent, boot)))
        .collect()
}

/// Where a replica lies.
#[derive(Clone, Copy)]
struct Place {
    node: NodeId,
    device: Incarnation,
}

impl Place {
    fn of(member: &Member) -> Self {
        Self { node: member.node, device: member.incarnation }
    }
}

/// The report says that a replica there is not heard: its host is not, or its device does not keep up.
fn is_about(report: &SilenceReport, place: Place) -> bool {
    report.silent == place.node && report.device.is_none_or(|device| device == place.device)
}

/// The host of a replica says itself that the device under it hangs.
fn says_it_hangs(fresh: &[&SilenceReport], place: Place) -> bool {
    fresh.iter().any(|report| report.reporter == place.node && is_about(report, place))
}

/// One of the two does not hear the other, or says that its own device hangs. Two devices that hang are not told apart:
/// that may be what both lie on, and the group has nobody better.
fn is_cut(fresh: &[&SilenceReport], a: Place, b: Place) -> bool {
    let unheard = fresh.iter().any(|report| {
        (report.reporter == a.node && is_about(report, b))
            || (report.reporter == b.node && is_about(report, a))
    });
    unheard || says_it_hangs(fresh, a) != says_it_hangs(fresh, b)
}

/// Every set of at least one of `members`, which are at most [`Replicas::MAX`].
fn subsets(members: &[Member]) -> impl Iterator<Item = Vec<Member>> {
    assert!(members.len() <= Replicas::MAX.count(), "a group has at most five members in sync");
    (1_u32..1 << members.len()).map(|bits| {
        members.iter().enumerate().filter(|(index, _)| bits & 1 << index != 0).map(|(_, it)| *it).collect()
    })
}

/// Members of the last writable epoch that can take over from a lone survivor whose node lease has run out.
fn reinstatable(groups: &Groups, group: &Group, observed: &Observed) -> Vec<NodeId> {
    let survivor_gone = group.in_sync().all(|member| {
        groups.is_over(member.node, member.incarnation) || observed.silent_for(member.node) > LEASE_OUT
    });
    if !group.frozen() || !survivor_gone {
        return Vec::new();
    }
    group
        .last_writable
        .iter()
        .filter(|(node, incarnation)| groups.serves(*node, *incarnation) && observed.is_running(*node))
        .filter(|(node, _)| group.in_sync().all(|member| member.node != *node))
        .map(|(node, _)| *node)
        .collect()
}

/// The next host to join a group that is short of members: one of its homes, or after [`REPLACE_AFTER`] another, which a
/// frozen group gets after [`REPLACE_FROZEN_AFTER`].
fn joiner(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    load: &Load,
) -> Option<NodeId> {
    if group.joining().is_some() || group.is_full() {
        return None;
    }
    // Someone has to fill it.
    if !group.in_sync().any(|member| observed.is_running(member.node)) {
        return None;
    }
    let able = |node: &NodeId| {
        is_rested(groups, group, observed, *node) && may_hold(groups, group, observed, load, *node)
    };
    let is_shunned = |node: &NodeId| observed.shunned.contains(&(id, *node));
    let stays = |node: &NodeId| !observed.draining.contains(node) && !is_shunned(node);
    // With a host that lacks a tail at most a frozen group takes writes again at once, also when another has its place.
    let welcome = complete_hosts(groups, group).chain(group.homes()).find(|node| able(node) && stays(node));
    if welcome.is_some() {
        return welcome;
    }
    let drained = group.homes().any(|home| group.member(home).is_none() && !stays(&home));
    let patience = if group.frozen() { REPLACE_FROZEN_AFTER } else { REPLACE_AFTER };
    let away = group.short_since.is_some_and(|since| has_passed(patience, since, observed.wall));
    if (away || drained || group.homes.len() < group.replicas.count()) && !observed.storm {
        let others = observed.storage.iter().copied().filter(|node| able(node) && stays(node));
        let shares = others.filter_map(|node| {
            let device = load.device_for(groups, group, node)?;
            Some((load.with_one_more(device), node))
        });
        if let Some((_, other)) = shares.min() {
            return Some(other);
        }
    }
    // Better on a host that is to be emptied, or that got no further before, than nowhere.
    group.homes().find(able)
}

/// The host may get a replica of the group for long: it is not to be emptied, got as far as others before, and is rested.
pub(crate) fn is_welcome(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    load: &Load,
    node: NodeId,
) -> bool {
    !observed.draining.contains(&node)
        && !observed.shunned.contains(&(id, node))
        && is_rested(groups, group, observed, node)
        && may_hold(groups, group, observed, load, node)
}

/// The host was not dropped again and again lately. A group that takes no writes has little to lose by a joiner that
/// may fall silent again.
fn is_rested(groups: &Groups, group: &Group, observed: &Observed, node: NodeId) -> bool {
    let flaps = groups.flaps(node);
    let wait = if group.frozen() { flaps.wait.min(FROZEN_REST_MAX) } else { flaps.wait };
    has_passed(wait, flaps.last, observed.wall)
}

/// The host runs, has a device that serves, is heard by the members and is none of them.
fn may_hold(groups: &Groups, group: &Group, observed: &Observed, load: &Load, node: NodeId) -> bool {
    let Some(device) = load.device_for(groups, group, node) else { return false };
    let place = Place { node, device };
    // Silence reported about its last turn as a member would end the next one too.
    let fresh = fresh_reports(observed);
    group.member(node).is_none()
        && !group.members.iter().any(|member| is_cut(&fresh, Place::of(member), place))
        && observed.storage.contains(&node)
        && observed.is_running(node)
}

/// Takes mounts whose groups can be judged: another in-sync member runs, or all restarted, or the wait is over.
fn plan_restart(groups: &Groups, observed: &Observed) -> Option<Restart> {
    let mounted: BTreeMap<NodeId, &MountReport> = observed
        .mounts
        .iter()
        .filter(|report| !report.mounts.iter().all(|mount| groups.has_judged(mount)))
        .map(|report| (report.node, report))
        .collect();
    let mut taken: BTreeSet<NodeId> = mounted.keys().copied().collect();
    // What a device that goes on as it is holds does not wait for another one that its host opened.
    let in_sync_of = |node: NodeId| {
        groups.iter().filter(move |(_, group)| {
            let member = group.member(node).filter(|member| member.role == Role::InSync);
            member.is_some_and(|member| !runs_unrestarted(groups, observed, member))
        })
    };
    // A mount waits for the slowest of its groups, and whoever shares a group with one that waits waits too:
    // repeated until nothing changes, at most once for each mount.
    for _ in 0..mounted.len() {
        let waits = |node: NodeId| {
            let waited = observed.now.saturating_sub(mounted[&node].first);
            in_sync_of(node).any(|(_, group)| {
                let others = || group.in_sync().filter(move |other| other.node != node);
                let runs = |other: &Member| runs_unrestarted(groups, observed, other);
                let gone = |other: &Member| {
                    taken.contains(&other.node) || observed.silent_for(other.node) >= COLD_START_WAIT
                };
                let over = waited >= COLD_START_WAIT_MAX || (waited >= COLD_START_WAIT && others().all(gone));
                !over && !others().any(runs) && !others().all(|other| taken.contains(&other.node))
            })
        };
        let waiting: Vec<NodeId> = taken.iter().copied().filter(|node| waits(*node)).collect();
        if waiting.is_empty() {
            break;
        }
        taken.retain(|node| !waiting.contains(node));
    }
    if taken.is_empty() {
        return None;
    }
    let confirm = groups
        .iter()
        .filter_map(|(id, group)| {
            let runs = group.in_sync().any(|member| runs_unrestarted(groups, observed, member));
            let nodes: Vec<u64> = group
                .in_sync()
                .filter(|member| taken.contains(&member.node))
                .filter(|member| {
                    let mounts = &mounted[&member.node].mounts;
                    mounts.iter().any(|mount| keeps_its_life(groups, mount, member.incarnation))
                })
                .map(|member| member.node.0)
                .collect();
            (!runs && !nodes.is_empty()).then_some(ConfirmGroup { group: id.0, epoch: group.epoch.0, nodes })
        })
        .collect();
    let mounts = taken.iter().flat_map(|node| mounted[node].mounts.iter().cloned()).collect();
    Some(Restart { mounts, confirm })
}

/// Its host runs under the start that the state knows of its device: the copy was served all along.
fn runs_unrestarted(groups: &Groups, observed: &Observed, member: &Member) -> bool {
    let Some((_, device)) = groups.device(member.node, member.incarnation) else { return false };
    let boot = observed.heard.get(&member.node).map(|heard| heard.boot);
    observed.is_running(member.node) && boot.is_some_and(|boot| device.state == DeviceState::Mounted { boot })
}

/// The mount will be answered with the incarnation that the device had.
fn keeps_its_life(groups: &Groups, mount: &Mount, incarnation: Incarnation) -> bool {
    let known = mount.device_id().and_then(|id| groups.devices.get(&id));
    known.is_some_and(|known| {
        known.incarnation == incarnation && known.state != DeviceState::Failed && known.goes_on_in(mount)
    })
}

//! Replicas and primaries that should be elsewhere: off hosts that are drained and devices that stay slow, and onto devices
//! with few.
//!
//! A replica moves in three steps, each an epoch: the new member joins beside the others, is filled, and is admitted in
//! the same step in which the old one leaves. The group has all its members in sync all the while. A host has at most one
//! member of a group, so from one device to another of its host a replica does not move, but is built anew.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use nova_units::{GroupId, Incarnation, NodeId};

use crate::command::{DropMembers, Joining};
use crate::load::Load;
use crate::model::{Group, Groups, Member, WRITABLE_MIN};
use crate::plan::{Observed, SLOW_MOVES_AFTER, has_passed, is_welcome};

/// Members of a region that are filled at once before another replica begins to move.
pub const MOVES_MAX: usize = 4;
/// Of these, onto one host.
pub const MOVES_TO_ONE_MAX: usize = 2;

/// Primaries that move at once for the sake of balance.
const PRIMARIES_AT_ONCE: usize = 4;
/// A host that was dropped gets primaries again when that is so long ago.
const PRIMARY_AFTER: Duration = Duration::from_secs(30);

/// How full devices are, and which hosts are being filled.
struct Traffic {
    load: Load,
    filling: BTreeMap<NodeId, usize>,
    under_way: usize,
}

/// A place that may take a replica.
#[derive(Clone, Copy)]
struct Place {
    node: NodeId,
    device: Incarnation,
}

impl Traffic {
    fn of(groups: &Groups, load: Load) -> Self {
        let mut traffic = Self { load, filling: BTreeMap::new(), under_way: 0 };
        for (_, group) in groups.iter() {
            if let Some(joining) = group.joining() {
                *traffic.filling.entry(joining.node).or_default() += 1;
                traffic.under_way += 1;
            }
        }
        traffic
    }

    fn has_room(&self, node: NodeId) -> bool {
        self.filling.get(&node).copied().unwrap_or(0) < MOVES_TO_ONE_MAX
    }

    fn begin(&mut self, from: &Member, to: Place) {
        self.load.remove(from.incarnation);
        self.load.add(to.device);
        *self.filling.entry(to.node).or_default() += 1;
        self.under_way += 1;
    }
}

/// Replicas that begin to move now. Groups in `changed` change otherwise already.
pub(crate) fn plan_moves(
    groups: &Groups,
    observed: &Observed,
    changed: &BTreeSet<GroupId>,
    load: &Load,
) -> Vec<Joining> {
    let mut moves = Vec::new();
    if observed.storm {
        return moves;
    }
    let mut traffic = Traffic::of(groups, load.clone());
    let mut movable: Vec<(GroupId, &Group)> =
        groups.iter().filter(|(id, group)| !changed.contains(id) && is_calm(group, observed)).collect();
    movable.retain(|(id, group)| {
        let drained = group.in_sync().find(|member| observed.draining.contains(&member.node));
        let leaves = drained.or_else(|| group.in_sync().find(|member| stays_slow(groups, observed, member)));
        let Some(leaves) = leaves else { return true };
        let target = target(groups, (*id, group), observed, &traffic);
        if let Some(to) = target.filter(|_| traffic.under_way < MOVES_MAX) {
            traffic.begin(leaves, to);
            moves.push(joining(*id, group, leaves, to));
        }
        false
    });
    // Balance can wait until everything is where it must be.
    let whole = groups.iter().all(|(id, group)| !changed.contains(&id) && is_calm(group, observed));
    if moves.is_empty() && whole {
        while traffic.under_way < MOVES_TO_ONE_MAX {
            let Some(index) = movable
                .iter()
                .position(|(id, group)| lighter(groups, (*id, group), observed, &traffic).is_some())
            else {
                break;
            };
            let (id, group) = movable.swap_remove(index);
            let (leaves, to) = lighter(groups, (id, group), observed, &traffic).expect("it was just found");
            traffic.begin(leaves, to);
            moves.push(joining(id, group, leaves, to));
        }
    }
    moves
}

/// A replica that no other host can take from a device that stays slow, or whose host has a far emptier device, as one that
/// came in the place of another: it is built anew there. Until it is, its group has one copy less; the old one stays where it
/// is, and is no member. One at a time, when nothing else is wrong, and only where enough others are left to take writes.
pub(crate) fn plan_rebuild(
    groups: &Groups,
    observed: &Observed,
    changed: &BTreeSet<GroupId>,
    load: &Load,
) -> Option<DropMembers> {
    if observed.storm || !groups.iter().all(|(id, group)| !changed.contains(&id) && is_calm(group, observed))
    {
        return None;
    }
    let able = |group: &Group, member: &Member| {
        group.in_sync().count() > WRITABLE_MIN
            && !observed.draining.contains(&member.node)
            && has_passed(groups.flaps(member.node).wait, groups.flaps(member.node).last, observed.wall)
    };
    let candidates = || {
        let members = |(id, group): (GroupId, &Group)| {
            group
                .in_sync()
                .filter(|it| able(group, it))
                .map(|it| (id, group.epoch, group.primary, *it))
                .collect()
        };
        groups.iter().flat_map::<Vec<_>, _>(members).filter_map(|(id, epoch, primary, member)| {
            let other = load.lightest(groups, member.node).filter(|life| *life != member.incarnation)?;
            groups.slow_since(member.node, other).is_none().then_some((id, epoch, primary, member, other))
        })
    };
    let slow = candidates().find(|(.., member, _)| stays_slow(groups, observed, member));
    let uneven = || {
        let is_lighter = |life: Incarnation, other: Incarnation| load.with_one_more(other) < load.now(life);
        // A primary last: it costs the group a moment.
        candidates().filter(|(.., member, other)| is_lighter(member.incarnation, *other)).max_by_key(
            |(id, _, primary, member, _)| {
                (load.now(member.incarnation), member.node != *primary, core::cmp::Reverse(*id))
            },
        )
    };
    let (id, epoch, _, member, _) = slow.or_else(uneven)?;
    Some(DropMembers { group: id.0, epoch: epoch.0, nodes: vec![member.node.0] })
}

/// The device under a member has been slow for [`SLOW_MOVES_AFTER`].
fn stays_slow(groups: &Groups, observed: &Observed, member: &Member) -> bool {
    let since = groups.slow_since(member.node, member.incarnation);
    since.is_some_and(|since| has_passed(SLOW_MOVES_AFTER, since, observed.wall))
}

fn is_slow(groups: &Groups, member: &Member) -> bool {
    groups.slow_since(member.node, member.incarnation).is_some()
}

fn joining(id: GroupId, group: &Group, leaves: &Member, to: Place) -> Joining {
    Joining { group: id.0, epoch: group.epoch.0, node: to.node.0, replaces: leaves.node.0 }
}

/// Whole, with every member running.
fn is_calm(group: &Group, observed: &Observed) -> bool {
    group.is_whole() && group.members.iter().all(|member| observed.is_running(member.node))
}

/// The place with the smallest share of replicas that may take one of the group.
fn target(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    traffic: &Traffic,
) -> Option<Place> {
    let able = |node: &NodeId| {
        traffic.has_room(*node) && is_welcome(groups, (id, group), observed, &traffic.load, *node)
    };
    let places = observed
        .storage
        .iter()
        .copied()
        .filter(able)
        .filter_map(|node| Some(Place { node, device: traffic.load.device_for(groups, group, node)? }))
        .filter(|place| groups.slow_since(place.node, place.device).is_none());
    places.min_by_key(|place| (traffic.load.with_one_more(place.device), place.node))
}

/// The member on the fullest device, and a place that is less full even with the replica there: the fullest gets
/// lighter, so that this ends.
fn lighter<'a>(
    groups: &Groups,
    (id, group): (GroupId, &'a Group),
    observed: &Observed,
    traffic: &Traffic,
) -> Option<(&'a Member, Place)> {
    let to = target(groups, (id, group), observed, traffic)?;
    // A primary moves last: it costs the group a moment.
    let heaviest = group.in_sync().max_by_key(|member| {
        let share = traffic.load.now(member.incarnation);
        (share, member.node != group.primary, core::cmp::Reverse(member.node))
    })?;
    let is_lighter = traffic.load.with_one_more(to.device) < traffic.load.now(heaviest.incarnation);
    is_lighter.then_some((heaviest, to))
}

/// Primaries on devices that are slow go to another member, the one whose host has the fewest.
pub(crate) fn plan_primaries(
    groups: &Groups,
    observed: &Observed,
    changed: &BTreeSet<GroupId>,
) -> Vec<Joining> {
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    groups
        .iter()
        .filter(|(id, group)| {
            let primary = group.member(group.primary);
            let is_poor = primary.is_some_and(|member| is_slow(groups, member));
            !changed.contains(id) && is_poor && group.joining().is_none() && !observed.storm
        })
        .filter_map(|(id, group)| {
            let able = |member: &&Member| {
                !is_slow(groups, member)
                    && !observed.draining.contains(&member.node)
                    && observed.is_running(member.node)
            };
            let primaries = |node: NodeId| groups.primaries(node) + given.get(&node).copied().unwrap_or(0);
            let members = group.in_sync().filter(able).map(|member| member.node);
            let node = members.min_by_key(|node| (primaries(*node), *node))?;
            *given.entry(node).or_default() += 1;
            Some(Joining { group: id.0, epoch: group.epoch.0, node: node.0, replaces: 0 })
        })
        .collect()
}

/// Primaries that move so that hosts order writes as evenly as they hold replicas: a few at a time, when nothing else is to be
/// done, and to no host that was lost lately. A new primary costs its group a moment.
pub(crate) fn even_primaries(
    groups: &Groups,
    observed: &Observed,
    changed: &BTreeSet<GroupId>,
) -> Vec<Joining> {
    let is_quiet = |(id, group): (GroupId, &Group)| !changed.contains(&id) && is_calm(group, observed);
    if observed.storm || !groups.iter().all(is_quiet) {
        return Vec::new();
    }
    // Primaries and replicas of each host.
    let mut held: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for (_, group) in groups.iter() {
        held.entry(group.primary).or_default().0 += 1;
        group.in_sync().for_each(|member| held.entry(member.node).or_default().1 += 1);
    }
    let may_lead = |member: &&Member| {
        !is_slow(groups, member)
            && !observed.draining.contains(&member.node)
            && has_passed(PRIMARY_AFTER, groups.flaps(member.node).last, observed.wall)
    };
    let mut moved = Vec::new();
    for (id, group) in groups.iter() {
        let (primaries, replicas) = held[&group.primary];
        let is_better = |node: &NodeId| {
            let (fewer, of) = held[node];
            // Also after the move the old one has no smaller share than the new one.
            (primaries - 1) * of >= (fewer + 1) * replicas
        };
        let leaders = group.in_sync().filter(may_lead).map(|member| member.node);
        let others = leaders.filter(|node| *node != group.primary);
        if let Some(to) = others.filter(is_better).min_by_key(|node| (held[node].0, *node)) {
            held.entry(group.primary).or_default().0 -= 1;
            held.entry(to).or_default().0 += 1;
            moved.push(Joining { group: id.0, epoch: group.epoch.0, node: to.0, replaces: 0 });
        }
        if moved.len() == PRIMARIES_AT_ONCE {
            break;
        }
    }
    moved
}

//! Replicas and primaries that should be elsewhere: off hosts that are drained or stay slow, and onto hosts with few.
//!
//! A replica moves in three steps, each an epoch: the new member joins beside the three, is filled, and is admitted in
//! the same step in which the old one leaves. The group has three members in sync all the while.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{GroupId, NodeId};

use crate::command::Joining;
use crate::model::{Group, Groups, MEMBERS_MAX, Role};
use crate::plan::{Observed, has_passed, may_hold};

/// Members of a region that are filled at once before another replica begins to move.
pub const MOVES_MAX: usize = 4;
/// Of these, onto one host.
pub const MOVES_TO_ONE_MAX: usize = 2;
/// A replica moves for balance alone when one host has so many more than another.
const UNEVEN_MIN: usize = 2;

/// Replicas on every host, with those that are on their way to it and without those that are on their way off it.
struct Load {
    held: BTreeMap<NodeId, usize>,
    filling: BTreeMap<NodeId, usize>,
    under_way: usize,
}

impl Load {
    fn of(groups: &Groups) -> Self {
        let mut load = Self { held: BTreeMap::new(), filling: BTreeMap::new(), under_way: 0 };
        for (_, group) in groups.iter() {
            for home in &group.homes {
                *load.held.entry(*home).or_default() += 1;
            }
            if let Some(joining) = group.joining() {
                *load.filling.entry(joining.node).or_default() += 1;
                load.under_way += 1;
            }
        }
        load
    }

    fn held(&self, node: NodeId) -> usize {
        self.held.get(&node).copied().unwrap_or(0)
    }

    fn has_room(&self, node: NodeId) -> bool {
        self.filling.get(&node).copied().unwrap_or(0) < MOVES_TO_ONE_MAX
    }

    fn begin(&mut self, from: NodeId, to: NodeId) {
        *self.held.entry(to).or_default() += 1;
        if let Some(held) = self.held.get_mut(&from) {
            *held = held.saturating_sub(1);
        }
        *self.filling.entry(to).or_default() += 1;
        self.under_way += 1;
    }
}

/// Replicas that begin to move now. Groups in `changed` change otherwise already.
pub(crate) fn plan_moves(groups: &Groups, observed: &Observed, changed: &BTreeSet<GroupId>) -> Vec<Joining> {
    let mut moves = Vec::new();
    if observed.storm {
        return moves;
    }
    let mut load = Load::of(groups);
    let mut movable: Vec<(GroupId, &Group)> =
        groups.iter().filter(|(id, group)| !changed.contains(id) && is_calm(group, observed)).collect();
    movable.retain(|(id, group)| {
        let on = |hosts: &BTreeSet<NodeId>| {
            group.in_sync().map(|member| member.node).find(|node| hosts.contains(node))
        };
        let leaves = on(&observed.draining).or_else(|| on(&observed.long_slow));
        let Some(leaves) = leaves else { return true };
        let target = target(groups, (*id, group), observed, &load);
        if let Some(to) = target.filter(|_| load.under_way < MOVES_MAX) {
            load.begin(leaves, to);
            moves.push(joining(*id, group, leaves, to));
        }
        false
    });
    // Balance can wait until everything is where it must be.
    let whole = groups.iter().all(|(id, group)| !changed.contains(&id) && is_calm(group, observed));
    if moves.is_empty() && whole {
        while load.under_way < MOVES_TO_ONE_MAX {
            let Some(index) = movable
                .iter()
                .position(|(id, group)| lighter(groups, (*id, group), observed, &load).is_some())
            else {
                break;
            };
            let (id, group) = movable.swap_remove(index);
            let (leaves, to) = lighter(groups, (id, group), observed, &load).expect("it was just found");
            load.begin(leaves, to);
            moves.push(joining(id, group, leaves, to));
        }
    }
    moves
}

fn joining(id: GroupId, group: &Group, leaves: NodeId, to: NodeId) -> Joining {
    Joining { group: id.0, epoch: group.epoch.0, node: to.0, replaces: leaves.0 }
}

/// Whole, with every member running.
fn is_calm(group: &Group, observed: &Observed) -> bool {
    group.members.len() == MEMBERS_MAX
        && group.members.iter().all(|member| member.role == Role::InSync && observed.is_running(member.node))
}

fn rested(groups: &Groups, observed: &Observed, node: NodeId) -> bool {
    let flaps = groups.flaps(node);
    has_passed(flaps.wait, flaps.last, observed.wall)
}

fn targets<'a>(
    groups: &'a Groups,
    (id, group): (GroupId, &'a Group),
    observed: &'a Observed,
    load: &'a Load,
) -> impl Iterator<Item = NodeId> + 'a {
    observed.storage.iter().copied().filter(move |node| {
        !observed.draining.contains(node)
            && !observed.slow.contains(node)
            && !observed.shunned.contains(&(id, *node))
            && load.has_room(*node)
            && rested(groups, observed, *node)
            && may_hold(groups, group, observed, *node)
    })
}

/// The host with the fewest replicas that may take one of the group.
fn target(groups: &Groups, group: (GroupId, &Group), observed: &Observed, load: &Load) -> Option<NodeId> {
    targets(groups, group, observed, load).min_by_key(|node| (load.held(*node), *node))
}

/// The member with the most replicas, and a host with far fewer that may take its place.
fn lighter(
    groups: &Groups,
    (id, group): (GroupId, &Group),
    observed: &Observed,
    load: &Load,
) -> Option<(NodeId, NodeId)> {
    let to = target(groups, (id, group), observed, load)?;
    // A primary moves last: it costs the group a moment.
    let heaviest = group
        .in_sync()
        .map(|member| member.node)
        .max_by_key(|node| (load.held(*node), *node != group.primary, core::cmp::Reverse(*node)))?;
    (load.held(heaviest) >= load.held(to) + UNEVEN_MIN).then_some((heaviest, to))
}

/// Primaries on hosts that are slow or drained go to another member, the one with the fewest.
pub(crate) fn plan_primaries(
    groups: &Groups,
    observed: &Observed,
    changed: &BTreeSet<GroupId>,
) -> Vec<Joining> {
    let poor = |node: NodeId| observed.slow.contains(&node);
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    groups
        .iter()
        .filter(|(id, group)| {
            !changed.contains(id) && poor(group.primary) && group.joining().is_none() && !observed.storm
        })
        .filter_map(|(id, group)| {
            let able = |node: &NodeId| {
                !poor(*node) && !observed.draining.contains(node) && observed.is_running(*node)
            };
            let primaries = |node: NodeId| groups.primaries(node) + given.get(&node).copied().unwrap_or(0);
            let members = group.in_sync().map(|member| member.node).filter(able);
            let node = members.min_by_key(|node| (primaries(*node), *node))?;
            *given.entry(node).or_default() += 1;
            Some(Joining { group: id.0, epoch: group.epoch.0, node: node.0, replaces: 0 })
        })
        .collect()
}

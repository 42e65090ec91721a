//! What an operator should know of the copies that hosts hold.

use std::collections::BTreeMap;

use nova_api::cluster as pb;
use nova_groups::DeviceState;
use nova_state::ClusterState;
use nova_units::{DeviceId, NodeId};

use crate::attendance::{Hanging, Vitals};
use crate::room;

/// Groups that have a replica on the host, or are moving one there.
pub(crate) fn replicas_on(state: &ClusterState, node: NodeId) -> usize {
    state.groups.iter().filter(|(_, group)| group.member(node).is_some()).count()
}

/// How many replicas a group on the host has at most.
pub(crate) fn most_replicas_on(state: &ClusterState, node: NodeId) -> usize {
    let held = state.groups.iter().filter(|(_, group)| group.member(node).is_some());
    held.map(|(_, group)| group.replicas.count()).max().unwrap_or(0)
}

/// Hosts that could hold replicas, without one that is about to be drained.
pub(crate) fn hosts_for_replicas(state: &ClusterState, drained: Option<NodeId>) -> usize {
    let able = |(id, node): &(NodeId, &nova_fleet::Node)| {
        Some(*id) != drained && room::may_store(node) && state.groups.stores(*id)
    };
    state.fleet.iter().filter(able).count()
}

/// Joiners that get no further.
pub(crate) fn stalled_notes(state: &ClusterState, fills: &[pb::Fill]) -> Vec<String> {
    let stalled = fills.iter().filter(|fill| fill.stalled);
    stalled
        .map(|fill| {
            let host = state.fleet.node(NodeId(fill.node)).map_or_else(String::new, |node| node.name.clone());
            format!(
                "{host} is being filled with group {} and got no further for {} s: another storage host would get                  its place",
                fill.group,
                fill.idle_ms / 1000
            )
        })
        .collect()
}

/// Hosts that only their agent speaks for.
pub(crate) fn novad_notes(state: &ClusterState, without: &[NodeId]) -> Vec<String> {
    let named = without.iter().filter_map(|id| state.fleet.node(*id));
    named
        .map(|node| {
            format!(
                "{} does not serve: its novad does not run, or has stood still for seconds; its log says more, and if it \
                 stands still restart it",
                node.name
            )
        })
        .collect()
}

/// Devices that answer nothing.
pub(crate) fn hanging_notes(
    state: &ClusterState,
    vitals: &BTreeMap<NodeId, Vitals>,
    hanging: &[Hanging],
) -> Vec<String> {
    let note = |it: &Hanging| {
        let name = &state.fleet.node(it.node)?.name;
        let (id, _) = state.groups.device(it.node, it.incarnation)?;
        let place = place_of(vitals.get(&it.node), id);
        Some(format!(
            "device {place} of {name} has answered nothing for {} s: its groups go on without it. If it stays so, replace it: \
             `nova node device replace {name} {place}`",
            it.since.as_secs()
        ))
    };
    hanging.iter().filter_map(note).collect()
}

/// The place of a device in the configuration of its host, or its id.
fn place_of(vitals: Option<&Vitals>, device: DeviceId) -> String {
    let mounted = vitals.map_or(&[][..], |vitals| &vitals.mounted.devices);
    let id = device.0.to_be_bytes();
    let place = mounted.iter().find(|mounted| *mounted.device == id).map(|mounted| mounted.place);
    place.map_or_else(|| device.to_string(), |place| place.to_string())
}

/// Lost units that are told.
const LOST_TOLD_MAX: usize = 100;

/// Units that members in sync know to be lost, each once; at most [`LOST_TOLD_MAX`].
pub(crate) fn lost(state: &ClusterState, vitals: &BTreeMap<NodeId, Vitals>) -> Vec<pb::LostUnit> {
    let mut found: BTreeMap<(u32, u64, u32), pb::LostUnit> = BTreeMap::new();
    for (id, group) in state.groups.iter() {
        for member in group.in_sync() {
            let said = vitals.get(&member.node).into_iter().flat_map(|vitals| &vitals.groups);
            for place in said.filter(|health| health.group == id.0).flat_map(|health| &health.lost) {
                let unit = pb::LostUnit {
                    group: id.0,
                    node: member.node.0,
                    block: place.block,
                    unit: place.unit,
                    ..pb::LostUnit::default()
                };
                found.entry((id.0, place.block, place.unit)).or_insert(unit);
            }
        }
    }
    found.into_values().take(LOST_TOLD_MAX).collect()
}

/// One line for each thing that needs attention.
pub(crate) fn notes(state: &ClusterState, vitals: &BTreeMap<NodeId, Vitals>) -> Vec<String> {
    let mut notes = Vec::new();
    for (id, node) in state.fleet.iter() {
        let name = &node.name;
        if node.draining.is_some() {
            notes.push(match replicas_on(state, id) {
                0 => format!(
                    "{name} is drained: it holds no replicas and can be switched off, when no program on it uses NovaFS"
                ),
                left => {
                    let room = match room::groups_without(state, vitals, id) {
                        0 => String::new(),
                        without => format!(
                            ", and no other storage host has room for {without} of them: remove files or add a storage host"
                        ),
                    };
                    format!("{name} is being drained: replicas of {left} groups are still on it{room}")
                }
            });
        }
        let failed =
            state.groups.all_devices_of(id).filter(|(_, it)| it.state == DeviceState::Failed).count();
        if failed > 0 {
            notes
                .push(format!("{failed} devices of {name} failed and are never trusted again: replace them by `nova node device replace {name} PLACE`"));
        }
        let told = vitals.get(&id);
        for (device, _) in state.groups.devices_of(id).filter(|(_, it)| it.slow.is_some()) {
            let usage = told.and_then(|it| it.usage.iter().find(|it| *it.device == device.0.to_be_bytes()));
            let pace = usage.and_then(|usage| usage.pace);
            let pace = pace.map_or_else(String::new, |pace| {
                format!(" (half of its entries take over {} ms)", pace.median_us / 1000)
            });
            notes.push(format!(
                "device {} of {name} is far slower than the others{pace}: it has no primaries until it keeps up, and its \
                 copies move away when it has not after ten minutes",
                place_of(told, device)
            ));
        }
        let Some(vitals) = told else { continue };
        for place in &vitals.mounted.broken {
            let why = vitals.mounted.troubles.iter().find(|trouble| trouble.place == *place);
            let why = why.map_or("the log of its novad says why", |trouble| &trouble.why);
            notes.push(format!(
                "{name} could not mount its device {place}; its others serve: {why}. When that is mended: `nova node device \
                 open {name}`"
            ));
        }
        let held = |health: &&pb::GroupHealth| {
            state
                .groups
                .group(nova_units::GroupId(health.group))
                .is_some_and(|group| group.member(id).is_some())
        };
        let sum = |count: fn(&pb::GroupHealth) -> u32| -> u64 {
            vitals.groups.iter().filter(held).map(|health| u64::from(count(health))).sum()
        };
        let (bad, disputed) = (sum(|health| health.bad_units), sum(|health| health.disputed_units));
        let lost = sum(|health| health.lost_units);
        let damaged = vitals.groups.iter().filter(held).filter(|health| health.damaged).count();
        if bad > 0 {
            notes.push(format!("{name} has {bad} bad copies that no other member could repair yet"));
        }
        if lost > 0 {
            notes.push(format!(
                "{name} holds {lost} units of which no host in reach has a good copy: see `nova fs health`"
            ));
        }
        if disputed > 0 {
            notes.push(format!(
                "{name} and its peers hold {disputed} units differently: see `nova fs health`"
            ));
        }
        if damaged > 0 {
            notes.push(format!(
                "metadata of {damaged} groups is damaged on devices of {name}: drain the host and replace the device"
            ));
        }
    }
    notes
}

//! The cluster state as the map that hosts work by.

use std::collections::BTreeMap;

use nova_api::cluster as pb;
use nova_fleet::NodeState;
use nova_groups::Role;
use nova_state::ClusterState;
use nova_units::NodeId;

use crate::attendance::Vitals;

/// The whole map. What hosts say about themselves is in it only when `vitals` are given: it changes all the time.
pub(crate) fn cluster_map(
    state: &ClusterState,
    term: u64,
    vitals: Option<&BTreeMap<NodeId, Vitals>>,
) -> pb::ClusterMap {
    pb::ClusterMap {
        version: state.version,
        term,
        nodes: state.fleet.iter().map(|(id, node)| map_node(state, id, node, vitals)).collect(),
        groups: state.groups.iter().map(|(id, group)| map_group(id, group)).collect(),
    }
}

fn map_node(
    state: &ClusterState,
    id: NodeId,
    node: &nova_fleet::Node,
    vitals: Option<&BTreeMap<NodeId, Vitals>>,
) -> pb::Node {
    let device = state.groups.device_of(id);
    let vitals = vitals.and_then(|vitals| vitals.get(&id)).cloned().unwrap_or_default();
    pb::Node {
        node: id.0,
        name: node.name.clone(),
        roles: node.roles.clone(),
        data_addr: node.addr.to_string(),
        boot: node.boot.0,
        state: node_state(node.state).into(),
        zone: node.zone.clone(),
        device: device.map_or_else(Vec::new, |(device, _)| device.0.to_be_bytes().to_vec()).into(),
        incarnation: device.map_or(0, |(_, device)| device.incarnation.0),
        bytes_total: vitals.bytes_total.max(device.map_or(0, |(_, device)| device.bytes_total)),
        bytes_free: vitals.bytes_free,
        last_heard_ms: vitals.last.0,
        mount_counter: device.map_or(0, |(_, device)| device.mount_counter),
        counters: vitals.counters,
    }
}

fn node_state(state: NodeState) -> pb::node::State {
    match state {
        NodeState::Initializing => pb::node::State::Initializing,
        NodeState::Ready => pb::node::State::Ready,
        NodeState::Silent => pb::node::State::Silent,
        NodeState::Failed => pb::node::State::Failed,
        NodeState::Terminated => pb::node::State::Terminated,
    }
}

fn map_group(id: nova_units::GroupId, group: &nova_groups::Group) -> pb::Group {
    let role = |role| match role {
        Role::InSync => pb::member::Role::InSync,
        Role::Joining => pb::member::Role::Joining,
    };
    pb::Group {
        group: id.0,
        epoch: group.epoch.0,
        primary: group.primary.0,
        members: group
            .members
            .iter()
            .map(|member| pb::Member {
                node: member.node.0,
                incarnation: member.incarnation.0,
                role: role(member.role).into(),
            })
            .collect(),
        frozen: group.frozen(),
        namespace: group.namespace.clone(),
        last_writable: group.last_writable.iter().map(|(node, _)| node.0).collect(),
    }
}

//! The cluster state as the map that hosts work by.

use std::collections::BTreeMap;

use nova_api::cluster as pb;
use nova_fleet::NodeState;
use nova_groups::{Device, DeviceState, Role};
use nova_state::ClusterState;
use nova_units::{DeviceId, NodeId};

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
    // A host that started anew is told nothing of its devices before that start's mounts were judged: it may have come
    // back with an old image of one, whose counter looks right.
    let mounted = DeviceState::Mounted { boot: node.boot };
    let own = state.groups.all_devices_of(id);
    let vitals = vitals.map(|vitals| vitals.get(&id).cloned().unwrap_or_default());
    let bytes_total = state.groups.devices_of(id).map(|(_, device)| device.bytes_total).sum();
    let devices = own
        .filter(|(_, device)| vitals.is_some() || device.state == mounted)
        .map(|(id, device)| map_device(id, device, vitals.as_ref()))
        .collect();
    let vitals = vitals.unwrap_or_default();
    pb::Node {
        node: id.0,
        name: node.name.clone(),
        roles: node.roles.clone(),
        data_addr: node.addr.to_string(),
        boot: node.boot.0,
        state: node_state(node.state).into(),
        zone: node.zone.clone(),
        bytes_total: vitals.bytes_total.max(bytes_total),
        bytes_free: vitals.bytes_free,
        last_heard_ms: vitals.last.0,
        counters: vitals.counters,
        health: vitals.groups,
        draining: node.draining.is_some(),
        slow: state.groups.is_slow(id),
        devices,
        broken_devices: vitals.mounted.broken,
        device_troubles: vitals.mounted.troubles,
        devices_order: vitals.mounted.order,
        open_places: vitals.mounted.devices.iter().map(|device| device.place).collect(),
    }
}

fn map_device(id: DeviceId, device: &Device, vitals: Option<&Vitals>) -> pb::Device {
    let bytes = id.0.to_be_bytes();
    let usage = vitals.and_then(|it| it.usage.iter().find(|usage| *usage.device == bytes));
    let mounted = vitals.and_then(|it| it.mounted.devices.iter().find(|mounted| *mounted.device == bytes));
    let state = match device.state {
        DeviceState::Mounted { .. } => pb::device::State::Serving,
        DeviceState::Failed => pb::device::State::Failed,
        DeviceState::Absent => pb::device::State::Absent,
    };
    pb::Device {
        device: bytes.to_vec().into(),
        incarnation: device.incarnation.0,
        mount_counter: device.mount_counter,
        bytes_total: device.bytes_total,
        state: state.into(),
        slow: device.slow.is_some(),
        pace: usage.and_then(|usage| usage.pace),
        bytes_free: usage.map_or(0, |usage| usage.bytes_free),
        place: mounted.map(|mounted| mounted.place),
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
        former: group.former().into_iter().map(|node| node.0).collect(),
        replicas: group.replicas.get(),
    }
}

#[cfg(test)]
mod tests {
    use nova_state::{ClusterCommand, ClusterStep};

    use super::*;

    #[test]
    fn a_device_is_on_the_map_only_under_the_start_that_mounted_it() {
        let register = |boot| {
            let addr = "127.0.0.1:1".into();
            let register =
                nova_fleet::Register { name: "a".into(), roles: vec![], addr, boot, zone: String::new() };
            ClusterStep::from(nova_fleet::Command { at_ms: 1, op: Some(nova_fleet::Op::Register(register)) })
        };
        let mount = nova_groups::Mount {
            node: 1,
            boot: 5,
            device: vec![7; 16],
            mount_counter: 2,
            incarnation: 0,
            bytes_total: 9,
            trail: Vec::new(),
        };
        let restart = nova_groups::Restart { mounts: vec![mount], confirm: vec![] };
        let mount = nova_groups::Command { at_ms: 1, op: Some(nova_groups::Op::Restart(restart)) };
        let mut state = ClusterState::default();
        state.apply(1, &ClusterCommand { steps: vec![register(5), mount.into()] });
        let own = |state: &ClusterState| cluster_map(state, 1, None).nodes.remove(0);
        let device = own(&state).devices.remove(0);
        assert_eq!((device.incarnation, device.mount_counter, device.bytes_free), (1, 2, 0));
        state.apply(2, &ClusterCommand { steps: vec![register(6)] });
        assert!(own(&state).devices.is_empty());
        // People see it all the same, with what the host said of it.
        let device = vec![7; 16];
        let pace = pb::DevicePace { window: 1, entries: 20, median_us: 900, p99_us: 1000 };
        let usage = pb::DeviceUsage {
            device: device.clone().into(),
            bytes_total: 9,
            bytes_free: 4,
            pace: Some(pace),
        };
        let told = pb::DeviceMounted { device: device.into(), place: 3, ..pb::DeviceMounted::default() };
        let troubles = vec![pb::DeviceTrouble { place: 1, why: "gone".into() }];
        let mounted = pb::DevicesMounted { devices: vec![told], broken: vec![1], troubles, order: 7 };
        let vitals = Vitals { usage: vec![usage], mounted, ..Vitals::default() };
        let node = cluster_map(&state, 1, Some(&BTreeMap::from([(NodeId(1), vitals)]))).nodes.remove(0);
        assert_eq!((node.devices[0].bytes_free, node.devices[0].place), (4, Some(3)));
        assert_eq!((node.broken_devices, node.device_troubles[0].why.as_str()), (vec![1], "gone"));
        assert_eq!((node.devices_order, node.devices[0].pace), (7, Some(pace)));
        assert_eq!(node.open_places, [3]);
    }
}

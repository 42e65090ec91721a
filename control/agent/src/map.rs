//! The controllers' map, as novad reads it.

use nova_api::cluster::{ClusterMap, Device, DeviceMounted, member};
use nova_ring::snapshot::{HostDevice, HostGroup, HostMap, HostMember, HostNode};

/// Turns the cluster's map into the one of this host.
///
/// The life of a device is confirmed only by a map that knows of this very mount: it also has the roles that the mount
/// led to. An older map may still call a host in sync that has since forgotten what it promised.
pub(crate) fn host_map(
    map: &ClusterMap,
    self_node: u64,
    region_era: u64,
    boot: u64,
    mounted: &[DeviceMounted],
) -> HostMap {
    let own = map.nodes.iter().find(|node| node.node == self_node && node.boot == boot);
    let is_mounted = |device: &&Device| {
        mounted.iter().any(|it| it.device == device.device && it.mount_counter == device.mount_counter)
    };
    HostMap {
        version: map.version,
        term: map.term,
        self_node,
        nodes: map
            .nodes
            .iter()
            .map(|node| HostNode {
                node: node.node,
                addr: node.data_addr.clone(),
                name: node.name.clone(),
                boot: node.boot,
                state: u32::try_from(node.state).unwrap_or(0),
            })
            .collect(),
        groups: map
            .groups
            .iter()
            .map(|group| HostGroup {
                group: group.group,
                epoch: group.epoch,
                primary: group.primary,
                frozen: group.frozen,
                members: group
                    .members
                    .iter()
                    .map(|member| HostMember {
                        node: member.node,
                        incarnation: member.incarnation,
                        joining: member.role() == member::Role::Joining,
                    })
                    .collect(),
                former: group.former.clone(),
                replicas: group.replicas,
            })
            .collect(),
        devices: own
            .map_or(&[][..], |node| &node.devices)
            .iter()
            .filter(is_mounted)
            .map(|device| HostDevice { device: device.device.to_vec(), incarnation: device.incarnation })
            .collect(),
        region_era: u32::try_from(region_era).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use nova_api::cluster::{Group, Member, Node};

    use super::*;

    #[test]
    fn roles_addresses_and_the_own_incarnation_reach_the_host() {
        let device = |id: u8, incarnation| Device {
            device: vec![id; 16].into(),
            incarnation,
            mount_counter: 2,
            ..Device::default()
        };
        let map = ClusterMap {
            version: 9,
            term: 2,
            nodes: vec![Node {
                node: 4,
                data_addr: "127.0.0.1:5".into(),
                name: "storage-4".into(),
                devices: vec![device(7, 3), device(6, 5)],
                boot: 8,
                ..Node::default()
            }],
            groups: vec![Group {
                group: 1,
                epoch: 2,
                primary: 4,
                members: vec![
                    Member { node: 4, incarnation: 3, role: member::Role::InSync.into() },
                    Member { node: 5, incarnation: 1, role: member::Role::Joining.into() },
                ],
                former: vec![6],
                replicas: 2,
                ..Group::default()
            }],
        };
        let mount = |id: u8, mount_counter| DeviceMounted {
            device: vec![id; 16].into(),
            mount_counter,
            ..DeviceMounted::default()
        };
        let confirmed = |boot, mounted: &[DeviceMounted]| {
            let devices = host_map(&map, 4, 1, boot, mounted).devices;
            devices.iter().map(|it| (it.device[0], it.incarnation)).collect::<Vec<_>>()
        };
        let host = host_map(&map, 4, 1, 8, &[mount(7, 2)]);
        assert_eq!((host.version, host.region_era), (9, 1));
        assert_eq!(
            host.groups[0].members.iter().map(|member| member.joining).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!((&host.groups[0].former[..], host.groups[0].replicas), (&[6][..], 2));
        assert_eq!((host.nodes[0].addr.as_str(), host.nodes[0].name.as_str()), ("127.0.0.1:5", "storage-4"));
        assert_eq!(confirmed(8, &[mount(6, 2), mount(7, 2)]), [(7, 3), (6, 5)]);
        assert_eq!(confirmed(8, &[mount(6, 2), mount(7, 3)]), [(6, 5)], "the other is of another mount");
        assert_eq!(confirmed(9, &[mount(7, 2)]), [], "of another start");
        assert_eq!(confirmed(8, &[]), [], "nothing is mounted");
    }
}

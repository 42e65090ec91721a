//! The controllers' map, as novad reads it.

use nova_api::cluster::{ClusterMap, DeviceMounted, member};
use nova_ring::snapshot::{HostGroup, HostMap, HostMember, HostNode};

/// Turns the cluster's map into the one of this host.
///
/// The device's life is confirmed only by a map that knows of this very mount: it also has the roles that the mount
/// led to. An older map may still call a host in sync that has since forgotten what it promised.
pub(crate) fn host_map(
    map: &ClusterMap,
    self_node: u64,
    region_era: u64,
    boot: u64,
    mounted: Option<&DeviceMounted>,
) -> HostMap {
    let own = map.nodes.iter().find(|node| {
        mounted.is_some_and(|mounted| {
            node.node == self_node
                && node.boot == boot
                && node.device == mounted.device
                && node.mount_counter == mounted.mount_counter
        })
    });
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
            })
            .collect(),
        confirmed_incarnation: own.map_or(0, |node| node.incarnation),
        region_era: u32::try_from(region_era).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use nova_api::cluster::{Group, Member, Node};

    use super::*;

    #[test]
    fn roles_addresses_and_the_own_incarnation_reach_the_host() {
        let map = ClusterMap {
            version: 9,
            term: 2,
            nodes: vec![Node {
                node: 4,
                data_addr: "127.0.0.1:5".into(),
                incarnation: 3,
                device: vec![7; 16].into(),
                mount_counter: 2,
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
                ..Group::default()
            }],
        };
        let mounted =
            DeviceMounted { device: vec![7; 16].into(), mount_counter: 2, ..DeviceMounted::default() };
        let host = host_map(&map, 4, 1, 8, Some(&mounted));
        assert_eq!((host.version, host.confirmed_incarnation, host.region_era), (9, 3, 1));
        assert_eq!(
            host.groups[0].members.iter().map(|member| member.joining).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(host.groups[0].former, [6]);
        assert_eq!(host.nodes[0].addr, "127.0.0.1:5");
        let later = DeviceMounted { mount_counter: 3, ..mounted.clone() };
        assert_eq!(host_map(&map, 4, 1, 8, Some(&later)).confirmed_incarnation, 0, "of another mount");
        assert_eq!(host_map(&map, 4, 1, 9, Some(&mounted)).confirmed_incarnation, 0, "of another start");
        assert_eq!(host_map(&map, 4, 1, 8, None).confirmed_incarnation, 0, "nothing is mounted");
    }
}

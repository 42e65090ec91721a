//! The agent's map of the cluster, as this host's storage and edge work by it.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_ring::snapshot::{HostDevice, HostMap};
use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, NodeId, PeerAddr, Replicas};
use novafs_replica::{Configuration, GroupView, MemberView, NodeView, Role};

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error("the map does not say which host this is")]
    NoSelf,
    #[error("{node} has the address {given:?}, which is not ip:port")]
    Address { node: NodeId, given: String },
    #[error("{group} has {given} replicas in the map: agent and novad are of different releases")]
    Replicas { group: GroupId, given: u32 },
}

/// The devices of this host that may serve, each with the life under which it may.
pub(crate) fn confirmed_devices(map: &HostMap) -> BTreeMap<DeviceId, Incarnation> {
    let device = |it: &HostDevice| {
        let id = it.device.as_slice().try_into().ok()?;
        Some((DeviceId(u128::from_be_bytes(id)), Incarnation(it.incarnation)))
    };
    map.devices.iter().filter_map(device).filter(|(_, incarnation)| *incarnation != Incarnation(0)).collect()
}

/// Reads a map; which device is confirmed is each member's own affair: [`confirmed_devices`]. Fields that this host does not understand are the agent's business, not an error.
pub(crate) fn configuration_of(map: &HostMap, node_lease_until: Duration) -> Result<Configuration, MapError> {
    if map.self_node == 0 {
        return Err(MapError::NoSelf);
    }
    let nodes = map
        .nodes
        .iter()
        .map(|host| {
            let node = NodeId(host.node);
            let addr = match host.addr.as_str() {
                "" => None,
                given => Some(PeerAddr(
                    given.parse().map_err(|_| MapError::Address { node, given: given.to_owned() })?,
                )),
            };
            Ok((node, NodeView { boot: (host.boot != 0).then_some(BootId(host.boot)), addr }))
        })
        .collect::<Result<_, MapError>>()?;
    let groups = map
        .groups
        .iter()
        .map(|group| {
            let members = group
                .members
                .iter()
                .map(|member| MemberView {
                    node: NodeId(member.node),
                    incarnation: Incarnation(member.incarnation),
                    role: if member.joining { Role::Joining } else { Role::InSync },
                })
                .collect();
            let (id, given) = (GroupId(group.group), group.replicas);
            let view = GroupView {
                epoch: Epoch(group.epoch),
                primary: NodeId(group.primary),
                replicas: Replicas::new(given).ok_or(MapError::Replicas { group: id, given })?,
                members,
                frozen: group.frozen,
                former: group.former.iter().copied().map(NodeId).collect(),
            };
            Ok((id, view))
        })
        .collect::<Result<_, MapError>>()?;
    Ok(Configuration {
        version: map.version,
        self_node: NodeId(map.self_node),
        nodes,
        groups,
        confirmed: None,
        node_lease_until,
    })
}

#[cfg(test)]
mod tests {
    use nova_ring::snapshot::{HostGroup, HostMember, HostNode};

    use super::*;

    fn map() -> HostMap {
        HostMap {
            version: 7,
            term: 1,
            self_node: 2,
            nodes: vec![HostNode {
                node: 2,
                addr: "127.0.0.1:9".into(),
                boot: 5,
                state: 2,
                name: "storage-2".into(),
            }],
            groups: vec![HostGroup {
                group: 3,
                epoch: 4,
                primary: 2,
                frozen: false,
                members: vec![HostMember { node: 2, incarnation: 1, joining: true }],
                former: vec![5],
                replicas: 4,
            }],
            region_era: 0,
            devices: vec![
                HostDevice { device: vec![7; 16], incarnation: 1 },
                HostDevice { device: vec![8; 16], incarnation: 0 },
            ],
        }
    }

    #[test]
    fn a_map_becomes_the_configuration_that_it_describes() {
        let read = configuration_of(&map(), Duration::from_secs(9)).expect("a sound map");
        let group = read.group(GroupId(3)).expect("named in the map");
        assert_eq!((group.epoch, group.members[0].role), (Epoch(4), Role::Joining));
        assert_eq!((&group.former[..], group.replicas.get()), (&[NodeId(5)][..], 4));
        assert_eq!(read.addr(NodeId(2)).map(|addr| addr.to_string()).as_deref(), Some("127.0.0.1:9"));
        assert_eq!((read.confirmed, read.node_lease_until), (None, Duration::from_secs(9)));
        let seven = DeviceId(u128::from_be_bytes([7; 16]));
        assert_eq!(confirmed_devices(&map()), BTreeMap::from([(seven, Incarnation(1))]));
    }

    #[test]
    fn a_map_that_does_not_name_this_host_or_garbles_an_address_is_refused() {
        assert!(matches!(
            configuration_of(&HostMap { self_node: 0, ..map() }, Duration::ZERO),
            Err(MapError::NoSelf)
        ));
        let mut bad = map();
        bad.nodes[0].addr = "here".into();
        assert!(matches!(configuration_of(&bad, Duration::ZERO), Err(MapError::Address { .. })));
    }
}

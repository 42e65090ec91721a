//! Whether other hosts have room for what a host holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nova_fleet::{Node, NodeState};
use nova_groups::{Group, Role};
use nova_state::ClusterState;
use nova_units::{DeviceId, NodeId};

use crate::attendance::Vitals;

/// A replica that is to leave its host.
#[derive(Clone, Debug)]
struct Leaving {
    bytes: u64,
    /// Hosts that have one already.
    members: BTreeSet<NodeId>,
}

/// Whether a host could hold replicas, if it has a device that serves.
pub(crate) fn may_store(node: &Node) -> bool {
    node.stores() && node.draining.is_none() && matches!(node.state, NodeState::Ready | NodeState::Silent)
}

/// Groups of `node` whose replica there has no room on any other host; those that are moving already do not count. What a
/// replica holds is estimated: the groups of a device share evenly in what is used of it. Where a host has not said yet
/// how full it is, there is room.
pub(crate) fn groups_without(state: &ClusterState, vitals: &BTreeMap<NodeId, Vitals>, node: NodeId) -> usize {
    let Some(said) = vitals.get(&node) else { return 0 };
    let mut leaving = Vec::new();
    for (id, device) in state.groups.devices_of(node) {
        let Some((total, free)) = said.room_of(id.0) else { continue };
        let on_it = |group: &&Group| {
            group.member(node).is_some_and(|member| member.incarnation == device.incarnation)
        };
        let held: Vec<_> = state.groups.iter().map(|(_, group)| group).filter(on_it).collect();
        let bytes = total.saturating_sub(free) / u64::try_from(held.len()).unwrap_or(u64::MAX).max(1);
        let stays = held.iter().filter(|group| group.members.iter().all(|it| it.role == Role::InSync));
        leaving.extend(stays.map(|group| Leaving {
            bytes,
            members: group.members.iter().map(|member| member.node).collect(),
        }));
    }
    let others = state.fleet.iter().filter(|(id, other)| *id != node && may_store(other));
    let free = others.filter(|(id, _)| state.groups.stores(*id)).map(|(id, _)| {
        let room = |(device, _): (DeviceId, _)| {
            let said = vitals.get(&id).and_then(|said| said.room_of(device.0));
            said.map_or(u64::MAX, |(_, free)| free)
        };
        (id, state.groups.devices_of(id).map(room).collect())
    });
    unplaced(leaving, free.collect())
}

/// How many of them fit nowhere, the largest first, each where most is free. A replica lies on one device.
fn unplaced(mut leaving: Vec<Leaving>, mut free: BTreeMap<NodeId, Vec<u64>>) -> usize {
    leaving.sort_by_key(|replica| Reverse(replica.bytes));
    let fits = |replica: &Leaving| {
        let others = free.iter_mut().filter(|(node, _)| !replica.members.contains(node));
        let most = others.flat_map(|(_, devices)| devices).max_by_key(|bytes| **bytes);
        match most {
            Some(bytes) if *bytes >= replica.bytes => {
                *bytes -= replica.bytes;
                true
            }
            _ => false,
        }
    };
    let count = leaving.len();
    count - leaving.iter().map(fits).filter(|fits| *fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(bytes: u64, members: &[u64]) -> Leaving {
        Leaving { bytes, members: members.iter().copied().map(NodeId).collect() }
    }

    fn free(hosts: &[(u64, &[u64])]) -> BTreeMap<NodeId, Vec<u64>> {
        hosts.iter().map(|(node, devices)| (NodeId(*node), devices.to_vec())).collect()
    }

    #[test]
    fn a_replica_fits_on_one_device_of_a_host_that_has_none_of_its_group() {
        let three = || vec![leaving(10, &[1, 2, 3]), leaving(10, &[1, 2, 4]), leaving(10, &[1, 3, 4])];
        assert_eq!(unplaced(three(), free(&[(2, &[10]), (3, &[10]), (4, &[10])])), 0);
        assert_eq!(unplaced(three(), free(&[(2, &[9]), (3, &[9]), (4, &[9])])), 3);
        assert_eq!(unplaced(three(), free(&[(2, &[30]), (3, &[0]), (4, &[0])])), 2, "host 2 has two of them");
        assert_eq!(unplaced(three(), free(&[(5, &[30])])), 0, "a new host");
        assert_eq!(unplaced(three(), free(&[(5, &[15, 15])])), 1, "a replica is not divided over devices");
        assert_eq!(unplaced(three(), free(&[])), 3);
        assert_eq!(unplaced(Vec::new(), free(&[(2, &[0])])), 0);
    }

    #[test]
    fn the_largest_come_first_and_a_host_that_said_nothing_has_room() {
        let replicas = vec![leaving(1, &[1]), leaving(8, &[1])];
        assert_eq!(unplaced(replicas, free(&[(2, &[8]), (3, &[1])])), 0);
        let many = vec![leaving(u64::MAX / 2, &[1]); 2];
        assert_eq!(unplaced(many, free(&[(2, &[u64::MAX])])), 0);
    }
}

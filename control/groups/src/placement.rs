//! Where new groups go.

use std::collections::BTreeMap;

use nova_units::{NodeId, Replicas};

use crate::command::NewGroup;
use crate::load::Load;
use crate::model::Groups;

/// Lays `count` new groups of `replicas` members over `hosts`: each device gets its share by size, and primaries and pairs of hosts are
/// spread as evenly as they go, counting the groups that exist, so that a lost host's work falls on many others.
///
/// Fewer hosts with a device that serves than a group has members give none.
#[must_use]
pub fn lay_out(groups: &Groups, hosts: &[NodeId], replicas: Replicas, count: usize) -> Vec<NewGroup> {
    let hosts: Vec<NodeId> = hosts.iter().copied().filter(|host| groups.stores(*host)).collect();
    if hosts.len() < replicas.count() {
        return Vec::new();
    }
    let mut load = Load::of(groups);
    let mut primaries: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut pairs: BTreeMap<(NodeId, NodeId), usize> = BTreeMap::new();
    for (_, group) in groups.iter() {
        let nodes: Vec<NodeId> = group.members.iter().map(|member| member.node).collect();
        count_in(&nodes, group.primary, &mut primaries, &mut pairs);
    }
    (0..count)
        .map(|_| {
            let mut chosen: Vec<NodeId> = Vec::with_capacity(replicas.count());
            while chosen.len() < replicas.count() {
                let together = |host: NodeId| -> usize {
                    chosen.iter().map(|other| pairs.get(&pair(host, *other)).copied().unwrap_or(0)).sum()
                };
                let (.., host, device) = hosts
                    .iter()
                    .filter(|host| !chosen.contains(host))
                    .map(|host| {
                        let device = load.lightest(groups, *host).expect("each has one that serves");
                        (load.with_one_more(device), together(*host), *host, device)
                    })
                    .min()
                    .expect("there are at least as many hosts as members");
                load.add(device);
                chosen.push(host);
            }
            let primary = chosen
                .iter()
                .copied()
                .min_by_key(|host| (primaries.get(host).copied().unwrap_or(0), *host))
                .expect("a group has members");
            count_in(&chosen, primary, &mut primaries, &mut pairs);
            chosen.sort();
            NewGroup { nodes: chosen.into_iter().map(|host| host.0).collect(), primary: primary.0 }
        })
        .collect()
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

fn count_in(
    nodes: &[NodeId],
    primary: NodeId,
    primaries: &mut BTreeMap<NodeId, usize>,
    pairs: &mut BTreeMap<(NodeId, NodeId), usize>,
) {
    *primaries.entry(primary).or_default() += 1;
    for (index, node) in nodes.iter().enumerate() {
        for other in &nodes[index + 1..] {
            *pairs.entry(pair(*node, *other)).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_units::{BootId, DeviceId, Incarnation, MountNonce};

    use super::*;
    use crate::model::{Device, DeviceState};

    /// Hosts with devices of these sizes, in GiB.
    fn devices(sizes: &[(u64, u64)]) -> Groups {
        let mut groups = Groups::default();
        for (life, (host, gib)) in (1..).zip(sizes) {
            let device = Device {
                node: NodeId(*host),
                mount_counter: 1,
                mount: MountNonce(1),
                incarnation: Incarnation(life),
                bytes_total: gib << 30,
                state: DeviceState::Mounted { boot: BootId(1) },
                slow: None,
            };
            groups.put_device(DeviceId(u128::from(life)), device);
        }
        groups
    }

    fn members_on(laid: &[NewGroup], host: u64) -> usize {
        laid.iter().filter(|group| group.nodes.contains(&host)).count()
    }

    #[test]
    fn members_primaries_and_pairs_are_spread_evenly() {
        let groups = devices(&[(1, 8), (2, 8), (3, 8), (4, 8), (5, 8)]);
        let hosts: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let laid = lay_out(&groups, &hosts, Replicas::DEFAULT, 20);
        let count = |pick: &dyn Fn(&NewGroup) -> bool| laid.iter().filter(|group| pick(group)).count();
        for host in 1..=5 {
            assert_eq!(members_on(&laid, host), 12);
            assert_eq!(count(&|group| group.primary == host), 4);
            for other in host + 1..=5 {
                let together = count(&|group| group.nodes.contains(&host) && group.nodes.contains(&other));
                assert!((5..=7).contains(&together), "hosts {host} and {other} share {together} groups");
            }
        }
        assert!(lay_out(&groups, &hosts[..2], Replicas::DEFAULT, 20).is_empty(), "two hosts are too few");
        assert!(
            lay_out(&Groups::default(), &hosts, Replicas::DEFAULT, 20).is_empty(),
            "hosts without devices hold nothing"
        );
    }

    #[test]
    fn a_host_with_more_or_larger_devices_gets_more() {
        // Hosts 1 and 2 have 32 GiB each, the other four 16: a quarter of all, and an eighth.
        let groups = devices(&[(1, 16), (1, 16), (2, 32), (3, 16), (4, 16), (5, 16), (6, 16)]);
        let hosts: Vec<NodeId> = (1..=6).map(NodeId).collect();
        let laid = lay_out(&groups, &hosts, Replicas::DEFAULT, 24);
        for (host, share) in [(1, 18), (2, 18), (3, 9), (4, 9), (5, 9), (6, 9)] {
            let held = members_on(&laid, host);
            assert!(held.abs_diff(share) <= 1, "host {host} has {held}, and {share} is its share");
        }
        assert!(laid.iter().all(|group| group.nodes.len() == 3 && group.nodes.is_sorted_by(|a, b| a < b)));
    }
    #[test]
    fn groups_of_every_count_are_spread_evenly() {
        let groups = devices(&[(1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8)]);
        let hosts: Vec<NodeId> = (1..=6).map(NodeId).collect();
        for replicas in Replicas::all() {
            let laid = lay_out(&groups, &hosts, replicas, 12);
            assert!(laid.iter().all(|group| group.nodes.len() == replicas.count()), "{laid:?}");
            for host in 1..=6 {
                assert_eq!(members_on(&laid, host), 2 * replicas.count(), "{replicas} copies, host {host}");
                let primaries = laid.iter().filter(|group| group.primary == host).count();
                assert!((1..=3).contains(&primaries), "{replicas} copies, host {host}: {primaries}");
            }
            let fewer = &hosts[..replicas.count() - 1];
            assert!(lay_out(&groups, fewer, replicas, 12).is_empty(), "too few hosts for {replicas}");
        }
    }
}

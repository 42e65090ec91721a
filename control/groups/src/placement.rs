//! Where new groups go.

use std::collections::BTreeMap;

use nova_units::NodeId;

use crate::command::NewGroup;
use crate::model::{Groups, MEMBERS_MAX};

/// Lays `count` new groups over `hosts`: members, primaries and pairs of hosts are spread as evenly as they go,
/// counting the groups that exist, so that a lost host's work falls on many others.
///
/// Fewer than three hosts give none.
#[must_use]
pub fn lay_out(groups: &Groups, hosts: &[NodeId], count: usize) -> Vec<NewGroup> {
    if hosts.len() < MEMBERS_MAX {
        return Vec::new();
    }
    let mut members: BTreeMap<NodeId, usize> = hosts.iter().map(|host| (*host, 0)).collect();
    let mut primaries = members.clone();
    let mut pairs: BTreeMap<(NodeId, NodeId), usize> = BTreeMap::new();
    for (_, group) in groups.iter() {
        let nodes: Vec<NodeId> = group.members.iter().map(|member| member.node).collect();
        count_in(&nodes, group.primary, &mut members, &mut primaries, &mut pairs);
    }
    (0..count)
        .map(|_| {
            let mut chosen: Vec<NodeId> = Vec::with_capacity(MEMBERS_MAX);
            while chosen.len() < MEMBERS_MAX {
                let together = |host: NodeId| -> usize {
                    chosen.iter().map(|other| pairs.get(&pair(host, *other)).copied().unwrap_or(0)).sum()
                };
                let next = members
                    .iter()
                    .filter(|(host, _)| hosts.contains(host) && !chosen.contains(host))
                    .map(|(host, held)| (*held, together(*host), *host))
                    .min()
                    .expect("there are at least as many hosts as members");
                chosen.push(next.2);
            }
            let primary = chosen
                .iter()
                .copied()
                .min_by_key(|host| (primaries.get(host).copied().unwrap_or(0), *host))
                .expect("a group has members");
            count_in(&chosen, primary, &mut members, &mut primaries, &mut pairs);
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
    members: &mut BTreeMap<NodeId, usize>,
    primaries: &mut BTreeMap<NodeId, usize>,
    pairs: &mut BTreeMap<(NodeId, NodeId), usize>,
) {
    *primaries.entry(primary).or_default() += 1;
    for (index, node) in nodes.iter().enumerate() {
        *members.entry(*node).or_default() += 1;
        for other in &nodes[index + 1..] {
            *pairs.entry(pair(*node, *other)).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_primaries_and_pairs_are_spread_evenly() {
        let hosts: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let laid = lay_out(&Groups::default(), &hosts, 20);
        let count = |pick: &dyn Fn(&NewGroup) -> bool| laid.iter().filter(|group| pick(group)).count();
        for host in 1..=5 {
            assert_eq!(count(&|group| group.nodes.contains(&host)), 12);
            assert_eq!(count(&|group| group.primary == host), 4);
            for other in host + 1..=5 {
                let together = count(&|group| group.nodes.contains(&host) && group.nodes.contains(&other));
                assert!((5..=7).contains(&together), "hosts {host} and {other} share {together} groups");
            }
        }
        assert!(lay_out(&Groups::default(), &hosts[..2], 20).is_empty(), "two hosts are too few");
    }
}

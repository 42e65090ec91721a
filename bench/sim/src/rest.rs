//! At rest: replicas hold the same bytes, and everything that was acknowledged can be read from each of them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_units::{BlockId, CommitPoint, Generation, GroupId, IoClass, NodeId, UnitIndex};
use novafs_format::{Cut, SealedUnit};
use novafs_store::ReadError;

use crate::cluster::{Cluster, SimMember};
use crate::edge::{Block, SimEdge};

/// Bad copies are found by reading and repaired beside: that many rounds of it are enough.
const ROUNDS_MAX: usize = 20;
/// Between two rounds.
const ROUND: Duration = Duration::from_millis(700);
const SCAN_UNITS: usize = 256;

/// What a member holds of a unit: everything about it, and the digest of its bytes or `None` when they are bad.
type Copy = (CommitPoint, [u8; SealedUnit::ENCODED_BYTES], Option<[u8; 32]>);
/// Everything that a member holds of a group.
pub(crate) type Copies = BTreeMap<(BlockId, UnitIndex), Copy>;
/// Everything that the members of every group hold.
pub(crate) type Held = BTreeMap<GroupId, Vec<(NodeId, Copies)>>;

/// What is wrong, if anything is, and what the members hold.
pub(crate) fn check(cluster: &Cluster, edge: &Rc<SimEdge>, blocks: &[Rc<Block>]) -> (Vec<String>, Held) {
    let (mut wrong, held) = compare(cluster, edge);
    for block in blocks {
        for member in 0..cluster.controller.members()[&block.group].len() {
            wrong.extend(read_all(cluster, edge, block, member));
        }
    }
    (wrong, held)
}

fn compare(cluster: &Cluster, edge: &Rc<SimEdge>) -> (Vec<String>, Held) {
    let (mut wrong, mut all) = (Vec::new(), Held::new());
    for (group, members) in cluster.controller.members() {
        let mut last = Vec::new();
        for round in 0..ROUNDS_MAX {
            let held: Vec<_> = members.iter().map(|node| (*node, copies(cluster, *node, group))).collect();
            let bad: Vec<_> = held
                .iter()
                .flat_map(|(node, copies)| {
                    let bad = copies.iter().filter(|(_, copy)| copy.2.is_none());
                    bad.map(|(place, _)| (*node, *place))
                })
                .collect();
            last = differences(group, &held);
            all.insert(group, held);
            if bad.is_empty() && (last.is_empty() || round > 4) {
                break;
            }
            for (node, (block, unit)) in bad {
                let reader = Rc::clone(edge);
                cluster.world.run(&edge.shard, async move { reader.poke(node, group, block, unit).await });
            }
            cluster.world.run_for(ROUND);
        }
        wrong.extend(last);
        wrong.extend(compare_fences(cluster, group, &members));
    }
    (wrong, all)
}

/// How members' copies differ now, bad ones included. Nothing is read of a member, so nothing is repaired for it.
pub(crate) fn differences_now(cluster: &Cluster) -> Vec<String> {
    let mut wrong = Vec::new();
    for (group, members) in cluster.controller.members() {
        let held: Vec<_> = members.iter().map(|node| (*node, copies(cluster, *node, group))).collect();
        for (node, copies) in &held {
            let bad = copies.iter().filter(|(_, copy)| copy.2.is_none());
            wrong.extend(bad.map(|((block, unit), _)| format!("{node} has a bad copy of {block} {unit}")));
        }
        wrong.extend(differences(group, &held));
        wrong.extend(compare_fences(cluster, group, &members));
    }
    wrong
}

/// Members judge late writes alike.
fn compare_fences(cluster: &Cluster, group: GroupId, members: &[NodeId]) -> Option<String> {
    let fences = |node: &NodeId| {
        let member = cluster.hosts[node].member.borrow().clone();
        let fences = member.map(|member| member.store().fences(group)).unwrap_or_default();
        let known =
            fences.into_iter().map(|(block, record)| (block, record.fence, record.deleted, record.cut));
        known
            .filter(|(_, fence, _, cut)| *fence > Generation(0) || *cut != Cut::default())
            .collect::<Vec<_>>()
    };
    let held: Vec<_> = members.iter().map(|node| (*node, fences(node))).collect();
    let (first, others) = held.split_first()?;
    let other = others.iter().find(|other| other.1 != first.1)?;
    Some(format!("{group}: {} has fences {:?}, {} has {:?}", first.0, first.1, other.0, other.1))
}

fn differences(group: GroupId, held: &[(NodeId, Copies)]) -> Vec<String> {
    let Some(((first, one), others)) = held.split_first() else { return Vec::new() };
    let mut wrong = Vec::new();
    for (node, other) in others {
        let mut places: Vec<_> = one.keys().chain(other.keys()).collect();
        places.sort();
        places.dedup();
        for place in places {
            let (a, b) = (one.get(place), other.get(place));
            if a != b {
                let at = |copy: Option<&Copy>| copy.map(|copy| (copy.0, copy.2.is_some()));
                wrong.push(format!(
                    "{group} {} {} differs: {first} has {:?}, {node} has {:?} (commit, sound)",
                    place.0,
                    place.1,
                    at(a),
                    at(b)
                ));
            }
        }
    }
    wrong.truncate(6);
    wrong
}

/// What a host holds of a group.
pub(crate) fn copies(cluster: &Cluster, node: NodeId, group: GroupId) -> Copies {
    let host = &cluster.hosts[&node];
    let (shard, member) = (host.shard.borrow().clone(), host.member.borrow().clone());
    let (Some(shard), Some(member)) = (shard, member) else { return Copies::new() };
    cluster.world.run(&shard.clone(), collect(member, group))
}

async fn collect(member: Rc<SimMember>, group: GroupId) -> Copies {
    let copies = scan(&member, group).await;
    let mut blocks: Vec<BlockId> = copies.keys().map(|(block, _)| *block).collect();
    blocks.dedup();
    let all = BlockId(0)..=BlockId(u64::MAX);
    if let Ok(listed) = member.store().held_blocks(group, all, usize::MAX).await {
        assert_eq!(listed.blocks, blocks, "the list of held blocks is what a scan finds");
    }
    copies
}

async fn scan(member: &Rc<SimMember>, group: GroupId) -> Copies {
    let store = member.store();
    let mut copies = Copies::new();
    let mut after = None;
    loop {
        let Ok(records) = store.scan(group, after, SCAN_UNITS).await else { return copies };
        for record in &records {
            let (block, unit) = (record.sealed.block, record.sealed.unit);
            let digest = match store.read(group, block, unit, IoClass::Scrub).await {
                Ok(Some(found)) => Some(found.record.sealed.compute_digest(&found.body)),
                Ok(None) | Err(ReadError::Corrupt { .. } | ReadError::Unreadable { .. }) | Err(_) => None,
            };
            copies.insert((block, unit), (record.commit, record.sealed.encode(), digest));
            after = Some((block, unit));
        }
        if records.len() < SCAN_UNITS {
            return copies;
        }
    }
}

fn read_once(
    cluster: &Cluster,
    edge: &Rc<SimEdge>,
    block: &Rc<Block>,
    first: u16,
    count: u16,
    member: usize,
) -> Result<(), String> {
    let (reader, block) = (Rc::clone(edge), Rc::clone(block));
    cluster.world.run(&edge.shard, async move { reader.try_read(&block, first, count, Some(member)).await })
}

fn read_all(cluster: &Cluster, edge: &Rc<SimEdge>, block: &Rc<Block>, member: usize) -> Option<String> {
    let step = u16::try_from((1_usize << 20) >> block.unit_log2).unwrap_or(u16::MAX).min(16);
    let mut first = 0;
    while first < block.units {
        let count = step.min(block.units - first);
        let mut answered = Err(String::new());
        for _ in 0..ROUNDS_MAX {
            answered = read_once(cluster, edge, block, first, count, member);
            if answered.is_ok() {
                break;
            }
            cluster.world.run_for(ROUND);
        }
        if let Err(last) = answered {
            return Some(format!("{} {} from unit {first} on is never read: {last}", block.group, block.id));
        }
        first += count;
    }
    None
}

//! Rot at rest: bytes flip in two of three copies while nobody reads, and the scrub finds and repairs them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_units::{BlockId, GroupId, IoClass, NodeId, UnitIndex};
use novafs_format::UnitRecord;

use crate::cluster::{Cluster, SimMember};
use crate::controller::Controller;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// How long clients write before they leave.
const WRITES: Duration = Duration::from_secs(4);
/// Every copy is right again within this virtual time.
const REPAIRED_WITHIN: Duration = Duration::from_secs(10);
/// Units of which two copies are flipped, in each group.
const UNITS: usize = 5;
const EVERYTHING: usize = 1 << 16;

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Rot {
    /// Copies that were flipped.
    pub flipped: usize,
    /// Copies that members wrote anew.
    pub repaired: u64,
    /// Virtual time until all copies were right.
    pub took: Duration,
    /// Reads that clients made meanwhile: none.
    pub reads: u64,
}

/// Writes, leaves, flips bytes in two of three copies, and waits for the scrub.
///
/// # Errors
/// What is wrong: copies that are still bad, or that were flipped and never repaired.
pub fn rot(seed: u64) -> Result<Rot, String> {
    let stage = Stage::new(seed, &Scenario::calm(seed))?;
    stage.run_for(WRITES);
    stage.stop_clients();
    let mut rng = stage.rng.clone();
    damage(&stage.cluster, &stage.controller, &mut rng)
}

fn damage(cluster: &Cluster, controller: &Controller, rng: &mut fastrand::Rng) -> Result<Rot, String> {
    let members: BTreeMap<NodeId, Rc<SimMember>> = cluster.members().into_iter().collect();
    let count = |of: fn(&SimMember) -> u64| members.values().map(|member| of(member)).sum::<u64>();
    let (repaired, reads) = (|| count(|it| it.counters().units_repaired), || count(|it| it.counters().reads));
    let (repaired_before, reads_before) = (repaired(), reads());
    let mut flipped = Vec::new();
    for (group, hosts) in controller.members() {
        let mut places: Vec<(BlockId, UnitIndex)> = records(cluster, &members, hosts[0], group)
            .iter()
            .map(|it| (it.sealed.block, it.sealed.unit))
            .collect();
        rng.shuffle(&mut places);
        for place in places.into_iter().take(UNITS) {
            let spared = rng.usize(..hosts.len());
            for (index, host) in hosts.iter().enumerate().filter(|(index, _)| *index != spared) {
                let held = records(cluster, &members, *host, group);
                let record = held.iter().find(|it| (it.sealed.block, it.sealed.unit) == place);
                let record = record.ok_or_else(|| format!("{host} lacks {place:?} of {group}"))?;
                let byte = rng.u64(..u64::from(record.sealed.stored_bytes));
                cluster.flip_bit(*host, record.cell.position + byte, rng.u8(..8));
                flipped.push((*host, group, place, index));
            }
        }
    }
    let begun = cluster.world.now();
    // Looking makes no read of the device: the counters tell, and at the end every copy is read.
    let wanted = repaired_before + flipped.len() as u64;
    let done = cluster.world.run_until(REPAIRED_WITHIN, || repaired() >= wanted);
    let took = cluster.world.now() - begun;
    let reads = reads() - reads_before;
    if !done {
        return Err(format!(
            "{} of {} copies were repaired within {REPAIRED_WITHIN:?}",
            repaired() - repaired_before,
            flipped.len()
        ));
    }
    for (host, group, (block, unit), _) in &flipped {
        let (store, group, block, unit) = (Rc::clone(members[host].store()), *group, *block, *unit);
        let shard = cluster.hosts[host].shard.borrow().clone().ok_or("a host is down")?;
        let read = async move { store.read(group, block, unit, IoClass::Scrub).await };
        if let Err(error) = cluster.world.run(&shard, read) {
            return Err(format!("{host}: {error}"));
        }
    }
    Ok(Rot { flipped: flipped.len(), repaired: repaired() - repaired_before, took, reads })
}

fn records(
    cluster: &Cluster,
    members: &BTreeMap<NodeId, Rc<SimMember>>,
    host: NodeId,
    group: GroupId,
) -> Vec<UnitRecord> {
    let store = Rc::clone(members[&host].store());
    let shard = cluster.hosts[&host].shard.borrow().clone();
    let Some(shard) = shard else { return Vec::new() };
    let held = async move {
        let records = store.scan(group, None, EVERYTHING).await?;
        // What is flipped is to be what the scrub reads.
        store.settle(&records).await.map(|()| records)
    };
    cluster.world.run(&shard, held).unwrap_or_default()
}

//! A member that became slow: its reads are answered by another one, soon, and few are asked twice.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{KillMode, MemShard};
use nova_device::{Clock, Shard};
use nova_units::{BlockId, BootId, Generation, GroupId, NodeId};
use novafs_edge::{Edge, EdgeError, EdgeOptions, Keyring, ReadRequest, WriteRequest};
use novafs_format::seal::DomainKey;

use crate::cluster::bare_host;
use crate::files::RealEdge;
use crate::net::SimPeers;
use crate::scenario::Scenario;
use crate::stage::form;

/// The host that reads.
const READER: NodeId = NodeId(101);
const POOL_BYTES: u64 = 16 << 20;
/// How much longer every answer of the slow member takes to the reader; the other members hear it as ever.
const SLOWNESS: Duration = Duration::from_millis(400);
/// Reads of the good times, and of the bad ones with each member.
const READS: u64 = 400;
const UNITS: u64 = 32;
const UNIT_LOG2: u8 = 12;
const UNIT: u64 = 1 << UNIT_LOG2;
const BLOCK: BlockId = BlockId::new(1, 1);

/// How a run ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hedged {
    /// Reads while one member was slow.
    pub reads: u64,
    /// The longest of them.
    pub longest: Duration,
    /// All reads, also of the good times, that were asked of a second member.
    pub hedged: u64,
    /// Of those, how many it answered first.
    pub won: u64,
    /// Reads of the good times.
    pub reads_before: u64,
    /// Of those, how many were asked twice.
    pub hedged_before: u64,
}

/// Reads one block, at first on a good day, then with each member slow in turn.
///
/// # Errors
/// What is wrong: a read that failed, or gave other bytes than were written.
pub fn hedge(seed: u64) -> Result<Hedged, String> {
    let scenario = Scenario { scrub: None, groups: 1, ..Scenario::calm(seed) };
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x510e);
    let (cluster, net, controller) = form(seed, &scenario, &mut rng)?;
    let members = controller.members().into_iter().next();
    let (group, members) = members.ok_or("there is no group")?;
    let shard = bare_host(&cluster.world, READER, 0, POOL_BYTES);
    let peers = SimPeers { net: Rc::clone(&net), me: READER, shard: shard.clone() };
    let keys = Keyring::of(DomainKey::new(1, 1, [7; 32]));
    let edge = Edge::new(shard.clone(), peers, keys, EdgeOptions::default());
    edge.configure(Rc::new(controller.configuration(READER, BootId(0), Duration::ZERO)));

    let reading =
        Reading { edge: Rc::clone(&edge), shard: shard.clone(), group, seed: Cell::new(rng.u64(..)) };
    let outcome = cluster.world.run(&shard, async move {
        reading.write().await.map_err(|error| format!("write: {error}"))?;
        reading.read_all(READS).await?;
        let before = reading.edge.counters();
        let mut slow =
            Hedged { reads_before: READS, hedged_before: before.reads_hedged, ..Hedged::default() };
        for member in members {
            net.slow_down(member, READER, SLOWNESS);
            slow.longest = slow.longest.max(reading.read_all(READS).await?);
            slow.reads += READS;
            net.slow_down(member, READER, Duration::ZERO);
            // Its late answers come, and it is found quick again.
            reading.shard.clock().sleep_until(reading.shard.clock().now() + 2 * SLOWNESS).await;
            reading.read_all(READS).await?;
            slow.reads_before += READS;
        }
        let after = reading.edge.counters();
        Ok(Hedged { hedged: after.reads_hedged, won: after.hedges_won, ..slow })
    });
    drop(edge);
    for node in cluster.hosts.keys() {
        cluster.kill(*node, KillMode::Process);
    }
    outcome
}

/// Who reads, and what.
struct Reading {
    edge: Rc<RealEdge>,
    shard: MemShard,
    group: GroupId,
    seed: Cell<u64>,
}

/// What the block holds at an offset.
fn byte_at(offset: u64) -> u8 {
    u8::try_from((offset / 7 + offset / UNIT) % 251).expect("below 251")
}

impl Reading {
    async fn write(&self) -> Result<(), EdgeError> {
        let opened = self.edge.open_writer(1, 0).await?;
        let plain: Vec<u8> = (0..UNITS * UNIT).map(byte_at).collect();
        let write = WriteRequest {
            writer: opened.writer,
            group: self.group,
            block: BLOCK,
            generation: Generation(1),
            unit_log2: UNIT_LOG2,
            offset: 0,
            block_bytes: 0,
            source: Rc::new(plain),
        };
        self.edge.write(write).await
    }

    /// Reads units one after the other; how long the longest read took.
    async fn read_all(&self, count: u64) -> Result<Duration, String> {
        let mut rng = fastrand::Rng::with_seed(self.seed.get());
        self.seed.set(rng.u64(..));
        let mut longest = Duration::ZERO;
        for _ in 0..count {
            let offset = rng.u64(..UNITS) * UNIT;
            let request = ReadRequest {
                group: self.group,
                block: BLOCK,
                key: (1, 1),
                unit_log2: UNIT_LOG2,
                block_bytes: UNITS * UNIT,
                offset,
                bytes: UNIT,
                sparse: false,
            };
            let begun = self.shard.clock().now();
            let mut right = false;
            let give = |at: u64, plain: &[u8]| {
                right =
                    at == 0 && plain.iter().zip(offset..offset + UNIT).all(|(byte, at)| *byte == byte_at(at));
            };
            self.edge.read(&request, give).await.map_err(|error| format!("read: {error}"))?;
            if !right {
                return Err(format!("other bytes than were written at {offset}"));
            }
            longest = longest.max(self.shard.clock().now() - begun);
        }
        Ok(longest)
    }
}

//! Hosts that fail slowly: their devices still answer, but far later than those of their peers.
//!
//! A host is compared with the others, not with a clock: when all are slow it is the load. It is marked after several
//! windows in a row, and cleared after more of them at a lower bound, so that it does not go to and fro.

use core::time::Duration;
use std::collections::BTreeMap;

use nova_units::NodeId;

use crate::command::{Op, Pace};
use crate::model::{Fleet, NodeState};

/// A host is slow when its median time to make an entry durable is this many times that of its peers ...
pub const SLOW_FACTOR: u64 = 6;
/// ... and at least this long: what is fast enough is not slow.
pub const SLOW_MIN: Duration = Duration::from_millis(30);
/// So many windows in a row make it slow.
pub const SLOW_WINDOWS: u32 = 3;
/// It keeps up again below this many times the median of its peers, or below half of [`SLOW_MIN`] ...
pub const RECOVERED_FACTOR: u64 = 3;
/// ... for so many windows in a row.
pub const RECOVERED_WINDOWS: u32 = 6;
/// Other hosts that must have been measured lately before one is judged.
pub const PEERS_MIN: usize = 2;
/// A measurement counts this long.
pub const PACE_FRESH: Duration = Duration::from_secs(30);

/// What the leader heard of the pace of hosts. A new leader begins with nothing.
#[derive(Clone, Debug, Default)]
pub struct Paces {
    heard: BTreeMap<NodeId, Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    window: u64,
    median_us: u64,
    at: Duration,
    /// The window was compared with the peers.
    judged: bool,
    /// Windows in a row that were too slow, or that kept up.
    slow: u32,
    well: u32,
}

impl Paces {
    /// `node` measured `median_us` in its window with this number. The same window again changes nothing.
    pub fn hear(&mut self, node: NodeId, window: u64, median_us: u64, now: Duration) {
        if window == 0 {
            return;
        }
        let known = self.heard.get(&node).copied();
        if known.is_none_or(|known| known.window != window) {
            let (slow, well) = known.map_or((0, 0), |known| (known.slow, known.well));
            let heard = Heard { window, median_us, at: now, judged: false, slow, well };
            self.heard.insert(node, heard);
        }
    }
}

/// Hosts that became slow, or keep up again. Proposes; `apply` decides.
pub fn plan_paces(fleet: &Fleet, paces: &mut Paces, now: Duration) -> Vec<Op> {
    paces.heard.retain(|node, _| {
        fleet.node(*node).is_some_and(|node| !matches!(node.state, NodeState::Failed | NodeState::Terminated))
    });
    let fresh: Vec<(NodeId, u64)> = paces
        .heard
        .iter()
        .filter(|(_, heard)| now.saturating_sub(heard.at) <= PACE_FRESH)
        .map(|(node, heard)| (*node, heard.median_us))
        .collect();
    let slow_min = u64::try_from(SLOW_MIN.as_micros()).unwrap_or(u64::MAX);
    for (node, heard) in &mut paces.heard {
        let mut others: Vec<u64> =
            fresh.iter().filter(|(other, _)| other != node).map(|(_, median_us)| *median_us).collect();
        if heard.judged || others.len() < PEERS_MIN {
            continue;
        }
        others.sort_unstable();
        let peers = others[others.len() / 2];
        heard.judged = true;
        let is_slow = heard.median_us >= slow_min && heard.median_us >= peers.saturating_mul(SLOW_FACTOR);
        let is_well =
            heard.median_us < slow_min / 2 || heard.median_us < peers.saturating_mul(RECOVERED_FACTOR);
        heard.slow = if is_slow { heard.slow + 1 } else { 0 };
        heard.well = if is_well { heard.well + 1 } else { 0 };
    }
    let mut ops = Vec::new();
    for (id, node) in fleet.iter() {
        let Some(heard) = paces.heard.get(&id) else { continue };
        match node.slow {
            None if heard.slow >= SLOW_WINDOWS => ops.push(Op::Pace(Pace { node: id.0, slow: true })),
            Some(_) if heard.well >= RECOVERED_WINDOWS => {
                ops.push(Op::Pace(Pace { node: id.0, slow: false }));
            }
            _ => {}
        }
    }
    ops
}

//! State and heartbeats make commands.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BootId, NodeId};

use crate::command::{Observe, Op};
use crate::model::{Event, Fleet, NodeState};

/// A host that was not heard this long gets nothing new.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Spec 1.4: after this silence a host is failed.
pub const FAILED_AFTER: Duration = Duration::from_secs(30);
/// When this part of a zone is silent at once it is the network, not the hosts: none is failed.
pub const STORM_PERCENT: usize = 20;
/// A single silent host is no storm, however small its zone.
pub const STORM_NODES_MIN: usize = 2;

/// Zones by name.
pub type Zones = BTreeSet<String>;

/// When each host was last heard, on the leader's monotonic clock. A new leader begins with none and counts every
/// host from when it first looked, so that a change of leader fails nobody.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    last: BTreeMap<NodeId, (BootId, Duration)>,
}

impl Heartbeats {
    /// `node` was heard at `now`, and its data plane answers.
    pub fn beat(&mut self, node: NodeId, boot: BootId, now: Duration) {
        self.last.insert(node, (boot, now));
    }

    fn silence(&mut self, node: NodeId, boot: BootId, now: Duration) -> (Duration, bool) {
        let known = self.last.entry(node).or_insert((BootId(0), now));
        (now.saturating_sub(known.1), known.0 == boot)
    }
}

/// Zones in which so many hosts are silent at once that it must be the network.
pub fn storms(fleet: &Fleet, heartbeats: &mut Heartbeats, now: Duration) -> Zones {
    let mut zones: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (id, node) in fleet.iter() {
        if matches!(node.state, NodeState::Failed | NodeState::Terminated) {
            continue;
        }
        let (silence, _) = heartbeats.silence(id, node.boot, now);
        let (hosts, silent) = zones.entry(&node.zone).or_default();
        *hosts += 1;
        *silent += usize::from(silence > SILENT_AFTER);
    }
    zones
        .into_iter()
        .filter(|(_, (hosts, silent))| *silent >= STORM_NODES_MIN && silent * 100 >= hosts * STORM_PERCENT)
        .map(|(zone, _)| zone.to_owned())
        .collect()
}

/// Spec 1.4: asks that hosts be marked silent, failed or heard again. Proposes; `apply` decides.
pub fn plan(fleet: &Fleet, heartbeats: &mut Heartbeats, now: Duration) -> Vec<Op> {
    heartbeats.last.retain(|node, _| fleet.nodes.contains_key(node));
    let storms = storms(fleet, heartbeats, now);
    let mut ops = Vec::new();
    for (id, node) in fleet.iter() {
        let (silence, same_boot) = heartbeats.silence(id, node.boot, now);
        let event = match node.state {
            NodeState::Terminated => None,
            NodeState::Failed | NodeState::Silent | NodeState::Initializing
                if same_boot && silence <= SILENT_AFTER =>
            {
                Some(Event::Heard)
            }
            NodeState::Ready | NodeState::Silent | NodeState::Initializing
                if silence > FAILED_AFTER && !storms.contains(&node.zone) =>
            {
                Some(Event::TimedOut)
            }
            NodeState::Ready if silence > SILENT_AFTER => Some(Event::FellSilent),
            _ => None,
        };
        if let Some(event) = event {
            ops.push(Op::Observe(Observe { node: id.0, boot: node.boot.0, event: event.into() }));
        }
    }
    ops
}

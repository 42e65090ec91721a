//! What exists.

use imbl::OrdMap;
use nova_units::{BootId, NodeId, PeerAddr, Timestamp};

/// Hosts of a region.
pub const NODES_MAX: usize = 10_000;
/// Longest name of a host or zone.
pub const NAME_BYTES_MAX: usize = 255;

/// Where a host is in its life (Spec A.2; the states of tasks come with the scheduler).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Registered; its data plane has not answered yet.
    Initializing,
    /// In service.
    Ready,
    /// Not heard for five seconds: gets nothing new.
    Silent,
    /// Not heard for thirty seconds (Spec 1.4).
    Failed,
    /// Taken out of the cluster.
    Terminated,
}

/// What may happen to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Event {
    /// Never asked.
    Unspecified = 0,
    /// It registered, perhaps again.
    Registered = 1,
    /// Its data plane answers.
    Heard = 2,
    /// It has not been heard for a while.
    FellSilent = 3,
    /// It has not been heard for the detection timeout.
    TimedOut = 4,
    /// An operator took it out.
    Removed = 5,
}

/// An event that cannot happen in that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a host that is {from:?} cannot take {event:?}")]
pub struct NoTransition {
    /// The state.
    pub from: NodeState,
    /// The event.
    pub event: Event,
}

impl NodeState {
    /// Every edge of the graph of states.
    ///
    /// # Errors
    /// Where there is no edge; nothing changes then.
    pub fn next(self, event: Event) -> Result<Self, NoTransition> {
        match (self, event) {
            (_, Event::Registered) => Ok(Self::Initializing),
            (Self::Initializing | Self::Silent | Self::Failed, Event::Heard) => Ok(Self::Ready),
            (Self::Initializing | Self::Ready, Event::FellSilent) => Ok(Self::Silent),
            (Self::Initializing | Self::Ready | Self::Silent, Event::TimedOut) => Ok(Self::Failed),
            (Self::Initializing | Self::Ready | Self::Silent | Self::Failed, Event::Removed) => {
                Ok(Self::Terminated)
            }
            _ => Err(NoTransition { from: self, event }),
        }
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, by which it is known again.
    pub name: String,
    /// What it does: `storage`, `compute`.
    pub roles: Vec<String>,
    /// What fails together.
    pub zone: String,
    /// Where its data plane listens.
    pub addr: PeerAddr,
    /// The start of its data plane.
    pub boot: BootId,
    /// Where it is in its life.
    pub state: NodeState,
    /// When it registered first.
    pub registered: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
    /// Since when everything is being moved off it, if it is: it gets nothing new (Spec A.2). What it stores stays
    /// until another host has it; nothing is lost by a deadline.
    pub draining: Option<Timestamp>,
}

impl Node {
    /// It may hold replicas.
    #[must_use]
    pub fn stores(&self) -> bool {
        self.roles.iter().any(|role| role == "storage")
    }
}

/// All hosts of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    pub(crate) nodes: OrdMap<NodeId, Node>,
    pub(crate) names: OrdMap<String, NodeId>,
    pub(crate) last_node: u64,
    /// Never goes back.
    pub(crate) clock: Timestamp,
}

impl Fleet {
    /// Hosts by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A host.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The host of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminated_host_comes_back_only_by_registering() {
        for event in [Event::Heard, Event::FellSilent, Event::TimedOut, Event::Removed] {
            assert_eq!(
                NodeState::Terminated.next(event),
                Err(NoTransition { from: NodeState::Terminated, event })
            );
        }
        assert_eq!(NodeState::Terminated.next(Event::Registered), Ok(NodeState::Initializing));
        assert_eq!(NodeState::Failed.next(Event::FellSilent).unwrap_err().from, NodeState::Failed);
        assert_eq!(NodeState::Failed.next(Event::Heard), Ok(NodeState::Ready));
    }
}

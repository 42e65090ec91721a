//! The slice as one message; the composed state wraps it.

use nova_units::{BootId, NodeId, PeerAddr, Timestamp};
use prost::Message;

use crate::model::{Fleet, Node, NodeState};

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of the fleet is damaged: {0}; fetch it again")]
pub struct SnapshotError(&'static str);

#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<NodeRow>,
    #[prost(uint64, tag = "2")]
    last_node: u64,
    #[prost(uint64, tag = "3")]
    clock_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct NodeRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    roles: Vec<String>,
    #[prost(string, tag = "4")]
    zone: String,
    #[prost(string, tag = "5")]
    addr: String,
    #[prost(uint64, tag = "6")]
    boot: u64,
    #[prost(uint32, tag = "7")]
    state: u32,
    #[prost(uint64, tag = "8")]
    registered_ms: u64,
    #[prost(uint64, tag = "9")]
    changed_ms: u64,
    #[prost(uint64, optional, tag = "10")]
    draining_since_ms: Option<u64>,
    // 11 was since when the host is slow; that is said of devices now.
}

/// States by their number on disk.
const STATES: [(u32, NodeState); 5] = [
    (1, NodeState::Initializing),
    (2, NodeState::Ready),
    (3, NodeState::Silent),
    (4, NodeState::Failed),
    (5, NodeState::Terminated),
];

impl Fleet {
    /// The slice as bytes; equal slices give equal bytes.
    #[must_use]
    pub fn encode_to_vec(&self) -> Vec<u8> {
        let number = |state| STATES.iter().find(|(_, it)| *it == state).expect("every state has a number").0;
        Rows {
            nodes: self
                .iter()
                .map(|(id, node)| NodeRow {
                    id: id.0,
                    name: node.name.clone(),
                    roles: node.roles.clone(),
                    zone: node.zone.clone(),
                    addr: node.addr.to_string(),
                    boot: node.boot.0,
                    state: number(node.state),
                    registered_ms: node.registered.0,
                    changed_ms: node.changed.0,
                    draining_since_ms: node.draining.map(|since| since.0),
                })
                .collect(),
            last_node: self.last_node,
            clock_ms: self.clock.0,
        }
        .encode_to_vec()
    }

    /// Reads what [`Fleet::encode_to_vec`] wrote.
    ///
    /// # Errors
    /// Bytes that are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rows = Rows::decode(bytes).map_err(|_| SnapshotError("no message"))?;
        let mut fleet =
            Self { last_node: rows.last_node, clock: Timestamp(rows.clock_ms), ..Self::default() };
        for row in rows.nodes {
            if row.id == 0 || row.id > rows.last_node {
                return Err(SnapshotError("a node id"));
            }
            let state = STATES.iter().find(|(number, _)| *number == row.state);
            let node = Node {
                name: row.name.clone(),
                roles: row.roles,
                zone: row.zone,
                addr: PeerAddr(row.addr.parse().map_err(|_| SnapshotError("an address"))?),
                boot: BootId(row.boot),
                state: state.ok_or(SnapshotError("a state"))?.1,
                registered: Timestamp(row.registered_ms),
                changed: Timestamp(row.changed_ms),
                draining: row.draining_since_ms.map(Timestamp),
            };
            if fleet.names.insert(row.name, NodeId(row.id)).is_some() {
                return Err(SnapshotError("two hosts of one name"));
            }
            fleet.nodes.insert(NodeId(row.id), node);
        }
        Ok(fleet)
    }
}

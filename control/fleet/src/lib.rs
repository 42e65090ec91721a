//! Hosts as a pure slice: registration, states, failure detection.
//!
//! Heartbeats never enter the log. The leader keeps them, [`plan()`] compares them with its clock, and only a change
//! of a host's state is asked of [`Fleet::apply`].
#![forbid(unsafe_code)]

mod apply;
mod command;
mod model;
mod plan;
mod snapshot;

pub use command::{Answer, Command, Drain, Observe, Op, Register};
pub use model::{Event, Fleet, NAME_BYTES_MAX, NODES_MAX, NoTransition, Node, NodeState};
pub use plan::{FAILED_AFTER, Heartbeats, SILENT_AFTER, STORM_NODES_MIN, STORM_PERCENT, Zones, plan, storms};
pub use snapshot::SnapshotError;

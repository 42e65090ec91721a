//! Replicates commands: segmented WAL, snapshots, peer transport.
//!
//! A [`Group`] keeps copies of one [`StateMachine`] on the controllers of a region. A command proposed on the leader is
//! answered once it is durable on a majority and applied here. The algorithm is openraft's; ours are the log on disk
//! ([`wal`]), the snapshots, the transport between members ([`Peers`]) and this small interface.
//!
//! What is durable: votes, entries, and how far they are committed, in the WAL; the state as of some entry in a
//! snapshot file. State itself is in memory, rebuilt at start from the newest snapshot and the log after it.
#![forbid(unsafe_code)]

#[cfg(test)]
mod conformance;
mod convert;
mod error;
mod group;
mod log;
mod machine;
mod peer;
mod snapshot;
mod state_machine;
mod types;
pub mod wal;

pub use error::{ProposeError, RaftError, ReadError};
pub use group::{
    COMMAND_BYTES_MAX, ELECTION_MAX, ELECTION_MIN, Group, GroupOptions, HEARTBEAT, Metrics, PROPOSE_TIMEOUT,
    READ_TIMEOUT, SNAPSHOT_INTERVAL, SNAPSHOT_LOG_BYTES, Timing,
};
pub use peer::Peers;
pub use state_machine::StateMachine;

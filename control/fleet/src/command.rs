//! What may be asked. Commands are entries of the Raft log: fields are only ever added.

use nova_units::NodeId;

use crate::model::{Event, NodeState};

/// A change, and when the leader decided it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The leader's wall clock; the state never lets it go back.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What is asked.
    // 13 was the pace of a host; that of devices is with the groups.
    #[prost(oneof = "Op", tags = "10, 11, 12")]
    pub op: Option<Op>,
}

/// The kinds of [`Command`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// A host says who and where it is.
    #[prost(message, tag = "10")]
    Register(Register),
    /// Something happened to a host.
    #[prost(message, tag = "11")]
    Observe(Observe),
    /// An operator wants everything off a host, or no longer.
    #[prost(message, tag = "12")]
    Drain(Drain),
}

/// An operator wants everything off a host, or no longer. The same again changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Drain {
    /// The host.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Whether it is drained from now on.
    #[prost(bool, tag = "2")]
    pub on: bool,
}

/// A host says who and where it is. The same again changes nothing; a new start or address does.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Register {
    /// Its name, by which it is known again.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it does: `storage`, `compute`.
    #[prost(string, repeated, tag = "2")]
    pub roles: Vec<String>,
    /// Where its data plane listens: ip:port.
    #[prost(string, tag = "3")]
    pub addr: String,
    /// The start of its data plane.
    #[prost(uint64, tag = "4")]
    pub boot: u64,
    /// What fails together.
    #[prost(string, tag = "5")]
    pub zone: String,
}

/// Something happened to a host under this start.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Observe {
    /// The host.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The start about which it was decided; another one makes it stale.
    #[prost(uint64, tag = "2")]
    pub boot: u64,
    /// What.
    #[prost(enumeration = "Event", tag = "3")]
    pub event: i32,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The host has this id for ever.
    Registered(NodeId),
    /// The host has this state now.
    Changed(NodeState),
    /// It was decided about another start of the host, or another state.
    Stale,
    /// It makes no sense; the text says why.
    Refused(&'static str),
}

//! The types openraft works with in every group. They do not name the state machine: a command travels as the bytes
//! it is stored as, and an answer as a box, so that openraft is compiled once.

use core::any::Any;
use core::fmt;

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};

openraft::declare_raft_types!(
    /// Commands as bytes, answers as boxes; terms and members are 64-bit numbers.
    pub(crate) Types:
        D = CommandBytes,
        R = AnswerBox,
        NodeId = u64,
        Node = Address,
);

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Snapshot = SnapshotOf<Types, crate::snapshot::SnapshotFile>;
pub(crate) type StoredMembership = StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Address>;

/// Where a member's gRPC server listens, `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An encoded command.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CommandBytes(pub(crate) Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The answer of a state machine, or nothing for entries that are no commands.
pub(crate) struct AnswerBox(pub(crate) Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for AnswerBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "answer" } else { "no answer" })
    }
}

//! What a caller of the edge can be told.

use std::time::Duration;

use nova_device::PeerError;
use nova_units::{BlockId, Generation, GroupId, UnitIndex};
use novafs_replica::Answer;

/// Why a write or read at the edge did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// The map names no such group, or there is no map yet. Resolve the file again, then retry.
    #[error("{group} is not in the cluster map: ask for the file's blocks again")]
    UnknownGroup {
        /// The group asked for.
        group: GroupId,
    },
    /// No member could serve the request in time.
    #[error(
        "{group} did not answer within {waited:?} (last: {last}): check `nova cluster status`, then try again"
    )]
    Unavailable {
        /// The group asked for.
        group: GroupId,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt ended with.
        last: &'static str,
    },
    /// A member's device has no room for the write; nothing of it was kept.
    #[error("a storage host of {group} is full: remove files or add devices")]
    Full {
        /// The group asked for.
        group: GroupId,
    },
    /// A later writer session has taken the block over, or this one of the same generation is not the one that wrote
    /// before: its data plane was restarted.
    #[error("{block} is fenced at {fence}: this writer session has ended, open another")]
    Fenced {
        /// The block.
        block: BlockId,
        /// Lowest generation that is still accepted.
        fence: Generation,
    },
    /// Every in-sync member answered with bytes that fail their sums or their tag.
    #[error("{block} {unit}: no member has a sound copy")]
    Corrupt {
        /// The block.
        block: BlockId,
        /// The first unit that could not be read.
        unit: UnitIndex,
    },
    /// The file says that the unit exists, but its group never stored it.
    #[error("{block} {unit} was never written")]
    Missing {
        /// The block.
        block: BlockId,
        /// The first unit without a record.
        unit: UnitIndex,
    },
    /// This edge has no key for the block's domain and version.
    #[error(
        "no key for domain {domain} version {version} came to this host: `nova key ls` shows the domains there are"
    )]
    NoKey {
        /// Key domain of the block.
        domain: u32,
        /// Version of the domain's key.
        version: u32,
    },
    /// The key domain of the block was dropped: what was sealed under it is erased.
    #[error("key domain {domain} was dropped: its data are erased and cannot come back")]
    KeyDropped {
        /// Key domain of the block.
        domain: u32,
    },
    /// The writer or block is not open at this edge; it may have restarted. Open a new writer and write again.
    #[error("the writer is not open at this edge: open a new one and write the block again")]
    UnknownWriter,
    /// The block was being cut, and it is not known whether the cut was taken: it could take away what is written now.
    #[error("{block} was being cut when its group did not answer: cut it again, then write")]
    Uncut {
        /// The block.
        block: BlockId,
    },
    /// Too many blocks are open at once.
    #[error("{open} blocks are open at this edge, its limit: close some first")]
    TooManyBlocks {
        /// How many are open.
        open: usize,
    },
    /// Too many writers are open at once.
    #[error("{open} writers are open, the limit: close some first")]
    TooManyWriters {
        /// How many are open.
        open: usize,
    },
    /// The request itself makes no sense.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
}

/// Why an attempt that was not answered is over.
pub(crate) const MOVED_ON: &str = "the group has moved to another epoch";

/// A few words on why a host did not answer.
pub(crate) fn peer_reason(error: &PeerError) -> &'static str {
    match error {
        PeerError::Unreachable => "the host is not reachable",
        PeerError::TimedOut => "the host did not answer in time",
        PeerError::Refused { .. } => "the host refused the request",
        PeerError::Busy { .. } => "the host is busy",
        PeerError::Closed => "the connection closed",
        _ => "the host could not be asked",
    }
}

/// A few words on an answer that is not the wanted one.
pub(crate) fn answer_reason(answer: &Answer) -> &'static str {
    match answer {
        Answer::StaleEpoch { .. } => MOVED_ON,
        Answer::NotPrimary { .. } => "another member orders the group's writes",
        Answer::NotMember => "the host is no member of the group",
        Answer::NoLease => "the member has no lease",
        Answer::Full => "a device is full",
        Answer::Unsettled => "a newer version is not settled yet",
        Answer::Corrupt { .. } => "the member's copy is being repaired",
        Answer::Frozen { .. } => "too few members are in sync to write",
        Answer::Busy { .. } => "the member is busy",
        Answer::Damaged => "the request was damaged on its way",
        Answer::DeviceFailed => "the member's device failed",
        _ => "the host gave an answer that does not fit the request",
    }
}

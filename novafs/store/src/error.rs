//! What can go wrong on one device.

use nova_device::DiskError;
use nova_units::{BlockId, CommitPoint, GroupId, Seq, UnitIndex};
use novafs_format::FormatError;

/// Why the store could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A write or a flush failed. What the device holds is unknown: it is never trusted again.
    #[error(
        "the device has failed and is not trusted again: replace it, its groups recover from their other members"
    )]
    DeviceFailed,
    /// A read failed; nothing was changed.
    #[error("a metadata read failed: if it stays so, replace the device")]
    Read(#[source] DiskError),
    /// A metadata page is not what its parent says.
    #[error(
        "the metadata page at {position:#x} is damaged: format the device, its groups recover from their other members"
    )]
    Metadata {
        /// Where it lies.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// Too few superblocks agree.
    #[error(
        "no {quorum} superblocks agree ({valid} of 4 are valid): not a NovaFS device, or damaged at both ends; format it to use it"
    )]
    NoSuperblock {
        /// How many must agree.
        quorum: usize,
        /// How many could be read.
        valid: usize,
        /// What is wrong with the first copy.
        #[source]
        source: FormatError,
    },
    /// The device is not the size it had when it was formatted.
    #[error(
        "the device has {bytes} bytes, but was formatted with {formatted}: give it back its size, or format it"
    )]
    Resized {
        /// Size now.
        bytes: u64,
        /// Size then.
        formatted: u64,
    },
    /// The device cannot be laid out with these options.
    #[error("a device of {bytes} bytes cannot be formatted: {reason}")]
    Layout {
        /// Size of the device.
        bytes: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// There is no room; nothing was written. Deleting makes room.
    #[error("the device is full ({needed_bytes} bytes asked for): delete data or add devices")]
    Full {
        /// Size of the cells that were asked for.
        needed_bytes: u64,
    },
    /// Too much is prepared and not committed; nothing was written.
    #[error("too much is prepared and not yet committed: commit or discard it, then try again")]
    TooMuchPrepared,
    /// Too many wait already; nothing was written.
    #[error("too many requests wait for the device: try again later, or send less at once")]
    Busy,
    /// The entry is not the next one of its group's log; nothing was written.
    #[error("{group}: {at} is not the next entry, {expected} is")]
    NotNext {
        /// The group.
        group: GroupId,
        /// The entry's place.
        at: CommitPoint,
        /// The number that comes next.
        expected: Seq,
    },
    /// Entry and body do not belong together, or the entry cannot be; nothing was written.
    #[error("the entry or its body cannot be: {reason}")]
    BadEntry {
        /// What is wrong.
        reason: &'static str,
    },
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

/// Why a unit could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The stored bytes are not those that were written: another member has them, and this one needs
    /// [`Store::repair`](crate::Store::repair).
    #[error("{block} {unit} of {commit} is damaged at page {page}: read another member and repair this one")]
    Corrupt {
        /// Block of the unit.
        block: BlockId,
        /// The unit.
        unit: UnitIndex,
        /// Version that is damaged.
        commit: CommitPoint,
        /// First bad page.
        page: u8,
    },
    /// The device could not read them; treat it as [`ReadError::Corrupt`].
    #[error("{block} {unit} of {commit} cannot be read: read another member and repair this one")]
    Unreadable {
        /// Block of the unit.
        block: BlockId,
        /// The unit.
        unit: UnitIndex,
        /// Version that cannot be read.
        commit: CommitPoint,
        /// What the device said.
        #[source]
        source: DiskError,
    },
    /// The store itself could not look it up.
    #[error("the store cannot look it up")]
    Store(#[from] StoreError),
}

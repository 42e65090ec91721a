//! What edges and members say to each other: the opaque head of a NovaBulk message between hosts.
//!
//! A head is a version byte, a kind byte and fixed little-endian fields; sealed bytes travel beside it, as the body,
//! in the order of the unit records and each padded to whole pages. Decoding never trusts a count: every list has a
//! named limit, and a head with a byte too many is refused.

use nova_units::{
    BlockId, BootId, CommitPoint, DeviceId, Epoch, Generation, GroupId, NodeId, Seq, UnitIndex,
};
use novafs_format::{Cut, ENTRY_BODY_BYTES_MAX, ENTRY_UNITS_MAX, LogEntry, SealedUnit};

use crate::compare::{Held, UnitPlace};

mod answer;
mod request;
mod wire;

/// First byte of every head.
pub const HEAD_VERSION: u8 = 3;
/// Longest head that is decoded.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most units in one message.
pub const UNITS_MAX: usize = ENTRY_UNITS_MAX;
/// Most bytes of sealed units in one message.
pub const BODY_BYTES_MAX: usize = ENTRY_BODY_BYTES_MAX;
/// Most fences in one page.
pub const FENCES_MAX: usize = 1_024;
/// Most groups in one ping or one round of commits; a pair of hosts that shares more sends several.
pub const PULSES_MAX: usize = 2_048;

/// A request to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Edge to primary: order this entry and make it durable on every member. The body holds its sealed units.
    ///
    /// Sending the same units again is answered with the first result.
    Write {
        /// Group of the block.
        group: GroupId,
        /// Epoch the edge believes in.
        epoch: Epoch,
        /// Units, a trim, a fence or a delete.
        entry: LogEntry,
    },
    /// Edge to any in-sync member: the committed versions of a run of units.
    Read {
        /// Group of the block.
        group: GroupId,
        /// Epoch the edge believes in.
        epoch: Epoch,
        /// Block to read.
        block: BlockId,
        /// First unit.
        first: UnitIndex,
        /// How many units, 1..=[`UNITS_MAX`].
        count: u16,
    },
    /// Anyone to any member: where the committed versions of a run of units lie.
    Locate {
        /// Group of the block.
        group: GroupId,
        /// Block to look for.
        block: BlockId,
        /// First unit.
        first: UnitIndex,
        /// How many units, 1..=[`UNITS_MAX`].
        count: u16,
    },
    /// Member to member, every 100 ms: I live; promise me these groups.
    Ping {
        /// The sender's start.
        boot: BootId,
        /// Groups both hosts are members of, with the epoch the sender is in and what it knows to be committed.
        groups: Vec<Pulse>,
    },
    /// Primary to member: begin to follow me in this epoch.
    Open {
        /// Group.
        group: GroupId,
        /// Epoch of which the sender is primary.
        epoch: Epoch,
    },
    /// Primary to member: make this entry durable. The body holds its sealed units.
    Prepare {
        /// Group.
        group: GroupId,
        /// Epoch of which the sender is primary.
        epoch: Epoch,
        /// What the member answered to [`Message::Open`].
        grant: Grant,
        /// Number of the entry sent before this one; entries are appended in this order.
        previous: Seq,
        /// The entry's place in the log.
        at: CommitPoint,
        /// Everything up to here is committed.
        commit: Seq,
        /// Who else is to have it, and how.
        route: Route,
        /// The entry.
        entry: LogEntry,
    },
    /// Primary to joiner: committed units that the log no longer holds. The body holds their sealed bytes.
    Page {
        /// Group.
        group: GroupId,
        /// Epoch of which the sender is primary.
        epoch: Epoch,
        /// What the joiner answered to [`Message::Open`].
        grant: Grant,
        /// True on the first page: the joiner drops what it holds and starts empty at `through`.
        first: bool,
        /// True on the last page: the joiner is whole again.
        last: bool,
        /// The log goes on after this number.
        through: Seq,
        /// Fences and cuts in force, at most [`FENCES_MAX`]. Pages of fences come before those of units.
        fences: Vec<BlockFence>,
        /// The units, in key order.
        units: Vec<Versioned>,
        /// Units of which no host in reach has good bytes, in key order; at most [`UNITS_MAX`] together with `units`.
        /// The joiner keeps their records, so that reading one stays an error and never becomes a hole.
        lost: Vec<Versioned>,
    },
    /// Primary to member: forget everything above this number. It was never committed: a member had no room for it.
    Withdraw {
        /// Group.
        group: GroupId,
        /// Epoch of which the sender is primary.
        epoch: Epoch,
        /// What the member answered to [`Message::Open`].
        grant: Grant,
        /// Last number to keep.
        keep: Seq,
    },
    /// Primary to member, within 5 ms of a commit that no other message carried.
    Commits {
        /// Groups and what is committed in them.
        groups: Vec<Pulse>,
    },
    /// Member to primary: how far is the group committed?
    CommitQuery {
        /// Group.
        group: GroupId,
        /// Epoch the sender is in.
        epoch: Epoch,
    },
    /// New primary to the member with the longest tail: the first entry after this number.
    Fetch {
        /// Group.
        group: GroupId,
        /// Epoch of which the sender is primary.
        epoch: Epoch,
        /// Number before the wanted entry.
        after: Seq,
    },
    /// Member to member: exactly this version of a unit, for repair.
    Copy {
        /// Group of the block.
        group: GroupId,
        /// Block of the unit.
        block: BlockId,
        /// The unit.
        unit: UnitIndex,
        /// Generation that sealed the wanted version.
        generation: Generation,
        /// Its counter.
        counter: u64,
    },
    /// In-sync member to in-sync member: do we hold the same of this range, as far as the group is committed here?
    Compare {
        /// Group of the range.
        group: GroupId,
        /// Its first unit.
        from: UnitPlace,
        /// Its last.
        to: UnitPlace,
        /// What the group is committed up to on the sender; a member that is not so far yet is busy.
        commit: Seq,
        /// [`Held::digest`] of what the sender holds of it.
        digest: [u8; 32],
    },
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The entry is durable on every member and committed.
    Written {
        /// Epoch in which it was committed.
        epoch: Epoch,
        /// Its number, or that of the newer entry that had superseded it.
        seq: Seq,
    },
    /// The committed units of the run, in unit order; those without a record were never written. The body holds
    /// their sealed bytes.
    Units {
        /// Their records.
        units: Vec<Versioned>,
    },
    /// Where the units lie.
    Located {
        /// The member's host.
        node: NodeId,
        /// Its device.
        device: DeviceId,
        /// One for each unit that exists, in unit order.
        cells: Vec<LocatedUnit>,
    },
    /// The sender's epoch is old: fetch the map again.
    StaleEpoch {
        /// Epoch of the member.
        epoch: Epoch,
    },
    /// Another member orders writes.
    NotPrimary {
        /// That member's host.
        primary: NodeId,
    },
    /// This host is not a member that may answer: another one may be.
    NotMember,
    /// The member cannot be sure that it is still one: another one may be.
    NoLease,
    /// The block was taken over by a higher generation.
    Fenced {
        /// Generation in force.
        generation: Generation,
    },
    /// A member has no room; nothing was written.
    Full,
    /// Whether a newer version is committed cannot be known now: try again, or another member.
    Unsettled,
    /// The member's copy is bad and being repaired: try another.
    Corrupt {
        /// First bad unit.
        unit: UnitIndex,
    },
    /// Too few members are in sync to write.
    Frozen {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// Nothing is wrong, but not now.
    Busy {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// Other bytes were sealed before under this generation and counter: the sender must not retry.
    Conflict,
    /// The body does not match its page sums, or the head makes no sense: send it again.
    Damaged,
    /// The member's device failed.
    DeviceFailed,
    /// Answer to a ping.
    Pong {
        /// The answering host's start.
        boot: BootId,
        /// Which of the ping's groups it is in with the same epoch, and so promised.
        agreed: Vec<Agreed>,
    },
    /// Answer to open: where the member stands. It is given once the member may acknowledge.
    Tail {
        /// To be shown with everything that follows.
        grant: Grant,
        /// Last entry that is durable here, without a gap.
        last: CommitPoint,
        /// What the member knows to be committed.
        commit: Seq,
        /// False when the member lacks older entries that only pages can bring.
        complete: bool,
        /// Room left for new entries on its device.
        bytes_free: u64,
    },
    /// Everything up to here is durable on the member.
    Prepared {
        /// Last durable number without a gap.
        seq: Seq,
        /// Room left for new entries on its device.
        bytes_free: u64,
    },
    /// As [`Answer::Prepared`], of a member that passed the entry on.
    Passed {
        /// Last number that is durable on the member itself, without a gap.
        seq: Seq,
        /// Room left for new entries on its device.
        bytes_free: u64,
        /// The same two of the member it passed the entry on to; `None` when that one did not say so in time.
        next: Option<(Seq, u64)>,
    },
    /// The grant is not the one in force: open again.
    NoGrant,
    /// Done, nothing to tell.
    Noted,
    /// How far the group is committed.
    CommitIs {
        /// Last committed number.
        seq: Seq,
    },
    /// The wanted entry; the body holds its units.
    Entry {
        /// Its place in the log.
        at: CommitPoint,
        /// The entry.
        entry: LogEntry,
    },
    /// There is no such entry or version here.
    Absent,
    /// The member holds the same of the range.
    Same,
    /// It does not, or holds more; this is what it holds, at most [`UNITS_MAX`] units and as many fences.
    Held {
        /// Units and fences of the range.
        held: Held,
        /// The unit with which the rest of the range begins, when there is more.
        next: Option<UnitPlace>,
    },
}

/// How an entry comes to the members of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From the primary to this member alone.
    Direct,
    /// This member passes the entry on while it stores it, so that the bytes leave the primary once.
    Chain {
        /// To whom.
        next: NodeId,
        /// What that one answered to [`Message::Open`]; it has had everything before this entry.
        grant: Grant,
    },
    /// A member passed the entry on. The grant, which only the primary was given, shows that it was asked to.
    PassedOn,
}

/// A group in a batched message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Group.
    pub group: GroupId,
    /// Epoch the sender is in.
    pub epoch: Epoch,
    /// What it knows to be committed.
    pub commit: Seq,
}

/// A group that the answer to a ping agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Group.
    pub group: GroupId,
    /// Room left for new entries on the device that holds it; a host has several.
    pub bytes_free: u64,
}

/// A member's leave to one primary in one epoch; a new one ends the one before, so that nothing a former start of
/// the primary sent can still be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The member's start.
    pub boot: BootId,
    /// Counts within that start.
    pub number: u64,
}

/// What late writes to a block are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFence {
    /// The block.
    pub block: BlockId,
    /// Lowest generation that may still write; the highest there is when the block was deleted, 0 when it was never
    /// fenced.
    pub generation: Generation,
    /// Its latest cut; [`Cut::default`] when it was never cut.
    pub cut: Cut,
}

/// A sealed unit and the entry that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The unit.
    pub sealed: SealedUnit,
    /// Place of its entry in the group's log.
    pub commit: CommitPoint,
}

/// Where one unit lies on a device, and which version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedUnit {
    /// The unit.
    pub unit: UnitIndex,
    /// Offset of its cell on the device, in bytes.
    pub position: u64,
    /// Size of the cell, in bytes.
    pub cell_bytes: u32,
    /// How many bytes of it are used.
    pub stored_bytes: u32,
    /// Bytes of plaintext in it.
    pub plain_bytes: u32,
    /// Generation that sealed it.
    pub generation: Generation,
    /// Seal counter within it.
    pub counter: u64,
    /// SHA-256 of the sealed unit, as its record has it; the bytes of the cell are not looked at.
    pub digest: [u8; 32],
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It ends in the middle of a field.
    #[error("head ends early")]
    Truncated,
    /// It goes on after its last field, or is longer than [`HEAD_BYTES_MAX`].
    #[error("head is too long")]
    TooLong,
    /// Made by another version of the protocol: upgrade the older host.
    #[error("head has version {0}, this host speaks {HEAD_VERSION}")]
    Version(u8),
    /// No message has this kind.
    #[error("head has unknown kind {0}")]
    Kind(u8),
    /// A field is out of its range.
    #[error("head has a bad field: {0}")]
    Field(&'static str),
}

impl Message {
    /// The bytes of the head.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        request::encode(self)
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`HeadError`] when the bytes are not a head that [`Message::encode`] makes.
    pub fn decode(head: &[u8]) -> Result<Self, HeadError> {
        request::decode(head)
    }
}

impl Answer {
    /// The bytes of the head.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        answer::encode(self)
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`HeadError`] when the bytes are not a head that [`Answer::encode`] makes.
    pub fn decode(head: &[u8]) -> Result<Self, HeadError> {
        answer::decode(head)
    }
}

impl Message {
    /// The group that a request is about, from its head alone; `None` when it is about several, or is no request. The
    /// rest of the head is not looked at.
    #[must_use]
    pub fn group_of(head: &[u8]) -> Option<GroupId> {
        request::group_of(head)
    }

    /// The sealed units whose bytes travel beside this head, in order.
    pub fn body_units(&self) -> impl Iterator<Item = &SealedUnit> {
        let (entry, page): (&[SealedUnit], &[Versioned]) = match self {
            Self::Write { entry, .. } | Self::Prepare { entry, .. } => (entry.units(), &[]),
            Self::Page { units, .. } => (&[], units),
            _ => (&[], &[]),
        };
        entry.iter().chain(page.iter().map(|unit| &unit.sealed))
    }
}

impl Answer {
    /// The sealed units whose bytes travel beside this head, in order.
    pub fn body_units(&self) -> impl Iterator<Item = &SealedUnit> {
        let (entry, units): (&[SealedUnit], &[Versioned]) = match self {
            Self::Entry { entry, .. } => (entry.units(), &[]),
            Self::Units { units } => (&[], units),
            _ => (&[], &[]),
        };
        entry.iter().chain(units.iter().map(|unit| &unit.sealed))
    }
}

//! What goes into the machine and what comes out of it.

use std::time::Duration;

use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, Incarnation, NodeId, Seq, UnitIndex};
use novafs_format::{Cut, LogEntry};

use crate::{Answer, BlockFence, Configuration, Message, Report, Versioned};

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A call to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Something happened. `B` is a handle to sealed bytes; clones share them.
#[derive(Clone, Debug)]
pub enum Input<B> {
    /// Time passed; given at least every 20 ms.
    Tick {
        /// Room left for new entries on the device.
        bytes_free: u64,
    },
    /// The controllers decided.
    Configure(Configuration),
    /// Another host asks. Reads, `Locate` and `Copy` do not come here: they need no order.
    Request {
        /// To be named in the answer.
        ticket: Ticket,
        /// Who asks.
        from: NodeId,
        /// What; the driver has checked its body against the page sums.
        message: Message,
        /// Its sealed bytes.
        body: Option<B>,
    },
    /// A call ended. `None`: without an answer.
    Replied {
        /// Which.
        call: CallId,
        /// The answer and its sealed bytes.
        reply: Option<(Answer, Option<B>)>,
    },
    /// The store did what it was asked, or not.
    Stored {
        /// Which request.
        op: OpId,
        /// How it went.
        result: Result<Stored<B>, StoreFault>,
    },
}

/// Something to do. Effects are carried out in order, but only [`Effect::Commit`] takes effect at once: the others
/// are begun, and their ends come back as [`Input`].
#[derive(Clone, Debug)]
pub enum Effect<B> {
    /// Answer a request.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What.
        answer: Answer,
        /// Sealed bytes to go with it.
        body: Option<B>,
    },
    /// Ask another host.
    Call {
        /// Named again by [`Input::Replied`].
        call: CallId,
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
        /// Sealed bytes to go with it.
        body: Option<B>,
        /// How long to wait.
        deadline: Duration,
    },
    /// Make everything of the group up to here visible.
    Commit {
        /// Group.
        group: GroupId,
        /// Last committed number.
        seq: Seq,
    },
    /// Ask the store.
    Store {
        /// Named again by [`Input::Stored`].
        op: OpId,
        /// What.
        request: StoreRequest<B>,
    },
    /// Tell the controllers.
    Report(Report),
    /// Give a tick at this time, besides the regular ones.
    WakeAt(Duration),
}

/// What the machine needs of the store.
#[derive(Clone, Debug)]
pub enum StoreRequest<B> {
    /// Make the group's record durable.
    SaveGroup {
        /// Group.
        group: GroupId,
        /// Record.
        saved: SavedGroup,
    },
    /// Make the device's new life durable and forget every group.
    StartAnew(Incarnation),
    /// The controllers confirmed this mount of the device: make durable that those before it will not be asked for.
    SettleMount,
    /// Forget the group's data and log, keep its record; the log goes on after `through`.
    Empty {
        /// Group.
        group: GroupId,
        /// The record to keep.
        saved: SavedGroup,
        /// Number after which the log goes on.
        through: Seq,
    },
    /// Forget prepared entries above this number, durably.
    DiscardAbove {
        /// Group.
        group: GroupId,
        /// Last number to keep.
        seq: Seq,
    },
    /// Make this entry durable, without making it visible.
    Append {
        /// Group.
        group: GroupId,
        /// Place.
        at: CommitPoint,
        /// Entry.
        entry: LogEntry,
        /// Its sealed units.
        body: Option<B>,
    },
    /// The committed versions of these units, and the fences and cuts of their blocks.
    Lookup {
        /// Group.
        group: GroupId,
        /// Units.
        units: Vec<(BlockId, UnitIndex)>,
    },
    /// The first entry after this number, prepared or committed, with its bytes.
    Load {
        /// Group.
        group: GroupId,
        /// Number before it.
        after: Seq,
    },
    /// A page of fences, or of committed units in key order with their bytes.
    Scan {
        /// Group.
        group: GroupId,
        /// Where the page begins.
        from: ScanFrom,
    },
    /// Store committed units of a page, durably, where nothing newer is.
    PutPage {
        /// Group.
        group: GroupId,
        /// Fences and cuts in force.
        fences: Vec<BlockFence>,
        /// Units.
        units: Vec<Versioned>,
        /// Their sealed bytes.
        body: Option<B>,
        /// Units whose bytes nobody has.
        lost: Vec<Versioned>,
    },
}

/// Where a page of a scan begins: fences come first, then units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanFrom {
    /// With the first fence.
    Start,
    /// With the fence behind this block.
    FencesAfter(BlockId),
    /// With the first unit.
    Units,
    /// With the unit behind this one.
    UnitsAfter(BlockId, UnitIndex),
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum Stored<B> {
    /// Done and durable.
    Done,
    /// To [`StoreRequest::Lookup`], one for each unit.
    Known(Vec<KnownUnit>),
    /// To [`StoreRequest::Load`].
    Loaded(Loaded<B>),
    /// To [`StoreRequest::Scan`].
    Scanned {
        /// Units in key order, at most [`crate::message::UNITS_MAX`] and a body's worth.
        units: Vec<Versioned>,
        /// Their sealed bytes.
        body: Option<B>,
        /// Units whose bytes are bad here and that no host in reach has; at most [`crate::message::UNITS_MAX`] together
        /// with `units`.
        lost: Vec<Versioned>,
        /// Fences and cuts in force, at most [`crate::message::FENCES_MAX`].
        fences: Vec<BlockFence>,
        /// Where the next page begins; `None` after the last one.
        next: Option<ScanFrom>,
    },
}

/// What is known of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownUnit {
    /// The committed version.
    pub version: Option<Version>,
    /// The fence of its block.
    pub fence: Option<Generation>,
    /// The latest cut of its block; [`Cut::default`] when it was never cut.
    pub cut: Cut,
}

/// A version of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Generation that sealed it.
    pub generation: Generation,
    /// Its counter within that generation.
    pub counter: u64,
    /// Salt of the writer session that sealed it.
    pub salt: [u8; 16],
    /// Digest of its sealed bytes.
    pub digest: [u8; 32],
    /// Number of the entry that wrote it.
    pub seq: Seq,
}

/// An entry read back.
#[derive(Clone, Debug)]
pub enum Loaded<B> {
    /// The entry. Units that a later committed entry has replaced are left out of it; when none is left, it is a
    /// fence of generation 0, which changes nothing, so that the log has no gap.
    Entry {
        /// Place.
        at: CommitPoint,
        /// Entry.
        entry: LogEntry,
        /// Its sealed units.
        body: Option<B>,
    },
    /// There is none after that number.
    End,
    /// The log no longer reaches back that far.
    Gone,
}

/// Why the store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The device failed, for good.
    DeviceFailed,
    /// There is no room.
    Full,
    /// What should be read is bad; another member has it.
    Corrupt,
}

/// A group's record on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedGroup {
    /// Highest epoch this device took part in.
    pub epoch: Epoch,
    /// What it was in that epoch.
    pub standing: Standing,
    /// True when this host, as primary of that epoch, has let joiners count.
    pub joiners_count: bool,
}

/// What a device's copy of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In sync.
    InSync,
    /// Joining: whole up to its commit, and following the log.
    Joining,
    /// Joining: being filled with pages, so parts may be missing.
    Filling,
}

/// A group as the store recovered it.
#[derive(Clone, Debug)]
pub struct RecoveredGroup {
    /// Group.
    pub group: GroupId,
    /// Its record.
    pub saved: SavedGroup,
    /// Committed up to here, as far as this device knows.
    pub commit: CommitPoint,
    /// Prepared entries above it, in order.
    pub tail: Vec<(CommitPoint, LogEntry)>,
    /// How far recovery can be believed.
    pub trust: Trust,
}

/// How far what a device recovered of a group can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// It is what was acknowledged.
    Whole,
    /// Its newest entries may be missing although they were acknowledged: nothing is read from it until the primary
    /// has brought it up to the commit.
    TailInDoubt,
    /// Anything may be missing: it takes part only as a joiner, and is filled anew.
    Damaged,
}

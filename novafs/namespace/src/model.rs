//! What exists.

mod inode;
mod space;

use core::time::Duration;
use std::sync::Arc;

use imbl::OrdMap;
use nova_units::{BlockId, GroupId, InodeId, SessionId, Timestamp};

pub use inode::{
    Directory, Extra, File, Inode, Kind, Name, Node, OtherName, Quota, ROOT, StoredBlock, Totals,
};
pub use space::{STANDARD_SPACES, Space, StandardSpace, Trashed};

use crate::answer::Answer;
use crate::limits::INODES_MAX;

/// Nanoseconds of a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// A time of the log in nanoseconds since the epoch; stays at the end of the range rather than wrapping.
pub(crate) fn nanoseconds(at: Timestamp) -> u64 {
    at.0.saturating_mul(NS_PER_MS)
}

/// The millisecond in which a time in nanoseconds lies.
pub(crate) fn milliseconds(ns: u64) -> Timestamp {
    Timestamp(ns / NS_PER_MS)
}

/// A writer session that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Who opened it.
    pub client: u64,
    /// Silence after which the leader ends it.
    pub lease: Duration,
    /// When it was opened.
    pub opened: Timestamp,
    /// Block ids it was given and has not published, by first id.
    pub reserved: OrdMap<BlockId, Reservation>,
    /// How many those are.
    pub outstanding: u32,
    /// The files whose writer it is.
    pub writing: OrdMap<InodeId, ()>,
}

/// A run of block ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// How many.
    pub count: u32,
    /// The groups they may be put in.
    pub groups: Arc<[GroupId]>,
}

/// Blocks that no file has: of a removed or replaced file, or reserved by a session that ended. Their groups still
/// hold them until they are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// How many ids, counted from the key.
    pub count: u32,
    /// The groups that may hold them.
    pub groups: Arc<[GroupId]>,
    /// Since when.
    pub since: Timestamp,
}

/// What came of collecting orphans, since the region was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Blocks that were held and were deleted.
    pub blocks: u64,
    /// Sealed bytes that each member held of them.
    pub bytes: u64,
    /// When the last full pass ended; 0: none yet.
    pub full_pass: Timestamp,
}

/// The last answers of one client.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Client {
    /// Log index of its last command.
    pub(crate) last_index: u64,
    /// Answers up to this number are forgotten; such a request is refused.
    pub(crate) floor: u64,
    /// Outcomes in the answers.
    pub(crate) outcomes: usize,
    pub(crate) answers: OrdMap<u64, Arc<Answer>>,
}

/// The whole file metadata of a region.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Behind a pointer each: a page of the map that a snapshot holds is copied by its pointers.
    pub(crate) inodes: OrdMap<InodeId, Arc<Inode>>,
    pub(crate) entries: OrdMap<(InodeId, Name), InodeId>,
    /// (directory, cookie) of every entry: the order in which readdir goes.
    pub(crate) cookies: OrdMap<(InodeId, u64), InodeId>,
    pub(crate) spaces: OrdMap<InodeId, Space>,
    pub(crate) sessions: OrdMap<SessionId, Session>,
    /// The session that writes a file; as in the sessions, the other way round.
    pub(crate) writers: OrdMap<InodeId, SessionId>,
    pub(crate) orphans: OrdMap<BlockId, Orphan>,
    pub(crate) collection: Collection,
    /// What can be had back, by its number.
    pub(crate) trash: OrdMap<u64, Trashed>,
    /// (when it goes in ms, its number).
    pub(crate) trash_due: OrdMap<(u64, u64), ()>,
    /// Sums over the trash, each item as it was when it was removed.
    pub(crate) trash_totals: Totals,
    /// Roots of trees that are to be taken apart.
    pub(crate) sweep: OrdMap<InodeId, ()>,
    pub(crate) clients: OrdMap<u64, Client>,
    /// (log index of its last command, client), the one silent longest first.
    pub(crate) clients_by_age: OrdMap<(u64, u64), ()>,
    pub(crate) era: u16,
    /// Inodes and cookies are given from here.
    pub(crate) next_inode: u64,
    pub(crate) next_session: u64,
    pub(crate) next_block: u64,
    pub(crate) next_trashed: u64,
    /// Everything in the trash with a lower number goes.
    pub(crate) purge_below: u64,
    /// Never goes back.
    pub(crate) clock: Timestamp,
    pub(crate) inodes_max: u64,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Namespace {
    /// The state before the first command: the root and the standard namespaces. Block ids are given in `era`.
    #[must_use]
    pub fn new(era: u16) -> Self {
        let mut namespace = Self::empty(era);
        namespace.inodes.insert(ROOT, Arc::new(Inode::directory(ROOT, "", 0o755, Timestamp(0))));
        for standard in STANDARD_SPACES {
            let id = namespace.add_directory(ROOT, standard.name, (0o755, 0, 0));
            namespace.spaces.insert(id, Space { retention: Some(standard.retention), ..Space::default() });
        }
        namespace
    }

    /// Nothing, not even a root.
    pub(crate) fn empty(era: u16) -> Self {
        Self {
            inodes: OrdMap::new(),
            entries: OrdMap::new(),
            cookies: OrdMap::new(),
            spaces: OrdMap::new(),
            sessions: OrdMap::new(),
            writers: OrdMap::new(),
            orphans: OrdMap::new(),
            collection: Collection::default(),
            trash: OrdMap::new(),
            trash_due: OrdMap::new(),
            trash_totals: Totals::default(),
            sweep: OrdMap::new(),
            clients: OrdMap::new(),
            clients_by_age: OrdMap::new(),
            era,
            next_inode: ROOT.0 + 1,
            next_session: 1,
            next_block: 1,
            next_trashed: 1,
            purge_below: 0,
            clock: Timestamp(0),
            inodes_max: INODES_MAX,
        }
    }

    /// The same with room for fewer inodes.
    #[must_use]
    pub fn with_inodes_max(mut self, inodes_max: u64) -> Self {
        self.inodes_max = inodes_max;
        self
    }

    /// An open writer session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Open writer sessions by id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// The session that writes this file.
    #[must_use]
    pub fn writer(&self, file: InodeId) -> Option<SessionId> {
        self.writers.get(&file).copied()
    }

    /// Blocks that wait for collection, by first id.
    pub fn orphans(&self) -> impl Iterator<Item = (BlockId, &Orphan)> {
        self.orphans.iter().map(|(first, orphan)| (*first, orphan))
    }

    /// Those of [`Namespace::orphans`] whose first id is `from` or comes after it.
    pub fn orphans_from(&self, from: BlockId) -> impl Iterator<Item = (BlockId, &Orphan)> {
        self.orphans.range(from..).map(|(first, orphan)| (*first, orphan))
    }

    /// What came of collecting orphans.
    #[must_use]
    pub fn collection(&self) -> Collection {
        self.collection
    }

    /// Every inode there is, also in the trash and of trees that wait for a sweep.
    pub fn inodes(&self) -> impl Iterator<Item = (InodeId, &Inode)> {
        self.inodes.iter().map(|(id, inode)| (*id, &**inode))
    }

    /// Trees that left the trash wait for a sweep.
    #[must_use]
    pub fn has_sweep(&self) -> bool {
        !self.sweep.is_empty()
    }

    /// Time of the latest command.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Era of the block ids given now.
    #[must_use]
    pub fn era(&self) -> u16 {
        self.era
    }
}

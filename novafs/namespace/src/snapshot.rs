//! The whole state as bytes.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `NOVANAME` |
//! | 4 | version, little-endian |
//! | .. | pieces, each a message behind its length (varint); the last one holds the counts of what came before |
//!
//! Entries are not stored: every inode knows its names. A piece holds at most [`ROWS_PER_PIECE`] rows.
//!
//! Version 2 added what files need to be reopened: times in nanoseconds, owners, turns, several names, attributes,
//! symbolic links, writers, quotas, the trash. Version 1 is still read; what it lacks gets its default.

mod inode;

use core::time::Duration;
use std::sync::Arc;

use imbl::OrdMap;
use nova_units::{BlockId, GroupId, InodeId, Replicas, SessionId, Timestamp};
use prost::Message;

use self::inode::{InodeRow, TotalsRow};
use crate::answer::Answer;
use crate::model::{
    Client, Collection, File, Namespace, Node, Orphan, ROOT, Reservation, Session, Space, Totals, Trashed,
};
use crate::tree::NOWHERE;

/// First bytes of a snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"NOVANAME";
/// The version written; older ones stay readable.
pub const SNAPSHOT_VERSION: u32 = 2;
/// Rows of one piece: what is held twice in memory while a snapshot is written.
const ROWS_PER_PIECE: usize = 512;

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is something else.
    #[error("this is no snapshot of file metadata")]
    Magic,
    /// It was written by a newer controller.
    #[error("the snapshot has version {0}, this controller reads up to {SNAPSHOT_VERSION}; upgrade it")]
    Version(u32),
    /// It ends early.
    #[error("the snapshot ends before its last piece; fetch it again")]
    Truncated,
    /// Its bytes make no sense.
    #[error("the snapshot is damaged: {0}; fetch it again")]
    Damaged(&'static str),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Piece {
    #[prost(message, optional, tag = "1")]
    head: Option<Head>,
    #[prost(message, repeated, tag = "2")]
    inodes: Vec<InodeRow>,
    #[prost(message, repeated, tag = "3")]
    spaces: Vec<SpaceRow>,
    #[prost(message, repeated, tag = "4")]
    sessions: Vec<SessionRow>,
    #[prost(message, repeated, tag = "5")]
    orphans: Vec<RunRow>,
    #[prost(uint64, repeated, tag = "6")]
    sweep: Vec<u64>,
    #[prost(message, repeated, tag = "7")]
    clients: Vec<ClientRow>,
    #[prost(message, repeated, tag = "8")]
    trash: Vec<TrashRow>,
    #[prost(message, optional, tag = "15")]
    end: Option<End>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(uint32, tag = "1")]
    era: u32,
    #[prost(uint64, tag = "2")]
    next_inode: u64,
    #[prost(uint64, tag = "3")]
    next_session: u64,
    #[prost(uint64, tag = "4")]
    next_block: u64,
    #[prost(uint64, tag = "5")]
    clock_ms: u64,
    #[prost(uint64, tag = "6")]
    inodes_max: u64,
    #[prost(uint64, tag = "20")]
    collected_blocks: u64,
    #[prost(uint64, tag = "21")]
    collected_bytes: u64,
    #[prost(uint64, tag = "22")]
    full_pass_ms: u64,
    #[prost(uint64, tag = "7")]
    next_trashed: u64,
    #[prost(uint64, tag = "8")]
    purge_below: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct End {
    #[prost(uint64, tag = "1")]
    inodes: u64,
    #[prost(uint64, tag = "2")]
    sessions: u64,
    #[prost(uint64, tag = "3")]
    orphans: u64,
    #[prost(uint64, tag = "4")]
    clients: u64,
    #[prost(uint64, tag = "5")]
    trash: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpaceRow {
    #[prost(uint64, tag = "1")]
    inode: u64,
    #[prost(uint32, tag = "2")]
    key_domain: u32,
    #[prost(uint32, tag = "3")]
    replicas: u32,
    #[prost(uint64, optional, tag = "4")]
    retention_ms: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    undelete_ms: Option<u64>,
    #[prost(uint32, optional, tag = "6")]
    unit_log2: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrashRow {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    root: u64,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(uint64, tag = "4")]
    space: u64,
    #[prost(uint64, tag = "5")]
    removed_ms: u64,
    #[prost(uint64, tag = "6")]
    purge_ms: u64,
    #[prost(message, optional, tag = "7")]
    weight: Option<TotalsRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SessionRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    client: u64,
    #[prost(uint64, tag = "3")]
    lease_ms: u64,
    #[prost(uint64, tag = "4")]
    opened_ms: u64,
    #[prost(message, repeated, tag = "5")]
    reserved: Vec<RunRow>,
    #[prost(uint64, repeated, tag = "6")]
    writing: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunRow {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(uint32, repeated, tag = "3")]
    groups: Vec<u32>,
    #[prost(uint64, tag = "4")]
    since_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClientRow {
    #[prost(uint64, tag = "1")]
    client: u64,
    #[prost(uint64, tag = "2")]
    last_index: u64,
    #[prost(uint64, tag = "3")]
    floor: u64,
    #[prost(message, repeated, tag = "4")]
    answers: Vec<AnswerRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnswerRow {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(message, optional, tag = "2")]
    answer: Option<Answer>,
}

impl Namespace {
    /// Writes the whole state, piece by piece. Equal states give equal bytes.
    pub fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        out(&SNAPSHOT_MAGIC);
        out(&SNAPSHOT_VERSION.to_le_bytes());
        let mut write = |piece: Piece| out(&piece.encode_length_delimited_to_vec());
        write(Piece {
            head: Some(Head {
                era: self.era.into(),
                next_inode: self.next_inode,
                next_session: self.next_session,
                next_block: self.next_block,
                clock_ms: self.clock.0,
                inodes_max: self.inodes_max,
                collected_blocks: self.collection.blocks,
                collected_bytes: self.collection.bytes,
                full_pass_ms: self.collection.full_pass.0,
                next_trashed: self.next_trashed,
                purge_below: self.purge_below,
            }),
            spaces: self.spaces.iter().map(|(id, space)| space_row(*id, space)).collect(),
            ..Piece::default()
        });
        for inodes in rows(self.inodes.iter().map(|(id, inode)| inode::row(*id, inode))) {
            write(Piece { inodes, ..Piece::default() });
        }
        for sessions in rows(self.sessions.iter().map(|(id, session)| session_row(*id, session))) {
            write(Piece { sessions, ..Piece::default() });
        }
        for orphans in rows(
            self.orphans
                .iter()
                .map(|(first, orphan)| run_row(*first, orphan.count, &orphan.groups, orphan.since)),
        ) {
            write(Piece { orphans, ..Piece::default() });
        }
        for sweep in rows(self.sweep.keys().map(|id| id.0)) {
            write(Piece { sweep, ..Piece::default() });
        }
        for trash in rows(self.trash.iter().map(|(number, trashed)| trash_row(*number, trashed))) {
            write(Piece { trash, ..Piece::default() });
        }
        for (id, client) in &self.clients {
            write(Piece { clients: vec![client_row(*id, client)], ..Piece::default() });
        }
        write(Piece {
            end: Some(End {
                inodes: self.inodes.len() as u64,
                sessions: self.sessions.len() as u64,
                orphans: self.orphans.len() as u64,
                clients: self.clients.len() as u64,
                trash: self.trash.len() as u64,
            }),
            ..Piece::default()
        });
    }

    /// Reads what [`Namespace::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are something else, damaged, cut short or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rest = bytes.strip_prefix(&SNAPSHOT_MAGIC).ok_or(SnapshotError::Magic)?;
        let (version, mut rest) = rest.split_first_chunk::<4>().ok_or(SnapshotError::Truncated)?;
        let version = u32::from_le_bytes(*version);
        if !(1..=SNAPSHOT_VERSION).contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        let mut namespace = Self::empty(0);
        loop {
            if rest.is_empty() {
                return Err(SnapshotError::Truncated);
            }
            let piece =
                Piece::decode_length_delimited(&mut rest).map_err(|_| SnapshotError::Damaged("a piece"))?;
            if let Some(end) = namespace.take_piece(piece)? {
                if !rest.is_empty() {
                    return Err(SnapshotError::Damaged("something follows its last piece"));
                }
                namespace.enter_names()?;
                namespace.check(&end)?;
                if version == 1 {
                    namespace.recount_bytes();
                }
                return Ok(namespace);
            }
        }
    }

    fn take_piece(&mut self, piece: Piece) -> Result<Option<End>, SnapshotError> {
        if let Some(head) = piece.head {
            self.era = u16::try_from(head.era).map_err(|_| SnapshotError::Damaged("the era"))?;
            self.next_inode = head.next_inode;
            self.next_session = head.next_session;
            self.next_block = head.next_block;
            self.clock = Timestamp(head.clock_ms);
            self.inodes_max = head.inodes_max;
            self.collection = Collection {
                blocks: head.collected_blocks,
                bytes: head.collected_bytes,
                full_pass: Timestamp(head.full_pass_ms),
            };
            self.next_trashed = head.next_trashed.max(1);
            self.purge_below = head.purge_below;
        }
        for row in piece.spaces {
            let default = Space::default();
            let unit_log2 = row.unit_log2.map_or(Ok(default.unit_log2), u8::try_from);
            let space = Space {
                key_domain: row.key_domain,
                replicas: Replicas::new(row.replicas).ok_or(SnapshotError::Damaged("a namespace"))?,
                retention: row.retention_ms.map(Duration::from_millis),
                undelete: row.undelete_ms.map_or(default.undelete, Duration::from_millis),
                unit_log2: unit_log2.map_err(|_| SnapshotError::Damaged("a namespace"))?,
            };
            self.spaces.insert(InodeId(row.inode), space);
        }
        for row in piece.inodes {
            let (id, inode) = inode::read(row)?;
            self.inodes.insert(id, Arc::new(inode));
        }
        for row in piece.sessions {
            let mut session = Session {
                client: row.client,
                lease: Duration::from_millis(row.lease_ms),
                opened: Timestamp(row.opened_ms),
                reserved: OrdMap::new(),
                outstanding: 0,
                writing: row.writing.iter().map(|id| (InodeId(*id), ())).collect(),
            };
            self.writers.extend(row.writing.iter().map(|id| (InodeId(*id), SessionId(row.id))));
            for run in row.reserved {
                session.outstanding = session.outstanding.saturating_add(run.count);
                let reservation = Reservation { count: run.count, groups: groups_of(&run.groups) };
                session.reserved.insert(BlockId(run.first), reservation);
            }
            self.sessions.insert(SessionId(row.id), session);
        }
        for row in piece.orphans {
            let orphan =
                Orphan { count: row.count, groups: groups_of(&row.groups), since: Timestamp(row.since_ms) };
            self.orphans.insert(BlockId(row.first), orphan);
        }
        self.sweep.extend(piece.sweep.into_iter().map(|id| (InodeId(id), ())));
        for row in piece.trash {
            let weight = row.weight.map(inode::totals).unwrap_or_default();
            let (sum, over) = self.trash_totals.overflowing_add(weight);
            if over {
                return Err(SnapshotError::Damaged("the trash"));
            }
            self.trash_totals = sum;
            self.trash_due.insert((row.purge_ms, row.number), ());
            let trashed = Trashed {
                root: InodeId(row.root),
                path: row.path.into(),
                space: InodeId(row.space),
                removed: Timestamp(row.removed_ms),
                purge: Timestamp(row.purge_ms),
                weight,
            };
            self.trash.insert(row.number, trashed);
        }
        for row in piece.clients {
            let mut client = Client { last_index: row.last_index, floor: row.floor, ..Client::default() };
            for answer in row.answers {
                let body = answer.answer.ok_or(SnapshotError::Damaged("an answer"))?;
                client.outcomes += body.weight();
                client.answers.insert(answer.sequence, Arc::new(body));
            }
            self.clients_by_age.insert((row.last_index, row.client), ());
            self.clients.insert(row.client, client);
        }
        Ok(piece.end)
    }

    /// Entries and cookies, from what the inodes know.
    fn enter_names(&mut self) -> Result<(), SnapshotError> {
        let mut names = 0;
        for (id, inode) in self.inodes.iter().filter(|(id, _)| **id != ROOT) {
            let first =
                (inode.parent != NOWHERE).then(|| (inode.parent, &inode.name, self.first_cookie(*id)));
            let others = inode.other_names().iter().map(|other| (other.parent, &other.name, other.cookie));
            for (parent, name, cookie) in first.into_iter().chain(others) {
                self.entries.insert((parent, Arc::clone(name)), *id);
                self.cookies.insert((parent, cookie), *id);
                names += 1;
            }
        }
        if names != self.entries.len() || names != self.cookies.len() {
            return Err(SnapshotError::Damaged("an entry"));
        }
        Ok(())
    }

    /// Version 1 counted holes as bytes.
    fn recount_bytes(&mut self) {
        let ids: Vec<InodeId> = self.inodes.keys().copied().collect();
        for id in &ids {
            if let Node::Directory(directory) = &mut self.inode_mut(*id).node {
                directory.totals.bytes = 0;
            }
        }
        for id in ids {
            let inode = self.inode(id);
            let (parent, file) = (inode.parent, inode.file());
            if let Some(bytes) = file.map(File::stored_bytes).filter(|_| parent != NOWHERE) {
                self.account(parent, Totals { bytes, ..Totals::default() }, Totals::default());
            }
        }
    }

    /// Every parent is a directory and counts its children, and what has no name is in the trash or swept: what
    /// `apply` relies on.
    fn check(&self, end: &End) -> Result<(), SnapshotError> {
        let counts = [
            self.inodes.len(),
            self.sessions.len(),
            self.orphans.len(),
            self.clients.len(),
            self.trash.len(),
        ];
        if counts.map(|count| count as u64) != [end.inodes, end.sessions, end.orphans, end.clients, end.trash]
        {
            return Err(SnapshotError::Damaged("its counts"));
        }
        let mut children = 0_u64;
        let mut nameless = 0;
        for (id, inode) in &self.inodes {
            if *id >= InodeId(self.next_inode) {
                return Err(SnapshotError::Damaged("the next inode"));
            }
            children = children.saturating_add(inode.as_directory().map_or(0, |it| it.children));
            nameless += usize::from(inode.parent == NOWHERE);
        }
        if self.entries.keys().any(|(parent, _)| !self.is_directory(*parent)) {
            return Err(SnapshotError::Damaged("a parent"));
        }
        if !self.is_directory(ROOT) || children != self.entries.len() as u64 {
            return Err(SnapshotError::Damaged("the tree"));
        }
        let roots = self.trash.values().map(|trashed| trashed.root).chain(self.sweep.keys().copied());
        let nowhere = |id| self.inodes.get(&id).is_some_and(|inode| inode.parent == NOWHERE);
        if nameless != self.trash.len() + self.sweep.len() || !roots.into_iter().all(nowhere) {
            return Err(SnapshotError::Damaged("the trash"));
        }
        if self.writers.keys().any(|id| self.inodes.get(id).is_none_or(|inode| inode.file().is_none())) {
            return Err(SnapshotError::Damaged("a writer"));
        }
        Ok(())
    }

    fn is_directory(&self, id: InodeId) -> bool {
        self.inodes.get(&id).is_some_and(|inode| inode.as_directory().is_some())
    }
}

/// Cuts `rows` into vectors of at most [`ROWS_PER_PIECE`].
fn rows<T>(mut rows: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    core::iter::from_fn(move || {
        let piece: Vec<T> = rows.by_ref().take(ROWS_PER_PIECE).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

fn groups_of(groups: &[u32]) -> Arc<[GroupId]> {
    groups.iter().copied().map(GroupId).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn run_row(first: BlockId, count: u32, groups: &[GroupId], since: Timestamp) -> RunRow {
    RunRow { first: first.0, count, groups: groups.iter().map(|group| group.0).collect(), since_ms: since.0 }
}

fn space_row(id: InodeId, space: &Space) -> SpaceRow {
    SpaceRow {
        inode: id.0,
        key_domain: space.key_domain,
        replicas: space.replicas.get(),
        retention_ms: space.retention.map(millis),
        undelete_ms: Some(millis(space.undelete)),
        unit_log2: Some(space.unit_log2.into()),
    }
}

fn session_row(id: SessionId, session: &Session) -> SessionRow {
    SessionRow {
        id: id.0,
        client: session.client,
        lease_ms: millis(session.lease),
        opened_ms: session.opened.0,
        reserved: session
            .reserved
            .iter()
            .map(|(first, run)| run_row(*first, run.count, &run.groups, Timestamp(0)))
            .collect(),
        writing: session.writing.keys().map(|id| id.0).collect(),
    }
}

fn trash_row(number: u64, trashed: &Trashed) -> TrashRow {
    TrashRow {
        number,
        root: trashed.root.0,
        path: trashed.path.to_string(),
        space: trashed.space.0,
        removed_ms: trashed.removed.0,
        purge_ms: trashed.purge.0,
        weight: Some(inode::totals_row(trashed.weight)),
    }
}

fn client_row(id: u64, client: &Client) -> ClientRow {
    ClientRow {
        client: id,
        last_index: client.last_index,
        floor: client.floor,
        answers: client
            .answers
            .iter()
            .map(|(sequence, answer)| AnswerRow { sequence: *sequence, answer: Some(Answer::clone(answer)) })
            .collect(),
    }
}

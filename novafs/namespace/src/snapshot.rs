//! The whole state as bytes.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `NOVANAME` |
//! | 4 | version, little-endian |
//! | .. | pieces, each a message behind its length (varint); the last one holds the counts of what came before |
//!
//! Entries are not stored: every inode knows its parent and its name. A piece holds at most [`ROWS_PER_PIECE`] rows.

use core::time::Duration;
use std::sync::Arc;

use imbl::OrdMap;
use nova_units::{BlockId, Generation, GroupId, InodeId, SessionId, Timestamp};
use prost::Message;

use crate::answer::Answer;
use crate::apply::optional_digest;
use crate::model::{
    Client, Collection, Directory, File, Inode, Name, Namespace, Node, Orphan, ROOT, Reservation, Session,
    Space, StoredBlock, Totals,
};

/// First bytes of a snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"NOVANAME";
/// The version written; older ones stay readable.
pub const SNAPSHOT_VERSION: u32 = 1;
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
    trash: Vec<u64>,
    #[prost(message, repeated, tag = "7")]
    clients: Vec<ClientRow>,
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
}

#[derive(Clone, PartialEq, prost::Message)]
struct InodeRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    parent: u64,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(uint32, tag = "4")]
    mode: u32,
    #[prost(uint64, tag = "5")]
    modified_ms: u64,
    #[prost(uint64, tag = "6")]
    created_ms: u64,
    #[prost(message, optional, tag = "7")]
    file: Option<FileRow>,
    #[prost(message, optional, tag = "8")]
    directory: Option<DirectoryRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileRow {
    #[prost(uint64, tag = "1")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "2")]
    sha256: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    blocks: Vec<BlockRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BlockRow {
    #[prost(uint64, tag = "1")]
    block: u64,
    #[prost(uint32, tag = "2")]
    group: u32,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(uint32, tag = "4")]
    bytes: u32,
    #[prost(uint32, tag = "5")]
    generation: u32,
    #[prost(bytes = "vec", tag = "6")]
    salt: Vec<u8>,
    #[prost(uint32, tag = "7")]
    unit_log2: u32,
    #[prost(uint32, tag = "8")]
    key_domain: u32,
    #[prost(uint32, tag = "9")]
    key_version: u32,
    #[prost(bytes = "vec", tag = "10")]
    root: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DirectoryRow {
    #[prost(uint64, tag = "1")]
    children: u64,
    #[prost(uint64, tag = "2")]
    files: u64,
    #[prost(uint64, tag = "3")]
    directories: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(uint64, tag = "5")]
    blocks: u64,
    #[prost(uint32, tag = "6")]
    height: u32,
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
            }),
            spaces: self.spaces.iter().map(|(id, space)| space_row(*id, space)).collect(),
            ..Piece::default()
        });
        for inodes in rows(self.inodes.iter().map(|(id, inode)| inode_row(*id, inode))) {
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
        for trash in rows(self.trash.keys().map(|id| id.0)) {
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
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let mut namespace = Self::new(0);
        namespace.inodes.clear();
        namespace.entries.clear();
        namespace.spaces.clear();
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
                namespace.check(&end)?;
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
        }
        for row in piece.spaces {
            let space = Space {
                key_domain: row.key_domain,
                replicas: row.replicas,
                retention: row.retention_ms.map(Duration::from_millis),
            };
            self.spaces.insert(InodeId(row.inode), space);
        }
        for row in piece.inodes {
            let id = InodeId(row.id);
            let inode = inode_of(row)?;
            if inode.parent != InodeId(0) && id != ROOT {
                self.entries.insert((inode.parent, Arc::clone(&inode.name)), id);
            }
            self.inodes.insert(id, inode);
        }
        for row in piece.sessions {
            let mut session = Session {
                client: row.client,
                lease: Duration::from_millis(row.lease_ms),
                opened: Timestamp(row.opened_ms),
                reserved: OrdMap::new(),
                outstanding: 0,
            };
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
        self.trash.extend(piece.trash.into_iter().map(|id| (InodeId(id), ())));
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

    /// Every inode has its entry, every parent is a directory and counts its children: what `apply` relies on.
    fn check(&self, end: &End) -> Result<(), SnapshotError> {
        let counts = (self.inodes.len(), self.sessions.len(), self.orphans.len(), self.clients.len());
        let expected = (end.inodes, end.sessions, end.orphans, end.clients);
        if (counts.0 as u64, counts.1 as u64, counts.2 as u64, counts.3 as u64) != expected {
            return Err(SnapshotError::Damaged("its counts"));
        }
        if self.entries.len() + self.trash.len() + 1 != self.inodes.len() {
            return Err(SnapshotError::Damaged("an entry"));
        }
        let mut children = 0_u64;
        for (id, inode) in &self.inodes {
            if *id >= InodeId(self.next_inode) {
                return Err(SnapshotError::Damaged("the next inode"));
            }
            if let Node::Directory(directory) = &inode.node {
                children = children.saturating_add(directory.children);
            }
            let known = *id == ROOT
                || self.trash.contains_key(id)
                || matches!(
                    self.inodes.get(&inode.parent).map(|parent| &parent.node),
                    Some(Node::Directory(_))
                );
            if !known {
                return Err(SnapshotError::Damaged("a parent"));
            }
        }
        let root = matches!(self.inodes.get(&ROOT).map(|root| &root.node), Some(Node::Directory(_)));
        if !root || children != self.entries.len() as u64 {
            return Err(SnapshotError::Damaged("the tree"));
        }
        Ok(())
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
        replicas: space.replicas,
        retention_ms: space.retention.map(millis),
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

fn digest_row(digest: Option<[u8; 32]>) -> Vec<u8> {
    digest.map_or_else(Vec::new, |digest| digest.to_vec())
}

fn inode_row(id: InodeId, inode: &Inode) -> InodeRow {
    let mut row = InodeRow {
        id: id.0,
        parent: inode.parent.0,
        name: inode.name.to_string(),
        mode: inode.mode,
        modified_ms: inode.modified.0,
        created_ms: inode.created.0,
        file: None,
        directory: None,
    };
    match &inode.node {
        Node::File(file) => {
            row.file = Some(FileRow {
                bytes: file.bytes,
                sha256: digest_row(file.sha256),
                blocks: file.blocks.iter().map(block_row).collect(),
            });
        }
        Node::Directory(directory) => {
            row.directory = Some(DirectoryRow {
                children: directory.children,
                files: directory.totals.files,
                directories: directory.totals.directories,
                bytes: directory.totals.bytes,
                blocks: directory.totals.blocks,
                height: directory.height,
            });
        }
    }
    row
}

fn block_row(block: &StoredBlock) -> BlockRow {
    BlockRow {
        block: block.block.0,
        group: block.group.0,
        offset: block.offset,
        bytes: block.bytes,
        generation: block.generation.0,
        salt: block.salt.to_vec(),
        unit_log2: block.unit_log2.into(),
        key_domain: block.key_domain,
        key_version: block.key_version,
        root: digest_row(block.root),
    }
}

fn inode_of(row: InodeRow) -> Result<Inode, SnapshotError> {
    let node = match (row.file, row.directory) {
        (Some(file), None) => Node::File(Arc::new(File {
            bytes: file.bytes,
            sha256: optional_digest(&file.sha256).ok_or(SnapshotError::Damaged("a digest"))?,
            blocks: file.blocks.into_iter().map(block_of).collect::<Result<_, _>>()?,
        })),
        (None, Some(directory)) => Node::Directory(Directory {
            children: directory.children,
            totals: Totals {
                files: directory.files,
                directories: directory.directories,
                bytes: directory.bytes,
                blocks: directory.blocks,
            },
            height: directory.height,
        }),
        _ => return Err(SnapshotError::Damaged("an inode")),
    };
    Ok(Inode {
        parent: InodeId(row.parent),
        name: Name::from(row.name),
        mode: row.mode,
        modified: Timestamp(row.modified_ms),
        created: Timestamp(row.created_ms),
        node,
    })
}

fn block_of(row: BlockRow) -> Result<StoredBlock, SnapshotError> {
    let damaged = SnapshotError::Damaged("a block");
    Ok(StoredBlock {
        block: BlockId(row.block),
        group: GroupId(row.group),
        offset: row.offset,
        bytes: row.bytes,
        generation: Generation(row.generation),
        salt: row.salt.as_slice().try_into().map_err(|_| damaged.clone())?,
        unit_log2: u8::try_from(row.unit_log2).map_err(|_| damaged.clone())?,
        key_domain: row.key_domain,
        key_version: row.key_version,
        root: optional_digest(&row.root).ok_or(damaged)?,
    })
}

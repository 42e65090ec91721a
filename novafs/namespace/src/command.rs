//! What may be asked. Commands are entries of the Raft log: fields are only ever added.
//!
//! Where a command has a path it may have a base, an inode: the path is then relative to it, without a leading slash,
//! and an empty path is that inode itself. Base 0: the path is absolute.

mod entry;
mod space;
mod writer;

pub use entry::{
    Link, MakeDirectory, MakeSymlink, Only, Remove, RemoveXattr, Rename, SetAttributes, SetXattr, Sweep,
};
pub use space::{Expire, Purge, PurgeTrash, SetQuota, SetSpace, Undelete};
pub use writer::{CloseFile, CommitFile, OpenFile, Truncate};

/// One request: who asks, when the leader took it, and what.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Who asks; 0 for the controllers themselves.
    #[prost(uint64, tag = "1")]
    pub client: u64,
    /// A number that the client raises with every request; a repeated one is answered again, not applied again.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// The leader's wall clock; the state never lets it go back.
    #[prost(uint64, tag = "3")]
    pub at_ms: u64,
    /// What is asked.
    #[prost(
        oneof = "Op",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33"
    )]
    pub op: Option<Op>,
}

/// One kind of command.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Opens a writer session.
    #[prost(message, tag = "10")]
    OpenSession(OpenSession),
    /// Ends (fences) one.
    #[prost(message, tag = "11")]
    EndSession(EndSession),
    /// Gives a session block ids.
    #[prost(message, tag = "12")]
    ReserveBlocks(ReserveBlocks),
    /// Makes whole files.
    #[prost(message, tag = "13")]
    Publish(Publish),
    /// Makes a directory.
    #[prost(message, tag = "14")]
    MakeDirectory(MakeDirectory),
    /// Moves an entry.
    #[prost(message, tag = "15")]
    Rename(Rename),
    /// Removes an entry.
    #[prost(message, tag = "16")]
    Remove(Remove),
    /// Takes removed trees apart.
    #[prost(message, tag = "17")]
    Sweep(Sweep),
    /// Blocks that no longer exist anywhere.
    #[prost(message, tag = "18")]
    Collected(Collected),
    /// Opens a file for writing.
    #[prost(message, tag = "19")]
    OpenFile(OpenFile),
    /// Makes written data visible.
    #[prost(message, tag = "20")]
    CommitFile(CommitFile),
    /// Gives up the writer's place.
    #[prost(message, tag = "21")]
    CloseFile(CloseFile),
    /// Changes a file's length.
    #[prost(message, tag = "22")]
    Truncate(Truncate),
    /// Changes mode, owner, times.
    #[prost(message, tag = "23")]
    SetAttributes(SetAttributes),
    /// Gives a file one more name.
    #[prost(message, tag = "24")]
    Link(Link),
    /// Makes a symbolic link.
    #[prost(message, tag = "25")]
    MakeSymlink(MakeSymlink),
    /// Sets an extended attribute.
    #[prost(message, tag = "26")]
    SetXattr(SetXattr),
    /// Removes an extended attribute.
    #[prost(message, tag = "27")]
    RemoveXattr(RemoveXattr),
    /// Bounds what lies below a directory.
    #[prost(message, tag = "28")]
    SetQuota(SetQuota),
    /// Changes the policy of a namespace.
    #[prost(message, tag = "29")]
    SetSpace(SetSpace),
    /// Takes something out of the trash, back into the tree.
    #[prost(message, tag = "30")]
    Undelete(Undelete),
    /// Lets something in the trash go before its time.
    #[prost(message, tag = "31")]
    PurgeTrash(PurgeTrash),
    /// Lets go what was in the trash for its time.
    #[prost(message, tag = "32")]
    Purge(Purge),
    /// Removes files whose retention is over.
    #[prost(message, tag = "33")]
    Expire(Expire),
}

/// Opens a writer session.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct OpenSession {
    /// The lease wanted, brought into range; 0 = the default.
    #[prost(uint32, tag = "1")]
    pub lease_ms: u32,
}

/// Ends a session: its client closed it, or was silent for its lease. Nothing of it is published afterwards.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct EndSession {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub session: u64,
}

/// Gives a session block ids.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReserveBlocks {
    /// For whom.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// How many, 1 to `BLOCKS_PER_RESERVATION_MAX`.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// Writable groups, chosen by the leader from the cluster's state; block i goes to `groups[i % n]`.
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}

/// Makes whole files: inode, entry, blocks and length of each in one step; one outcome each.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Publish {
    /// The session that reserved the blocks.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The files, at most `FILES_PER_PUBLISH_MAX`.
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<NewFile>,
    /// Makes missing directories on the way, but no namespace.
    #[prost(bool, tag = "3")]
    pub make_parents: bool,
    /// A file of that name makes room; its blocks are collected later.
    #[prost(bool, tag = "4")]
    pub replace: bool,
}

/// A file to publish.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NewFile {
    /// Where.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permission bits, kept for the client.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Its time of modification, kept for the client.
    #[prost(uint64, tag = "3")]
    pub modified_ms: u64,
    /// Its length.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// Its blocks in order; between them it reads as zeros.
    #[prost(message, repeated, tag = "5")]
    pub blocks: Vec<Block>,
    /// SHA-256 of the whole plaintext, or empty.
    #[prost(bytes = "vec", tag = "6")]
    pub sha256: Vec<u8>,
    /// What the path is relative to.
    #[prost(uint64, tag = "7")]
    pub base: u64,
    /// Owner.
    #[prost(uint32, tag = "8")]
    pub uid: u32,
    /// Group of the owner.
    #[prost(uint32, tag = "9")]
    pub gid: u32,
    /// Counts instead of `modified_ms` when it is not 0.
    #[prost(uint64, tag = "10")]
    pub modified_ns: u64,
}

/// A block of a file, as its edge sealed it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Block {
    /// Its id, out of the session's reservation.
    #[prost(uint64, tag = "1")]
    pub block: u64,
    /// The replica group that holds it.
    #[prost(uint32, tag = "2")]
    pub group: u32,
    /// Plaintext length.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// The writer's turn on it.
    #[prost(uint32, tag = "4")]
    pub generation: u32,
    /// In logs of older controllers; not kept, because every unit record has its own.
    #[prost(bytes = "vec", tag = "5")]
    pub salt: Vec<u8>,
    /// Its unit is `1 << unit_log2` bytes.
    #[prost(uint32, tag = "6")]
    pub unit_log2: u32,
    /// Key domain that sealed it.
    #[prost(uint32, tag = "7")]
    pub key_domain: u32,
    /// Version of that domain's key.
    #[prost(uint32, tag = "8")]
    pub key_version: u32,
    /// SHA-256 over header and segment digests, or empty.
    #[prost(bytes = "vec", tag = "9")]
    pub root: Vec<u8>,
    /// Where in the file it begins.
    #[prost(uint64, tag = "10")]
    pub offset: u64,
    /// What is missing reads as zeros; it has no root.
    #[prost(bool, tag = "11")]
    pub sparse: bool,
}

/// Orphans whose blocks no longer exist in any group, and what was deleted for them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Collected {
    /// First block of each orphan.
    #[prost(uint64, repeated, tag = "1")]
    pub first_blocks: Vec<u64>,
    /// Blocks that were held and are deleted.
    #[prost(uint64, tag = "2")]
    pub blocks: u64,
    /// Sealed bytes that each member held of them.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// When a full pass ended, in milliseconds since 1970; 0: none did.
    #[prost(uint64, tag = "4")]
    pub full_pass_ms: u64,
    /// Devices are nearly full: what is due first in the trash goes early, until it stores so many bytes.
    #[prost(uint64, tag = "5")]
    pub purge_bytes: u64,
}

//! What may be asked. Commands are entries of the Raft log: fields are only ever added.

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
    #[prost(oneof = "Op", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
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
    /// Where, absolute.
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
    /// 16 bytes, of the writer session at the edge.
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
}

/// Makes a directory. Directly under the root it is a namespace with the default policy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MakeDirectory {
    /// Where, absolute.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Makes missing ones on the way, and is content when it exists.
    #[prost(bool, tag = "3")]
    pub parents: bool,
}

/// Moves an entry, whole and at once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rename {
    /// From.
    #[prost(string, tag = "1")]
    pub source: String,
    /// To: the new full path.
    #[prost(string, tag = "2")]
    pub target: String,
    /// A file, or an empty directory for a directory, makes room.
    #[prost(bool, tag = "3")]
    pub replace: bool,
}

/// Removes an entry: at once out of sight, whatever its size; `Sweep` takes a tree apart afterwards.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Remove {
    /// What.
    #[prost(string, tag = "1")]
    pub path: String,
    /// With everything below it.
    #[prost(bool, tag = "2")]
    pub recursive: bool,
}

/// Takes removed trees apart, a bounded number of entries a command.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Sweep {
    /// At most this many entries, 1 to `SWEEP_ENTRIES_MAX`.
    #[prost(uint32, tag = "1")]
    pub limit: u32,
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
}

//! Commands of a writer about its file.

use super::Block;

/// Opens a file for writing. A session that is not its writer becomes it, and the turn of the file is raised.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OpenFile {
    /// The writer session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// What the path is relative to.
    #[prost(uint64, tag = "2")]
    pub base: u64,
    /// Which, or where.
    #[prost(string, tag = "3")]
    pub path: String,
    /// Makes it when it does not exist.
    #[prost(bool, tag = "4")]
    pub create: bool,
    /// With `create`: it must not exist.
    #[prost(bool, tag = "5")]
    pub exclusive: bool,
    /// Drops what it holds.
    #[prost(bool, tag = "6")]
    pub truncate: bool,
    /// Permission bits of a new file.
    #[prost(uint32, tag = "7")]
    pub mode: u32,
    /// Owner of a new file.
    #[prost(uint32, tag = "8")]
    pub uid: u32,
    /// Group of the owner of a new file.
    #[prost(uint32, tag = "9")]
    pub gid: u32,
}

/// Makes written data visible: the length, and the blocks that are new or changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitFile {
    /// The writer session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The file.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Its length, not less than now.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// New blocks out of the reservation of the session, and blocks that grew; of the turn of the file.
    #[prost(message, repeated, tag = "4")]
    pub blocks: Vec<Block>,
    /// Time of modification; 0: now.
    #[prost(uint64, tag = "5")]
    pub modified_ns: u64,
    /// Blocks whose group holds nothing past their length any more.
    #[prost(uint64, repeated, tag = "6")]
    pub trimmed: Vec<u64>,
    /// Gives up the place of the writer.
    #[prost(bool, tag = "7")]
    pub close: bool,
}

/// Gives up the writer's place and changes nothing. What was written and not committed is not part of the file.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CloseFile {
    /// The writer session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The file.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
}

/// Shrinks a file, or extends it by a hole.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Truncate {
    /// The writer session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The file.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Its new length.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

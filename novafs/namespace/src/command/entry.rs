//! Commands about names and what is known of an inode.

/// Makes a directory. Directly under the root it is a namespace with the default policy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MakeDirectory {
    /// Where.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Makes missing ones on the way, and is content when it exists.
    #[prost(bool, tag = "3")]
    pub parents: bool,
    /// What the path is relative to.
    #[prost(uint64, tag = "4")]
    pub base: u64,
    /// Owner.
    #[prost(uint32, tag = "5")]
    pub uid: u32,
    /// Group of the owner.
    #[prost(uint32, tag = "6")]
    pub gid: u32,
}

/// Moves an entry, whole and at once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rename {
    /// From.
    #[prost(string, tag = "1")]
    pub source: String,
    /// To: the new path, name included.
    #[prost(string, tag = "2")]
    pub target: String,
    /// A file, or an empty directory for a directory, makes room.
    #[prost(bool, tag = "3")]
    pub replace: bool,
    /// What `source` is relative to.
    #[prost(uint64, tag = "4")]
    pub source_base: u64,
    /// What `target` is relative to.
    #[prost(uint64, tag = "5")]
    pub target_base: u64,
    /// Both exist, and swap places.
    #[prost(bool, tag = "6")]
    pub exchange: bool,
    /// Wins over `replace`.
    #[prost(bool, tag = "7")]
    pub no_replace: bool,
}

/// What kind a removal may take; the numbers are those of the wire schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Only {
    /// Any.
    Any = 0,
    /// No directory, as unlink(2).
    NotDirectory = 1,
    /// A directory, as rmdir(2).
    Directory = 2,
}

/// Removes an entry: at once out of sight, whatever its size. A file that has no other name and a tree go to the
/// trash of their namespace.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Remove {
    /// What.
    #[prost(string, tag = "1")]
    pub path: String,
    /// With everything below it.
    #[prost(bool, tag = "2")]
    pub recursive: bool,
    /// What `path` is relative to.
    #[prost(uint64, tag = "3")]
    pub base: u64,
    /// Refuses another kind.
    #[prost(enumeration = "Only", tag = "4")]
    pub only: i32,
}

/// Takes trees apart that left the trash, a bounded number of entries a command.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Sweep {
    /// At most this many entries, 1 to `SWEEP_ENTRIES_MAX`.
    #[prost(uint32, tag = "1")]
    pub limit: u32,
}

/// Changes what is given; the time of change is always now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetAttributes {
    /// What the path is relative to.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// Which.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Permission bits.
    #[prost(uint32, optional, tag = "3")]
    pub mode: Option<u32>,
    /// Owner.
    #[prost(uint32, optional, tag = "4")]
    pub uid: Option<u32>,
    /// Group of the owner.
    #[prost(uint32, optional, tag = "5")]
    pub gid: Option<u32>,
    /// Time of modification.
    #[prost(uint64, optional, tag = "6")]
    pub modified_ns: Option<u64>,
    /// Time of access.
    #[prost(uint64, optional, tag = "7")]
    pub accessed_ns: Option<u64>,
}

/// Gives a file or symbolic link one more name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Link {
    /// What `source` is relative to.
    #[prost(uint64, tag = "1")]
    pub source_base: u64,
    /// What gets the name.
    #[prost(string, tag = "2")]
    pub source: String,
    /// What `target` is relative to.
    #[prost(uint64, tag = "3")]
    pub target_base: u64,
    /// The new name.
    #[prost(string, tag = "4")]
    pub target: String,
}

/// Makes a symbolic link.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MakeSymlink {
    /// What the path is relative to.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// Where.
    #[prost(string, tag = "2")]
    pub path: String,
    /// What it says, 1 to `SYMLINK_BYTES_MAX` bytes; not looked at.
    #[prost(string, tag = "3")]
    pub target: String,
    /// Owner.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group of the owner.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
}

/// Sets an extended attribute.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetXattr {
    /// What the path is relative to.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// Which.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Its name, 1 to `XATTR_NAME_BYTES_MAX` bytes.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its value, at most `XATTR_BYTES_MAX` bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub value: Vec<u8>,
    /// It must not exist.
    #[prost(bool, tag = "5")]
    pub create_only: bool,
    /// It must exist.
    #[prost(bool, tag = "6")]
    pub replace_only: bool,
}

/// Removes an extended attribute.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RemoveXattr {
    /// What the path is relative to.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// Which.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

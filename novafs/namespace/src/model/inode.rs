//! Files, directories, symbolic links, and what is known of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_units::{BlockId, Generation, GroupId, InodeId, Timestamp};

use super::nanoseconds;

/// The root directory; its entries are the namespaces.
pub const ROOT: InodeId = InodeId(1);

/// Name of an entry, shared between the inode and its entry.
pub type Name = Arc<str>;

/// What a name stands for. Every time is in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Inode {
    /// The directory of its first name; inode 0 when it has none: it is in the trash, or waits for the sweep.
    pub parent: InodeId,
    /// Its first name; empty for the root.
    pub name: Name,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// Of a file: raised whenever another session becomes its writer.
    pub turn: Generation,
    /// For a file as its client said; for a directory when an entry last came or went.
    pub modified_ns: u64,
    /// As set, or when it was made: reading does not change it.
    pub accessed_ns: u64,
    /// When anything about it last changed.
    pub changed_ns: u64,
    /// When it was made.
    pub created_ns: u64,
    /// What few inodes have.
    pub extra: Option<Box<Extra>>,
    /// File, directory or symbolic link.
    pub node: Node,
}

/// What few inodes have, so that the others do not pay for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Its names but the first, the oldest first.
    pub names: Vec<OtherName>,
    /// Cookie of the first name, when that was not the first from the start.
    pub cookie: Option<u64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
}

impl Extra {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.cookie.is_none() && self.xattrs.is_empty()
    }
}

/// A name of an inode that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherName {
    /// Its directory.
    pub parent: InodeId,
    /// The name there.
    pub name: Name,
    /// Its cookie.
    pub cookie: u64,
}

/// File, directory or symbolic link.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A file.
    File(File),
    /// A directory.
    Directory(Box<Directory>),
    /// A symbolic link, and what it says.
    Symlink(Box<str>),
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl Inode {
    /// One that was made at `at`, with nothing else known of it.
    pub(crate) fn new(parent: InodeId, name: &str, mode: u32, at: Timestamp, node: Node) -> Self {
        let now = nanoseconds(at);
        Self {
            parent,
            name: Name::from(name),
            mode,
            uid: 0,
            gid: 0,
            turn: Generation(0),
            modified_ns: now,
            accessed_ns: now,
            changed_ns: now,
            created_ns: now,
            extra: None,
            node,
        }
    }

    /// An empty directory.
    pub(crate) fn directory(parent: InodeId, name: &str, mode: u32, at: Timestamp) -> Self {
        Self::new(parent, name, mode, at, Node::Directory(Box::default()))
    }

    /// File, directory or symbolic link.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.node {
            Node::File(_) => Kind::File,
            Node::Directory(_) => Kind::Directory,
            Node::Symlink(_) => Kind::Symlink,
        }
    }

    /// The file that it is.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &self.node {
            Node::File(file) => Some(file),
            _ => None,
        }
    }

    /// The directory that it is.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Directory> {
        match &self.node {
            Node::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Its names but the first.
    #[must_use]
    pub fn other_names(&self) -> &[OtherName] {
        self.extra.as_ref().map_or(&[], |extra| &extra.names)
    }

    /// Its extended attributes by name.
    pub fn xattrs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.extra.iter().flat_map(|extra| extra.xattrs.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// What its first name adds to the totals of the directories above it.
    #[must_use]
    pub fn weight(&self) -> Totals {
        match &self.node {
            Node::File(file) => {
                Totals { bytes: file.stored_bytes(), blocks: file.blocks.len() as u64, ..Totals::NAME }
            }
            Node::Directory(directory) => {
                let mut totals = directory.totals;
                totals.directories += 1;
                totals
            }
            Node::Symlink(_) => Totals::NAME,
        }
    }

    /// Levels it needs: 1 for a file, more for a directory.
    pub(crate) fn height(&self) -> u32 {
        self.as_directory().map_or(1, |directory| directory.height + 1)
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Gives the room back when nothing is in it.
    pub(crate) fn trim_extra(&mut self) {
        self.extra = self.extra.take().filter(|extra| !extra.is_empty());
    }
}

/// A file: its length and where its bytes are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the plaintext, when the client computed it and nobody opened the file for writing since.
    pub sha256: Option<Box<[u8; 32]>>,
    /// By offset; what lies between them reads as zeros.
    pub blocks: Box<[StoredBlock]>,
}

impl File {
    /// Bytes of its blocks: holes are not counted.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.bytes)).sum()
    }
}

/// A block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its id.
    pub block: BlockId,
    /// Where in the file it begins.
    pub offset: u64,
    /// The replica group that holds it.
    pub group: GroupId,
    /// Plaintext length.
    pub bytes: u32,
    /// The turn of the writer that last committed it.
    pub generation: Generation,
    /// Key domain that sealed it.
    pub key_domain: u32,
    /// Version of that domain's key.
    pub key_version: u32,
    /// Its unit is `1 << unit_log2` bytes.
    pub unit_log2: u8,
    /// What is missing reads as zeros: the file was once opened for writing.
    pub sparse: bool,
    /// The group may hold data past `bytes`, which is not part of the file.
    pub trim_pending: bool,
    /// SHA-256 over header and segment digests, of a block that is not sparse, when the edge computed it.
    pub root: Option<[u8; 32]>,
}

/// A directory. Its entries are kept apart, by directory and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Entries directly in it.
    pub children: u64,
    /// Everything below it.
    pub totals: Totals,
    /// At least as many levels as there are below it: raised by what comes, not lowered by what goes. Bounds the
    /// depth of paths when a tree is moved.
    pub height: u32,
    /// Bounds of its totals.
    pub quota: Quota,
}

/// Bounds of what lies below a directory; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of the bytes.
    pub bytes_max: u64,
    /// Of files, symbolic links and directories together.
    pub files_max: u64,
}

/// Sums over a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names of files and symbolic links.
    pub files: u64,
    /// Directories, without the one asked about.
    pub directories: u64,
    /// Bytes stored of the files whose first name is here, without holes.
    pub bytes: u64,
    /// Blocks of the files whose first name is here.
    pub blocks: u64,
}

impl Totals {
    /// A name that brings no bytes: of a symbolic link, or one more of a file.
    pub(crate) const NAME: Self = Self { files: 1, directories: 0, bytes: 0, blocks: 0 };
    /// A directory with nothing in it.
    pub(crate) const DIRECTORY: Self = Self { files: 0, directories: 1, bytes: 0, blocks: 0 };

    /// Files, symbolic links and directories: what a quota counts.
    #[must_use]
    pub fn names(&self) -> u64 {
        self.files.saturating_add(self.directories)
    }

    /// The sums, and whether one is past its range.
    pub(crate) fn overflowing_add(self, other: Self) -> (Self, bool) {
        let (files, a) = self.files.overflowing_add(other.files);
        let (directories, b) = self.directories.overflowing_add(other.directories);
        let (bytes, c) = self.bytes.overflowing_add(other.bytes);
        let (blocks, d) = self.blocks.overflowing_add(other.blocks);
        (Self { files, directories, bytes, blocks }, a | b | c | d)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.bytes += other.bytes;
        self.blocks += other.blocks;
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        let held = "what is taken out was counted in when it came";
        self.files = self.files.checked_sub(other.files).expect(held);
        self.directories = self.directories.checked_sub(other.directories).expect(held);
        self.bytes = self.bytes.checked_sub(other.bytes).expect(held);
        self.blocks = self.blocks.checked_sub(other.blocks).expect(held);
    }
}

//! What exists.

use core::time::Duration;
use std::sync::Arc;

use imbl::OrdMap;
use nova_units::{BlockId, Generation, GroupId, InodeId, SessionId, Timestamp};

use crate::answer::Answer;
use crate::limits::INODES_MAX;

/// The root directory; its entries are the namespaces.
pub const ROOT: InodeId = InodeId(1);

/// A namespace that exists from the start (Spec 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandardSpace {
    /// Its name under the root.
    pub name: &'static str,
    /// How long its files are kept there.
    pub retention: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Spec 3.3: the standard namespaces and how long files stay in them.
pub const STANDARD_SPACES: [StandardSpace; 4] = [
    StandardSpace { name: "hot", retention: DAY.saturating_mul(7) },
    StandardSpace { name: "warm", retention: DAY.saturating_mul(30) },
    StandardSpace { name: "cold", retention: DAY.saturating_mul(365) },
    StandardSpace { name: "scratch", retention: DAY },
];

/// Spec 3.2: every block has three copies.
pub(crate) const REPLICAS_DEFAULT: u32 = 3;
/// The key domain of a namespace that says nothing else.
pub(crate) const KEY_DOMAIN_DEFAULT: u32 = 1;

/// The policy of a namespace: a directory under the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Files move freely only within one key domain.
    pub key_domain: u32,
    /// Copies of each block.
    pub replicas: u32,
    /// How long files are kept; `None`: until they are removed.
    pub retention: Option<Duration>,
}

impl Default for Space {
    fn default() -> Self {
        Self { key_domain: KEY_DOMAIN_DEFAULT, replicas: REPLICAS_DEFAULT, retention: None }
    }
}

/// Name of an entry, shared between the inode and its entry.
pub type Name = Arc<str>;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Inode {
    /// The directory it lies in; inode 0 when it was removed and waits for the sweep.
    pub parent: InodeId,
    /// Its name there; empty for the root.
    pub name: Name,
    /// Permission bits.
    pub mode: u32,
    /// For a file as its client said; for a directory when an entry last came or went.
    pub modified: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// File or directory.
    pub node: Node,
}

/// File or directory.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A file.
    File(Arc<File>),
    /// A directory.
    Directory(Directory),
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

impl Inode {
    /// File or directory.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.node {
            Node::File(_) => Kind::File,
            Node::Directory(_) => Kind::Directory,
        }
    }

    /// What it adds to the totals of the directories above it.
    #[must_use]
    pub fn weight(&self) -> Totals {
        match &self.node {
            Node::File(file) => {
                Totals { files: 1, directories: 0, bytes: file.bytes, blocks: file.blocks.len() as u64 }
            }
            Node::Directory(directory) => {
                let mut totals = directory.totals;
                totals.directories += 1;
                totals
            }
        }
    }

    /// Levels it needs: 1 for a file, more for a directory.
    pub(crate) fn height(&self) -> u32 {
        match &self.node {
            Node::File(_) => 1,
            Node::Directory(directory) => directory.height + 1,
        }
    }
}

/// A file: its length and where its bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the plaintext, when the client computed it.
    pub sha256: Option<[u8; 32]>,
    /// By offset; what lies between them reads as zeros.
    pub blocks: Box<[StoredBlock]>,
}

/// A block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its id.
    pub block: BlockId,
    /// The replica group that holds it.
    pub group: GroupId,
    /// Where in the file it begins.
    pub offset: u64,
    /// Plaintext length.
    pub bytes: u32,
    /// The writer's turn on it.
    pub generation: Generation,
    /// Of the writer session at the edge.
    pub salt: [u8; 16],
    /// Its unit is `1 << unit_log2` bytes.
    pub unit_log2: u8,
    /// Key domain that sealed it.
    pub key_domain: u32,
    /// Version of that domain's key.
    pub key_version: u32,
    /// SHA-256 over header and segment digests, when the edge computed it.
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
}

/// Sums over a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories, without the one asked about.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Blocks of the files.
    pub blocks: u64,
}

impl Totals {
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
    pub(crate) inodes: OrdMap<InodeId, Inode>,
    pub(crate) entries: OrdMap<(InodeId, Name), InodeId>,
    pub(crate) spaces: OrdMap<InodeId, Space>,
    pub(crate) sessions: OrdMap<SessionId, Session>,
    pub(crate) orphans: OrdMap<BlockId, Orphan>,
    pub(crate) collection: Collection,
    /// Roots of removed trees.
    pub(crate) trash: OrdMap<InodeId, ()>,
    pub(crate) clients: OrdMap<u64, Client>,
    /// (log index of its last command, client), the one silent longest first.
    pub(crate) clients_by_age: OrdMap<(u64, u64), ()>,
    pub(crate) era: u16,
    pub(crate) next_inode: u64,
    pub(crate) next_session: u64,
    pub(crate) next_block: u64,
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
        let mut namespace = Self {
            inodes: OrdMap::new(),
            entries: OrdMap::new(),
            spaces: OrdMap::new(),
            sessions: OrdMap::new(),
            orphans: OrdMap::new(),
            collection: Collection::default(),
            trash: OrdMap::new(),
            clients: OrdMap::new(),
            clients_by_age: OrdMap::new(),
            era,
            next_inode: ROOT.0 + 1,
            next_session: 1,
            next_block: 1,
            clock: Timestamp(0),
            inodes_max: INODES_MAX,
        };
        namespace.inodes.insert(
            ROOT,
            Inode {
                parent: ROOT,
                name: Name::from(""),
                mode: 0o755,
                modified: Timestamp(0),
                created: Timestamp(0),
                node: Node::Directory(Directory::default()),
            },
        );
        for standard in STANDARD_SPACES {
            let id = namespace.add_directory(ROOT, standard.name, 0o755);
            namespace.spaces.insert(id, Space { retention: Some(standard.retention), ..Space::default() });
        }
        namespace
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

    /// Removed trees wait for a sweep.
    #[must_use]
    pub fn has_trash(&self) -> bool {
        !self.trash.is_empty()
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

    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(&id).expect("an entry leads to an inode that exists")
    }

    pub(crate) fn directory_mut(&mut self, id: InodeId) -> (&mut Directory, &mut Timestamp) {
        let inode = self.inodes.get_mut(&id).expect("a directory on the way exists");
        match &mut inode.node {
            Node::Directory(directory) => (directory, &mut inode.modified),
            Node::File(_) => panic!("{id} has entries and is a file"),
        }
    }

    pub(crate) fn child(&self, directory: InodeId, name: &str) -> Option<InodeId> {
        self.entries.get(&(directory, Name::from(name))).copied()
    }

    /// Puts `inode` under its parent and name. The totals above are the caller's.
    pub(crate) fn link(&mut self, id: InodeId, inode: Inode) {
        let (parent, height, clock) = (inode.parent, inode.height(), self.clock);
        let taken = self.entries.insert((parent, Arc::clone(&inode.name)), id);
        assert!(taken.is_none(), "{id} linked over an entry");
        self.inodes.insert(id, inode);
        let (directory, modified) = self.directory_mut(parent);
        directory.children += 1;
        *modified = clock;
        self.raise_height(parent, height);
    }

    /// Takes the entry away; the inode stays. The totals above are the caller's.
    pub(crate) fn unlink(&mut self, id: InodeId) {
        let inode = self.inode(id);
        let (parent, name, clock) = (inode.parent, Arc::clone(&inode.name), self.clock);
        let removed = self.entries.remove(&(parent, name));
        assert_eq!(removed, Some(id), "an inode knows its entry");
        let (directory, modified) = self.directory_mut(parent);
        directory.children -= 1;
        *modified = clock;
    }

    fn raise_height(&mut self, mut directory: InodeId, mut height: u32) {
        loop {
            let parent = self.inode(directory).parent;
            let (body, _) = self.directory_mut(directory);
            if body.height >= height {
                return;
            }
            body.height = height;
            if directory == ROOT {
                return;
            }
            (directory, height) = (parent, height + 1);
        }
    }

    /// Adds to, then takes from, the totals of `directory` and all above it.
    pub(crate) fn account(&mut self, mut directory: InodeId, added: Totals, removed: Totals) {
        loop {
            let parent = self.inode(directory).parent;
            let (body, _) = self.directory_mut(directory);
            body.totals.add(added);
            body.totals.subtract(removed);
            if directory == ROOT {
                return;
            }
            directory = parent;
        }
    }

    /// Makes an empty directory, totals above included.
    pub(crate) fn add_directory(&mut self, parent: InodeId, name: &str, mode: u32) -> InodeId {
        let id = self.take_inode_id();
        let inode = Inode {
            parent,
            name: Name::from(name),
            mode,
            modified: self.clock,
            created: self.clock,
            node: Node::Directory(Directory::default()),
        };
        let weight = inode.weight();
        self.link(id, inode);
        self.account(parent, weight, Totals::default());
        id
    }

    pub(crate) fn take_inode_id(&mut self) -> InodeId {
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        id
    }

    /// The namespace in which `id` lies: the directory directly under the root.
    pub(crate) fn space_of(&self, mut id: InodeId) -> Space {
        loop {
            let parent = self.inode(id).parent;
            if parent == ROOT {
                return self.spaces.get(&id).cloned().unwrap_or_default();
            }
            id = parent;
        }
    }
}

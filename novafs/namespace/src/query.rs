//! Questions about the state. Each reads one version of it and changes nothing.

use core::ops::Bound;
use std::sync::Arc;

use nova_units::{InodeId, Timestamp};

use crate::answer::{Code, Failure};
use crate::limits::LIST_MAX;
use crate::model::{File, Kind, Name, Namespace, Node, ROOT, Space, Totals};
use crate::path::Path;

/// An entry as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryView {
    /// Its name in its directory.
    pub name: Name,
    /// Its inode.
    pub inode: InodeId,
    /// File or directory.
    pub kind: Kind,
    /// Length of a file; bytes of everything below a directory.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of modification.
    pub modified: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// Entries of a directory.
    pub children: u64,
    /// SHA-256 of a file, when its client computed it.
    pub sha256: Option<[u8; 32]>,
}

/// A page of a listing, in the order of names.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<EntryView>,
    /// There are more; ask with the last name.
    pub more: bool,
}

impl Namespace {
    /// The entry at `path`.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn stat(&self, path: &str) -> Result<EntryView, Failure> {
        let path = Path::parse(path)?;
        Ok(self.view(self.resolve(&path)?))
    }

    /// Entries of the directory at `path` whose names sort after `after` (empty: from the start), at most `limit`
    /// (0: as many as allowed). A name is a cookie that stays good whatever else comes and goes.
    ///
    /// # Errors
    /// A bad path, none that exists, or a file.
    pub fn list(&self, path: &str, after: &str, limit: u32) -> Result<ListPage, Failure> {
        let parsed = Path::parse(path)?;
        let directory = self.resolve(&parsed)?;
        if self.inode(directory).kind() != Kind::Directory {
            return Err(Failure::new(Code::NotADirectory, path, "it is a file"));
        }
        let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
        let mut entries = Vec::new();
        let from = (directory, Name::from(after));
        let start = if after.is_empty() { Bound::Included(from) } else { Bound::Excluded(from) };
        for ((parent, _), id) in self.entries.range((start, Bound::Unbounded)) {
            if *parent != directory {
                break;
            }
            if entries.len() >= limit as usize {
                return Ok(ListPage { entries, more: true });
            }
            entries.push(self.view(*id));
        }
        Ok(ListPage { entries, more: false })
    }

    /// The file at `path` with its blocks.
    ///
    /// # Errors
    /// A bad path, none that exists, or a directory.
    pub fn open(&self, path: &str) -> Result<(EntryView, Arc<File>), Failure> {
        let parsed = Path::parse(path)?;
        let id = self.resolve(&parsed)?;
        match &self.inode(id).node {
            Node::File(file) => Ok((self.view(id), Arc::clone(file))),
            Node::Directory(_) => Err(Failure::new(Code::IsADirectory, path, "it is a directory")),
        }
    }

    /// The file with this inode, wherever it was moved.
    ///
    /// # Errors
    /// No such inode, or a directory.
    pub fn open_inode(&self, id: InodeId) -> Result<(EntryView, Arc<File>), Failure> {
        match self.inodes.get(&id).map(|inode| &inode.node) {
            Some(Node::File(file)) => Ok((self.view(id), Arc::clone(file))),
            Some(Node::Directory(_)) => Err(Failure::new(Code::IsADirectory, "", "it is a directory")),
            None => Err(Failure::new(Code::NotFound, "", "no such inode")),
        }
    }

    /// Sums over the tree at `path`; of a file its own.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn usage(&self, path: &str) -> Result<Totals, Failure> {
        let parsed = Path::parse(path)?;
        let inode = self.inode(self.resolve(&parsed)?);
        Ok(match &inode.node {
            Node::File(_) => inode.weight(),
            Node::Directory(directory) => directory.totals,
        })
    }

    /// The policy of the namespace called `name`.
    #[must_use]
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.spaces.get(&self.child(ROOT, name)?)
    }

    pub(crate) fn resolve(&self, path: &Path<'_>) -> Result<InodeId, Failure> {
        let Some((folders, name)) = path.split_last() else { return Ok(ROOT) };
        let parent = self.resolve_folders(path, folders)?;
        self.child(parent, name)
            .ok_or_else(|| Failure::new(Code::NotFound, path.text(), "no such file or directory"))
    }

    /// The directory that `folders` lead to.
    pub(crate) fn resolve_folders(&self, path: &Path<'_>, folders: &[&str]) -> Result<InodeId, Failure> {
        let mut at = ROOT;
        for name in folders {
            let Some(child) = self.child(at, name) else {
                return Err(Failure::new(
                    Code::NotFound,
                    path.text(),
                    "a directory on the way does not exist",
                ));
            };
            if self.inode(child).kind() != Kind::Directory {
                return Err(Failure::new(Code::NotADirectory, path.text(), "a name on the way is a file"));
            }
            at = child;
        }
        Ok(at)
    }

    /// `id` is `above` or lies below it.
    pub(crate) fn is_within(&self, mut id: InodeId, above: InodeId) -> bool {
        loop {
            if id == above {
                return true;
            }
            if id == ROOT {
                return false;
            }
            id = self.inode(id).parent;
        }
    }

    pub(crate) fn first_child(&self, directory: InodeId) -> Option<InodeId> {
        let from = (directory, Name::from(""));
        let ((parent, _), id) = self.entries.range(from..).next()?;
        (*parent == directory).then_some(*id)
    }

    fn view(&self, id: InodeId) -> EntryView {
        let inode = self.inode(id);
        let (bytes, children, sha256) = match &inode.node {
            Node::File(file) => (file.bytes, 0, file.sha256),
            Node::Directory(directory) => (directory.totals.bytes, directory.children, None),
        };
        EntryView {
            name: Arc::clone(&inode.name),
            inode: id,
            kind: inode.kind(),
            bytes,
            mode: inode.mode,
            modified: inode.modified,
            created: inode.created,
            children,
            sha256,
        }
    }
}

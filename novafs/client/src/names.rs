//! Names: make, find, list, move and remove them.

use nova_api::files::remove::Only;
use nova_api::files::request::Op;
use nova_api::files::{self as api, Block, Entry, Listing, Resolved, UsageReport, response};

use crate::at::At;
use crate::client::Client;
use crate::error::ClientError;
use crate::get::Tree;

/// What a walk with block maps gives: the path below, the entry, and its blocks when it is a file.
/// What [`Client::walk_mapped`] calls: the path below the one it was given, the entry, and the blocks of a file, or `None`
/// where they are too many for a page: resolve it.
pub type Mapped<'f> = &'f mut dyn FnMut(&str, Entry, Option<Vec<Block>>) -> Result<(), ClientError>;

/// Names in one page of a listing.
const LIST_LIMIT: u32 = 1000;
/// Inodes removed by one request of a recursive remove.
const REMOVE_LIMIT: u32 = 1000;

/// Who owns what is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Number of the user; 0 is root.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// Where a page of a listing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After<'n> {
    /// Behind this name, in order of names; empty: at the first.
    Name(&'n str),
    /// Behind the entry with this cookie, in order of cookies; 0: at the first. An entry keeps its cookie as long as
    /// it exists, so a reader misses nothing and sees nothing twice while other entries come and go.
    Cookie(u64),
}

impl Client {
    /// A directory of root's, with missing parents when asked.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn mkdir<'p>(&self, at: impl Into<At<'p>>, mode: u32, parents: bool) -> Result<(), ClientError> {
        self.make_directory(at.into(), mode, parents, Owner::default())
    }

    /// One directory with an owner; its entry comes back.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn mkdir_as<'p>(&self, at: impl Into<At<'p>>, mode: u32, owner: Owner) -> Result<Entry, ClientError> {
        let at = at.into();
        self.make_directory(at, mode, false, owner)?;
        self.stat(at)
    }

    fn make_directory(
        &self,
        at: At<'_>,
        mode: u32,
        parents: bool,
        Owner { uid, gid }: Owner,
    ) -> Result<(), ClientError> {
        let At { base, path } = at;
        let ask = api::MakeDirectory { base, path: path.into(), mode, parents, uid, gid };
        self.metadata.change(Op::MakeDirectory(ask)).map(drop)
    }

    /// Moves a file, link or directory; a target that exists is replaced only when asked.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn rename<'s, 't>(
        &self,
        source: impl Into<At<'s>>,
        target: impl Into<At<'t>>,
        replace: bool,
    ) -> Result<(), ClientError> {
        let ask = rename(source.into(), target.into());
        self.metadata.change(Op::Rename(api::Rename { replace, no_replace: !replace, ..ask })).map(drop)
    }

    /// Two names change places; both must exist.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn exchange<'s, 't>(
        &self,
        one: impl Into<At<'s>>,
        other: impl Into<At<'t>>,
    ) -> Result<(), ClientError> {
        let ask = rename(one.into(), other.into());
        self.metadata.change(Op::Rename(api::Rename { exchange: true, ..ask })).map(drop)
    }

    /// Removes a name; `recursive` with everything below it. Without it a directory must be empty.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn remove<'p>(&self, at: impl Into<At<'p>>, recursive: bool) -> Result<(), ClientError> {
        self.remove_only(at.into(), recursive, Only::Any)
    }

    /// Removes the name of a file or link, not of a directory.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn unlink<'p>(&self, at: impl Into<At<'p>>) -> Result<(), ClientError> {
        self.remove_only(at.into(), false, Only::NotDirectory)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn rmdir<'p>(&self, at: impl Into<At<'p>>) -> Result<(), ClientError> {
        self.remove_only(at.into(), false, Only::Directory)
    }

    fn remove_only(&self, at: At<'_>, recursive: bool, only: Only) -> Result<(), ClientError> {
        let At { base, path } = at;
        let only = only.into();
        let ask = api::Remove { base, path: path.into(), recursive, limit: REMOVE_LIMIT, only };
        self.metadata.change(Op::Remove(ask)).map(drop)
    }

    /// Another name for a file or symbolic link.
    ///
    /// # Errors
    /// When metadata refuses (a directory has one name only) or is away.
    pub fn link<'s, 't>(
        &self,
        source: impl Into<At<'s>>,
        target: impl Into<At<'t>>,
    ) -> Result<Entry, ClientError> {
        let (source, target) = (source.into(), target.into());
        let ask = api::Link {
            source_base: source.base,
            source: source.path.into(),
            target_base: target.base,
            target: target.path.into(),
        };
        entry(self.metadata.change(Op::Link(ask))?, "link")
    }

    /// A symbolic link; `target` is kept as it is and not looked at.
    ///
    /// # Errors
    /// When metadata refuses or is away.
    pub fn symlink<'p>(
        &self,
        at: impl Into<At<'p>>,
        target: &str,
        Owner { uid, gid }: Owner,
    ) -> Result<Entry, ClientError> {
        let At { base, path } = at.into();
        let ask = api::MakeSymlink { base, path: path.into(), target: target.into(), uid, gid };
        entry(self.metadata.change(Op::MakeSymlink(ask))?, "symlink")
    }

    /// What a name is. A file that this client has open for writing is shown as written so far.
    ///
    /// # Errors
    /// When there is no such name, or metadata is away.
    pub fn stat<'p>(&self, at: impl Into<At<'p>>) -> Result<Entry, ClientError> {
        let At { base, path } = at.into();
        self.files.own_view(|| {
            let ask = api::Stat { base, path: path.into(), with_path: false };
            entry(self.metadata.read(Op::Stat(ask))?, "stat")
        })
    }

    /// Where an inode is in the tree; one of its paths when it has several names, empty when it has none.
    ///
    /// # Errors
    /// When it is gone, or metadata is away.
    pub fn path_of(&self, inode: u64) -> Result<String, ClientError> {
        let ask = api::Stat { base: inode, path: String::new(), with_path: true };
        entry(self.metadata.read(Op::Stat(ask))?, "stat").map(|entry| entry.path)
    }

    /// A file with its blocks, as last committed.
    ///
    /// # Errors
    /// When there is no such file, or metadata is away.
    pub fn resolve<'p>(&self, at: impl Into<At<'p>>) -> Result<Resolved, ClientError> {
        let At { base, path } = at.into();
        match self.metadata.read(Op::Resolve(api::Resolve { path: path.into(), inode: base, base }))? {
            response::Result::Resolved(resolved) => Ok(resolved),
            _ => Err(ClientError::Protocol("resolve was answered with something else")),
        }
    }

    /// The number of the inode that a name leads to now.
    pub(crate) fn inode_of(&self, at: At<'_>) -> Result<u64, ClientError> {
        match at.only_inode() {
            Some(inode) => Ok(inode),
            None => Ok(self.stat(at)?.inode),
        }
    }

    /// One page of a directory: at most `limit` entries, and whether more follow.
    ///
    /// # Errors
    /// When it is no directory, or metadata is away.
    pub fn list_page<'p>(
        &self,
        at: impl Into<At<'p>>,
        after: After<'_>,
        limit: u32,
    ) -> Result<Listing, ClientError> {
        self.page(at.into(), after, limit, false)
    }

    fn page(
        &self,
        at: At<'_>,
        after: After<'_>,
        limit: u32,
        with_blocks: bool,
    ) -> Result<Listing, ClientError> {
        let At { base, path } = at;
        let (after, after_cookie, by_cookie) = match after {
            After::Name(name) => (name.to_owned(), 0, false),
            After::Cookie(cookie) => (String::new(), cookie, true),
        };
        let ask = api::List { base, path: path.into(), after, limit, after_cookie, by_cookie, with_blocks };
        let read = || match self.metadata.read(Op::List(ask))? {
            response::Result::Listing(listing) => Ok(listing),
            _ => Err(ClientError::Protocol("list was answered with something else")),
        };
        self.files.own_views(read, |inode| self.stat(At::inode(inode)))
    }

    /// Names in a directory, sorted, page by page.
    ///
    /// # Errors
    /// When it is no directory, or metadata is away, or from `each`.
    pub fn list<'p>(
        &self,
        at: impl Into<At<'p>>,
        each: &mut dyn FnMut(Entry) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let at = at.into();
        let mut after = String::new();
        loop {
            let listing = self.list_page(at, After::Name(&after), LIST_LIMIT)?;
            let Some(last) = listing.entries.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for entry in listing.entries {
                each(entry)?;
            }
            if !listing.more {
                return Ok(());
            }
        }
    }

    /// Everything below a directory, each directory before what it holds; `each` gets the path below `path`. Symbolic
    /// links are told and not followed.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub fn walk(&self, path: &str, each: Tree<'_>) -> Result<(), ClientError> {
        self.walk_pages(path, false, &mut |below, entry, _| each(below, &entry))
    }

    /// As [`Client::walk`], with the blocks of each file; `None` where they are too many for a page.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub fn walk_mapped(&self, path: &str, each: Mapped<'_>) -> Result<(), ClientError> {
        self.walk_pages(path, true, each)
    }

    fn walk_pages(&self, path: &str, with_blocks: bool, each: Mapped<'_>) -> Result<(), ClientError> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let full = if folder.is_empty() { path.to_owned() } else { crate::get::join(path, &folder) };
            let mut after = String::new();
            loop {
                let listing = self.page(At::from(&full), After::Name(&after), LIST_LIMIT, with_blocks)?;
                let Some(last) = listing.entries.last() else { break };
                after.clone_from(&last.name);
                let mut maps = listing.maps.into_iter();
                for entry in listing.entries {
                    let blocks = maps.next().filter(|map| !map.left_out).map(|map| map.blocks);
                    let below = if folder.is_empty() {
                        entry.name.clone()
                    } else {
                        format!("{folder}/{}", entry.name)
                    };
                    let is_directory = entry.kind() == api::entry::Kind::Directory;
                    each(&below, entry, blocks)?;
                    if is_directory {
                        folders.push(below);
                    }
                }
                if !listing.more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Files, directories, bytes and blocks below a path, and the directory's quota.
    ///
    /// # Errors
    /// When there is no such name, or metadata is away.
    pub fn usage<'p>(&self, at: impl Into<At<'p>>) -> Result<UsageReport, ClientError> {
        let At { base, path } = at.into();
        match self.metadata.read(Op::Usage(api::Usage { base, path: path.into() }))? {
            response::Result::Usage(usage) => Ok(usage),
            _ => Err(ClientError::Protocol("usage was answered with something else")),
        }
    }
}

fn rename(source: At<'_>, target: At<'_>) -> api::Rename {
    api::Rename {
        source_base: source.base,
        source: source.path.into(),
        target_base: target.base,
        target: target.path.into(),
        ..api::Rename::default()
    }
}

/// The entry that an answer must be.
pub(crate) fn entry(answer: response::Result, what: &'static str) -> Result<Entry, ClientError> {
    match answer {
        response::Result::Entry(entry) => Ok(entry),
        _ => Err(ClientError::Protocol(match what {
            "stat" => "stat was answered with something else",
            "link" => "a link was answered with something else",
            "symlink" => "a symbolic link was answered with something else",
            "commit" => "a commit was answered with something else",
            _ => "a change of attributes was answered with something else",
        })),
    }
}

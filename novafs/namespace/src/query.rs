//! Questions about the state. Each reads one version of it and changes nothing.

use core::ops::Bound;
use std::sync::Arc;

use nova_units::{InodeId, Replicas, Timestamp};

use crate::answer::{Code, Failure};
use crate::limits::{LIST_BLOCKS_PER_FILE_MAX, LIST_BYTES_MAX, LIST_MAX};
use crate::model::{Inode, Kind, Name, Namespace, Node, Quota, ROOT, Space, StoredBlock, Totals, Trashed};
use crate::path::Path;

/// An entry as a client sees it. Times are in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryView {
    /// Its name in its directory.
    pub name: Name,
    /// Its inode.
    pub inode: InodeId,
    /// Number of the name: never 0, the same as long as the name exists, larger than those of older names in its
    /// directory.
    pub cookie: u64,
    /// File, directory or symbolic link.
    pub kind: Kind,
    /// Length of a file; bytes stored of everything below a directory; length of a link's text.
    pub bytes: u64,
    /// Bytes stored of a file, without holes.
    pub stored_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// Names of a file or symbolic link; 1 for a directory; 0 for what was removed.
    pub links: u32,
    /// Time of modification.
    pub modified_ns: u64,
    /// Time of access, as set.
    pub accessed_ns: u64,
    /// Time of change.
    pub changed_ns: u64,
    /// When it was made.
    pub created_ns: u64,
    /// Entries of a directory.
    pub children: u64,
    /// How many extended attributes it has.
    pub xattrs: u32,
    /// SHA-256 of a file, when its client computed it.
    pub sha256: Option<[u8; 32]>,
    /// What a symbolic link says.
    pub link_target: Option<Box<str>>,
    /// The policy of a namespace.
    pub space: Option<Space>,
}

/// What to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListAsk<'a> {
    /// What the path is relative to; 0: it is absolute.
    pub base: u64,
    /// The directory.
    pub path: &'a str,
    /// Names after this one, in their order.
    pub after: &'a str,
    /// Or, when it is given, names after this cookie, in the order of cookies; 0: from the start.
    pub after_cookie: Option<u64>,
    /// At most this many, up to [`LIST_MAX`]; 0: as many as allowed.
    pub limit: u32,
    /// With the blocks of files.
    pub with_blocks: bool,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<EntryView>,
    /// The blocks of each, when they were asked for; of what is no file none.
    pub maps: Vec<BlockMap>,
    /// There are more; ask with the last name or cookie.
    pub more: bool,
}

/// The blocks of a file in a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockMap {
    /// By offset.
    pub blocks: Vec<StoredBlock>,
    /// It has too many for a page.
    pub left_out: bool,
}

/// A page of the trash, in the order of removal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrashPage {
    /// The items by number.
    pub items: Vec<(u64, Trashed)>,
    /// There are more; ask with the last number.
    pub more: bool,
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of file data that there is room for.
    pub bytes_total: u64,
    /// Of these, not used.
    pub bytes_free: u64,
    /// Files, symbolic links and directories.
    pub files: u64,
    /// How many there may be.
    pub files_max: u64,
}

/// Estimated bytes of an entry on the wire, without its texts.
const ENTRY_WIRE_BYTES: usize = 110;
/// Estimated bytes of a block on the wire.
const BLOCK_WIRE_BYTES: usize = 80;

impl Namespace {
    /// The entry at `path`, from `base` or, when that is 0, from the root.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn stat(&self, base: u64, path: &str) -> Result<EntryView, Failure> {
        Ok(self.lookup(base, path)?.1)
    }

    /// The entry at `path`, and its inode with all that is known of it: the blocks of a file, extended attributes.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn lookup(&self, base: u64, path: &str) -> Result<(Arc<Inode>, EntryView), Failure> {
        let parsed = Path::parse_at(base, path)?;
        let id = self.resolve(&parsed)?;
        let view = match parsed.split_last() {
            None => self.view(id),
            Some((folders, name)) => {
                let parent = self.resolve_folders(&parsed, folders)?;
                self.view_as(id, Name::from(name), self.cookie_of(id, parent, name))
            }
        };
        Ok((Arc::clone(self.inode(id)), view))
    }

    /// An inode by the name of this cookie; by its first when the cookie is 0 or is not one of its.
    ///
    /// # Errors
    /// It is gone.
    pub fn entry(&self, id: InodeId, cookie: u64) -> Result<(Arc<Inode>, EntryView), Failure> {
        let Some(inode) = self.inodes.get(&id) else {
            return Err(Failure::new(Code::Stale, "", "the inode is gone"));
        };
        let view = match inode.other_names().iter().find(|other| other.cookie == cookie) {
            Some(other) => self.view_as(id, Arc::clone(&other.name), cookie),
            None => self.view(id),
        };
        Ok((Arc::clone(inode), view))
    }

    /// The absolute path of an inode, by its first name; of what was removed, from where it lay.
    ///
    /// # Errors
    /// It is gone.
    pub fn path(&self, id: InodeId) -> Result<String, Failure> {
        if !self.inodes.contains_key(&id) {
            return Err(Failure::new(Code::Stale, "", "the inode is gone"));
        }
        Ok(self.path_of(id))
    }

    /// How many removed things are in the trash.
    #[must_use]
    pub fn trash_len(&self) -> usize {
        self.trash.len()
    }

    /// The file at `path` with its blocks.
    ///
    /// # Errors
    /// A bad path, none that exists, or no file.
    pub fn open(&self, base: u64, path: &str) -> Result<(Arc<Inode>, EntryView), Failure> {
        Self::only_file(self.lookup(base, path)?, path)
    }

    /// The file with this inode, wherever it was moved.
    ///
    /// # Errors
    /// No such inode, or no file.
    pub fn open_inode(&self, id: InodeId) -> Result<(Arc<Inode>, EntryView), Failure> {
        Self::only_file(self.entry(id, 0)?, "")
    }

    fn only_file(found: (Arc<Inode>, EntryView), path: &str) -> Result<(Arc<Inode>, EntryView), Failure> {
        match found.1.kind {
            Kind::File => Ok(found),
            Kind::Directory => Err(Failure::new(Code::IsADirectory, path, "it is a directory")),
            Kind::Symlink => Err(Failure::new(Code::Invalid, path, "it is a symbolic link; follow it first")),
        }
    }

    /// Entries of a directory, a page at a time. A name, or a cookie in that order, stays good whatever else comes
    /// and goes. A page ends early when it would be larger than [`LIST_BYTES_MAX`].
    ///
    /// # Errors
    /// A bad path, none that exists, or no directory.
    pub fn list(&self, ask: &ListAsk<'_>) -> Result<ListPage, Failure> {
        let parsed = Path::parse_at(ask.base, ask.path)?;
        let directory = self.resolve(&parsed)?;
        if self.inode(directory).kind() != Kind::Directory {
            return Err(Failure::new(Code::NotADirectory, ask.path, "it is no directory"));
        }
        Ok(match ask.after_cookie {
            Some(after) => {
                let range = (Bound::Excluded((directory, after)), Bound::Included((directory, u64::MAX)));
                let found = self.cookies.range(range);
                self.page(ask, found.map(|((_, cookie), id)| (*id, self.name_of(*id, *cookie), *cookie)))
            }
            None => {
                let from = (directory, Name::from(ask.after));
                let start = if ask.after.is_empty() { Bound::Included(from) } else { Bound::Excluded(from) };
                let found = self.entries.range((start, Bound::Unbounded));
                let found = found.take_while(|((parent, _), _)| *parent == directory);
                self.page(
                    ask,
                    found
                        .map(|((_, name), id)| (*id, Arc::clone(name), self.cookie_of(*id, directory, name))),
                )
            }
        })
    }

    fn page(&self, ask: &ListAsk<'_>, found: impl Iterator<Item = (InodeId, Name, u64)>) -> ListPage {
        let limit = if ask.limit == 0 { LIST_MAX } else { ask.limit.min(LIST_MAX) };
        let mut page = ListPage::default();
        let mut bytes = 0;
        for (id, name, cookie) in found {
            let view = self.view_as(id, name, cookie);
            let map = if ask.with_blocks { block_map(self.inode(id)) } else { BlockMap::default() };
            let target = view.link_target.as_ref().map_or(0, |target| target.len());
            bytes += ENTRY_WIRE_BYTES + view.name.len() + target + map.blocks.len() * BLOCK_WIRE_BYTES;
            let full = page.entries.len() >= limit as usize || bytes > LIST_BYTES_MAX;
            if full && !page.entries.is_empty() {
                page.more = true;
                break;
            }
            page.entries.push(view);
            if ask.with_blocks {
                page.maps.push(map);
            }
        }
        page
    }

    fn name_of(&self, id: InodeId, cookie: u64) -> Name {
        let inode = self.inode(id);
        let other = inode.other_names().iter().find(|other| other.cookie == cookie);
        Arc::clone(other.map_or(&inode.name, |other| &other.name))
    }

    /// Sums over the tree at `path`, of a file its own; and the quota of a directory.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn usage(&self, base: u64, path: &str) -> Result<(Totals, Quota), Failure> {
        let (inode, _) = self.lookup(base, path)?;
        Ok(match &inode.node {
            Node::Directory(directory) => (directory.totals, directory.quota),
            _ => (inode.weight(), Quota::default()),
        })
    }

    /// Room at `path`, when the devices of the region have `device_bytes` in all, for file data in as many copies as the
    /// namespace there wants: less where a quota of a directory on the way says so.
    ///
    /// # Errors
    /// A bad path, or none that exists.
    pub fn statfs(&self, base: u64, path: &str, device_bytes: u64) -> Result<Capacity, Failure> {
        let id = self.resolve(&Path::parse_at(base, path)?)?;
        let copies = u64::from(self.space_of(id).replicas.get());
        let mut room = Capacity {
            bytes_total: device_bytes / copies,
            bytes_free: device_bytes.saturating_sub(self.stored_bytes()) / copies,
            files: self.inodes.len() as u64,
            files_max: self.inodes_max,
        };
        for body in self.upwards(id).filter_map(|at| self.inode(at).as_directory()) {
            let (quota, held) = (body.quota, body.totals);
            if quota.bytes_max != 0 {
                room.bytes_total = room.bytes_total.min(quota.bytes_max);
                room.bytes_free = room.bytes_free.min(quota.bytes_max.saturating_sub(held.bytes));
            }
            let free = quota.files_max.saturating_sub(held.names());
            if quota.files_max != 0 && free < room.files_max.saturating_sub(room.files) {
                (room.files, room.files_max) = (held.names(), quota.files_max);
            }
        }
        Ok(room)
    }

    /// Bytes on devices, as if all files had the copies that their namespaces want today, and the trash the usual ones.
    fn stored_bytes(&self) -> u64 {
        let stored = |bytes: u64, replicas: Replicas| bytes.saturating_mul(replicas.get().into());
        let all = self.inode(ROOT).weight().bytes.saturating_add(self.trash_totals.bytes);
        let spaces = self.spaces.iter().filter(|(id, _)| self.space_id(**id).is_some());
        let of_spaces = spaces.map(|(id, space)| (self.inode(*id).weight().bytes, space.replicas));
        let (mut rest, mut sum) = (all, 0_u64);
        for (bytes, replicas) in of_spaces {
            rest = rest.saturating_sub(bytes);
            sum = sum.saturating_add(stored(bytes, replicas));
        }
        sum.saturating_add(stored(rest, Replicas::DEFAULT))
    }

    /// What lies in the trash with a number above `after`, of the namespace `space` or, when that is empty, of all;
    /// at most `limit`, up to [`LIST_MAX`]; 0: as many as allowed.
    ///
    /// # Errors
    /// No such namespace.
    pub fn list_trash(&self, space: &str, after: u64, limit: u32) -> Result<TrashPage, Failure> {
        let only =
            match space {
                "" => None,
                name => Some(self.child(ROOT, name).ok_or_else(|| {
                    Failure::new(Code::NotFound, name, "there is no namespace of this name")
                })?),
            };
        let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
        let mut page = TrashPage::default();
        let mut bytes = 0;
        for (number, trashed) in self.trash.range(after.saturating_add(1).max(self.purge_below)..) {
            if only.is_some_and(|space| trashed.space != space) {
                continue;
            }
            bytes += ENTRY_WIRE_BYTES + trashed.path.len();
            let full = page.items.len() >= limit as usize || bytes > LIST_BYTES_MAX;
            if full && !page.items.is_empty() {
                page.more = true;
                break;
            }
            page.items.push((*number, trashed.clone()));
        }
        Ok(page)
    }

    /// Every namespace by name, with its rules.
    pub fn spaces(&self) -> impl Iterator<Item = (&str, &Space)> {
        self.spaces.iter().filter_map(|(id, space)| Some((&*self.inodes.get(id)?.name, space)))
    }

    /// The policy of the namespace called `name`.
    #[must_use]
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.spaces.get(&self.child(ROOT, name)?)
    }

    fn view(&self, id: InodeId) -> EntryView {
        self.view_as(id, Arc::clone(&self.inode(id).name), self.first_cookie(id))
    }

    fn view_as(&self, id: InodeId, name: Name, cookie: u64) -> EntryView {
        let inode = self.inode(id);
        let named = inode.parent != crate::tree::NOWHERE;
        let names = u32::try_from(inode.other_names().len()).unwrap_or(u32::MAX).saturating_add(named.into());
        let mut view = EntryView {
            name,
            inode: id,
            cookie,
            kind: inode.kind(),
            bytes: 0,
            stored_bytes: 0,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            links: names,
            modified_ns: inode.modified_ns,
            accessed_ns: inode.accessed_ns,
            changed_ns: inode.changed_ns,
            created_ns: inode.created_ns,
            children: 0,
            xattrs: u32::try_from(inode.xattrs().count()).unwrap_or(u32::MAX),
            sha256: None,
            link_target: None,
            space: None,
        };
        match &inode.node {
            Node::File(file) => {
                (view.bytes, view.stored_bytes) = (file.bytes, file.stored_bytes());
                view.sha256 = file.sha256.as_deref().copied();
            }
            Node::Directory(directory) => {
                (view.bytes, view.children) = (directory.totals.bytes, directory.children);
                view.space = self.spaces.get(&id).cloned();
            }
            Node::Symlink(target) => {
                view.bytes = target.len() as u64;
                view.link_target = Some(target.clone());
            }
        }
        view
    }
}

fn block_map(inode: &Inode) -> BlockMap {
    match inode.file() {
        Some(file) if file.blocks.len() > LIST_BLOCKS_PER_FILE_MAX => {
            BlockMap { blocks: Vec::new(), left_out: true }
        }
        Some(file) => BlockMap { blocks: file.blocks.to_vec(), left_out: false },
        None => BlockMap::default(),
    }
}

impl EntryView {
    /// Time of modification in milliseconds.
    #[must_use]
    pub fn modified(&self) -> Timestamp {
        crate::model::milliseconds(self.modified_ns)
    }

    /// When it was made, in milliseconds.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        crate::model::milliseconds(self.created_ns)
    }
}

//! The tree: names come and go, and the directories above know their sums.

use std::sync::Arc;

use nova_units::InodeId;

use crate::answer::{Code, Failure};
use crate::limits::DEPTH_MAX;
use crate::model::{
    Directory, Inode, Kind, Name, Namespace, Node, OtherName, ROOT, Space, Totals, nanoseconds,
};
use crate::path::Path;

/// No directory: the parent of what has no name.
pub(crate) const NOWHERE: InodeId = InodeId(0);

impl Namespace {
    pub(crate) fn inode(&self, id: InodeId) -> &Arc<Inode> {
        self.inodes.get(&id).expect("an entry leads to an inode that exists")
    }

    /// For a change; a copy is made when a snapshot has it too.
    pub(crate) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&id).expect("an entry leads to an inode that exists"))
    }

    fn directory_mut(&mut self, id: InodeId) -> &mut Directory {
        match &mut self.inode_mut(id).node {
            Node::Directory(directory) => directory,
            _ => panic!("{id} has entries and is no directory"),
        }
    }

    pub(crate) fn child(&self, directory: InodeId, name: &str) -> Option<InodeId> {
        self.entries.get(&(directory, Name::from(name))).copied()
    }

    pub(crate) fn first_child(&self, directory: InodeId) -> Option<(Name, InodeId)> {
        let from = (directory, Name::from(""));
        let ((parent, name), id) = self.entries.range(from..).next()?;
        (*parent == directory).then(|| (Arc::clone(name), *id))
    }

    pub(crate) fn take_inode_id(&mut self) -> InodeId {
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        id
    }

    /// Whether `wanted` more inodes or names fit the region.
    pub(crate) fn check_room(&self, path: &str, wanted: usize) -> Result<(), Failure> {
        let held = self.inodes.len().max(self.entries.len()) + wanted;
        if held as u64 > self.inodes_max {
            let message =
                "the region has as many files as its metadata can hold; remove some, and empty the trash";
            return Err(Failure::new(Code::Full, path, message));
        }
        Ok(())
    }

    /// The cookie of the first name of an inode.
    pub(crate) fn first_cookie(&self, id: InodeId) -> u64 {
        self.inode(id).extra.as_ref().and_then(|extra| extra.cookie).unwrap_or(id.0)
    }

    /// The cookie of a name of `id`.
    pub(crate) fn cookie_of(&self, id: InodeId, parent: InodeId, name: &str) -> u64 {
        let other = |other: &&OtherName| other.parent == parent && *other.name == *name;
        match self.inode(id).other_names().iter().find(other) {
            Some(other) => other.cookie,
            None => self.first_cookie(id),
        }
    }

    fn enter(&mut self, parent: InodeId, name: Name, cookie: u64, id: InodeId) {
        let taken = self.entries.insert((parent, name), id);
        assert!(taken.is_none(), "{id} linked over an entry");
        self.cookies.insert((parent, cookie), id);
        let (now, height) = (nanoseconds(self.clock), self.inode(id).height());
        let folder = self.inode_mut(parent);
        (folder.modified_ns, folder.changed_ns) = (now, now);
        self.directory_mut(parent).children += 1;
        self.raise_height(parent, height);
    }

    /// Puts a new inode, or one that has no name, under its parent and name. The totals above are the caller's.
    pub(crate) fn attach(&mut self, id: InodeId, inode: Inode) {
        let (parent, name) = (inode.parent, Arc::clone(&inode.name));
        self.inodes.insert(id, Arc::new(inode));
        self.enter(parent, name, self.first_cookie(id), id);
    }

    /// Gives `id` one more name, totals included. Answers its cookie.
    pub(crate) fn add_name(&mut self, id: InodeId, parent: InodeId, name: &str) -> u64 {
        let (name, cookie, now) = (Name::from(name), self.take_inode_id().0, nanoseconds(self.clock));
        self.enter(parent, Arc::clone(&name), cookie, id);
        self.account(parent, Totals::NAME, Totals::default());
        let inode = self.inode_mut(id);
        inode.changed_ns = now;
        inode.extra_mut().names.push(OtherName { parent, name, cookie });
        cookie
    }

    /// Takes a name away, totals included. When the first of several goes, the next becomes the first, and the bytes
    /// are counted where it is. Answers whether the inode has none left.
    pub(crate) fn drop_name(&mut self, parent: InodeId, name: &Name) -> (InodeId, bool) {
        let id = self.entries.remove(&(parent, Arc::clone(name))).expect("the caller found the entry");
        let cookie = self.cookie_of(id, parent, name);
        self.cookies.remove(&(parent, cookie)).expect("every entry has its cookie");
        let now = nanoseconds(self.clock);
        let weight = self.inode(id).weight();
        let inode = self.inode_mut(id);
        inode.changed_ns = now;
        let other =
            inode.other_names().iter().position(|other| other.parent == parent && other.name == *name);
        let last = if let Some(at) = other {
            inode.extra_mut().names.remove(at);
            inode.trim_extra();
            self.account(parent, Totals::default(), Totals::NAME);
            false
        } else if inode.other_names().is_empty() {
            inode.parent = NOWHERE;
            self.account(parent, Totals::default(), weight);
            true
        } else {
            let extra = inode.extra_mut();
            let next = extra.names.remove(0);
            extra.cookie = Some(next.cookie);
            (inode.parent, inode.name) = (next.parent, next.name);
            self.account(parent, Totals::default(), weight);
            let mut moved = weight;
            moved.subtract(Totals::NAME);
            self.account(next.parent, moved, Totals::default());
            false
        };
        let folder = self.inode_mut(parent);
        (folder.modified_ns, folder.changed_ns) = (now, now);
        self.directory_mut(parent).children -= 1;
        (id, last)
    }

    /// Moves one name of an inode; the target is free. Totals included.
    pub(crate) fn move_name(&mut self, from: (InodeId, &Name), to: (InodeId, &str)) {
        let (id, now) = (self.entries[&(from.0, Arc::clone(from.1))], nanoseconds(self.clock));
        let cookie = self.cookie_of(id, from.0, from.1);
        let first = self.inode(id).parent == from.0 && self.inode(id).name == *from.1;
        let weight = if first { self.inode(id).weight() } else { Totals::NAME };
        self.entries.remove(&(from.0, Arc::clone(from.1)));
        self.cookies.remove(&(from.0, cookie));
        self.account(from.0, Totals::default(), weight);
        let folder = self.inode_mut(from.0);
        (folder.modified_ns, folder.changed_ns) = (now, now);
        self.directory_mut(from.0).children -= 1;
        let name = Name::from(to.1);
        let inode = self.inode_mut(id);
        inode.changed_ns = now;
        if first {
            (inode.parent, inode.name) = (to.0, Arc::clone(&name));
        } else {
            let moved = |other: &&mut OtherName| other.cookie == cookie;
            let other = inode.extra_mut().names.iter_mut().find(moved).expect("it is not its first name");
            (other.parent, other.name) = (to.0, Arc::clone(&name));
        }
        self.enter(to.0, name, cookie, id);
        self.account(to.0, weight, Totals::default());
    }

    /// What the name brings into the directories above it.
    pub(crate) fn weight_of_name(&self, id: InodeId, parent: InodeId, name: &str) -> Totals {
        let inode = self.inode(id);
        if inode.parent == parent && *inode.name == *name { inode.weight() } else { Totals::NAME }
    }

    fn raise_height(&mut self, mut directory: InodeId, mut height: u32) {
        loop {
            let parent = self.inode(directory).parent;
            if self.inode(directory).as_directory().is_none_or(|body| body.height >= height) {
                return;
            }
            self.directory_mut(directory).height = height;
            if directory == ROOT || parent == NOWHERE {
                return;
            }
            (directory, height) = (parent, height + 1);
        }
    }

    /// Adds to, then takes from, the totals of `directory` and all above it.
    pub(crate) fn account(&mut self, mut directory: InodeId, added: Totals, removed: Totals) {
        if added == removed {
            return;
        }
        loop {
            let parent = self.inode(directory).parent;
            let body = self.directory_mut(directory);
            body.totals.add(added);
            body.totals.subtract(removed);
            if directory == ROOT || parent == NOWHERE {
                return;
            }
            directory = parent;
        }
    }

    /// Makes an empty directory of this mode, owner and group, totals above included.
    pub(crate) fn add_directory(&mut self, parent: InodeId, name: &str, rights: (u32, u32, u32)) -> InodeId {
        let id = self.take_inode_id();
        let mut inode = Inode::directory(parent, name, rights.0 & 0o7777, self.clock);
        (inode.uid, inode.gid) = (rights.1, rights.2);
        self.attach(id, inode);
        self.account(parent, Totals::DIRECTORY, Totals::default());
        id
    }

    /// `id` and the directories above it, up to the root or the top of what was removed.
    pub(crate) fn upwards(&self, id: InodeId) -> impl Iterator<Item = InodeId> + '_ {
        let above = |at: &InodeId| {
            let parent = self.inode(*at).parent;
            (*at != ROOT && parent != NOWHERE).then_some(parent)
        };
        core::iter::successors(Some(id), above)
    }

    /// `id` is `above` or lies below it.
    pub(crate) fn is_within(&self, id: InodeId, above: InodeId) -> bool {
        self.upwards(id).any(|at| at == above)
    }

    /// The namespace that `id` is or lies in: a directory directly under the root. `None` for the root, and for what
    /// was removed.
    pub(crate) fn space_id(&self, id: InodeId) -> Option<InodeId> {
        let mut below = None;
        for at in self.upwards(id) {
            if at == ROOT {
                return below;
            }
            below = Some(at);
        }
        None
    }

    /// The policy of the namespace that `id` lies in.
    pub(crate) fn space_of(&self, id: InodeId) -> Space {
        self.space_id(id).and_then(|space| self.spaces.get(&space).cloned()).unwrap_or_default()
    }

    /// The absolute path of an inode by its first name; of what was removed, from where it lay.
    pub(crate) fn path_of(&self, id: InodeId) -> String {
        let mut names: Vec<Name> =
            self.upwards(id).filter(|at| *at != ROOT).map(|at| Arc::clone(&self.inode(at).name)).collect();
        names.reverse();
        if names.is_empty() {
            return "/".to_owned();
        }
        names.iter().fold(String::new(), |path, name| path + "/" + name)
    }

    /// The inode that a path leads to.
    pub(crate) fn resolve(&self, path: &Path<'_>) -> Result<InodeId, Failure> {
        let Some((folders, name)) = path.split_last() else { return self.base(path) };
        let parent = self.resolve_folders(path, folders)?;
        self.child(parent, name)
            .ok_or_else(|| Failure::new(Code::NotFound, path.text(), "no such file or directory"))
    }

    fn base(&self, path: &Path<'_>) -> Result<InodeId, Failure> {
        let base = path.base();
        if !self.inodes.contains_key(&base) {
            return Err(Failure::new(Code::Stale, path.text(), "the inode is gone"));
        }
        Ok(base)
    }

    /// The directory that `folders` lead to from the base of the path.
    pub(crate) fn resolve_folders(&self, path: &Path<'_>, folders: &[&str]) -> Result<InodeId, Failure> {
        let mut at = self.base(path)?;
        self.check_directory(at, path)?;
        for name in folders {
            at = self.child(at, name).ok_or_else(|| {
                Failure::new(Code::NotFound, path.text(), "a directory on the way does not exist")
            })?;
            self.check_directory(at, path)?;
        }
        Ok(at)
    }

    pub(crate) fn check_directory(&self, id: InodeId, path: &Path<'_>) -> Result<(), Failure> {
        let message = match self.inode(id).kind() {
            Kind::Directory => return Ok(()),
            Kind::File => "a name on the way is a file",
            Kind::Symlink => "a name on the way is a symbolic link; follow it first",
        };
        Err(Failure::new(Code::NotADirectory, path.text(), message))
    }

    /// The directory in which a path makes, moves or removes an entry, and the name there. The directory is part of
    /// the tree.
    pub(crate) fn place<'a>(&self, path: &Path<'a>) -> Result<(InodeId, &'a str), Failure> {
        let Some((folders, name)) = path.split_last() else {
            return Err(Failure::new(Code::Invalid, path.text(), "name an entry of a directory"));
        };
        let parent = self.resolve_folders(path, folders)?;
        self.depth(parent, path)?;
        Ok((parent, name))
    }

    /// How many names lead to `directory`.
    pub(crate) fn depth(&self, directory: InodeId, path: &Path<'_>) -> Result<usize, Failure> {
        for (depth, at) in self.upwards(directory).enumerate() {
            if at == ROOT {
                return Ok(depth);
            }
        }
        Err(Failure::new(Code::NotFound, path.text(), "the directory was removed"))
    }

    /// Whether something of `height` levels may lie in `directory`.
    pub(crate) fn check_depth(
        &self,
        directory: InodeId,
        height: u32,
        path: &Path<'_>,
    ) -> Result<(), Failure> {
        let levels = self.depth(directory, path)? + usize::try_from(height).unwrap_or(usize::MAX);
        if levels > DEPTH_MAX {
            let message = "the path, or the tree that is moved there, would be deeper than 128 names";
            return Err(Failure::new(Code::Invalid, path.text(), message));
        }
        Ok(())
    }

    /// A directory from `directory` upwards has a quota.
    pub(crate) fn has_quota(&self, directory: InodeId) -> bool {
        self.upwards(directory).any(|at| self.quota_at(at).is_some())
    }

    fn quota_at(&self, id: InodeId) -> Option<&Directory> {
        self.inode(id)
            .as_directory()
            .filter(|directory| directory.quota.bytes_max != 0 || directory.quota.files_max != 0)
    }

    /// Whether the quotas of `directory` and all above it, without those in `common`, allow this change. What takes
    /// away is always allowed.
    pub(crate) fn check_quota(
        &self,
        directory: InodeId,
        common: &[InodeId],
        (added, removed): (Totals, Totals),
        path: &str,
    ) -> Result<(), Failure> {
        for at in self.upwards(directory) {
            let Some(body) = self.quota_at(at).filter(|_| !common.contains(&at)) else { continue };
            let exceeds = |held: u64, added: u64, removed: u64, max: u64| {
                max != 0 && added > removed && held.saturating_add(added - removed) > max
            };
            let quota = body.quota;
            let what = if exceeds(body.totals.bytes, added.bytes, removed.bytes, quota.bytes_max) {
                format!("{} bytes", quota.bytes_max)
            } else if exceeds(body.totals.names(), added.names(), removed.names(), quota.files_max) {
                format!("{} files", quota.files_max)
            } else {
                continue;
            };
            let message = format!("the quota of {} is {what}; remove some, or raise it", self.path_of(at));
            return Err(Failure::new(Code::Quota, path, &message));
        }
        Ok(())
    }
}

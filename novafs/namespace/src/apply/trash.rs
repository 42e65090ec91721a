//! What is removed can be had back for a while, and is then taken apart in bounded steps.

use std::sync::Arc;

use nova_units::{InodeId, Timestamp};

use super::entry::MODE_ON_THE_WAY;
use crate::answer::{Answer, Code, Done, Failure, Reply, Swept};
use crate::command::{Expire, Purge, PurgeTrash, Sweep, Undelete};
use crate::limits::{EXPIRE_MAX, PURGE_MAX, SWEEP_ENTRIES_MAX, WRITTEN_IN_TRASH};
use crate::model::{Inode, Name, Namespace, Node, Orphan, ROOT, StoredBlock, Totals, Trashed, milliseconds};
use crate::path::Path;

impl Namespace {
    /// Takes an entry away. What has no name left goes to the trash of its namespace for the undelete window; a
    /// symbolic link and an empty directory are gone.
    pub(super) fn remove_name(&mut self, parent: InodeId, name: &Name) {
        let id = self.child(parent, name).expect("the caller found the entry");
        let path = self.path_of(parent);
        let path = format!("{}/{name}", path.trim_end_matches('/'));
        // Of a namespace itself its own.
        let space = self.space_id(parent).unwrap_or(id);
        let (id, last) = self.drop_name(parent, name);
        if last {
            self.discard(id, path, space);
        }
    }

    fn discard(&mut self, id: InodeId, path: String, space: InodeId) {
        let inode = self.inode(id);
        let weight = inode.weight();
        match &inode.node {
            Node::Symlink(_) => {
                self.inodes.remove(&id);
                return;
            }
            Node::Directory(directory) if directory.children == 0 => {
                self.inodes.remove(&id);
                self.spaces.remove(&id);
                return;
            }
            _ => {}
        }
        // A region without room for another inode gives it back at once.
        let full = self.inodes.len() as u64 >= self.inodes_max;
        let mut window = if full {
            None
        } else {
            self.spaces.get(&space).map(|it| it.undelete).filter(|it| !it.is_zero())
        };
        if self.writers.contains_key(&id) {
            window = Some(window.unwrap_or_default().max(WRITTEN_IN_TRASH));
        }
        let Some(window) = window else { return self.release(id) };
        let (number, purge) = (self.next_trashed, self.clock.after(window));
        self.next_trashed += 1;
        self.trash_due.insert((purge.0, number), ());
        self.trash_totals.add(weight);
        let trashed = Trashed { root: id, path: path.into(), space, removed: self.clock, purge, weight };
        self.trash.insert(number, trashed);
    }

    /// Lets what has no name go: a file at once, a tree by later sweeps.
    fn release(&mut self, id: InodeId) {
        match &self.inode(id).node {
            Node::File(_) => self.orphan_file(id),
            _ => {
                self.sweep.insert(id, ());
            }
        }
    }

    fn take_from_trash(&mut self, number: u64) -> Option<Trashed> {
        let trashed = self.trash.remove(&number)?;
        self.trash_due.remove(&(trashed.purge.0, number));
        self.trash_totals.subtract(trashed.weight);
        Some(trashed)
    }

    /// Forgets a file without names; its blocks wait for collection. Who wrote it finds it gone.
    fn orphan_file(&mut self, id: InodeId) {
        self.forget_writer(id);
        let inode = self.inodes.remove(&id).expect("the caller has it without names");
        let file = inode.file().expect("the caller has a file");
        for block in &file.blocks {
            self.orphan(block);
        }
    }

    pub(super) fn orphan(&mut self, block: &StoredBlock) {
        let orphan = Orphan { count: 1, groups: Arc::from([block.group]), since: self.clock };
        self.orphans.insert(block.block, orphan);
    }

    pub(super) fn undelete(&mut self, undelete: &Undelete) -> Result<Answer, Failure> {
        let missing =
            || Failure::new(Code::NotFound, &undelete.target, "there is no such number in the trash");
        let trashed = self.trash.get(&undelete.id).filter(|_| undelete.id >= self.purge_below);
        let trashed = trashed.ok_or_else(missing)?.clone();
        let text = if undelete.target.is_empty() { &*trashed.path } else { &undelete.target };
        let path = Path::parse(text)?;
        let is_space = self.spaces.contains_key(&trashed.root);
        let Some((folders, name)) = path.split_last().filter(|(folders, _)| folders.is_empty() == is_space)
        else {
            let message = "a namespace comes back directly below the root, and all else into a namespace";
            return Err(Failure::new(Code::Invalid, text, message));
        };
        if !is_space {
            self.resolve_folders(&path, &folders[..1])?;
        }
        // How far the way exists: the keys are those there.
        let (mut parent, mut found) = (ROOT, 0);
        while let Some(child) = folders.get(found).and_then(|folder| self.child(parent, folder)) {
            self.check_directory(child, &path)?;
            (parent, found) = (child, found + 1);
        }
        let keys = |space: InodeId| self.spaces.get(&space).map(|space| space.key_domain);
        if !is_space && keys(trashed.space).is_some_and(|keys| keys != self.space_of(parent).key_domain) {
            return Err(Failure::new(Code::CrossDomain, text, "the target has other keys; name another"));
        }
        if found == folders.len() && self.child(parent, name).is_some() {
            return Err(Failure::new(Code::AlreadyExists, text, "the name is taken; name another"));
        }
        let root = self.inode(trashed.root);
        let (weight, height) = (root.weight(), root.height());
        if found == folders.len() {
            self.check_depth(parent, height, &path)?;
            self.check_quota(parent, &[], (weight, Totals::default()), text)?;
        }
        let parent = self.make_folders(&path, folders, (MODE_ON_THE_WAY, 0, 0), (weight, height))?;
        self.take_from_trash(undelete.id).expect("it was found above");
        let inode = Inode { parent, name: Name::from(name), ..Inode::clone(self.inode(trashed.root)) };
        self.attach(trashed.root, inode);
        self.account(parent, weight, Totals::default());
        Ok(Done {}.into())
    }

    pub(super) fn purge_trash(&mut self, purge: &PurgeTrash) -> Result<Answer, Failure> {
        if purge.id == 0 {
            self.purge_below = self.next_trashed;
            return Ok(Done {}.into());
        }
        match self.take_from_trash(purge.id) {
            Some(trashed) => self.release(trashed.root),
            None => return Err(Failure::new(Code::NotFound, "", "there is no such number in the trash")),
        }
        Ok(Done {}.into())
    }

    pub(super) fn purge(&mut self, purge: &Purge) -> Answer {
        let now = self.clock.min(Timestamp(purge.now_ms));
        for _ in 0..purge.limit.clamp(1, PURGE_MAX) {
            let asked = self.trash.get_min().map(|(number, _)| *number).filter(|it| *it < self.purge_below);
            let due = || self.trash_due.get_min().map(|(key, ())| *key);
            let due = || due().filter(|(at, _)| purge.early || *at <= now.0).map(|(_, number)| number);
            let Some(number) = asked.or_else(due) else { break };
            if asked.is_some() {
                let trashed = self.take_from_trash(number).expect("both maps have it");
                self.release(trashed.root);
            } else {
                self.let_go(number, now);
            }
        }
        Done {}.into()
    }

    /// Lets go what is due first until it stores `bytes`, at most [`PURGE_MAX`] of it: devices are nearly full.
    pub(super) fn purge_early(&mut self, bytes: u64) {
        let mut gone = 0;
        for _ in 0..PURGE_MAX {
            let first = self.trash_due.get_min().map(|((_, number), ())| *number);
            let Some(number) = first.filter(|_| gone < bytes) else { break };
            gone += self.let_go(number, self.clock);
        }
    }

    /// Lets go what has this number, unless somebody writes it: then it waits a while. Answers its stored bytes, if
    /// they go.
    fn let_go(&mut self, number: u64, now: Timestamp) -> u64 {
        let trashed = self.take_from_trash(number).expect("both maps have it");
        if self.writers.contains_key(&trashed.root) {
            let purge = now.max(trashed.purge).after(WRITTEN_IN_TRASH);
            self.trash_due.insert((purge.0, number), ());
            self.trash_totals.add(trashed.weight);
            self.trash.insert(number, Trashed { purge, ..trashed });
            return 0;
        }
        self.release(trashed.root);
        trashed.weight.bytes
    }

    /// Retention is judged here once more, by what the files are now.
    pub(super) fn expire(&mut self, expire: &Expire) -> Answer {
        let now = self.clock.min(Timestamp(expire.now_ms));
        for id in expire.inodes.iter().take(EXPIRE_MAX).map(|id| InodeId(*id)) {
            if self.is_expired(id, now) {
                let inode = self.inode(id);
                let (parent, name) = (inode.parent, Arc::clone(&inode.name));
                self.remove_name(parent, &name);
            }
        }
        Done {}.into()
    }

    /// `id` is a file in a namespace whose retention has passed since it was last modified, or came here: a file that
    /// was put with an old time is not old here. Nobody writes it.
    pub(crate) fn is_expired(&self, id: InodeId, now: Timestamp) -> bool {
        let Some(inode) = self.inodes.get(&id) else { return false };
        if inode.file().is_none() || self.writers.contains_key(&id) {
            return false;
        }
        let space = self.space_id(id).and_then(|space| self.spaces.get(&space));
        let Some(retention) = space.and_then(|space| space.retention) else { return false };
        milliseconds(inode.modified_ns.max(inode.created_ns)).after(retention) <= now
    }

    pub(super) fn sweep(&mut self, sweep: &Sweep) -> Answer {
        let limit = sweep.limit.clamp(1, SWEEP_ENTRIES_MAX);
        let mut entries = 0;
        while entries < limit {
            let Some((root, ())) = self.sweep.get_min().copied() else { break };
            let mut at = root;
            while entries < limit {
                if let Some((name, child)) = self.first_child(at) {
                    if self.inode(child).as_directory().is_some_and(|directory| directory.children > 0) {
                        at = child;
                        continue;
                    }
                    let (child, last) = self.drop_name(at, &name);
                    match &self.inode(child).node {
                        _ if !last => {}
                        Node::File(_) => self.orphan_file(child),
                        Node::Directory(_) | Node::Symlink(_) => {
                            self.inodes.remove(&child);
                        }
                    }
                    entries += 1;
                    continue;
                }
                if at == root {
                    self.sweep.remove(&root);
                    self.inodes.remove(&root);
                    self.spaces.remove(&root);
                    entries += 1;
                    break;
                }
                at = self.inode(at).parent;
            }
        }
        Reply::Swept(Swept { entries, more: !self.sweep.is_empty() }).into()
    }
}

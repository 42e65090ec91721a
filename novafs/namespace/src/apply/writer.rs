//! Files are opened for writing, and what was written becomes visible.

use std::collections::BTreeSet;

use nova_units::{BLOCK_BYTES_MAX, BlockId, Generation, InodeId, SessionId};

use super::publish::{block_of, check_order};
use super::session::fenced;
use crate::answer::{Answer, Code, Done, Failure, Opened, Reply, Touched};
use crate::command::{CloseFile, CommitFile, OpenFile, Truncate};
use crate::limits::{FILE_BYTES_MAX, WRITING_PER_SESSION_MAX};
use crate::model::{File, Inode, Kind, Namespace, Node, StoredBlock, Totals, nanoseconds};
use crate::path::Path;
use crate::tree::NOWHERE;

impl Namespace {
    pub(super) fn open_file(&mut self, open: &OpenFile) -> Result<Answer, Failure> {
        let session = SessionId(open.session);
        let held = self.sessions.get(&session).ok_or_else(fenced)?.writing.len();
        let refused = |code, message| Err(Failure::new(code, &open.path, message));
        if held >= WRITING_PER_SESSION_MAX {
            return refused(Code::Full, "the session has 65,536 files open for writing; close some");
        }
        let path = Path::parse_at(open.base, &open.path)?;
        if path.names().is_empty() {
            let id = self.resolve(&path)?;
            return self.open_existing(open, id, self.first_cookie(id));
        }
        let (parent, name) = match self.place(&path) {
            // A file in a removed directory can be opened as long as it is there, but none can be made.
            Err(failure) if open.create => return Err(failure),
            Err(_) => {
                let id = self.resolve(&path)?;
                return self.open_existing(open, id, self.first_cookie(id));
            }
            Ok(place) => place,
        };
        if let Some(id) = self.child(parent, name) {
            return self.open_existing(open, id, self.cookie_of(id, parent, name));
        }
        if !open.create {
            return refused(Code::NotFound, "no such file or directory");
        }
        self.check_not_root(parent, &path)?;
        self.check_room(&open.path, 1)?;
        self.check_depth(parent, 1, &path)?;
        self.check_quota(parent, &[], (Totals::NAME, Totals::default()), &open.path)?;
        let id = self.take_inode_id();
        let mut inode = Inode::new(parent, name, open.mode & 0o7777, self.clock, Node::File(File::default()));
        (inode.uid, inode.gid, inode.turn) = (open.uid, open.gid, Generation(1));
        self.attach(id, inode);
        self.account(parent, Totals::NAME, Totals::default());
        self.set_writer(id, session);
        Ok(Reply::Opened(Opened { inode: id.0, cookie: 0, generation: 1, created: true }).into())
    }

    fn open_existing(&mut self, open: &OpenFile, id: InodeId, cookie: u64) -> Result<Answer, Failure> {
        let session = SessionId(open.session);
        let refused = |code, message| Err(Failure::new(code, &open.path, message));
        match self.inode(id).kind() {
            Kind::Directory => return refused(Code::IsADirectory, "it is a directory"),
            Kind::Symlink => return refused(Code::Invalid, "it is a symbolic link; follow it first"),
            Kind::File => {}
        }
        if open.create && open.exclusive {
            return refused(Code::AlreadyExists, "the name is taken");
        }
        match self.writers.get(&id) {
            Some(writer) if *writer != session => {
                return refused(Code::Busy, "another session writes the file; wait until it has closed it");
            }
            Some(_) => {}
            None => {
                let Some(turn) = self.inode(id).turn.0.checked_add(1) else {
                    return refused(Code::Full, "the file was opened 2^32 times; copy it");
                };
                let inode = self.inode_mut(id);
                inode.turn = Generation(turn);
                if let Node::File(file) = &mut inode.node {
                    file.sha256 = None;
                    for block in &mut file.blocks {
                        (block.sparse, block.root) = (true, None);
                    }
                }
                self.set_writer(id, session);
            }
        }
        if open.truncate {
            self.resize(id, 0);
        }
        let generation = self.inode(id).turn.0;
        Ok(Reply::Opened(Opened { inode: id.0, cookie, generation, created: false }).into())
    }

    fn set_writer(&mut self, id: InodeId, session: SessionId) {
        self.writers.insert(id, session);
        self.sessions.get_mut(&session).expect("the caller found the session").writing.insert(id, ());
    }

    /// Nobody writes the file any more.
    pub(super) fn forget_writer(&mut self, id: InodeId) {
        if let Some(session) = self.writers.remove(&id)
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.writing.remove(&id);
        }
    }

    /// The group may hold data past what was committed: every block that could have grown says so.
    pub(super) fn leave_untrimmed(&mut self, id: InodeId) {
        let grows = |block: &StoredBlock| u64::from(block.bytes) < BLOCK_BYTES_MAX && !block.trim_pending;
        let file = self.inodes.get(&id).and_then(|inode| inode.file());
        if !file.is_some_and(|file| file.blocks.iter().any(grows)) {
            return;
        }
        if let Node::File(file) = &mut self.inode_mut(id).node {
            for block in file.blocks.iter_mut().filter(|block| u64::from(block.bytes) < BLOCK_BYTES_MAX) {
                block.trim_pending = true;
            }
        }
    }

    /// `id` is a file that `session` writes.
    fn check_writer(&self, session: SessionId, id: InodeId) -> Result<&File, Failure> {
        if !self.sessions.contains_key(&session) {
            return Err(fenced());
        }
        let Some(inode) = self.inodes.get(&id) else {
            return Err(Failure::new(Code::Stale, "", "the file is gone"));
        };
        let Some(file) = inode.file() else {
            return Err(Failure::new(Code::Invalid, "", "it is no file"));
        };
        match self.writers.get(&id) {
            Some(writer) if *writer == session => Ok(file),
            Some(_) => Err(Failure::new(Code::Busy, "", "another session writes the file")),
            None => {
                Err(Failure::new(Code::Invalid, "", "the session does not write the file; open it first"))
            }
        }
    }

    pub(super) fn close_file(&mut self, close: &CloseFile) -> Result<Answer, Failure> {
        let id = InodeId(close.inode);
        self.check_writer(SessionId(close.session), id)?;
        self.forget_writer(id);
        self.leave_untrimmed(id);
        Ok(Done {}.into())
    }

    pub(super) fn truncate(&mut self, truncate: &Truncate) -> Result<Answer, Failure> {
        let id = InodeId(truncate.inode);
        self.check_writer(SessionId(truncate.session), id)?;
        if truncate.bytes > FILE_BYTES_MAX {
            return Err(Failure::new(Code::TooLarge, "", "a file has at most 2^63 - 1 bytes"));
        }
        self.resize(id, truncate.bytes);
        Ok(Reply::Resized(Touched { inode: id.0, cookie: 0 }).into())
    }

    /// Blocks past the new length become orphans, the one that it cuts waits for its Trim. Growth is a hole.
    fn resize(&mut self, id: InodeId, bytes: u64) {
        let now = nanoseconds(self.clock);
        let before = self.inode(id).weight();
        let inode = self.inode_mut(id);
        (inode.modified_ns, inode.changed_ns) = (now, now);
        let parent = inode.parent;
        let Node::File(file) = &mut inode.node else { panic!("{id} is written and no file") };
        file.bytes = bytes;
        let kept = file.blocks.partition_point(|block| block.offset < bytes);
        let mut blocks = core::mem::take(&mut file.blocks).into_vec();
        let dropped = blocks.split_off(kept);
        if let Some(last) = blocks.last_mut() {
            let room = bytes - last.offset;
            if room < u64::from(last.bytes) {
                last.bytes = u32::try_from(room).expect("it is below the bytes of a block");
                last.trim_pending = true;
            }
        }
        file.blocks = blocks.into();
        for block in &dropped {
            self.orphan(block);
        }
        let after = self.inode(id).weight();
        if parent != NOWHERE {
            self.account(parent, after, before);
        }
    }

    pub(super) fn commit_file(&mut self, commit: &CommitFile) -> Result<Answer, Failure> {
        let (session, id) = (SessionId(commit.session), InodeId(commit.inode));
        let file = self.check_writer(session, id)?;
        let invalid = |message: &str| Failure::new(Code::Invalid, "", message);
        if commit.bytes > FILE_BYTES_MAX {
            return Err(Failure::new(Code::TooLarge, "", "a file has at most 2^63 - 1 bytes"));
        }
        if commit.bytes < file.bytes {
            return Err(invalid("the file is longer than that; truncate it to shrink it"));
        }
        let mut blocks = file.blocks.to_vec();
        let fresh = merge(&mut blocks, commit, self.inode(id).turn).map_err(invalid)?;
        self.check_reserved(session, &fresh, "")?;
        blocks.extend(fresh.iter().cloned());
        blocks.sort_by_key(|block| block.offset);
        check_order(&blocks, commit.bytes).map_err(invalid)?;
        let before = self.inode(id).weight();
        let after = Totals {
            bytes: blocks.iter().map(|block| u64::from(block.bytes)).sum(),
            blocks: blocks.len() as u64,
            ..Totals::NAME
        };
        let parent = self.inode(id).parent;
        if parent != NOWHERE {
            self.check_keys(parent, &fresh, "")?;
            self.check_quota(parent, &[], (after, before), "")?;
        }

        self.consume(session, &fresh);
        let now = nanoseconds(self.clock);
        let inode = self.inode_mut(id);
        inode.changed_ns = now;
        inode.modified_ns = if commit.modified_ns == 0 { now } else { commit.modified_ns };
        if let Node::File(file) = &mut inode.node {
            (file.bytes, file.blocks) = (commit.bytes, blocks.into());
        }
        if parent != NOWHERE {
            self.account(parent, after, before);
        }
        if commit.close {
            self.forget_writer(id);
        }
        Ok(Reply::Touched(Touched { inode: id.0, cookie: 0 }).into())
    }
}

/// Takes what the commit says of the blocks that the file has; answers those that it does not have yet.
fn merge(
    blocks: &mut [StoredBlock],
    commit: &CommitFile,
    turn: Generation,
) -> Result<Vec<StoredBlock>, &'static str> {
    let trimmed: BTreeSet<u64> = commit.trimmed.iter().copied().collect();
    for block in blocks.iter_mut().filter(|block| trimmed.contains(&block.block.0)) {
        block.trim_pending = false;
    }
    let mut fresh = Vec::new();
    for given in &commit.blocks {
        let given = StoredBlock { sparse: true, root: None, ..block_of(given)? };
        if given.generation != turn {
            return Err("a block is of another turn than the file");
        }
        let at = find(blocks, given.offset, given.block);
        let Some(known) = at.map(|at| &mut blocks[at]) else {
            fresh.push(given);
            continue;
        };
        let sealed =
            |block: &StoredBlock| (block.group, block.unit_log2, block.key_domain, block.key_version);
        if sealed(known) != sealed(&given) {
            return Err("a block of the file stays in its group, with its units, key domain and key version");
        }
        if given.bytes < known.bytes {
            return Err("a block is longer than that; truncate the file to shrink it");
        }
        if given.bytes > known.bytes && known.trim_pending {
            return Err("a block grows only when its trim is committed; say so in trimmed");
        }
        *known = StoredBlock { trim_pending: known.trim_pending, ..given };
    }
    Ok(fresh)
}

/// The block of this id at this offset.
fn find(blocks: &[StoredBlock], offset: u64, id: BlockId) -> Option<usize> {
    let at = blocks.binary_search_by_key(&offset, |block| block.offset).ok()?;
    (blocks[at].block == id).then_some(at)
}

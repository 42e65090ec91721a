//! Files appear whole: inode, entry, blocks and length in one step.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BLOCK_BYTES_MAX, BlockId, Generation, GroupId, InodeId, SessionId, Timestamp};
use nova_units::{UNIT_LOG2_MAX, UNIT_LOG2_MIN};

use super::entry::MODE_ON_THE_WAY;
use super::session::fenced;
use crate::answer::{Answer, Code, Failure, Outcome, Published, Reply};
use crate::command::{Block, NewFile, Publish};
use crate::limits::{BLOCKS_PER_FILE_MAX, FILE_BYTES_MAX, FILES_PER_PUBLISH_MAX};
use crate::model::{File, Inode, Kind, Name, Namespace, Node, ROOT, StoredBlock, Totals, nanoseconds};
use crate::path::Path;

/// What one command adds to each directory; the directories above learn it once, at the end.
type Accounts = BTreeMap<InodeId, Totals>;

/// Directories of one command by base and path: the inode, and whether a quota is to be kept there. None can go away
/// within the command.
type Parents<'a> = BTreeMap<(u64, &'a str), (InodeId, bool)>;

impl Namespace {
    pub(super) fn publish(&mut self, publish: &Publish) -> Result<Answer, Failure> {
        if publish.files.len() > FILES_PER_PUBLISH_MAX {
            return Err(Failure::new(Code::Invalid, "", "a publish is of at most 4,096 files; send several"));
        }
        if !self.sessions.contains_key(&SessionId(publish.session)) {
            return Err(fenced());
        }
        let mut accounts = Accounts::new();
        let mut parents = Parents::new();
        let outcomes = publish
            .files
            .iter()
            .map(|file| match self.publish_file(publish, file, &mut parents, &mut accounts) {
                Ok(inode) => Outcome { inode: inode.0, failure: None },
                Err(failure) => Outcome { inode: 0, failure: Some(failure) },
            })
            .collect();
        self.settle(&mut accounts);
        Ok(Reply::Published(Published { outcomes }).into())
    }

    /// Tells the directories what the command has added so far.
    fn settle(&mut self, accounts: &mut Accounts) {
        for (directory, added) in core::mem::take(accounts) {
            self.account(directory, added, Totals::default());
        }
    }

    /// Every check stands before the first change.
    fn publish_file<'a>(
        &mut self,
        publish: &Publish,
        new: &'a NewFile,
        parents: &mut Parents<'a>,
        accounts: &mut Accounts,
    ) -> Result<InodeId, Failure> {
        let path = Path::parse_at(new.base, &new.path)?;
        let Some((folders, name)) = path.split_last() else {
            return Err(Failure::new(Code::Invalid, &new.path, "a file needs a name"));
        };
        let file = file_of(new)?;
        self.check_reserved(SessionId(publish.session), &file.blocks, &new.path)?;
        let added = Totals { bytes: file.stored_bytes(), blocks: file.blocks.len() as u64, ..Totals::NAME };
        let room = if publish.make_parents { folders.len() + 1 } else { 1 };
        self.check_room(&new.path, room)?;
        let folder = (!new.path.ends_with('/')).then(|| &new.path[..new.path.len() - name.len()]);
        let (parent, quota) = match folder.and_then(|folder| parents.get(&(new.base, folder))) {
            Some(known) => *known,
            None => {
                let parent = self.parent_of(&path, folders, publish.make_parents, added, accounts)?;
                self.check_not_root(parent, &path)?;
                self.check_depth(parent, 1, &path)?;
                let known = (parent, self.has_quota(parent));
                parents.extend(folder.map(|folder| ((new.base, folder), known)));
                known
            }
        };
        self.check_keys(parent, &file.blocks, &new.path)?;
        let old = self.child(parent, name);
        match old.map(|old| self.inode(old).kind()) {
            Some(Kind::Directory) => {
                return Err(Failure::new(Code::IsADirectory, &new.path, "a directory has this name"));
            }
            Some(_) if !publish.replace => {
                return Err(Failure::new(Code::AlreadyExists, &new.path, "a file has this name"));
            }
            _ => {}
        }
        let turn = file.blocks.iter().map(|block| block.generation).max().unwrap_or(Generation(1));
        let mut inode = Inode::new(parent, name, new.mode & 0o7777, self.clock, Node::File(file));
        inode.turn = turn.max(Generation(1));
        (inode.uid, inode.gid) = (new.uid, new.gid);
        inode.modified_ns = match new.modified_ns {
            0 => nanoseconds(Timestamp(new.modified_ms)),
            ns => ns,
        };
        if quota || old.is_some() {
            self.settle(accounts);
            let removed = old.map_or(Totals::default(), |old| self.weight_of_name(old, parent, name));
            self.check_quota(parent, &[], (added, removed), &new.path)?;
        }

        self.consume(SessionId(publish.session), &inode.file().expect("it was made one").blocks);
        if old.is_some() {
            self.remove_name(parent, &Name::from(name));
        }
        accounts.entry(parent).or_default().add(added);
        let id = self.take_inode_id();
        self.attach(id, inode);
        Ok(id)
    }

    /// The folder of `path`, made when asked for. A namespace is only made by `MakeDirectory`.
    fn parent_of(
        &mut self,
        path: &Path<'_>,
        folders: &[&str],
        make: bool,
        coming: Totals,
        accounts: &mut Accounts,
    ) -> Result<InodeId, Failure> {
        if !make || folders.is_empty() {
            return self.resolve_folders(path, folders);
        }
        if path.base() == ROOT {
            self.resolve_folders(path, &folders[..1])?;
        }
        self.settle(accounts);
        self.make_folders(path, folders, (MODE_ON_THE_WAY, 0, 0), (coming, 1))
    }

    /// The session was given these blocks for these groups, and has not used them yet.
    pub(super) fn check_reserved(
        &self,
        session: SessionId,
        blocks: &[StoredBlock],
        path: &str,
    ) -> Result<(), Failure> {
        let session = self.sessions.get(&session).expect("the caller found the session");
        for block in blocks {
            let reservation = session.reservation_of(block.block).map(|(_, reservation)| reservation);
            if !reservation.is_some_and(|it| it.groups.contains(&block.group)) {
                let message =
                    "a block is not reserved by this session for that group, or was published before";
                return Err(Failure::new(Code::Invalid, path, message));
            }
        }
        Ok(())
    }

    /// The blocks are sealed with keys of the domain that files in `parent` have: dropping a domain must take all that is
    /// in its namespaces, and nothing else.
    pub(super) fn check_keys(
        &self,
        parent: InodeId,
        blocks: &[StoredBlock],
        path: &str,
    ) -> Result<(), Failure> {
        let domain = self.space_of(parent).key_domain;
        match blocks.iter().find(|block| block.key_domain != domain) {
            Some(block) => {
                let message = format!(
                    "it is sealed with a key of domain {}, and files here have keys of domain {domain}: write it anew",
                    block.key_domain
                );
                Err(Failure::new(Code::Invalid, path, &message))
            }
            None => Ok(()),
        }
    }

    /// Takes blocks out of the reservation of the session: a file has them.
    pub(super) fn consume(&mut self, session: SessionId, blocks: &[StoredBlock]) {
        let session = self.sessions.get_mut(&session).expect("the caller found the session");
        for block in blocks {
            session.consume(block.block);
        }
    }
}

fn file_of(new: &NewFile) -> Result<File, Failure> {
    let invalid = |message: &str| Failure::new(Code::Invalid, &new.path, message);
    let sha256 = optional_digest(&new.sha256).ok_or_else(|| invalid("sha256 has 32 bytes, or none"))?;
    let stored = new.blocks.iter().map(block_of).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    check_order(&stored, new.bytes).map_err(invalid)?;
    Ok(File { bytes: new.bytes, sha256: sha256.map(Box::new), blocks: stored.into() })
}

/// Blocks of a file of `bytes` bytes: in the order of their offsets, apart from each other, none twice.
pub(super) fn check_order(blocks: &[StoredBlock], bytes: u64) -> Result<(), &'static str> {
    if blocks.len() > BLOCKS_PER_FILE_MAX {
        return Err("a file has at most 65,536 blocks");
    }
    if bytes > FILE_BYTES_MAX {
        return Err("a file has at most 2^63 - 1 bytes");
    }
    let mut end = 0_u64;
    let mut ids = BTreeSet::new();
    for block in blocks {
        if block.offset < end {
            return Err("blocks come in the order of their offsets and do not overlap");
        }
        end = block.offset.checked_add(block.bytes.into()).ok_or("a block ends past 2^64")?;
        if !ids.insert(block.block) {
            return Err("a block is named twice");
        }
    }
    if end > bytes {
        return Err("a block reaches past the end of the file");
    }
    Ok(())
}

pub(super) fn block_of(block: &Block) -> Result<StoredBlock, &'static str> {
    let unit_log2 = u8::try_from(block.unit_log2)
        .ok()
        .filter(|log2| (UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(log2))
        .ok_or("unit_log2 is 12 to 16")?;
    let bytes = u32::try_from(block.bytes)
        .ok()
        .filter(|bytes| (1..=BLOCK_BYTES_MAX).contains(&u64::from(*bytes)))
        .ok_or("a block has 1 byte to 128 MiB")?;
    Ok(StoredBlock {
        block: BlockId(block.block),
        group: GroupId(block.group),
        offset: block.offset,
        bytes,
        generation: Generation(block.generation),
        unit_log2,
        key_domain: block.key_domain,
        key_version: block.key_version,
        sparse: block.sparse,
        trim_pending: false,
        root: optional_digest(&block.root)
            .ok_or("a block's root has 32 bytes, or none")?
            .filter(|_| !block.sparse),
    })
}

/// `None` when the length is wrong; `Some(None)` when there is no digest.
pub(crate) fn optional_digest(bytes: &[u8]) -> Option<Option<[u8; 32]>> {
    match bytes.len() {
        0 => Some(None),
        32 => Some(Some(bytes.try_into().expect("it has 32 bytes"))),
        _ => None,
    }
}

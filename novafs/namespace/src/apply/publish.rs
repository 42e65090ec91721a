//! Files appear whole: inode, entry, blocks and length in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nova_units::{BLOCK_BYTES_MAX, BlockId, Generation, GroupId, InodeId, SessionId, Timestamp};
use nova_units::{UNIT_LOG2_MAX, UNIT_LOG2_MIN};

use super::session::fenced;
use crate::answer::{Answer, Code, Failure, Outcome, Published, Reply};
use crate::command::{Block, NewFile, Publish};
use crate::limits::{BLOCKS_PER_FILE_MAX, FILES_PER_PUBLISH_MAX};
use crate::model::{File, Inode, Name, Namespace, Node, StoredBlock, Totals};
use crate::path::Path;

/// What one command adds to and takes from each directory; the directories above learn it once, at the end.
type Accounts = BTreeMap<InodeId, (Totals, Totals)>;

impl Namespace {
    pub(super) fn publish(&mut self, publish: &Publish) -> Result<Answer, Failure> {
        if publish.files.len() > FILES_PER_PUBLISH_MAX {
            return Err(Failure::new(Code::Invalid, "", "a publish is of at most 4,096 files; send several"));
        }
        if !self.sessions.contains_key(&SessionId(publish.session)) {
            return Err(fenced());
        }
        let mut accounts = Accounts::new();
        let mut parents = BTreeMap::new();
        let outcomes = publish
            .files
            .iter()
            .map(|file| match self.publish_file(publish, file, &mut parents, &mut accounts) {
                Ok(inode) => Outcome { inode: inode.0, failure: None },
                Err(failure) => Outcome { inode: 0, failure: Some(failure) },
            })
            .collect();
        for (directory, (added, removed)) in accounts {
            self.account(directory, added, removed);
        }
        Ok(Reply::Published(Published { outcomes }).into())
    }

    /// Every check stands before the first change. `parents` remembers the directories of this command: none can
    /// go away within it.
    fn publish_file<'a>(
        &mut self,
        publish: &Publish,
        new: &'a NewFile,
        parents: &mut BTreeMap<&'a str, InodeId>,
        accounts: &mut Accounts,
    ) -> Result<InodeId, Failure> {
        let path = Path::parse(&new.path)?;
        let Some((folders, name)) = path.split_last().filter(|(folders, _)| !folders.is_empty()) else {
            return Err(Failure::new(Code::Invalid, &new.path, "files lie in a namespace such as /hot"));
        };
        let file = file_of(new)?;
        let session = self.sessions.get(&SessionId(publish.session)).expect("the caller found the session");
        for block in &file.blocks {
            let reservation = session.reservation_of(block.block).map(|(_, reservation)| reservation);
            if !reservation.is_some_and(|r| r.groups.contains(&block.group)) {
                return Err(Failure::new(
                    Code::Invalid,
                    &new.path,
                    "a block is not reserved by this session for that group, or was published before",
                ));
            }
        }
        let room = if publish.make_parents { folders.len() as u64 + 1 } else { 1 };
        if self.inodes.len() as u64 + room > self.inodes_max {
            return Err(Failure::new(
                Code::Full,
                &new.path,
                "the region has as many files as its metadata can hold",
            ));
        }
        let folder = (!new.path.ends_with('/')).then(|| &new.path[..new.path.len() - name.len()]);
        let parent = match folder.and_then(|folder| parents.get(folder)) {
            Some(parent) => *parent,
            None => {
                let parent = self.parent_of(&path, folders, publish.make_parents)?;
                parents.extend(folder.map(|folder| (folder, parent)));
                parent
            }
        };

        let old = self.child(parent, name);
        if let Some(old) = old {
            match &self.inode(old).node {
                Node::Directory(_) => {
                    return Err(Failure::new(Code::IsADirectory, &new.path, "a directory has this name"));
                }
                Node::File(_) if !publish.replace => {
                    return Err(Failure::new(Code::AlreadyExists, &new.path, "a file has this name"));
                }
                Node::File(_) => {}
            }
        }

        let session =
            self.sessions.get_mut(&SessionId(publish.session)).expect("the caller found the session");
        for block in &file.blocks {
            session.consume(block.block);
        }
        let account = accounts.entry(parent).or_default();
        if let Some(old) = old {
            account.1.add(self.inode(old).weight());
            self.unlink(old);
            self.orphan_file(old);
        }
        let inode = Inode {
            parent,
            name: Name::from(name),
            mode: new.mode,
            modified: Timestamp(new.modified_ms),
            created: self.clock,
            node: Node::File(Arc::new(file)),
        };
        account.0.add(inode.weight());
        let id = self.take_inode_id();
        self.link(id, inode);
        Ok(id)
    }

    /// The folder of `path`, made when asked for. A namespace is only made by `MakeDirectory`.
    fn parent_of(&mut self, path: &Path<'_>, folders: &[&str], make: bool) -> Result<InodeId, Failure> {
        if !make {
            return self.resolve_folders(path, folders);
        }
        self.resolve_folders(path, &folders[..1])?;
        self.make_folders(path, folders, 0o755)
    }

    /// Forgets an unlinked file; its blocks wait for collection.
    pub(super) fn orphan_file(&mut self, id: InodeId) {
        let inode = self.inodes.remove(&id).expect("the caller unlinked it");
        let Node::File(file) = inode.node else { panic!("{id} is a directory") };
        for block in &file.blocks {
            self.orphans.insert(
                block.block,
                crate::model::Orphan { count: 1, groups: Arc::from([block.group]), since: self.clock },
            );
        }
    }
}

fn file_of(new: &NewFile) -> Result<File, Failure> {
    let invalid = |message: &str| Failure::new(Code::Invalid, &new.path, message);
    if new.blocks.len() > BLOCKS_PER_FILE_MAX {
        return Err(invalid("a file has at most 65,536 blocks"));
    }
    let sha256 = optional_digest(&new.sha256).ok_or_else(|| invalid("sha256 has 32 bytes, or none"))?;
    let mut blocks = Vec::with_capacity(new.blocks.len());
    let mut end = 0_u64;
    let mut ids = BTreeSet::new();
    for block in &new.blocks {
        let stored = block_of(block).map_err(invalid)?;
        if stored.offset < end {
            return Err(invalid("blocks come in the order of their offsets and do not overlap"));
        }
        end = stored
            .offset
            .checked_add(stored.bytes.into())
            .ok_or_else(|| invalid("a block ends past 2^64"))?;
        if !ids.insert(stored.block) {
            return Err(invalid("a block is named twice"));
        }
        blocks.push(stored);
    }
    if end > new.bytes {
        return Err(invalid("a block reaches past the end of the file"));
    }
    Ok(File { bytes: new.bytes, sha256, blocks: blocks.into() })
}

fn block_of(block: &Block) -> Result<StoredBlock, &'static str> {
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
        salt: block.salt.as_slice().try_into().map_err(|_| "a block's salt has 16 bytes")?,
        unit_log2,
        key_domain: block.key_domain,
        key_version: block.key_version,
        root: optional_digest(&block.root).ok_or("a block's root has 32 bytes, or none")?,
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

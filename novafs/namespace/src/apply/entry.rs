//! Directories are made, entries moved and removed.

use nova_units::InodeId;

use crate::answer::{Answer, Code, Done, Failure, Reply, Swept};
use crate::command::{MakeDirectory, Remove, Rename, Sweep};
use crate::limits::{DEPTH_MAX, SWEEP_ENTRIES_MAX};
use crate::model::{Kind, Name, Namespace, Node, ROOT, Space, Totals};
use crate::path::Path;

/// No directory: the parent of what was removed.
const NOWHERE: InodeId = InodeId(0);

impl Namespace {
    pub(super) fn make_directory(&mut self, make: &MakeDirectory) -> Result<Answer, Failure> {
        let path = Path::parse(&make.path)?;
        if self.inodes.len() + path.names().len() > usize::try_from(self.inodes_max).unwrap_or(usize::MAX) {
            return Err(Failure::new(
                Code::Full,
                &make.path,
                "the region has as many files as its metadata can hold",
            ));
        }
        if make.parents {
            self.make_folders(&path, path.names(), make.mode)?;
            return Ok(Done {}.into());
        }
        let Some((folders, name)) = path.split_last() else {
            return Err(Failure::new(Code::AlreadyExists, &make.path, "the root is always there"));
        };
        let parent = self.resolve_folders(&path, folders)?;
        if self.child(parent, name).is_some() {
            return Err(Failure::new(Code::AlreadyExists, &make.path, "the name is taken"));
        }
        self.make_folder(parent, name, make.mode);
        Ok(Done {}.into())
    }

    /// Walks `folders` down from the root and makes those that are missing.
    pub(super) fn make_folders(
        &mut self,
        path: &Path<'_>,
        folders: &[&str],
        mode: u32,
    ) -> Result<InodeId, Failure> {
        let mut at = ROOT;
        for name in folders {
            at = match self.child(at, name) {
                Some(child) if self.inode(child).kind() == Kind::Directory => child,
                Some(_) => {
                    return Err(Failure::new(
                        Code::NotADirectory,
                        path.text(),
                        "a name on the way is a file",
                    ));
                }
                None => self.make_folder(at, name, mode),
            };
        }
        Ok(at)
    }

    fn make_folder(&mut self, parent: InodeId, name: &str, mode: u32) -> InodeId {
        let id = self.add_directory(parent, name, mode);
        if parent == ROOT {
            self.spaces.insert(id, Space::default());
        }
        id
    }

    pub(super) fn rename(&mut self, rename: &Rename) -> Result<Answer, Failure> {
        let source_path = Path::parse(&rename.source)?;
        let target_path = Path::parse(&rename.target)?;
        let source = self.resolve(&source_path)?;
        let below_root = |path: &Path<'_>| path.names().len() < 2;
        if below_root(&source_path) || below_root(&target_path) {
            return Err(Failure::new(
                Code::Invalid,
                &rename.source,
                "a namespace cannot be moved, nor become one",
            ));
        }
        let (folders, name) = target_path.split_last().expect("it has two names");
        let parent = self.resolve_folders(&target_path, folders)?;
        let target = self.child(parent, name);
        if target == Some(source) {
            return Ok(Done {}.into());
        }
        if self.space_of(source).key_domain != self.space_of(parent).key_domain {
            return Err(Failure::new(
                Code::CrossDomain,
                &rename.target,
                "the target has other keys: copy the file and remove the source",
            ));
        }
        let moved = self.inode(source).clone();
        if moved.kind() == Kind::Directory && self.is_within(parent, source) {
            return Err(Failure::new(Code::Loop, &rename.target, "a directory cannot be moved below itself"));
        }
        let levels = folders.len() + usize::try_from(moved.height()).unwrap_or(usize::MAX);
        if levels > DEPTH_MAX {
            return Err(Failure::new(
                Code::Invalid,
                &rename.target,
                "the moved tree would be deeper than 128 names",
            ));
        }
        if let Some(target) = target {
            self.check_replaceable(moved.kind(), target, rename)?;
            self.unlink_whole(target);
            self.forget(target);
        }
        self.unlink_whole(source);
        let weight = moved.weight();
        self.link(source, crate::model::Inode { parent, name: Name::from(name), ..moved });
        self.account(parent, weight, Totals::default());
        Ok(Done {}.into())
    }

    fn check_replaceable(&self, moved: Kind, target: InodeId, rename: &Rename) -> Result<(), Failure> {
        let refused = |code, message| Err(Failure::new(code, &rename.target, message));
        if !rename.replace {
            return refused(Code::AlreadyExists, "the name is taken");
        }
        match (moved, &self.inode(target).node) {
            (Kind::File, Node::Directory(_)) => refused(Code::IsADirectory, "a directory has this name"),
            (Kind::Directory, Node::File(_)) => refused(Code::NotADirectory, "a file has this name"),
            (Kind::Directory, Node::Directory(directory)) if directory.children > 0 => {
                refused(Code::NotEmpty, "the directory of this name has entries")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, remove: &Remove) -> Result<Answer, Failure> {
        let path = Path::parse(&remove.path)?;
        let id = self.resolve(&path)?;
        let standard = path.names().len() == 1
            && crate::model::STANDARD_SPACES.iter().any(|standard| standard.name == path.names()[0]);
        if id == ROOT || standard {
            return Err(Failure::new(
                Code::Invalid,
                &remove.path,
                "the root and the standard namespaces stay",
            ));
        }
        if let Node::Directory(directory) = &self.inode(id).node
            && directory.children > 0
            && !remove.recursive
        {
            return Err(Failure::new(Code::NotEmpty, &remove.path, "the directory has entries"));
        }
        self.unlink_whole(id);
        self.spaces.remove(&id);
        self.forget(id);
        Ok(Done {}.into())
    }

    /// Takes an entry away, and its tree out of the totals above.
    fn unlink_whole(&mut self, id: InodeId) {
        let (parent, weight) = (self.inode(id).parent, self.inode(id).weight());
        self.unlink(id);
        self.account(parent, Totals::default(), weight);
    }

    /// Lets an unlinked inode go: a file and an empty directory at once, a tree by later sweeps.
    fn forget(&mut self, id: InodeId) {
        let inode = self.inodes.get_mut(&id).expect("the caller unlinked it");
        match &inode.node {
            Node::File(_) => self.orphan_file(id),
            Node::Directory(directory) if directory.children == 0 => {
                self.inodes.remove(&id);
            }
            Node::Directory(_) => {
                inode.parent = NOWHERE;
                self.trash.insert(id, ());
            }
        }
    }

    pub(super) fn sweep(&mut self, sweep: &Sweep) -> Answer {
        let limit = sweep.limit.clamp(1, SWEEP_ENTRIES_MAX);
        let mut entries = 0;
        while entries < limit {
            let Some((root, ())) = self.trash.get_min().copied() else { break };
            let mut at = root;
            while entries < limit {
                if let Some(child) = self.first_child(at) {
                    match self.inode(child).kind() {
                        Kind::Directory => at = child,
                        Kind::File => {
                            self.unlink(child);
                            self.orphan_file(child);
                            entries += 1;
                        }
                    }
                    continue;
                }
                entries += 1;
                if at == root {
                    self.trash.remove(&root);
                    self.inodes.remove(&root);
                    break;
                }
                let parent = self.inode(at).parent;
                self.unlink(at);
                self.inodes.remove(&at);
                at = parent;
            }
        }
        Reply::Swept(Swept { entries, more: !self.trash.is_empty() }).into()
    }
}

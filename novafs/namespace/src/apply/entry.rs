//! Directories, links and removal.

use nova_units::InodeId;

use crate::answer::{Answer, Code, Done, Failure, Reply, Touched};
use crate::command::{Link, MakeDirectory, MakeSymlink, Only, Remove};
use crate::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::model::{Inode, Kind, Name, Namespace, Node, ROOT, STANDARD_SPACES, Space, Totals};
use crate::path::Path;

/// Permission bits of directories that are made on the way.
pub(super) const MODE_ON_THE_WAY: u32 = 0o755;

impl Namespace {
    pub(super) fn make_directory(&mut self, make: &MakeDirectory) -> Result<Answer, Failure> {
        let path = Path::parse_at(make.base, &make.path)?;
        let rights = (make.mode, make.uid, make.gid);
        if make.parents {
            self.make_folders(&path, path.names(), rights, (Totals::default(), 0))?;
            return Ok(Done {}.into());
        }
        if path.names().is_empty() {
            return Err(Failure::new(Code::AlreadyExists, &make.path, "it is there"));
        }
        let (parent, name) = self.place(&path)?;
        self.check_free(parent, name, &path)?;
        self.check_room(&make.path, 1)?;
        self.check_depth(parent, 1, &path)?;
        self.check_quota(parent, &[], (Totals::DIRECTORY, Totals::default()), &make.path)?;
        self.make_folder(parent, name, rights);
        Ok(Done {}.into())
    }

    fn check_free(&self, parent: InodeId, name: &str, path: &Path<'_>) -> Result<(), Failure> {
        match self.child(parent, name) {
            Some(_) => Err(Failure::new(Code::AlreadyExists, path.text(), "the name is taken")),
            None => Ok(()),
        }
    }

    /// Walks `folders` down from the base of the path and makes those that are missing: all, or none when one cannot
    /// be made. `coming`, of so many levels, is put there next; it counts when something is missing.
    pub(super) fn make_folders(
        &mut self,
        path: &Path<'_>,
        folders: &[&str],
        rights: (u32, u32, u32),
        coming: (Totals, u32),
    ) -> Result<InodeId, Failure> {
        let mut at = self.resolve_folders(path, &[])?;
        let mut found = 0;
        while let Some(child) = folders.get(found).and_then(|name| self.child(at, name)) {
            self.check_directory(child, path)?;
            (at, found) = (child, found + 1);
        }
        let missing = &folders[found..];
        if missing.is_empty() {
            self.depth(at, path)?;
            return Ok(at);
        }
        self.check_room(path.text(), missing.len())?;
        let height = u32::try_from(missing.len()).expect("a path has at most 128 names");
        self.check_depth(at, height.saturating_add(coming.1), path)?;
        let mut added = coming.0;
        added.directories += missing.len() as u64;
        self.check_quota(at, &[], (added, Totals::default()), path.text())?;
        for name in missing {
            at = self.make_folder(at, name, rights);
        }
        Ok(at)
    }

    fn make_folder(&mut self, parent: InodeId, name: &str, rights: (u32, u32, u32)) -> InodeId {
        let id = self.add_directory(parent, name, rights);
        if parent == ROOT {
            self.spaces.insert(id, Space::default());
        }
        id
    }

    pub(super) fn link(&mut self, link: &Link) -> Result<Answer, Failure> {
        let source_path = Path::parse_at(link.source_base, &link.source)?;
        let target_path = Path::parse_at(link.target_base, &link.target)?;
        let source = self.resolve(&source_path)?;
        if self.inode(source).kind() == Kind::Directory {
            let message = "a directory has one name only; make a symbolic link";
            return Err(Failure::new(Code::IsADirectory, &link.source, message));
        }
        if self.inode(source).parent == crate::tree::NOWHERE {
            return Err(Failure::new(Code::NotFound, &link.source, "the file was removed"));
        }
        let (parent, name) = self.place(&target_path)?;
        self.check_not_root(parent, &target_path)?;
        self.check_free(parent, name, &target_path)?;
        if self.inode(source).other_names().len() + 1 >= LINKS_MAX {
            return Err(Failure::new(Code::TooManyLinks, &link.source, "the file has 1,024 names"));
        }
        self.check_same_keys(source, parent, &link.target)?;
        self.check_room(&link.target, 1)?;
        self.check_depth(parent, 1, &target_path)?;
        self.check_quota(parent, &[], (Totals::NAME, Totals::default()), &link.target)?;
        let cookie = self.add_name(source, parent, name);
        Ok(Reply::Touched(Touched { inode: source.0, cookie }).into())
    }

    pub(super) fn make_symlink(&mut self, make: &MakeSymlink) -> Result<Answer, Failure> {
        let path = Path::parse_at(make.base, &make.path)?;
        if make.target.is_empty() || make.target.contains('\0') {
            let message = "a symbolic link says at least one byte, and no NUL";
            return Err(Failure::new(Code::Invalid, &make.path, message));
        }
        if make.target.len() > SYMLINK_BYTES_MAX {
            let message = "a symbolic link says at most 4,095 bytes";
            return Err(Failure::new(Code::TooLarge, &make.path, message));
        }
        let (parent, name) = self.place(&path)?;
        self.check_not_root(parent, &path)?;
        self.check_free(parent, name, &path)?;
        self.check_room(&make.path, 1)?;
        self.check_depth(parent, 1, &path)?;
        self.check_quota(parent, &[], (Totals::NAME, Totals::default()), &make.path)?;
        let id = self.take_inode_id();
        let node = Node::Symlink(make.target.as_str().into());
        let mut inode = Inode::new(parent, name, 0o777, self.clock, node);
        (inode.uid, inode.gid) = (make.uid, make.gid);
        self.attach(id, inode);
        self.account(parent, Totals::NAME, Totals::default());
        Ok(Reply::Touched(Touched { inode: id.0, cookie: 0 }).into())
    }

    pub(super) fn check_not_root(&self, parent: InodeId, path: &Path<'_>) -> Result<(), Failure> {
        if parent == ROOT {
            return Err(Failure::new(Code::Invalid, path.text(), "files lie in a namespace such as /hot"));
        }
        Ok(())
    }

    /// What `source` is may also be in `parent`.
    pub(super) fn check_same_keys(
        &self,
        source: InodeId,
        parent: InodeId,
        target: &str,
    ) -> Result<(), Failure> {
        if self.space_of(source).key_domain != self.space_of(parent).key_domain {
            return Err(Failure::new(
                Code::CrossDomain,
                target,
                "the target has other keys: copy the file and remove the source",
            ));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, remove: &Remove) -> Result<Answer, Failure> {
        let path = Path::parse_at(remove.base, &remove.path)?;
        let refused = |code, message| Err(Failure::new(code, &remove.path, message));
        if path.names().is_empty() && path.base() == ROOT {
            return refused(Code::Invalid, "the root stays");
        }
        let (parent, name) = self.place(&path)?;
        let Some(id) = self.child(parent, name) else {
            return refused(Code::NotFound, "no such file or directory");
        };
        if parent == ROOT && STANDARD_SPACES.iter().any(|standard| standard.name == name) {
            return refused(Code::Invalid, "the standard namespaces stay");
        }
        match (&self.inode(id).node, remove.only()) {
            (Node::Directory(_), Only::NotDirectory) => {
                return refused(Code::IsADirectory, "it is a directory");
            }
            (Node::File(_) | Node::Symlink(_), Only::Directory) => {
                return refused(Code::NotADirectory, "it is no directory");
            }
            (Node::Directory(directory), _) if directory.children > 0 && !remove.recursive => {
                return refused(Code::NotEmpty, "the directory has entries");
            }
            _ => {}
        }
        self.remove_name(parent, &Name::from(name));
        Ok(Done {}.into())
    }
}

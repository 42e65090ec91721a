//! Modes, owners, times, extended attributes.

use nova_units::InodeId;

use crate::answer::{Answer, Code, Done, Failure, Reply, Touched};
use crate::command::{RemoveXattr, SetAttributes, SetXattr};
use crate::limits::{XATTR_BYTES_MAX, XATTR_NAME_BYTES_MAX};
use crate::model::{Namespace, nanoseconds};
use crate::path::Path;

impl Namespace {
    pub(super) fn set_attributes(&mut self, set: &SetAttributes) -> Result<Answer, Failure> {
        let id = self.resolve(&Path::parse_at(set.base, &set.path)?)?;
        let now = nanoseconds(self.clock);
        let inode = self.inode_mut(id);
        inode.mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        inode.modified_ns = set.modified_ns.unwrap_or(inode.modified_ns);
        inode.accessed_ns = set.accessed_ns.unwrap_or(inode.accessed_ns);
        inode.changed_ns = now;
        Ok(Reply::Touched(Touched { inode: id.0, cookie: 0 }).into())
    }

    pub(super) fn set_xattr(&mut self, set: &SetXattr) -> Result<Answer, Failure> {
        let refused = |code, message| Err(Failure::new(code, &set.path, message));
        if set.name.is_empty() || set.name.len() > XATTR_NAME_BYTES_MAX || set.name.contains('\0') {
            return refused(Code::InvalidName, "the name of an attribute has 1 to 255 bytes and no NUL");
        }
        let id = self.resolve(&Path::parse_at(set.base, &set.path)?)?;
        let (mut exists, mut others) = (false, 0);
        for (name, value) in self.inode(id).xattrs() {
            if name == set.name {
                exists = true;
            } else {
                others += name.len() + value.len();
            }
        }
        match exists {
            true if set.create_only => return refused(Code::AlreadyExists, "the attribute exists"),
            false if set.replace_only => return refused(Code::NoData, "no such attribute"),
            _ => {}
        }
        if others + set.name.len() + set.value.len() > XATTR_BYTES_MAX {
            return refused(Code::TooLarge, "the attributes of a file have at most 64 KiB together");
        }
        self.touch(id);
        let (name, value) = (set.name.as_str().into(), set.value.as_slice().into());
        self.inode_mut(id).extra_mut().xattrs.insert(name, value);
        Ok(Done {}.into())
    }

    pub(super) fn remove_xattr(&mut self, remove: &RemoveXattr) -> Result<Answer, Failure> {
        let id = self.resolve(&Path::parse_at(remove.base, &remove.path)?)?;
        if !self.inode(id).xattrs().any(|(name, _)| name == remove.name) {
            return Err(Failure::new(Code::NoData, &remove.path, "no such attribute"));
        }
        self.touch(id);
        let inode = self.inode_mut(id);
        inode.extra_mut().xattrs.remove(remove.name.as_str());
        inode.trim_extra();
        Ok(Done {}.into())
    }

    fn touch(&mut self, id: InodeId) {
        let now = nanoseconds(self.clock);
        self.inode_mut(id).changed_ns = now;
    }
}

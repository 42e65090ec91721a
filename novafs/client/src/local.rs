//! What hangs on a local file on its way in or out: extended attributes, mode, and whether it stayed as it was.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nova_api::files::{Entry, Xattr};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, flistxattr_query, fsetxattr};
use rustix::io::Errno;

use crate::error::ClientError;

/// Only these are moved: the others belong to the system of a host.
const PREFIX: &str = "user.";
/// Linux has no longer list and no longer value.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Bits of a mode that run a program as somebody else.
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;

/// What tells that a file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    pub(crate) fn of(about: &Metadata) -> Self {
        Self {
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

/// The extended attributes of a local file that a file of NovaFS may have; none where its file system keeps none.
///
/// # Errors
/// When they cannot be read, or a name is not UTF-8.
pub(crate) fn xattrs(file: &File, path: &Path) -> Result<Vec<Xattr>, ClientError> {
    let failed = |errno: Errno| ClientError::local("read the extended attributes of", path)(errno.into());
    // Most files have none: that costs one call.
    match flistxattr_query(file) {
        Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let mut buffer = vec![0; XATTR_BYTES_MAX];
    let listed = flistxattr(file, buffer.as_mut_slice()).map_err(failed)?;
    let names = buffer[..listed].to_vec();
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(PREFIX.as_bytes())) {
        let name = std::str::from_utf8(name).map_err(|_| failed(Errno::ILSEQ))?;
        match fgetxattr(file, name, buffer.as_mut_slice()) {
            Ok(bytes) => found.push(Xattr { name: name.into(), value: buffer[..bytes].to_vec().into() }),
            // It went away since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(found)
}

/// Gives a local file extended attributes; whether its file system took them.
///
/// # Errors
/// When they cannot be set for another reason than that there are none on this file system.
pub(crate) fn set_xattrs(file: &File, path: &Path, xattrs: &[Xattr]) -> Result<bool, ClientError> {
    for xattr in xattrs.iter().filter(|xattr| xattr.name.starts_with(PREFIX)) {
        match fsetxattr(file, xattr.name.as_str(), &xattr.value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(false),
            Err(errno) => {
                return Err(ClientError::local("set the extended attributes of", path)(errno.into()));
            }
        }
    }
    Ok(true)
}

/// Gives a local file the mode of `entry`; whether it got all of it. The bits that run a program as its owner or group
/// are set only when these are the ones that NovaFS says: else they would lend the rights of somebody else.
///
/// # Errors
/// Of the system.
pub(crate) fn set_mode(file: &File, entry: &Entry) -> io::Result<bool> {
    let about = file.metadata()?;
    let mut mode = entry.mode & 0o7777;
    if about.uid() != entry.uid {
        mode &= !SET_USER;
    }
    if about.gid() != entry.gid {
        mode &= !SET_GROUP;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(mode == entry.mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_are_kept_only_for_the_same_owner_and_group() {
        let file = tempfile::tempfile().unwrap();
        let about = file.metadata().unwrap();
        let mut entry = Entry { mode: 0o7751, uid: about.uid(), gid: about.gid(), ..Entry::default() };
        let mode = |file: &File| file.metadata().unwrap().mode() & 0o7777;
        assert!(set_mode(&file, &entry).unwrap());
        assert_eq!(mode(&file), 0o7751);
        entry.uid += 1;
        assert!(!set_mode(&file, &entry).unwrap());
        assert_eq!(mode(&file), 0o3751);
        entry.gid += 1;
        assert!(!set_mode(&file, &entry).unwrap());
        assert_eq!(mode(&file), 0o1751);
    }
}

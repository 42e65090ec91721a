//! Entries of metadata as the kernel wants them, and times the other way round.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use novafs_client::{Entry, EntryKind};

/// What `stat` reports as the good size of a transfer: one transfer of the client.
const IO_BYTES: u32 = 1 << 20;

/// Numbers of inodes: the kernel calls the directory that is mounted 1, whatever metadata calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inodes {
    /// The inode that is mounted.
    pub(crate) root: u64,
}

impl Inodes {
    pub(crate) fn to_kernel(self, inode: u64) -> INodeNo {
        if inode == self.root { INodeNo::ROOT } else { INodeNo(inode) }
    }

    pub(crate) fn to_metadata(self, inode: INodeNo) -> u64 {
        if inode == INodeNo::ROOT { self.root } else { inode.0 }
    }

    pub(crate) fn attributes(self, entry: &Entry) -> FileAttr {
        let time = |ns: u64| UNIX_EPOCH + Duration::from_nanos(ns);
        let size = match entry.kind() {
            EntryKind::Symlink => u64::try_from(entry.link_target.len()).expect("a length fits 64 bits"),
            _ => entry.bytes,
        };
        FileAttr {
            ino: self.to_kernel(entry.inode),
            size,
            blocks: entry.blocks,
            atime: time(entry.accessed_ns),
            mtime: time(entry.modified_ns),
            ctime: time(entry.changed_ns),
            crtime: time(entry.created_ns),
            kind: kind(entry),
            perm: u16::try_from(entry.mode & 0o7777).expect("twelve bits"),
            nlink: entry.links,
            uid: entry.uid,
            gid: entry.gid,
            rdev: 0,
            blksize: IO_BYTES,
            flags: 0,
        }
    }
}

pub(crate) fn kind(entry: &Entry) -> FileType {
    match entry.kind() {
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::File | EntryKind::Unspecified => FileType::RegularFile,
    }
}

/// Nanoseconds since 1970; a time before that is 1970.
pub(crate) fn nanoseconds(time: TimeOrNow) -> u64 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounted_directory_is_inode_one_and_others_keep_their_numbers() {
        let inodes = Inodes { root: 77 };
        assert_eq!((inodes.to_kernel(77), inodes.to_kernel(5)), (INodeNo(1), INodeNo(5)));
        assert_eq!((inodes.to_metadata(INodeNo(1)), inodes.to_metadata(INodeNo(5))), (77, 5));
    }

    #[test]
    fn a_link_is_as_long_as_its_target_and_times_are_exact() {
        let entry = Entry {
            inode: 9,
            kind: EntryKind::Symlink.into(),
            link_target: "abc".into(),
            mode: 0o120_777,
            modified_ns: 1_000_000_007,
            links: 1,
            ..Entry::default()
        };
        let found = Inodes { root: 1 }.attributes(&entry);
        assert_eq!((found.size, found.perm, found.kind), (3, 0o777, FileType::Symlink));
        assert_eq!(nanoseconds(TimeOrNow::SpecificTime(found.mtime)), 1_000_000_007);
        assert_eq!(nanoseconds(TimeOrNow::SpecificTime(UNIX_EPOCH - Duration::from_secs(5))), 0);
    }
}

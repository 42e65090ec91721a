//! The folder that a host serves: nothing above it, and nothing behind a symbolic link, is reached through it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use novabulk_files::{Entry, Fault, Identity, Kind, Moment, Name, XATTR_BYTES_MAX, Xattr};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use crate::trouble::Trouble;

/// Below, and through no link: the kernel holds to it, whatever others do to the tree meanwhile.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The longest list of names of attributes that the kernel gives.
const LIST_BYTES_MAX: usize = 64 << 10;

/// A folder, by its descriptor.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
}

/// The folder that was opened last: files of a pack come folder by folder.
#[derive(Debug, Default)]
pub(crate) struct Near(Option<(Name, Arc<OwnedFd>)>);

/// The folder of an entry, and the entry's name in it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: Arc<OwnedFd>,
    pub(crate) last: Vec<u8>,
}

impl Place {
    pub(crate) fn last(&self) -> &OsStr {
        OsStr::from_bytes(&self.last)
    }
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// When there is none, or it may not be looked into.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens what has this name; links are not followed anywhere in it.
    pub(crate) fn open_below(&self, name: &Name, flags: OFlags, mode: Mode) -> Result<OwnedFd, Trouble> {
        let path = if name.is_root() { b".".as_slice() } else { name.as_bytes() };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, mode, BENEATH) {
                // A rename elsewhere made the kernel unsure: it asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(Trouble::of(error, format!("open {name}"))),
                Ok(file) => return Ok(file),
            }
        }
    }

    pub(crate) fn open_folder(&self, name: &Name) -> Result<OwnedFd, Trouble> {
        self.open_below(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// The folder of `name`, open.
    pub(crate) fn place(&self, name: &Name) -> Result<Place, Trouble> {
        let Some((folder, last)) = name.split() else {
            return Err(Trouble::new(Fault::Invalid, "the folder that is served has no name to change"));
        };
        Ok(Place { folder: Arc::new(self.open_folder(&folder)?), last: last.to_vec() })
    }

    /// The same, through the folder that was opened last when it is the same one.
    pub(crate) fn place_near(&self, name: &Name, near: &mut Near) -> Result<Place, Trouble> {
        let Some((folder, last)) = name.split() else {
            return self.place(name);
        };
        let open = match &near.0 {
            Some((known, open)) if *known == folder => Arc::clone(open),
            _ => {
                let open = Arc::new(self.open_folder(&folder)?);
                near.0 = Some((folder, Arc::clone(&open)));
                open
            }
        };
        Ok(Place { folder: open, last: last.to_vec() })
    }

    /// What is known of an entry.
    pub(crate) fn entry(&self, name: &Name) -> Result<Entry, Trouble> {
        if name.is_root() {
            let folder = self.open_folder(name)?;
            let stat = status(&folder, OsStr::new(""), AtFlags::EMPTY_PATH);
            let stat = stat.map_err(|error| Trouble::of(error, format!("look at {name}")))?;
            return entry_of(&folder, OsStr::new("."), name.clone(), &stat);
        }
        let place = self.place(name)?;
        let stat = status(&place.folder, place.last(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Trouble::of(error, format!("look at {name}")))?;
        entry_of(&place.folder, place.last(), name.clone(), &stat)
    }
}

/// What the kernel knows of an entry of a folder.
pub(crate) fn status(folder: impl AsFd, last: &OsStr, flags: AtFlags) -> Result<Statx, Errno> {
    rustix::fs::statx(folder, last, flags, StatxFlags::BASIC_STATS)
}

/// What an open file is now.
pub(crate) fn identity_of(file: impl AsFd) -> Result<Identity, Errno> {
    status(file, OsStr::new(""), AtFlags::EMPTY_PATH).map(|stat| identity(&stat))
}

pub(crate) fn identity(stat: &Statx) -> Identity {
    let moment = |time: &rustix::fs::StatxTimestamp| Moment { seconds: time.tv_sec, nanos: time.tv_nsec };
    Identity {
        bytes: stat.stx_size,
        modified: moment(&stat.stx_mtime),
        changed: moment(&stat.stx_ctime),
        device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        inode: stat.stx_ino,
    }
}

/// The kind of an entry, when it is one that is copied.
pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The entry that `stat` was told of.
pub(crate) fn entry_of(folder: &OwnedFd, last: &OsStr, name: Name, stat: &Statx) -> Result<Entry, Trouble> {
    let mut identity = identity(stat);
    let kind = match file_type(stat) {
        FileType::RegularFile => {
            let sparse = stat.stx_blocks.saturating_mul(512) < stat.stx_size;
            Kind::File { links: stat.stx_nlink, sparse }
        }
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(folder, last, Vec::new())
                .map_err(|error| Trouble::of(error, format!("read the link {name}")))?;
            Kind::Link { target: target.into_bytes() }
        }
        _ => return Err(Trouble::new(Fault::Invalid, format!("{name} is no file, directory or link"))),
    };
    if !matches!(kind, Kind::File { .. }) {
        identity.bytes = 0;
    }
    let xattrs = if matches!(kind, Kind::Link { .. }) { Vec::new() } else { xattrs(folder, last, &name)? };
    Ok(Entry { name, mode: Entry::mode_of(stat.stx_mode.into()), identity, xattrs, kind })
}

/// Attributes of users, in the order of their names.
fn xattrs(folder: &OwnedFd, last: &OsStr, name: &Name) -> Result<Vec<Xattr>, Trouble> {
    use std::os::fd::AsRawFd as _;
    // There is no call that takes a folder and a name; the kernel's own link to the folder stands for it.
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(last);
    // Most have none, and the kernel says that without room for a list.
    let mut count = rustix::fs::llistxattr_query(&path);
    let mut list = Vec::new();
    if count.is_ok_and(|count| count > 0) {
        list.resize(LIST_BYTES_MAX, 0);
        count = rustix::fs::llistxattr(&path, &mut list[..]);
    }
    let count = match count {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::ACCESS) => return Ok(Vec::new()),
        Err(error) => return Err(Trouble::of(error, format!("list the attributes of {name}"))),
    };
    let names = list[..count].split(|&byte| byte == 0).filter(|one| one.starts_with(b"user."));
    let (mut found, mut bytes) = (Vec::new(), 0);
    for one in names {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = rustix::fs::lgetxattr(&path, OsStr::from_bytes(one), &mut value[..])
            .map_err(|error| Trouble::of(error, format!("read the attributes of {name}")))?;
        value.truncate(length);
        bytes += one.len() + value.len();
        if bytes > XATTR_BYTES_MAX {
            let text = format!("{name} has more than {XATTR_BYTES_MAX} bytes of attributes: remove some");
            return Err(Trouble::new(Fault::Invalid, text));
        }
        found.push((one.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// The names in a folder, in order.
pub(crate) fn names_in(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// Gives an open file or directory the mode, the attributes and the time of `entry`, in this order: the time last.
pub(crate) fn dress(file: impl AsFd, entry: &Entry) -> Result<(), Trouble> {
    let name = &entry.name;
    for (attribute, value) in &entry.xattrs {
        let attribute = OsStr::from_bytes(attribute);
        match rustix::fs::fsetxattr(&file, attribute, value, XattrFlags::empty()) {
            // A file system without attributes takes the rest.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Trouble::of(error, format!("set the attributes of {name}"))),
        }
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode.into()))
        .map_err(|error| Trouble::of(error, format!("set the mode of {name}")))?;
    rustix::fs::futimens(&file, &times(entry))
        .map_err(|error| Trouble::of(error, format!("set the time of {name}")))
}

/// The time of an entry, for the kernel; the time of access stays.
pub(crate) fn times(entry: &Entry) -> Timestamps {
    let modified = entry.identity.modified;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() },
    }
}

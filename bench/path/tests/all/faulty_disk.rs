//! A disk that fails, hangs or loses its power at a word, under a `novad` that runs: a block device of the kernel, over a file
//! that this test serves by FUSE.
//!
//! `novad` drives it like any raw device. What fails is the kernel's answer to a read, write or flush, and what hangs is a
//! request that the kernel has taken and nobody answers. The block device between is what makes it a disk: requests to a
//! file of FUSE itself may keep the thread that submits them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use tempfile::TempDir;

use super::mounted::cannot_mount;
use super::skip::skip;
use super::volatile_cache::{Lost, VolatileCache};

/// Name of the one file.
const DISK: &str = "disk";
const DISK_INODE: INodeNo = INodeNo(2);
/// How long the kernel keeps names and attributes; they never change.
const TTL: Duration = Duration::from_secs(3600);
/// Requests answered at once.
const THREADS: usize = 16;

/// How the disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    /// Every read, write and flush is an error.
    Fails,
    /// Nothing is answered before the mood changes; then all is.
    Hangs,
}

#[derive(Debug)]
struct Switch {
    mood: Mutex<Mood>,
    changed: Condvar,
    /// What is behind the switch.
    medium: Mutex<Medium>,
}

/// A file, and what of it is in the disk's cache only.
#[derive(Debug)]
struct Medium {
    file: File,
    cache: VolatileCache,
    /// A flush is answered as done, and nothing is.
    lies: bool,
}

impl Switch {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    /// Lets a request through, as the mood of the disk is.
    fn pass(&self) -> Result<(), Errno> {
        let mut mood = self.mood.lock().unwrap();
        while *mood == Mood::Hangs {
            mood = self.changed.wait(mood).unwrap();
        }
        if *mood == Mood::Fails { Err(Errno::EIO) } else { Ok(()) }
    }
}

/// A disk of a host; a file again when it is dropped.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    switch: Arc<Switch>,
    session: Option<BackgroundSession>,
    folder: TempDir,
    /// The block device.
    device: PathBuf,
    /// Where the host looks for its disk.
    path: PathBuf,
}

/// Why no disk can be made here.
pub(crate) fn cannot_make_disks() -> Option<String> {
    cannot_mount().map(str::to_owned).or_else(|| {
        let free = Command::new("losetup").arg("-f").output();
        let free = free.map_err(|error| error.to_string()).and_then(|free| match free.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&free.stderr).into_owned()),
        });
        let why = format!("no loop device can be had: {}", free.err()?.trim());
        skip(&why);
        Some(why)
    })
}

impl FaultyDisk {
    /// Takes the place of the device's file at `path`, which no process has open.
    pub(crate) fn take_over(path: &Path) -> Self {
        // On one file system with the region: the file is moved, not copied.
        let folder = tempfile::Builder::new().prefix("nova-disk-").tempdir_in("/var/tmp").unwrap();
        let (mount, file) = (folder.path().join("mount"), folder.path().join("file"));
        fs::create_dir(&mount).unwrap();
        fs::rename(path, &file).unwrap();
        let file = File::options().read(true).write(true).open(&file).unwrap();
        let (about, reads) = (attributes(&file), file.try_clone().unwrap());
        let medium = Mutex::new(Medium { file, cache: VolatileCache::default(), lies: false });
        let switch = Arc::new(Switch { mood: Mutex::new(Mood::Works), changed: Condvar::new(), medium });
        let disk = Disk { about, reads, switch: Arc::clone(&switch) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("nova-faulty-disk".into()), MountOption::RW];
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = fuser::spawn_mount(disk, &mount, &config).unwrap();
        let made = Command::new("losetup").args(["-f", "--show"]).arg(mount.join(DISK)).output().unwrap();
        assert!(made.status.success(), "losetup: {}", String::from_utf8_lossy(&made.stderr));
        let device = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        symlink(&device, path).unwrap();
        Self { switch, session: Some(session), folder, device, path: path.to_owned() }
    }

    /// Answers so from now on, also what waits for an answer.
    pub(crate) fn set(&self, mood: Mood) {
        self.switch.set(mood);
    }

    /// From now on a flush does nothing and is answered as done.
    pub(crate) fn lie_about_flushes(&self) {
        self.switch.medium.lock().unwrap().lies = true;
    }

    /// Whether it has anything that a loss of power would take.
    pub(crate) fn has_unflushed(&self) -> bool {
        !self.switch.medium.lock().unwrap().cache.is_empty()
    }

    /// Drops what was not flushed but for `kept_percent` of it, as a loss of power does. Nobody may have anything under way:
    /// the disk [fails](Mood::Fails) meanwhile.
    pub(crate) fn lose_power(&self, random: &mut fastrand::Rng, kept_percent: u8) -> Lost {
        assert_eq!(*self.switch.mood.lock().unwrap(), Mood::Fails, "requests may be under way");
        let Medium { file, cache, lies } = &mut *self.switch.medium.lock().unwrap();
        *lies = false;
        cache.lose_power(file, random, kept_percent).unwrap()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.set(Mood::Works);
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
        // Whoever has it open keeps it until it closes it; a test that failed may have left one.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path().join("mount")).status();
        drop(self.session.take());
        // The region may be gone already.
        let _ = fs::remove_file(&self.path)
            .and_then(|()| fs::rename(self.folder.path().join("file"), &self.path));
    }
}

/// What the kernel asks.
#[derive(Debug)]
struct Disk {
    /// What reads come from; they need not wait for writes.
    reads: File,
    about: FileAttr,
    switch: Arc<Switch>,
}

fn attributes(file: &File) -> FileAttr {
    let about = file.metadata().unwrap();
    FileAttr {
        ino: DISK_INODE,
        size: about.len(),
        blocks: about.blocks(),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0o600,
        nlink: 1,
        uid: about.uid(),
        gid: about.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(5))
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == DISK {
            true => reply.entry(&TTL, &self.about, Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let folder =
            FileAttr { ino: INodeNo::ROOT, kind: FileType::Directory, perm: 0o700, nlink: 2, ..self.about };
        reply.attr(&TTL, if inode == DISK_INODE { &self.about } else { &folder });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache, and as many requests at once as a drive takes.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut found = vec![0; usize::try_from(bytes).unwrap()];
        let read = self
            .switch
            .pass()
            .and_then(|()| self.reads.read_exact_at(&mut found, offset).map_err(|error| errno(&error)));
        match read {
            Ok(()) => reply.data(&found),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.switch.pass().and_then(|()| {
            let Medium { file, cache, .. } = &mut *self.switch.medium.lock().unwrap();
            cache.write(file, offset, data).map_err(|error| errno(&error))
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let flushed = self.switch.pass().map(|()| {
            let mut medium = self.switch.medium.lock().unwrap();
            if !medium.lies {
                medium.cache.flush();
            }
        });
        match flushed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

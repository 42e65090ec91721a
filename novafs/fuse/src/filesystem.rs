//! What the kernel asks for, one method each, in terms of the client.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use novafs_client::{At, Attributes, Client, ClientError, Entry, OpenOptions, Owner, RefusalCode, XattrMode};
use rustix::fs::{FallocateFlags, OFlags, XattrFlags};

use crate::attributes::{Inodes, kind, nanoseconds};
use crate::directory::{self, AFTER_PARENT, AFTER_SELF};
use crate::errno::errno;
use crate::handles::{Handles, Open};
use crate::mount::TTL;
use crate::xattr;

/// Longest name.
const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, as the system's `PATH_MAX` without its zero.
const TARGET_BYTES_MAX: usize = 4095;
/// Bytes of one write.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Numbers of inodes are never used again.
const GENERATION: Generation = Generation(0);
/// Blocks in the answer to `statfs`.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// File type bits of a mode, and the regular file among them.
const TYPE_BITS: u32 = 0o170_000;
const TYPE_REGULAR: u32 = 0o100_000;

/// A mounted directory of NovaFS.
#[derive(Debug)]
pub(crate) struct Mounted {
    client: Client,
    inodes: Inodes,
    handles: Handles,
}

/// Takes an entry of a directory: its number, the place behind it, its name and kind, and what it is unless that is the
/// directory itself or its parent. `true`: there is no more room.
type Add<'a> = &'a mut dyn FnMut(INodeNo, u64, &OsStr, FileType, Option<&Entry>) -> bool;

/// Refused in words of the system.
type Answer<T> = Result<T, Errno>;

/// The number for an error. What a program cannot make sense of is logged with its reason.
fn refuse(what: &'static str) -> impl Fn(ClientError) -> Errno {
    move |error| {
        let number = errno(&error);
        if [Errno::EIO, Errno::ETIMEDOUT].contains(&number) {
            let reason: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error = reason, "{what}");
        }
        number
    }
}

/// A name as metadata takes it.
fn name_of(name: &OsStr) -> Answer<&str> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    name.to_str().ok_or(Errno::EILSEQ)
}

fn owner(request: &Request) -> Owner {
    Owner { uid: request.uid(), gid: request.gid() }
}

impl Mounted {
    pub(crate) fn new(client: Client, root: u64) -> Self {
        Self { client, inodes: Inodes { root }, handles: Handles::default() }
    }

    fn child<'n>(&self, parent: INodeNo, name: &'n OsStr) -> Answer<At<'n>> {
        Ok(At::below(self.inodes.to_metadata(parent), name_of(name)?))
    }

    fn at(&self, inode: INodeNo) -> At<'static> {
        At::inode(self.inodes.to_metadata(inode))
    }

    /// What an inode is. One that is open and has no name any more is what it was, without a name.
    fn entry(&self, inode: INodeNo) -> Answer<Entry> {
        match self.client.stat(self.at(inode)) {
            Err(ClientError::Refused { code: RefusalCode::Stale | RefusalCode::NotFound, .. }) => {
                let open = self.client.entry_of_open(self.inodes.to_metadata(inode));
                open.map(|entry| Entry { links: 0, ..entry }).ok_or(Errno::ESTALE)
            }
            other => other.map_err(refuse("look at an inode")),
        }
    }

    fn opened(&self, handle: FileHandle) -> Answer<Arc<Open>> {
        self.handles.get(handle).ok_or(Errno::EBADF)
    }

    fn create_file(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> Answer<(Entry, FileHandle)> {
        let options = OpenOptions {
            write: true,
            create: true,
            exclusive: flags.contains(OFlags::EXCL),
            truncate: flags.contains(OFlags::TRUNC),
            mode: mode & 0o7777,
            owner: owner(request),
        };
        let file = self.client.open(self.child(parent, name)?, &options).map_err(refuse("make a file"))?;
        let entry = file.entry();
        let appends = flags.contains(OFlags::APPEND);
        Ok((entry, self.handles.add(Open { file, appends, writes: true })))
    }

    fn open_file(&self, inode: INodeNo, flags: OpenFlags) -> Answer<FileHandle> {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
        let options = OpenOptions { write: writes, ..OpenOptions::default() };
        let file = self.client.open(self.at(inode), &options).map_err(refuse("open a file"))?;
        Ok(self.handles.add(Open { file, appends: flags.contains(OFlags::APPEND), writes }))
    }

    /// Sets the length through the handle that the kernel names, or through one for the moment.
    fn set_bytes(&self, inode: INodeNo, handle: Option<FileHandle>, bytes: u64) -> Answer<()> {
        if let Some(open) = handle.and_then(|handle| self.handles.get(handle)).filter(|open| open.writes) {
            return open.file.set_bytes(bytes).map_err(refuse("set the length of a file"));
        }
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let file = match self.client.writer_of_open(self.inodes.to_metadata(inode)) {
            Some(file) => file,
            None => {
                self.client.open(self.at(inode), &options).map_err(refuse("open a file to set its length"))?
            }
        };
        let set = file.set_bytes(bytes);
        set.and(file.close()).map_err(refuse("set the length of a file"))
    }

    fn allocate(&self, handle: FileHandle, end: Option<u64>, mode: i32) -> Answer<()> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let open = self.opened(handle)?;
        let end = end.ok_or(Errno::EFBIG)?;
        // Room is not set aside: a write may still find none. What a program can see of it is the length.
        match mode {
            FallocateFlags::KEEP_SIZE => Ok(()),
            mode if mode.is_empty() && end > open.file.bytes() => {
                open.file.set_bytes(end).map_err(refuse("extend a file"))
            }
            mode if mode.is_empty() => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn rename_entry(
        &self,
        source: (INodeNo, &OsStr),
        target: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let (source, target) = (self.child(source.0, source.1)?, self.child(target.0, target.1)?);
        let renamed = match flags {
            RenameFlags::RENAME_EXCHANGE => self.client.exchange(source, target),
            RenameFlags::RENAME_NOREPLACE => self.client.rename(source, target, false),
            flags if flags.is_empty() => self.client.rename(source, target, true),
            _ => return Err(Errno::EINVAL),
        };
        renamed.map_err(refuse("move a name"))
    }

    fn make_link(&self, request: &Request, at: At<'_>, target: &Path) -> Answer<Entry> {
        let target = target.to_str().ok_or(Errno::EILSEQ)?;
        if target.len() > TARGET_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.client.symlink(at, target, owner(request)).map_err(refuse("make a symbolic link"))
    }

    fn reply_entry(&self, reply: ReplyEntry, entry: Answer<Entry>) {
        match entry {
            Ok(entry) => reply.entry(&TTL, &self.inodes.attributes(&entry), GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn reply_attributes(&self, reply: ReplyAttr, entry: Answer<Entry>) {
        match entry {
            Ok(entry) => reply.attr(&TTL, &self.inodes.attributes(&entry)),
            Err(error) => reply.error(error),
        }
    }

    /// Calls `add` for what a directory holds behind `offset`, itself and its parent first.
    fn read_directory(&self, inode: INodeNo, offset: u64, add: Add<'_>) -> Answer<()> {
        for (behind, name) in [(AFTER_SELF, "."), (AFTER_PARENT, "..")] {
            // The number of the parent is the kernel's affair; any but 0 will do.
            if offset < behind && add(inode, behind, name.as_ref(), FileType::Directory, None) {
                return Ok(());
            }
        }
        let read = directory::read(&self.client, self.inodes.to_metadata(inode), offset, &mut |entry| {
            let number = self.inodes.to_kernel(entry.inode);
            add(number, directory::behind(entry), entry.name.as_ref(), kind(entry), Some(entry))
        });
        read.map_err(refuse("read a directory"))
    }
}

fn reply_empty(reply: ReplyEmpty, done: Answer<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn reply_xattr(reply: ReplyXattr, room: u32, value: Answer<Vec<u8>>) {
    match value {
        Err(error) => reply.error(error),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(bytes) if room == 0 => reply.size(bytes),
            Ok(bytes) if bytes <= room => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: the kernel would go on to write pages of a mapping back while the open empties the file, and
        // such a page makes it long again. A cut of its own waits for them.
        // What an older kernel lacks it does without; the nearest number it takes is taken.
        for wanted in [
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(WRITE_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found =
            self.child(parent, name).and_then(|at| self.client.stat(at).map_err(refuse("look up a name")));
        self.reply_entry(reply, found);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.reply_attributes(reply, self.entry(inode));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let sized = size.map_or(Ok(()), |bytes| self.set_bytes(inode, handle, bytes));
        let attributes = Attributes {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            modified_ns: modified.map(nanoseconds),
            accessed_ns: accessed.map(nanoseconds),
        };
        let changed = sized.and_then(|()| {
            if attributes == Attributes::default() {
                return self.entry(inode);
            }
            self.client.set_attributes(self.at(inode), attributes).map_err(refuse("set attributes"))
        });
        self.reply_attributes(reply, changed);
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.entry(inode) {
            Ok(entry) if kind(&entry) == FileType::Symlink => reply.data(entry.link_target.as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        // Devices, sockets and pipes are the host's and not the region's.
        let made = if [0, TYPE_REGULAR].contains(&(mode & TYPE_BITS)) {
            self.create_file(request, parent, name, mode, OFlags::EXCL).and_then(|(entry, handle)| {
                self.close(handle)?;
                Ok(entry)
            })
        } else {
            Err(Errno::EPERM)
        };
        self.reply_entry(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|at| {
            self.client.mkdir_as(at, mode & 0o7777, owner(request)).map_err(refuse("make a directory"))
        });
        self.reply_entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.child(parent, name).and_then(|at| self.client.unlink(at).map_err(refuse("remove a name")));
        reply_empty(reply, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .child(parent, name)
            .and_then(|at| self.client.rmdir(at).map_err(refuse("remove a directory")));
        reply_empty(reply, done);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|at| self.make_link(request, at, target));
        self.reply_entry(reply, made);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.rename_entry((parent, name), (new_parent, new_name), flags));
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|target| {
            self.client.link(self.at(inode), target).map_err(refuse("give a file another name"))?;
            // With the length that this host has written.
            self.entry(inode)
        });
        self.reply_entry(reply, made);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(inode, flags) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        match self.create_file(request, parent, name, mode, flags) {
            Ok((entry, handle)) => {
                let attributes = self.inodes.attributes(&entry);
                reply.created(&TTL, &attributes, GENERATION, handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.opened(handle).and_then(|open| {
            let mut buffer = vec![0; usize::try_from(bytes).expect("32 bits fit a size")];
            let count = open.file.read_at(offset, &mut buffer).map_err(refuse("read"))?;
            buffer.truncate(count);
            Ok(buffer)
        });
        match read {
            Ok(buffer) => reply.data(&buffer),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.opened(handle).and_then(|open| {
            // Pages written back from a mapping have their place, also of a file that appends.
            let appends = open.appends && !flags.contains(WriteFlags::FUSE_WRITE_CACHE);
            let written =
                if appends { open.file.append(data).map(drop) } else { open.file.write_at(offset, data) };
            written.map_err(refuse("write"))
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel sends at most 1 MiB")),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let done = self.opened(handle).and_then(|open| {
            if open.writes {
                open.file.sync().map_err(refuse("commit a file that is closed"))
            } else {
                Ok(())
            }
        });
        reply_empty(reply, done);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // Nobody waits for the answer; what could fail for a program failed when it closed.
        let _ = self.close(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = self.opened(handle).and_then(|open| open.file.sync().map_err(refuse("sync a file")));
        reply_empty(reply, done);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let read = self.read_directory(inode, offset, &mut |number, behind, name, kind, _| {
            reply.add(number, behind, kind, name)
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        // The kernel looks at attributes of real entries only.
        let dots = Entry { inode: self.inodes.to_metadata(inode), ..Entry::default() };
        let read = self.read_directory(inode, offset, &mut |number, behind, name, kind, entry| {
            let mut attributes = self.inodes.attributes(entry.unwrap_or(&dots));
            attributes.kind = kind;
            reply.add(number, behind, name, &TTL, &attributes, GENERATION)
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of names is durable when it is answered.
        reply.ok();
    }

    fn statfs(&self, _: &Request, inode: INodeNo, reply: ReplyStatfs) {
        match self.client.statfs(self.at(inode)) {
            Ok(room) => {
                let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
                let free = blocks(room.bytes_free);
                reply.statfs(
                    blocks(room.bytes_total),
                    free,
                    free,
                    room.files_max,
                    room.files_max.saturating_sub(room.files),
                    STATFS_BLOCK_BYTES,
                    room.name_bytes_max,
                    STATFS_BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(refuse("ask for room")(error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match XattrFlags::from_bits_retain(flags.cast_unsigned()) {
            XattrFlags::CREATE => XattrMode::Create,
            XattrFlags::REPLACE => XattrMode::Replace,
            _ => XattrMode::Set,
        };
        let set = xattr::kept(name).and_then(|name| {
            match self.client.set_xattr(self.at(inode), name, value, mode) {
                Err(ClientError::Refused { code: RefusalCode::TooLarge, .. }) => Err(Errno::E2BIG),
                other => other.map_err(refuse("set an extended attribute")),
            }
        });
        reply_empty(reply, set);
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        let value = xattr::kept(name).and_then(|name| {
            let xattrs = self.client.xattrs(self.at(inode)).map_err(refuse("read extended attributes"))?;
            let found = xattrs.into_iter().find(|xattr| xattr.name == name);
            found.map(|xattr| xattr.value.to_vec()).ok_or(Errno::ENODATA)
        });
        reply_xattr(reply, room, value);
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, room: u32, reply: ReplyXattr) {
        let xattrs = self.client.xattrs(self.at(inode)).map_err(refuse("list extended attributes"));
        reply_xattr(reply, room, xattrs.map(|xattrs| xattr::names(&xattrs)));
    }

    fn removexattr(&self, _: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = xattr::kept(name).and_then(|name| {
            self.client.remove_xattr(self.at(inode), name).map_err(refuse("remove an extended attribute"))
        });
        reply_empty(reply, removed);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel has compared mode and owner already.
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.allocate(handle, offset.checked_add(bytes), mode));
    }
}

impl Mounted {
    /// Ends a handle. Its file is closed now, or when the last request on it ends.
    fn close(&self, handle: FileHandle) -> Answer<()> {
        match self.handles.remove(handle).map(Arc::try_unwrap) {
            Some(Ok(open)) => open.file.close().map_err(refuse("close a file")),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

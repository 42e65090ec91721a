//! A file, directory or symbolic link of a tree.

use crate::{
    Digest, FILE_BYTES_MAX, MessageError, NAME_BYTES_MAX, Name, SMALL_BYTES_MAX, XATTR_BYTES_MAX,
    wire::{Reader, Writer},
};

/// Permission bits that are copied: everything but set-user-id and set-group-id, which another host decides.
const MODE_MASK: u16 = 0o1777;

/// A time of the calendar, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Whole seconds, before 1970 negative.
    pub seconds: i64,
    /// And nanoseconds behind them, below 1,000,000,000.
    pub nanos: u32,
}

/// What a file was when it was looked at: while all of it stays, so does the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Length in bytes.
    pub bytes: u64,
    /// Last change of the content.
    pub modified: Moment,
    /// Last change of anything; no program can set it.
    pub changed: Moment,
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Names it has; with more than one it may come again under another.
        links: u32,
        /// Whether it has fewer bytes stored than it is long.
        sparse: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// What it says; never followed.
        target: Vec<u8>,
    },
}

/// An entry of a tree, with all that is copied beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, below the folder that its host serves.
    pub name: Name,
    /// Permission bits.
    pub mode: u16,
    /// What it was when it was looked at.
    pub identity: Identity,
    /// Extended attributes of users, in the order of their names.
    pub xattrs: Vec<Xattr>,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// Length of the content.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self.kind {
            Kind::File { .. } => self.identity.bytes,
            Kind::Directory | Kind::Link { .. } => 0,
        }
    }

    /// Whether it is a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    /// Whether it travels with many others in a body.
    #[must_use]
    pub const fn is_small(&self) -> bool {
        self.is_file() && self.identity.bytes < SMALL_BYTES_MAX
    }

    /// Bytes that it takes of a head.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        let mut writer = Writer(Vec::new());
        self.encode(&mut writer);
        writer.0.len()
    }

    /// Keeps of a mode what is copied.
    #[must_use]
    pub const fn mode_of(mode: u32) -> u16 {
        let low = (mode & 0o7777) as u16;
        low & MODE_MASK
    }

    pub(crate) fn encode(&self, into: &mut Writer) {
        into.name(&self.name);
        into.short(self.mode);
        self.identity.encode(into);
        into.list(&self.xattrs, |into, (name, value)| {
            into.bytes(name);
            into.bytes(value);
        });
        match &self.kind {
            Kind::File { links, sparse } => {
                into.byte(0);
                into.word(*links);
                into.flag(*sparse);
            }
            Kind::Directory => into.byte(1),
            Kind::Link { target } => {
                into.byte(2);
                into.bytes(target);
            }
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let name = from.name()?;
        let mode = from.short()?;
        if mode & !MODE_MASK != 0 {
            return Err(MessageError::Value { field: "mode", value: mode.into() });
        }
        let identity = Identity::decode(from)?;
        let xattrs = from.list(|from| Ok((from.bytes()?.to_vec(), from.bytes()?.to_vec())))?;
        check_xattrs(&xattrs)?;
        let kind = match from.byte()? {
            0 => Kind::File { links: from.word()?, sparse: from.flag()? },
            1 => Kind::Directory,
            2 => Kind::Link { target: link_target(from.bytes()?)? },
            other => return Err(MessageError::Value { field: "kind", value: other.into() }),
        };
        Ok(Self { name, mode, identity, xattrs, kind })
    }
}

/// Only attributes of users, and not too many: others mean something to the kernel.
fn check_xattrs(xattrs: &[Xattr]) -> Result<(), MessageError> {
    let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > XATTR_BYTES_MAX {
        return Err(MessageError::Value { field: "xattr_bytes", value: bytes as u64 });
    }
    let foreign =
        xattrs.iter().find(|(name, _)| !name.starts_with(b"user.") || name.len() > 255 || name.contains(&0));
    match foreign {
        Some((name, _)) => Err(MessageError::Value { field: "xattr_name", value: name.len() as u64 }),
        None => Ok(()),
    }
}

fn link_target(bytes: &[u8]) -> Result<Vec<u8>, MessageError> {
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX || bytes.contains(&0) {
        return Err(MessageError::Value { field: "link_target", value: bytes.len() as u64 });
    }
    Ok(bytes.to_vec())
}

impl Identity {
    /// 64 bits of its digest: blocks that were read from what a file was before do not get into what it is now.
    #[must_use]
    pub fn tag(&self) -> u64 {
        Digest::of(&self.encoded()).first()
    }

    /// Its bytes on the wire.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(48));
        self.encode(&mut writer);
        writer.0
    }

    pub(crate) fn encode(&self, into: &mut Writer) {
        into.long(self.bytes);
        for moment in [self.modified, self.changed] {
            into.0.extend(moment.seconds.to_be_bytes());
            into.word(moment.nanos);
        }
        into.long(self.device);
        into.long(self.inode);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let bytes = from.long()?;
        if bytes > FILE_BYTES_MAX {
            return Err(MessageError::Value { field: "file_bytes", value: bytes });
        }
        let mut moment = || {
            let seconds = from.long()?.cast_signed();
            let nanos = from.word()?;
            if nanos >= 1_000_000_000 {
                return Err(MessageError::Value { field: "nanos", value: nanos.into() });
            }
            Ok(Moment { seconds, nanos })
        };
        let (modified, changed) = (moment()?, moment()?);
        Ok(Self { bytes, modified, changed, device: from.long()?, inode: from.long()? })
    }
}

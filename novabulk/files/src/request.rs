//! What a driver of a copy asks of a host.

use crate::{
    BLOCK_BYTES, Digest, Entry, FILE_BYTES_MAX, Identity, MessageError, Name, SMALL_BYTES_MAX,
    wire::{Reader, Writer},
};

mod kind {
    pub(super) const LIST: u8 = 1;
    pub(super) const STAT: u8 = 2;
    pub(super) const MAP: u8 = 3;
    pub(super) const READ: u8 = 4;
    pub(super) const READ_PACK: u8 = 5;
    pub(super) const DIGEST: u8 = 6;
    pub(super) const OFFER: u8 = 16;
    pub(super) const OPEN: u8 = 17;
    pub(super) const HELD: u8 = 18;
    pub(super) const WRITE: u8 = 19;
    pub(super) const WRITE_PACK: u8 = 20;
    pub(super) const PUBLISH: u8 = 21;
    pub(super) const ABANDON: u8 = 22;
    pub(super) const LINK: u8 = 23;
    pub(super) const SETTLE: u8 = 24;
    pub(super) const REMOVE: u8 = 25;
    pub(super) const SYNC: u8 = 26;
    pub(super) const RELAY: u8 = 32;
    pub(super) const RELAYED: u8 = 33;
}

/// A file to be read with many others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFile {
    /// Its name.
    pub name: Name,
    /// What it was when it was listed.
    pub identity: Identity,
}

/// A file that comes with many others; its bytes are in the body, in the order of the packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// What it is.
    pub entry: Entry,
    /// Of its bytes.
    pub digest: Digest,
}

/// How a copy is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Compare files of the same length by digest, not by the time of change.
    pub checksum: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Remove from a directory that is copied what its source does not have, when all else has succeeded.
    pub delete: bool,
    /// Connections for bulk, 1 to 8.
    pub streams: u8,
    /// Bytes a second at most; 0 is no limit.
    pub bytes_per_second: u64,
    /// Patterns of names of which one must match, when there are any.
    pub include: Vec<String>,
    /// Patterns of names of which none may match.
    pub exclude: Vec<String>,
}

/// One step of a copy. Names are below the folder that the host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The entries of a directory in the order of their names, from the one behind `after` on.
    List {
        /// Which directory.
        folder: Name,
        /// The last name that is known; empty at the beginning.
        after: Vec<u8>,
    },
    /// What is known of an entry now.
    Stat {
        /// Which.
        name: Name,
    },
    /// Where a file has data, from an offset on; the rest are holes.
    Map {
        /// Which file.
        file: PackFile,
        /// From where.
        from: u64,
    },
    /// A part of a file.
    Read {
        /// Which file.
        file: PackFile,
        /// From where.
        offset: u64,
        /// How much: it must lie within the file.
        bytes: u32,
    },
    /// Many small files, whole.
    ReadPack {
        /// Which.
        files: Vec<PackFile>,
    },
    /// The digest of a whole file over its blocks.
    Digest {
        /// Which.
        name: Name,
    },
    /// Entries that the source has: directories and links are made, of files the host says which it wants.
    Offer {
        /// Which.
        entries: Vec<Entry>,
        /// Files of the same length are to be compared by digest.
        checksum: bool,
        /// Nothing is to be changed.
        dry_run: bool,
    },
    /// A file is about to come, block by block.
    Open {
        /// Which.
        entry: Entry,
    },
    /// The blocks of an open file that the host holds, in order, from one on.
    Held {
        /// Which file.
        name: Name,
        /// The first that is not known.
        from: u32,
    },
    /// A block of an open file; its bytes are the body.
    Write {
        /// Which file.
        name: Name,
        /// Of the source it was read from: [`Identity::tag`].
        source: u64,
        /// Which block.
        block: u32,
        /// Of the body.
        digest: Digest,
    },
    /// Many small files, whole.
    WritePack {
        /// Which, in the order of their bytes in the body.
        packs: Vec<Pack>,
    },
    /// All blocks of an open file have come: make it durable and give it its name.
    Publish {
        /// Which file.
        name: Name,
        /// How many blocks were sent; the others are holes.
        blocks: u32,
        /// Over those.
        root: Digest,
    },
    /// The file is not to come after all.
    Abandon {
        /// Which file.
        name: Name,
    },
    /// A further name for a file that has come.
    Link {
        /// The new name.
        name: Name,
        /// The one it has.
        existing: Name,
    },
    /// Modes, times and attributes of what is there.
    Settle {
        /// Which.
        entries: Vec<Entry>,
    },
    /// Remove entries; a directory with all that is in it.
    Remove {
        /// Which.
        names: Vec<Name>,
    },
    /// Make durable what was done below a folder.
    Sync {
        /// Which folder.
        folder: Name,
    },
    /// Copy from this host to another.
    Relay {
        /// Chosen by who asks; asking again with the same one begins nothing anew.
        id: u64,
        /// What to copy; a name that ends the path itself gives the content of the directory.
        sources: Vec<(Name, bool)>,
        /// Where the other host listens.
        address: String,
        /// Where to, below the folder that the other host serves.
        target: Name,
        /// Whether the target is a folder in any case.
        into: bool,
        /// How.
        orders: Orders,
    },
    /// How far a relayed copy is.
    Relayed {
        /// Which.
        id: u64,
    },
}

impl Request {
    /// The head that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w;
        match self {
            Self::List { folder, after } => {
                w = Writer::new(kind::LIST);
                w.name(folder);
                w.bytes(after);
            }
            Self::Stat { name } => w = named(kind::STAT, name),
            Self::Map { file, from } => {
                w = Writer::new(kind::MAP);
                file.encode(&mut w);
                w.long(*from);
            }
            Self::Read { file, offset, bytes } => {
                w = Writer::new(kind::READ);
                file.encode(&mut w);
                w.long(*offset);
                w.word(*bytes);
            }
            Self::ReadPack { files } => {
                w = Writer::new(kind::READ_PACK);
                w.list(files, |w, file| file.encode(w));
            }
            Self::Digest { name } => w = named(kind::DIGEST, name),
            Self::Offer { entries, checksum, dry_run } => {
                w = Writer::new(kind::OFFER);
                w.flag(*checksum);
                w.flag(*dry_run);
                w.list(entries, |w, entry| entry.encode(w));
            }
            Self::Open { entry } => {
                w = Writer::new(kind::OPEN);
                entry.encode(&mut w);
            }
            Self::Held { name, from } => {
                w = named(kind::HELD, name);
                w.word(*from);
            }
            Self::Write { name, source, block, digest } => {
                w = named(kind::WRITE, name);
                w.long(*source);
                w.word(*block);
                w.digest(digest);
            }
            Self::WritePack { packs } => {
                w = Writer::new(kind::WRITE_PACK);
                w.list(packs, |w, pack| {
                    pack.entry.encode(w);
                    w.digest(&pack.digest);
                });
            }
            Self::Publish { name, blocks, root } => {
                w = named(kind::PUBLISH, name);
                w.word(*blocks);
                w.digest(root);
            }
            Self::Abandon { name } => w = named(kind::ABANDON, name),
            Self::Link { name, existing } => {
                w = named(kind::LINK, name);
                w.name(existing);
            }
            Self::Settle { entries } => {
                w = Writer::new(kind::SETTLE);
                w.list(entries, |w, entry| entry.encode(w));
            }
            Self::Remove { names } => {
                w = Writer::new(kind::REMOVE);
                w.list(names, Writer::name);
            }
            Self::Sync { folder } => w = named(kind::SYNC, folder),
            Self::Relay { id, sources, address, target, into, orders } => {
                w = Writer::new(kind::RELAY);
                w.long(*id);
                w.list(sources, |w, (name, content)| {
                    w.name(name);
                    w.flag(*content);
                });
                w.text(address);
                w.name(target);
                w.flag(*into);
                orders.encode(&mut w);
            }
            Self::Relayed { id } => {
                w = Writer::new(kind::RELAYED);
                w.long(*id);
            }
        }
        w.0
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`MessageError`] says what is wrong with it.
    pub fn decode(head: &[u8]) -> Result<Self, MessageError> {
        let (kind, mut r) = Reader::new(head)?;
        let request = match kind {
            kind::LIST => Self::List { folder: r.name()?, after: r.bytes()?.to_vec() },
            kind::STAT => Self::Stat { name: r.name()? },
            kind::MAP => Self::Map { file: PackFile::decode(&mut r)?, from: offset(&mut r)? },
            kind::READ => {
                let read = (PackFile::decode(&mut r)?, offset(&mut r)?, r.word()?);
                Self::read(read)?
            }
            kind::READ_PACK => Self::read_pack(r.list(PackFile::decode)?)?,
            kind::DIGEST => Self::Digest { name: r.name()? },
            kind::OFFER => {
                let (checksum, dry_run) = (r.flag()?, r.flag()?);
                Self::Offer { entries: r.list(Entry::decode)?, checksum, dry_run }
            }
            kind::OPEN => Self::Open { entry: Entry::decode(&mut r)? },
            kind::HELD => Self::Held { name: r.name()?, from: r.word()? },
            kind::WRITE => {
                Self::Write { name: r.name()?, source: r.long()?, block: r.word()?, digest: r.digest()? }
            }
            kind::WRITE_PACK => {
                let packs = r.list(|r| Ok(Pack { entry: Entry::decode(r)?, digest: r.digest()? }))?;
                Self::write_pack(packs)?
            }
            kind::PUBLISH => Self::Publish { name: r.name()?, blocks: r.word()?, root: r.digest()? },
            kind::ABANDON => Self::Abandon { name: r.name()? },
            kind::LINK => Self::Link { name: r.name()?, existing: r.name()? },
            kind::SETTLE => Self::Settle { entries: r.list(Entry::decode)? },
            kind::REMOVE => Self::Remove { names: r.list(Reader::name)? },
            kind::SYNC => Self::Sync { folder: r.name()? },
            kind::RELAY => Self::Relay {
                id: r.long()?,
                sources: r.list(|r| Ok((r.name()?, r.flag()?)))?,
                address: r.text()?,
                target: r.name()?,
                into: r.flag()?,
                orders: Orders::decode(&mut r)?,
            },
            kind::RELAYED => Self::Relayed { id: r.long()? },
            other => return Err(MessageError::Value { field: "request", value: other.into() }),
        };
        r.finish()?;
        Ok(request)
    }

    /// Longest body that its answer may have.
    #[must_use]
    pub fn reply_bytes_max(&self) -> u32 {
        match self {
            Self::Read { bytes, .. } => *bytes,
            Self::ReadPack { files } => {
                let bytes: u64 = files.iter().map(|file| file.identity.bytes).sum();
                u32::try_from(bytes).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)
            }
            _ => 0,
        }
    }

    /// Whether it asks a host to change something.
    #[must_use]
    pub const fn changes(&self) -> bool {
        match self {
            Self::List { .. }
            | Self::Stat { .. }
            | Self::Map { .. }
            | Self::Read { .. }
            | Self::ReadPack { .. }
            | Self::Digest { .. }
            | Self::Relay { .. }
            | Self::Relayed { .. } => false,
            Self::Offer { dry_run, .. } => !*dry_run,
            _ => true,
        }
    }

    fn read((file, offset, bytes): (PackFile, u64, u32)) -> Result<Self, MessageError> {
        // Both are far below 2^63, so the sum is one.
        let within = bytes > 0 && bytes <= BLOCK_BYTES && offset + u64::from(bytes) <= file.identity.bytes;
        if !within {
            return Err(MessageError::Value { field: "read_bytes", value: bytes.into() });
        }
        Ok(Self::Read { file, offset, bytes })
    }

    fn read_pack(files: Vec<PackFile>) -> Result<Self, MessageError> {
        check_pack(files.iter().map(|file| file.identity.bytes))?;
        Ok(Self::ReadPack { files })
    }

    fn write_pack(packs: Vec<Pack>) -> Result<Self, MessageError> {
        check_pack(packs.iter().map(|pack| pack.entry.bytes()))?;
        match packs.iter().find(|pack| !pack.entry.is_file()) {
            Some(_) => Err(MessageError::Value { field: "pack_kind", value: 1 }),
            None => Ok(Self::WritePack { packs }),
        }
    }
}

/// Every file of a pack is small, and together they fit a body.
fn check_pack(sizes: impl Iterator<Item = u64>) -> Result<(), MessageError> {
    let mut sum = 0;
    for bytes in sizes {
        sum += bytes.min(FILE_BYTES_MAX);
        if bytes >= SMALL_BYTES_MAX || sum > u64::from(BLOCK_BYTES) {
            return Err(MessageError::Value { field: "pack_bytes", value: sum });
        }
    }
    Ok(())
}

fn named(kind: u8, name: &Name) -> Writer {
    let mut writer = Writer::new(kind);
    writer.name(name);
    writer
}

fn offset(from: &mut Reader<'_>) -> Result<u64, MessageError> {
    match from.long()? {
        offset if offset <= FILE_BYTES_MAX => Ok(offset),
        offset => Err(MessageError::Value { field: "offset", value: offset }),
    }
}

impl PackFile {
    fn encode(&self, into: &mut Writer) {
        into.name(&self.name);
        self.identity.encode(into);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        Ok(Self { name: from.name()?, identity: Identity::decode(from)? })
    }
}

impl Orders {
    fn encode(&self, into: &mut Writer) {
        into.flag(self.checksum);
        into.flag(self.dry_run);
        into.flag(self.delete);
        into.byte(self.streams);
        into.long(self.bytes_per_second);
        into.list(&self.include, |into, pattern| into.text(pattern));
        into.list(&self.exclude, |into, pattern| into.text(pattern));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        let (checksum, dry_run, delete) = (from.flag()?, from.flag()?, from.flag()?);
        let streams = from.byte()?;
        if !(1..=8).contains(&streams) {
            return Err(MessageError::Value { field: "streams", value: streams.into() });
        }
        Ok(Self {
            checksum,
            dry_run,
            delete,
            streams,
            bytes_per_second: from.long()?,
            include: from.list(Reader::text)?,
            exclude: from.list(Reader::text)?,
        })
    }
}

//! What a host answers.

use crate::{
    Digest, Entry, Fault, MessageError,
    wire::{Reader, Writer},
};

mod kind {
    pub(super) const LISTED: u8 = 129;
    pub(super) const STATUS: u8 = 130;
    pub(super) const MAPPED: u8 = 131;
    pub(super) const READ: u8 = 132;
    pub(super) const PACKED: u8 = 133;
    pub(super) const DIGEST_IS: u8 = 134;
    pub(super) const OFFERED: u8 = 144;
    pub(super) const HOLDS: u8 = 145;
    pub(super) const EACH: u8 = 146;
    pub(super) const DONE: u8 = 147;
    pub(super) const RELAYED: u8 = 160;
    pub(super) const FAILED: u8 = 255;
}

/// What became of a file that was to be read with many others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packed {
    /// It is in the body.
    Bytes {
        /// How many bytes of it.
        bytes: u32,
        /// Of them.
        digest: Digest,
    },
    /// It is not.
    Failed {
        /// Why.
        fault: Fault,
        /// In words.
        text: String,
    },
}

/// What a host says of an entry that it was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there already, the same.
    Same,
    /// It was made, or would have been.
    Made,
    /// It is a file that the host does not have so.
    Wanted,
    /// It is a file of the same length: compare by digest.
    Compare,
    /// It cannot be taken.
    Refused {
        /// Why.
        fault: Fault,
        /// In words.
        text: String,
    },
}

/// How far a relayed copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Whether it has ended.
    pub ended: bool,
    /// Files, links and directories found.
    pub entries: u64,
    /// Files to be copied, as far as is known.
    pub files_total: u64,
    /// Files copied.
    pub files: u64,
    /// Bytes to be copied, as far as is known.
    pub bytes_total: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Files that were the same already.
    pub same: u64,
    /// Entries removed at the target.
    pub removed: u64,
    /// Entries of a kind that is not copied.
    pub skipped: u64,
    /// Bytes that a copy begun earlier had brought.
    pub bytes_resumed: u64,
    /// What failed.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// What keeps it from being faster, in a word.
    pub limit: String,
}

/// The answer to a [`crate::Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `List`.
    Listed {
        /// Entries, in the order of their names.
        entries: Vec<Entry>,
        /// Entries of a kind that is not copied: sockets, devices, our own temporary files.
        skipped: u32,
        /// Entries that could not be looked at, in words.
        failures: Vec<String>,
        /// The last name that was looked at, when there are more behind it.
        next: Option<Vec<u8>>,
    },
    /// To `Stat`.
    Status {
        /// What is there.
        entry: Entry,
    },
    /// To `Map`.
    Mapped {
        /// Where data are: offset and length.
        ranges: Vec<(u64, u64)>,
        /// Where to go on, when there is more.
        next: Option<u64>,
    },
    /// To `Read`; the body has the bytes.
    Read {
        /// Of the body.
        digest: Digest,
    },
    /// To `ReadPack`; the body has the bytes of the files that could be read, in order.
    Packed {
        /// What became of each.
        files: Vec<Packed>,
    },
    /// To `Digest`.
    DigestIs {
        /// Length of the file.
        bytes: u64,
        /// Over its blocks.
        root: Digest,
    },
    /// To `Offer`.
    Offered {
        /// Of each entry.
        verdicts: Vec<Verdict>,
    },
    /// To `Held` and `Open`.
    Holds {
        /// Blocks that are held, and their digests.
        blocks: Vec<(u32, Digest)>,
        /// Where to go on, when there is more.
        next: Option<u32>,
    },
    /// To what is done to many: what failed, by its place in the request.
    Each {
        /// Those that failed.
        failed: Vec<(u16, Fault, String)>,
    },
    /// It is done.
    Done,
    /// To `Relay` and `Relayed`.
    Relayed(Relayed),
    /// It is not done.
    Failed {
        /// Why.
        fault: Fault,
        /// In words.
        text: String,
    },
}

impl Reply {
    /// The head that carries it; `disk_us` is how long the host waited for its file system, in microseconds.
    #[must_use]
    pub fn encode(&self, disk_us: u32) -> Vec<u8> {
        let begin = |kind| {
            let mut writer = Writer::new(kind);
            writer.word(disk_us);
            writer
        };
        let mut w;
        match self {
            Self::Listed { entries, skipped, failures, next } => {
                w = begin(kind::LISTED);
                w.word(*skipped);
                w.list(entries, |w, entry| entry.encode(w));
                w.list(failures, |w, text| w.text(text));
                option(&mut w, next.as_deref(), Writer::bytes);
            }
            Self::Status { entry } => {
                w = begin(kind::STATUS);
                entry.encode(&mut w);
            }
            Self::Mapped { ranges, next } => {
                w = begin(kind::MAPPED);
                w.list(ranges, |w, (offset, bytes)| {
                    w.long(*offset);
                    w.long(*bytes);
                });
                option(&mut w, *next, Writer::long);
            }
            Self::Read { digest } => {
                w = begin(kind::READ);
                w.digest(digest);
            }
            Self::Packed { files } => {
                w = begin(kind::PACKED);
                w.list(files, |w, file| match file {
                    Packed::Bytes { bytes, digest } => {
                        w.byte(0);
                        w.word(*bytes);
                        w.digest(digest);
                    }
                    Packed::Failed { fault, text } => failure(w, *fault, text),
                });
            }
            Self::DigestIs { bytes, root } => {
                w = begin(kind::DIGEST_IS);
                w.long(*bytes);
                w.digest(root);
            }
            Self::Offered { verdicts } => {
                w = begin(kind::OFFERED);
                w.list(verdicts, |w, verdict| match verdict {
                    Verdict::Same => w.byte(128),
                    Verdict::Made => w.byte(129),
                    Verdict::Wanted => w.byte(130),
                    Verdict::Compare => w.byte(131),
                    Verdict::Refused { fault, text } => failure(w, *fault, text),
                });
            }
            Self::Holds { blocks, next } => {
                w = begin(kind::HOLDS);
                w.list(blocks, |w, (block, digest)| {
                    w.word(*block);
                    w.digest(digest);
                });
                option(&mut w, *next, Writer::word);
            }
            Self::Each { failed } => {
                w = begin(kind::EACH);
                w.list(failed, |w, (place, fault, text)| {
                    w.short(*place);
                    failure(w, *fault, text);
                });
            }
            Self::Done => w = begin(kind::DONE),
            Self::Relayed(relayed) => {
                w = begin(kind::RELAYED);
                relayed.encode(&mut w);
            }
            Self::Failed { fault, text } => {
                w = begin(kind::FAILED);
                failure(&mut w, *fault, text);
            }
        }
        w.0
    }

    /// Reads a head: the answer, and how long the host waited for its file system, in microseconds.
    ///
    /// # Errors
    /// [`MessageError`] says what is wrong with it.
    pub fn decode(head: &[u8]) -> Result<(Self, u32), MessageError> {
        let (kind, mut r) = Reader::new(head)?;
        let disk_us = r.word()?;
        let reply = match kind {
            kind::LISTED => {
                let skipped = r.word()?;
                Self::Listed {
                    entries: r.list(Entry::decode)?,
                    skipped,
                    failures: r.list(Reader::text)?,
                    next: present(&mut r, |r| Ok(r.bytes()?.to_vec()))?,
                }
            }
            kind::STATUS => Self::Status { entry: Entry::decode(&mut r)? },
            kind::MAPPED => Self::Mapped {
                ranges: r.list(|r| Ok((r.long()?, r.long()?)))?,
                next: present(&mut r, Reader::long)?,
            },
            kind::READ => Self::Read { digest: r.digest()? },
            kind::PACKED => Self::Packed {
                files: r.list(|r| match r.byte()? {
                    0 => Ok(Packed::Bytes { bytes: r.word()?, digest: r.digest()? }),
                    number => {
                        let (fault, text) = reason(number, r)?;
                        Ok(Packed::Failed { fault, text })
                    }
                })?,
            },
            kind::DIGEST_IS => Self::DigestIs { bytes: r.long()?, root: r.digest()? },
            kind::OFFERED => Self::Offered {
                verdicts: r.list(|r| match r.byte()? {
                    128 => Ok(Verdict::Same),
                    129 => Ok(Verdict::Made),
                    130 => Ok(Verdict::Wanted),
                    131 => Ok(Verdict::Compare),
                    number => {
                        let (fault, text) = reason(number, r)?;
                        Ok(Verdict::Refused { fault, text })
                    }
                })?,
            },
            kind::HOLDS => Self::Holds {
                blocks: r.list(|r| Ok((r.word()?, r.digest()?)))?,
                next: present(&mut r, Reader::word)?,
            },
            kind::EACH => Self::Each {
                failed: r.list(|r| {
                    let (place, number) = (r.short()?, r.byte()?);
                    let (fault, text) = reason(number, r)?;
                    Ok((place, fault, text))
                })?,
            },
            kind::DONE => Self::Done,
            kind::RELAYED => Self::Relayed(Relayed::decode(&mut r)?),
            kind::FAILED => {
                let number = r.byte()?;
                let (fault, text) = reason(number, &mut r)?;
                Self::Failed { fault, text }
            }
            other => return Err(MessageError::Value { field: "reply", value: other.into() }),
        };
        r.finish()?;
        Ok((reply, disk_us))
    }
}

fn failure(into: &mut Writer, fault: Fault, text: &str) {
    into.byte(fault as u8);
    into.text(text);
}

fn reason(number: u8, from: &mut Reader<'_>) -> Result<(Fault, String), MessageError> {
    let fault =
        Fault::from_number(number).ok_or(MessageError::Value { field: "fault", value: number.into() })?;
    Ok((fault, from.text()?))
}

fn option<T>(into: &mut Writer, value: Option<T>, write: impl Fn(&mut Writer, T)) {
    into.flag(value.is_some());
    if let Some(value) = value {
        write(into, value);
    }
}

fn present<'a, T>(
    from: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, MessageError>,
) -> Result<Option<T>, MessageError> {
    if from.flag()? { read(from).map(Some) } else { Ok(None) }
}

impl Relayed {
    fn encode(&self, into: &mut Writer) {
        into.flag(self.ended);
        for number in self.numbers() {
            into.long(number);
        }
        into.list(&self.failures, |into, text| into.text(text));
        into.text(&self.limit);
    }

    const fn numbers(&self) -> [u64; 10] {
        [
            self.entries,
            self.files_total,
            self.files,
            self.bytes_total,
            self.bytes,
            self.same,
            self.removed,
            self.skipped,
            self.bytes_resumed,
            self.failed,
        ]
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, MessageError> {
        Ok(Self {
            ended: from.flag()?,
            entries: from.long()?,
            files_total: from.long()?,
            files: from.long()?,
            bytes_total: from.long()?,
            bytes: from.long()?,
            same: from.long()?,
            removed: from.long()?,
            skipped: from.long()?,
            bytes_resumed: from.long()?,
            failed: from.long()?,
            failures: from.list(Reader::text)?,
            limit: from.text()?,
        })
    }
}

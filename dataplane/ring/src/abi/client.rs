//! Slots between a program and the data plane of its host.

use nova_units::{
    BLOCK_BYTES_MAX, BlockId, FRAME_PAYLOAD_BYTES_MAX, Generation, GroupId, UNIT_LOG2_MAX, UNIT_LOG2_MIN,
};

use super::fields::{Field, Put, Take, slots};
use super::{BadSlot, Slot};

/// Most plaintext bytes of one read or write.
pub const IO_BYTES_MAX: u32 = FRAME_PAYLOAD_BYTES_MAX;
/// Most bytes of the answer to a locate.
pub const LOCATE_BYTES_MAX: u32 = 1 << 20;
/// Most units of one locate: as many as a host is asked for at once.
pub const LOCATE_UNITS_MAX: u16 = 256;
/// Bytes of an answer's detail.
pub const DETAIL_BYTES: usize = 64;

slots! {
    /// Program to data plane. `request` is the program's own number; the answer carries it back.
    ClientCommand {
        /// A writer of this edge: it has a salt of its own, so none of its keys was ever used before. Everything of it is
        /// sealed under one version of one domain's key, because that belongs to a block.
        1 => OpenWriter {
            /// Number of this request.
            request: u64,
            /// Key domain; 0: the first that this edge has.
            key_domain: u32,
            /// Version of that domain's key; 0: the current one.
            key_version: u32,
        }
        /// Plaintext in the arena, to be sealed and made durable on every member of the group: any range of a block.
        ///
        /// A unit that is covered only partly is read, merged and sealed anew, if it may hold data before `block_bytes`
        /// that the range does not cover; what lies between `block_bytes` and `offset` becomes zeros. Whole units are
        /// never read. Writes to one unit take effect in the order of their commands; the bytes in the arena must stay
        /// as they are until the answer. After `Ok` every later read sees it, through any edge.
        ///
        /// `Fenced`: another session took the block over, or the writer of this generation is not this one any more
        /// (its host's data plane was restarted). Open the file anew. After `Unavailable` or `TimedOut` the units may
        /// or may not be stored; writing them again is safe.
        2 => Write {
            /// Number of this request.
            request: u64,
            /// Writer that seals it.
            writer: u64,
            /// Group of the block.
            group: GroupId,
            /// The block; one that had an earlier generation was fenced for this one before.
            block: BlockId,
            /// Generation of the writer session on this block.
            generation: Generation,
            /// Unit size of the block, 12..=16.
            unit_log2: u8,
            /// First byte written, counted in the block.
            offset: u32,
            /// How many; 1..=[`IO_BYTES_MAX`]. The range ends within 128 MiB.
            bytes: u32,
            /// How far the block held data before this write, those of earlier commands included; at most 128 MiB.
            block_bytes: u32,
            /// Where the bytes begin in the arena.
            arena_offset: u64,
        }
        /// No more writes to a block that this writer alone wrote, whole units without a gap; the answer has its root.
        3 => CloseBlock {
            /// Number of this request.
            request: u64,
            /// Writer that sealed it.
            writer: u64,
            /// Block.
            block: BlockId,
            /// Generation of the writer session on this block.
            generation: Generation,
            /// Plaintext length of the block; what was written must reach exactly this far.
            plain_bytes: u32,
        }
        /// The writer is done; its keys are dropped.
        4 => CloseWriter {
            /// Number of this request.
            request: u64,
            /// The writer.
            writer: u64,
        }
        /// Plaintext of a range of a block, into the arena.
        5 => Read {
            /// Number of this request.
            request: u64,
            /// Group of the block.
            group: GroupId,
            /// Block.
            block: BlockId,
            /// Key domain of the block.
            key_domain: u32,
            /// Version of that domain's key.
            key_version: u32,
            /// Unit size of the block, 12..=16.
            unit_log2: u8,
            /// Plaintext length of the block; at most 128 MiB.
            block_bytes: u32,
            /// First byte wanted.
            offset: u32,
            /// How many; 1..=[`IO_BYTES_MAX`], all of them inside `block_bytes`.
            bytes: u32,
            /// Where they go in the arena.
            arena_offset: u64,
            /// A unit that was never written, and what a unit lacks before `block_bytes`, is zeros. Otherwise it is
            /// `NotFound`: a published block has no holes.
            sparse: bool,
        }
        /// Where units lie: the answer is a `Located` message in the arena (see [`crate::snapshot::Located`]).
        6 => Locate {
            /// Number of this request.
            request: u64,
            /// Group of the block.
            group: GroupId,
            /// Block.
            block: BlockId,
            /// First unit asked for.
            first_unit: u16,
            /// How many; 1..=[`LOCATE_UNITS_MAX`], more are answered `Invalid`.
            count: u16,
            /// Where the message goes in the arena.
            arena_offset: u64,
            /// Room for it; 1..=[`LOCATE_BYTES_MAX`].
            arena_bytes: u32,
        }
        /// No more writes to the block: it is forgotten, without a root. Writes in flight are still carried out.
        7 => ReleaseBlock {
            /// Number of this request.
            request: u64,
            /// Writer that sealed it.
            writer: u64,
            /// Block.
            block: BlockId,
            /// Generation of the writer session on this block.
            generation: Generation,
        }
        /// From the answer `Ok` on no lower generation writes the block, and what it wrote before is visible. `Fenced`:
        /// a higher one is in force. Asking again is safe.
        8 => Fence {
            /// Number of this request.
            request: u64,
            /// Group of the block.
            group: GroupId,
            /// Block.
            block: BlockId,
            /// Lowest generation that may still write; at least 1.
            generation: Generation,
        }
        /// The block ends at `from_bytes`: the unit that is cut is sealed anew, those behind it are gone. Waits for the
        /// writer's earlier writes to the block, and later ones wait for it. After `Unavailable` or `TimedOut` the block
        /// takes no write of this writer until a trim of it ended `Ok`.
        9 => Trim {
            /// Number of this request.
            request: u64,
            /// Writer that cuts.
            writer: u64,
            /// Group of the block.
            group: GroupId,
            /// Block.
            block: BlockId,
            /// Generation of the writer session on this block.
            generation: Generation,
            /// Unit size of the block, 12..=16.
            unit_log2: u8,
            /// Plaintext bytes that stay; at most 128 MiB.
            from_bytes: u32,
        }
        /// Version of a domain's key that new blocks are sealed with now: the answer has it as an `OpenedWriter` without
        /// a writer.
        30 => CurrentKey {
            /// Number of this request.
            request: u64,
            /// Key domain; 0: the first that this edge has.
            key_domain: u32,
        }
    }
}

impl ClientCommand {
    /// The number of the request.
    #[must_use]
    pub fn request(&self) -> u64 {
        match *self {
            Self::OpenWriter { request, .. }
            | Self::CurrentKey { request, .. }
            | Self::Write { request, .. }
            | Self::CloseBlock { request, .. }
            | Self::CloseWriter { request, .. }
            | Self::Read { request, .. }
            | Self::Locate { request, .. }
            | Self::ReleaseBlock { request, .. }
            | Self::Fence { request, .. }
            | Self::Trim { request, .. } => request,
        }
    }

    fn check(&self) -> Result<(), BadSlot> {
        match *self {
            Self::OpenWriter { .. }
            | Self::CurrentKey { .. }
            | Self::CloseWriter { .. }
            | Self::ReleaseBlock { .. } => Ok(()),
            Self::Write { unit_log2, offset, bytes, block_bytes, .. } => {
                check_unit(unit_log2)?;
                check_range((1..=IO_BYTES_MAX).contains(&bytes), "bytes")?;
                check_range(u64::from(block_bytes) <= BLOCK_BYTES_MAX, "block_bytes")?;
                check_range(u64::from(offset) + u64::from(bytes) <= BLOCK_BYTES_MAX, "offset")
            }
            Self::Fence { generation, .. } => check_range(generation > Generation(0), "generation"),
            Self::Trim { unit_log2, from_bytes, .. } => {
                check_unit(unit_log2)?;
                check_range(u64::from(from_bytes) <= BLOCK_BYTES_MAX, "from_bytes")
            }
            Self::CloseBlock { plain_bytes, .. } => {
                check_range(u64::from(plain_bytes) <= BLOCK_BYTES_MAX, "plain_bytes")
            }
            Self::Read { unit_log2, block_bytes, offset, bytes, .. } => {
                check_unit(unit_log2)?;
                check_range(u64::from(block_bytes) <= BLOCK_BYTES_MAX, "block_bytes")?;
                check_range((1..=IO_BYTES_MAX).contains(&bytes), "bytes")?;
                check_range(offset.checked_add(bytes).is_some_and(|end| end <= block_bytes), "offset")
            }
            Self::Locate { first_unit, count, arena_bytes, .. } => {
                check_range(
                    count >= 1 && first_unit.checked_add(count).is_some_and(|end| end <= 1 << 15),
                    "count",
                )?;
                check_range((1..=LOCATE_BYTES_MAX).contains(&arena_bytes), "arena_bytes")
            }
        }
    }
}

fn check_range(inside: bool, name: &'static str) -> Result<(), BadSlot> {
    if inside { Ok(()) } else { Err(BadSlot::Range(name)) }
}

fn check_unit(unit_log2: u8) -> Result<(), BadSlot> {
    check_range((UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&unit_log2), "unit_log2")
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// Done; a write is durable on every member.
    Ok = 0,
    /// No member has an intact version.
    Corrupt = 1,
    /// The group has no primary or no lease now: try again until your deadline.
    Unavailable = 2,
    /// A member has no room.
    Full = 3,
    /// Another writer took the block over, or the session ended.
    Fenced = 4,
    /// This host does not hold the key of the block's domain.
    NoKey = 5,
    /// The request makes no sense: unknown writer, group or range.
    Invalid = 6,
    /// The data plane is going down: attach again.
    Stopping = 7,
    /// Too much in flight: try again after the detail's `RetryAfter`.
    Busy = 8,
    /// Nothing was ever written there.
    NotFound = 9,
    /// It was not done in the time a request has; a write may or may not have happened.
    TimedOut = 10,
    /// The key domain of the block was dropped: its data are erased.
    KeyDropped = 11,
    /// As many of it are open as may be, for this program or for the host: close some, or attach again.
    TooMany = 12,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Corrupt,
        Self::Unavailable,
        Self::Full,
        Self::Fenced,
        Self::NoKey,
        Self::Invalid,
        Self::Stopping,
        Self::Busy,
        Self::NotFound,
        Self::TimedOut,
        Self::KeyDropped,
        Self::TooMany,
    ];

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Busy | Self::TimedOut)
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Corrupt => "no replica has an intact version",
            Self::Unavailable => "the replica group has no primary now",
            Self::Full => "a storage host is full",
            Self::Fenced => "another writer has taken over",
            Self::NoKey => "this host has no key for the data",
            Self::Invalid => "the request is not valid",
            Self::Stopping => "the data plane is stopping",
            Self::Busy => "too much is in flight",
            Self::NotFound => "nothing was written there",
            Self::TimedOut => "it was not done in time",
            Self::KeyDropped => "its key domain was dropped: the data are erased and cannot come back",
            Self::TooMany => "too many writers are open: close some, or attach again",
        })
    }
}

impl Field for Status {
    fn put(&self, out: &mut Put) {
        (*self as u16).put(out);
    }
    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let number = u16::take(from, name)?;
        Self::ALL.into_iter().find(|status| *status as u16 == number).ok_or(BadSlot::Range(name))
    }
}

/// The 64 bytes of an answer whose meaning depends on the request: see [`OpenedWriter`], [`ClosedBlock`],
/// [`RetryAfter`]; zeros when there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail(pub [u8; DETAIL_BYTES]);

impl Detail {
    /// Nothing to say.
    pub const NONE: Self = Self([0; DETAIL_BYTES]);
}

impl Field for Detail {
    fn put(&self, out: &mut Put) {
        out.bytes(&self.0);
    }
    fn take(from: &mut Take<'_>, _: &'static str) -> Result<Self, BadSlot> {
        Ok(Self(from.array()))
    }
}

/// Data plane to program: how a request ended. One answer for each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The program's number of the request.
    pub request: u64,
    /// How it ended.
    pub status: Status,
    /// Bytes that were put into the arena, or written.
    pub bytes: u32,
    /// Depends on the request.
    pub detail: Detail,
}

/// Kind of the one slot in this direction.
const ANSWER_KIND: u16 = 64;

impl Answer {
    /// An answer without detail.
    #[must_use]
    pub fn new(request: u64, status: Status) -> Self {
        Self { request, status, bytes: 0, detail: Detail::NONE }
    }

    /// Its slot.
    #[must_use]
    pub fn encode(&self) -> Slot {
        let mut out = Put::new(ANSWER_KIND);
        self.request.put(&mut out);
        self.status.put(&mut out);
        self.bytes.put(&mut out);
        self.detail.put(&mut out);
        out.done()
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// [`BadSlot`]: attach again.
    pub fn decode(slot: &Slot) -> Result<Self, BadSlot> {
        let (kind, mut from) = Take::new(slot);
        if kind != ANSWER_KIND {
            return Err(BadSlot::Kind(kind));
        }
        let found = Self {
            request: Field::take(&mut from, "request")?,
            status: Field::take(&mut from, "status")?,
            bytes: Field::take(&mut from, "bytes")?,
            detail: Field::take(&mut from, "detail")?,
        };
        from.done(kind)?;
        Ok(found)
    }
}

/// Detail of the answer to an open writer, and to a current key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedWriter {
    /// Its number at this edge; 0: none.
    pub writer: u64,
    /// Key domain it seals under.
    pub key_domain: u32,
    /// Version of that domain's key.
    pub key_version: u32,
}

impl OpenedWriter {
    /// As an answer carries it: writer, domain, version.
    #[must_use]
    pub fn encode(&self) -> Detail {
        let mut out = [0; DETAIL_BYTES];
        out[..8].copy_from_slice(&self.writer.to_le_bytes());
        out[8..12].copy_from_slice(&self.key_domain.to_le_bytes());
        out[12..16].copy_from_slice(&self.key_version.to_le_bytes());
        Detail(out)
    }

    /// From an answer with status Ok.
    #[must_use]
    pub fn decode(detail: &Detail) -> Self {
        let bytes = &detail.0;
        Self {
            writer: u64::from_le_bytes(chunk(bytes, 0)),
            key_domain: u32::from_le_bytes(chunk(bytes, 8)),
            key_version: u32::from_le_bytes(chunk(bytes, 12)),
        }
    }
}

/// Detail of the answer to a close block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedBlock {
    /// SHA-256 over the block's header and its segment digests.
    pub root: [u8; 32],
    /// Units it has.
    pub units: u32,
}

impl ClosedBlock {
    /// As an answer carries it: root, units.
    #[must_use]
    pub fn encode(&self) -> Detail {
        let mut out = [0; DETAIL_BYTES];
        out[..32].copy_from_slice(&self.root);
        out[32..36].copy_from_slice(&self.units.to_le_bytes());
        Detail(out)
    }

    /// From an answer with status Ok.
    #[must_use]
    pub fn decode(detail: &Detail) -> Self {
        Self { root: chunk(&detail.0, 0), units: u32::from_le_bytes(chunk(&detail.0, 32)) }
    }
}

/// Detail of an answer Busy or Unavailable; zero: the program chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Milliseconds to wait.
    pub retry_after_ms: u32,
}

impl RetryAfter {
    /// As an answer carries it.
    #[must_use]
    pub fn encode(&self) -> Detail {
        let mut out = [0; DETAIL_BYTES];
        out[..4].copy_from_slice(&self.retry_after_ms.to_le_bytes());
        Detail(out)
    }

    /// From an answer that says try again.
    #[must_use]
    pub fn decode(detail: &Detail) -> Self {
        Self { retry_after_ms: u32::from_le_bytes(chunk(&detail.0, 0)) }
    }
}

fn chunk<const N: usize>(bytes: &[u8; DETAIL_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("a fixed offset inside the detail")
}

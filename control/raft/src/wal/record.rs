//! Records and segment headers as they lie on disk. Pure.
//!
//! All numbers are little-endian. A segment begins with a header:
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `NOVARAFT` |
//! | 8 | 4 | CRC-32 (IEEE) over bytes 12..64 |
//! | 12 | 2 | format version: 2, or 1 from before there was a watermark |
//! | 14 | 2 | zero |
//! | 16 | 8 | segment number, from 1 |
//! | 24 | 8 | salt: random, in the sum of every record of the segment |
//! | 32 | 8 | salt of the segment before, 0 for the first |
//! | 40 | 8 | bytes of the segment before when it was sealed, 0 for the first |
//! | 48 | 8 | id of the member the log belongs to |
//! | 56 | 4 | CRC-32 of the name of the group it belongs to |
//! | 60 | 4 | zero |
//!
//! and goes on with records, each at a multiple of 8:
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32 (IEEE) over the salt and bytes 4 to the end of the payload |
//! | 4 | 4 | payload bytes, at most [`PAYLOAD_BYTES_MAX`] |
//! | 8 | 4 | number of the batch within the segment, from 1: records of one batch became durable together |
//! | 12 | 1 | kind |
//! | 13 | 1 | 1 on the last record of a batch, else 0 |
//! | 14 | 2 | zero |
//! | 16 | n | payload: a message of `control/api` (`proto/raft.proto`) by kind |
//! | | | zeros to the next multiple of 8 |

/// First bytes of every segment.
pub const MAGIC: [u8; 8] = *b"NOVARAFT";
/// Version of the format: a log with such a segment has a watermark.
pub const FORMAT_VERSION: u16 = 2;
/// The version before, still read.
pub const FORMAT_VERSION_UNMARKED: u16 = 1;
/// Bytes of a segment header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 16;
/// Largest payload: a proposal of this size is refused long before.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Records start at multiples of this.
pub const ALIGNMENT: usize = 8;

const _: () =
    assert!(RECORD_HEADER_BYTES.is_multiple_of(ALIGNMENT) && SEGMENT_HEADER_BYTES.is_multiple_of(ALIGNMENT));

/// What a record says. The number is its kind on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A log entry (`Entry`).
    Entry = 1,
    /// Whom the member follows or stands for (`Vote`).
    Vote = 2,
    /// Entries after this one are gone (`LogId`, or nothing: all are gone).
    Truncate = 3,
    /// Entries up to this one are in a snapshot (`LogId`).
    Purge = 4,
    /// Entries up to this one are committed (`LogId`).
    Committed = 5,
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Entry),
            2 => Some(Self::Vote),
            3 => Some(Self::Truncate),
            4 => Some(Self::Purge),
            5 => Some(Self::Committed),
            _ => None,
        }
    }
}

/// A segment header that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// [`FORMAT_VERSION`], or [`FORMAT_VERSION_UNMARKED`].
    pub version: u16,
    /// Counts the segments of a log, from 1.
    pub number: u64,
    /// In the sum of every record, so that bytes of another segment are never taken for one of this.
    pub salt: u64,
    /// Salt of the segment before; 0 for the first.
    pub previous_salt: u64,
    /// Length of the segment before; 0 for the first.
    pub previous_bytes: u64,
    /// Member the log belongs to.
    pub member: u64,
    /// Sum of the name of the group the log belongs to.
    pub group_sum: u32,
}

impl SegmentHeader {
    /// The header as it lies on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[12..14].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_salt.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.member.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.group_sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header from the start of `bytes`; `Err` says what is wrong with it.
    ///
    /// # Errors
    /// When it is too short, its sum is wrong, or it is of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] =
            bytes.first_chunk().ok_or("the segment header is cut short")?;
        if bytes[0..8] != MAGIC {
            return Err("the file is not a log segment");
        }
        if u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return Err("the segment header fails its sum");
        }
        let version = u16::from_le_bytes([bytes[12], bytes[13]]);
        if ![FORMAT_VERSION, FORMAT_VERSION_UNMARKED].contains(&version) {
            return Err("the segment has a format this version does not read");
        }
        Ok(Self {
            version,
            number: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            previous_salt: u64_at(bytes, 32),
            previous_bytes: u64_at(bytes, 40),
            member: u64_at(bytes, 48),
            group_sum: u32_at(bytes, 56),
        })
    }
}

/// A record that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// Its batch within the segment, from 1.
    pub batch: u32,
    /// Whether it is the last of its batch.
    pub last_of_batch: bool,
    /// A message by kind.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`; `None` when there is none.
    #[must_use]
    pub fn decode(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        // Cheap checks first: a search for later records tries this at every place of a torn tail.
        let kind = Kind::from_number(header[12])?;
        if header[13] > 1 || header[14..16] != [0; 2] {
            return None;
        }
        let count = usize::try_from(u32_at(header, 4)).ok().filter(|count| *count <= PAYLOAD_BYTES_MAX)?;
        let summed = bytes.get(4..RECORD_HEADER_BYTES + count)?;
        if sum(salt, summed) != u32_at(header, 0) {
            return None;
        }
        let padding = bytes.get(RECORD_HEADER_BYTES + count..record_bytes(count))?;
        if padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Self {
            kind,
            batch: u32_at(header, 8),
            last_of_batch: header[13] == 1,
            payload: &summed[RECORD_HEADER_BYTES - 4..],
        })
    }

    /// Bytes it takes on disk.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        record_bytes(self.payload.len())
    }
}

/// Bytes on disk of a record with this payload.
#[must_use]
pub const fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(ALIGNMENT)
}

/// Appends the record to `out`, which starts at a multiple of [`ALIGNMENT`].
///
/// # Panics
/// When the payload is over [`PAYLOAD_BYTES_MAX`]: the callers refuse such proposals.
pub fn encode(out: &mut Vec<u8>, salt: u64, record: &Record<'_>) {
    assert!(record.payload.len() <= PAYLOAD_BYTES_MAX, "log record over its bound");
    let count = u32::try_from(record.payload.len()).expect("the bound fits 32 bits");
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&record.batch.to_le_bytes());
    out.extend_from_slice(&[record.kind as u8, u8::from(record.last_of_batch), 0, 0]);
    out.extend_from_slice(record.payload);
    let sum = sum(salt, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    out.resize(start + record_bytes(record.payload.len()), 0);
}

fn sum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("callers pass whole headers"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("callers pass whole headers"))
}

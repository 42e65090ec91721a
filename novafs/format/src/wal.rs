//! The log: batches of records, each made durable by one flush.

use crate::cell::{Cell, CellClass, put_point, read_point};
use crate::cursor::{Put, Reader};
use crate::entry::LogEntry;
use crate::error::{FormatError, bad_field, expect_end};
use crate::record::GroupRecord;
use crate::unit::PAGE;
use nova_units::{CommitPoint, GroupId, Seq};

/// Most bytes of one batch, padding and the bodies behind it included.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Length of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 48;

const MAGIC: u32 = u32::from_le_bytes(*b"NWAL");
const KIND_APPEND: u8 = 1;
const KIND_COMMIT: u8 = 2;
const KIND_DISCARD: u8 = 3;
const KIND_GROUP: u8 = 4;
const KIND_DROP: u8 = 5;
const KIND_INSTALL: u8 = 6;
const KIND_REPAIR: u8 = 7;
const KIND_INLINE: u8 = 8;

/// One thing that became durable with a batch.
///
/// Every record begins with kind u8, three zero bytes and the group u32; then:
///
/// | kind | record | fields |
/// | --- | --- | --- |
/// | 1 | append | epoch u64, number u64, entry, one cell u64 for each unit |
/// | 2 | commit | number u64 |
/// | 3 | discard | number u64 |
/// | 4 | group | epoch u64, promised u64, commit u64, role u32 |
/// | 5 | drop | - |
/// | 6 | install | as append |
/// | 7 | repair | as append |
/// | 8 | inline | as append |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalRecord {
    /// An entry of a group's log is prepared.
    Append {
        /// The group.
        group: GroupId,
        /// Its place in the log.
        at: CommitPoint,
        /// The entry.
        entry: LogEntry,
        /// Where the stored bytes of each of its units lie.
        cells: Vec<Cell>,
    },
    /// An entry of a group's log is prepared, and its bodies lie behind the records of the batch. Its cells are
    /// theirs, but they are written later.
    Inline {
        /// The group.
        group: GroupId,
        /// Its place in the log.
        at: CommitPoint,
        /// The entry: units.
        entry: LogEntry,
        /// Where the stored bytes of each of its units will lie.
        cells: Vec<Cell>,
    },
    /// Everything of the group up to `seq` is committed.
    Commit {
        /// The group.
        group: GroupId,
        /// Last committed number.
        seq: Seq,
    },
    /// Prepared entries above `above` are void.
    Discard {
        /// The group.
        group: GroupId,
        /// Last number that stays.
        above: Seq,
    },
    /// The group's record changed.
    Group {
        /// The group.
        group: GroupId,
        /// Its new record.
        record: GroupRecord,
    },
    /// The group is gone from this device with all it had.
    Drop {
        /// The group.
        group: GroupId,
    },
    /// A committed fact that did not come in order: back-fill. It never goes over something newer.
    Install {
        /// The group.
        group: GroupId,
        /// The place in the log it was committed at.
        at: CommitPoint,
        /// The fact.
        entry: LogEntry,
        /// Where the stored bytes of each of its units lie.
        cells: Vec<Cell>,
    },
    /// Units in other cells, for the bytes in theirs were bad. It only goes over the same versions: a unit that was
    /// replaced or cut off meanwhile stays so.
    Repair {
        /// The group.
        group: GroupId,
        /// The place in the log they were committed at.
        at: CommitPoint,
        /// The units.
        entry: LogEntry,
        /// Where the stored bytes of each of them lie now.
        cells: Vec<Cell>,
    },
}

impl WalRecord {
    const HEAD_BYTES: usize = 8;

    /// Length of the encoded form.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        Self::HEAD_BYTES
            + match self {
                Self::Append { entry, cells, .. }
                | Self::Inline { entry, cells, .. }
                | Self::Install { entry, cells, .. }
                | Self::Repair { entry, cells, .. } => 16 + entry.encoded_bytes() + 8 * cells.len(),
                Self::Commit { .. } | Self::Discard { .. } => 8,
                Self::Group { .. } => GroupRecord::ENCODED_BYTES,
                Self::Drop { .. } => 0,
            }
    }

    /// Length of the bodies that lie behind the records of its batch, padding included; 0 for most kinds.
    #[must_use]
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline { entry, .. } => entry.body_bytes(),
            _ => 0,
        }
    }

    /// Appends the encoded form to `out`.
    ///
    /// # Panics
    /// When an entry has not one cell for each unit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, group) = match self {
            Self::Append { group, .. } => (KIND_APPEND, group),
            Self::Inline { group, .. } => (KIND_INLINE, group),
            Self::Commit { group, .. } => (KIND_COMMIT, group),
            Self::Discard { group, .. } => (KIND_DISCARD, group),
            Self::Group { group, .. } => (KIND_GROUP, group),
            Self::Drop { group } => (KIND_DROP, group),
            Self::Install { group, .. } => (KIND_INSTALL, group),
            Self::Repair { group, .. } => (KIND_REPAIR, group),
        };
        out.put_u32(kind.into());
        out.put_u32(group.0);
        match self {
            Self::Append { at, entry, cells, .. }
            | Self::Inline { at, entry, cells, .. }
            | Self::Install { at, entry, cells, .. }
            | Self::Repair { at, entry, cells, .. } => {
                assert_eq!(entry.units().len(), cells.len(), "one cell for each unit");
                put_point(*at, out);
                entry.encode(out);
                for cell in cells {
                    cell.put(out);
                }
            }
            Self::Commit { seq, .. } => out.put_u64(seq.0),
            Self::Discard { above, .. } => out.put_u64(above.0),
            Self::Group { record, .. } => record.put(out),
            Self::Drop { .. } => {}
        }
    }

    /// Takes a record, and nothing else, from untrusted bytes.
    ///
    /// # Errors
    /// Any [`FormatError`] about lengths and fields; only the canonical form is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader)?;
        expect_end(reader.rest())?;
        Ok(record)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let kind = reader.u32()?;
        let group = GroupId(reader.u32()?);
        let kind = u8::try_from(kind).map_err(|_| bad_field("record kind", kind))?;
        Ok(match kind {
            KIND_APPEND => {
                let (at, entry, cells) = read_placed(reader)?;
                Self::Append { group, at, entry, cells }
            }
            KIND_INLINE => {
                let (at, entry, cells) = read_placed(reader)?;
                if cells.is_empty() {
                    return Err(bad_field("inline units", 0_u8));
                }
                Self::Inline { group, at, entry, cells }
            }
            KIND_COMMIT => Self::Commit { group, seq: Seq(reader.u64()?) },
            KIND_DISCARD => Self::Discard { group, above: Seq(reader.u64()?) },
            KIND_GROUP => Self::Group { group, record: GroupRecord::read(reader)? },
            KIND_DROP => Self::Drop { group },
            KIND_INSTALL => {
                let (at, entry, cells) = read_placed(reader)?;
                Self::Install { group, at, entry, cells }
            }
            KIND_REPAIR => {
                let (at, entry, cells) = read_placed(reader)?;
                Self::Repair { group, at, entry, cells }
            }
            other => return Err(bad_field("record kind", other)),
        })
    }
}

fn read_placed(reader: &mut Reader<'_>) -> Result<(CommitPoint, LogEntry, Vec<Cell>), FormatError> {
    let at = read_point(reader)?;
    let (entry, rest) = LogEntry::decode_first(reader.rest())?;
    *reader = Reader::new(rest);
    let cells = entry
        .units()
        .iter()
        .map(|unit| {
            let cell = Cell::read(reader)?;
            if cell.class == CellClass::for_pages(unit.stored_pages()) {
                Ok(cell)
            } else {
                Err(bad_field("cell class", cell.class as u8))
            }
        })
        .collect::<Result<_, _>>()?;
    Ok((at, entry, cells))
}

/// Where a batch belongs: a batch read from elsewhere, or left by an earlier life of the device, does not decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchPlace {
    /// Salt of the device's superblock.
    pub salt: u64,
    /// Number of the batch; batches count up by one.
    pub number: u64,
    /// Position on the device.
    pub position: u64,
}

/// What the header alone says about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Where it says it belongs.
    pub place: BatchPlace,
    /// Length of header and records with padding: what [`decode_batch`] takes.
    pub bytes: usize,
    /// Length of the bodies behind them.
    pub body_bytes: usize,
}

/// Gathers the records of one batch.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 4 | CRC-32 of all that follows up to the end of the records' last page |
/// | 4 | 4 | `"NWAL"` |
/// | 8 | 8 | salt of the superblock |
/// | 16 | 8 | number |
/// | 24 | 8 | position |
/// | 32 | 4 | length of header and records in pages |
/// | 36 | 4 | bytes of records |
/// | 40 | 4 | records |
/// | 44 | 4 | length of the bodies behind them in pages |
/// | 48 |  | the records, then zeros to the end of the page |
/// |  |  | the bodies of the inline records, in their order |
///
/// Bodies are not under the checksum of the batch: each page has its own in its unit. One that rots costs that unit and
/// not the batch.
#[derive(Debug)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    records: u32,
    body_bytes: usize,
}

impl Default for BatchWriter {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH_HEADER_BYTES], records: 0, body_bytes: 0 }
    }
}

impl BatchWriter {
    /// Whether this record, with the bodies it brings, still fits.
    #[must_use]
    pub fn has_room_for(&self, record: &WalRecord) -> bool {
        self.padded_bytes_with(record) <= BATCH_BYTES_MAX
    }

    /// Adds a record.
    ///
    /// # Panics
    /// When it does not fit ([`BatchWriter::has_room_for`]).
    pub fn push(&mut self, record: &WalRecord) {
        assert!(self.has_room_for(record), "the batch is full");
        record.encode(&mut self.bytes);
        self.records += 1;
        self.body_bytes += record.inline_bytes();
    }

    /// How many records it has.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Its length on the device, bodies included: whole pages.
    #[must_use]
    pub const fn padded_bytes(&self) -> usize {
        self.bytes.len().next_multiple_of(PAGE) + self.body_bytes
    }

    /// Its length on the device if this record were added.
    #[must_use]
    pub fn padded_bytes_with(&self, record: &WalRecord) -> usize {
        (self.bytes.len() + record.encoded_bytes()).next_multiple_of(PAGE)
            + self.body_bytes
            + record.inline_bytes()
    }

    /// Header, padding and checksum go in: the bytes to write at the batch's position. The bodies of its inline
    /// records, in their order, are to be written behind them.
    #[must_use]
    pub fn finish(mut self, place: BatchPlace) -> Vec<u8> {
        let record_bytes =
            u32::try_from(self.bytes.len() - BATCH_HEADER_BYTES).expect("a batch is at most 256 KiB");
        let padded = self.bytes.len().next_multiple_of(PAGE);
        let pages = |bytes: usize| u32::try_from(bytes / PAGE).expect("a batch is at most 64 pages");
        self.bytes.resize(padded, 0);
        let mut header = Vec::with_capacity(BATCH_HEADER_BYTES);
        header.put_u32(0);
        header.put_u32(MAGIC);
        header.put_u64(place.salt);
        header.put_u64(place.number);
        header.put_u64(place.position);
        header.put_u32(pages(padded));
        header.put_u32(record_bytes);
        header.put_u32(self.records);
        header.put_u32(pages(self.body_bytes));
        self.bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        let crc = crc32fast::hash(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// Reads the header of what may be a batch, without its checksum, to learn how many bytes to read.
///
/// # Errors
/// [`FormatError::Magic`] when there is none, or a length that cannot be.
pub fn decode_batch_header(page: &[u8]) -> Result<BatchHeader, FormatError> {
    let mut reader = Reader::new(page);
    reader.u32()?;
    if reader.u32()? != MAGIC {
        return Err(FormatError::Magic { what: "log batch" });
    }
    let place = BatchPlace { salt: reader.u64()?, number: reader.u64()?, position: reader.u64()? };
    let pages = reader.u32()?;
    let (_record_bytes, _records) = (reader.u32()?, reader.u32()?);
    let body_pages = reader.u32()?;
    let length = |pages: u32| usize::try_from(pages).ok().and_then(|pages| pages.checked_mul(PAGE));
    match (length(pages), length(body_pages)) {
        (Some(bytes @ 1..), Some(body_bytes)) if bytes.saturating_add(body_bytes) <= BATCH_BYTES_MAX => {
            Ok(BatchHeader { place, bytes, body_bytes })
        }
        _ => Err(bad_field("batch pages", pages)),
    }
}

/// Takes header and records of a batch, exactly as long as its header says, from untrusted bytes. The bodies behind them
/// are each to be checked by its unit.
///
/// # Errors
/// [`FormatError::Checksum`] when it was torn or has rotted, [`FormatError::Misplaced`] when it is not the batch of
/// `place`, or a record that cannot be.
pub fn decode_batch(bytes: &[u8], place: BatchPlace) -> Result<Vec<WalRecord>, FormatError> {
    let header = decode_batch_header(bytes)?;
    if header.bytes != bytes.len() {
        return Err(bad_field("batch pages", (header.bytes / PAGE) as u64));
    }
    if crc32fast::hash(&bytes[4..]).to_le_bytes() != bytes[..4] {
        return Err(FormatError::Checksum { what: "log batch" });
    }
    if header.place != place {
        return Err(FormatError::Misplaced { what: "log batch" });
    }
    let mut reader = Reader::new(&bytes[36..BATCH_HEADER_BYTES]);
    let record_bytes = reader.u32()?;
    let count = reader.u32()?;
    let end = usize::try_from(record_bytes).ok().and_then(|len| len.checked_add(BATCH_HEADER_BYTES));
    let end = end.filter(|end| end.next_multiple_of(PAGE) == bytes.len());
    let end = end.ok_or_else(|| bad_field("batch record bytes", record_bytes))?;
    let mut reader = Reader::new(&bytes[BATCH_HEADER_BYTES..end]);
    let mut records = Vec::new();
    while !reader.rest().is_empty() {
        records.push(WalRecord::read(&mut reader)?);
    }
    if u32::try_from(records.len()) != Ok(count) {
        return Err(bad_field("batch records", count));
    }
    let body_bytes: usize = records.iter().map(WalRecord::inline_bytes).sum();
    if body_bytes != header.body_bytes {
        return Err(bad_field("batch body pages", (header.body_bytes / PAGE) as u64));
    }
    match bytes[end..].iter().find(|byte| **byte != 0) {
        Some(byte) => Err(bad_field("batch padding", *byte)),
        None => Ok(records),
    }
}

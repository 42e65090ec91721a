//! Reads a log back from its segments.
//!
//! A batch is written, made durable, noted in the watermark, and only then followed by the next. So a record that does
//! not read is one of two things. When it lies behind the watermark and nothing of a later batch follows, it is the
//! **torn tail** of a batch nobody was told of, and is cut. Else the batch had been durable and has **rotted**: entries
//! that a quorum may count on are gone, and the log is refused, unchanged.
//!
//! What remains is a last batch that was durable, rots before the watermark that covers it is durable too, and is read
//! after a power cut within that second: it passes for a torn tail.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nova_api::raft as pb;
use prost::Message as _;

use super::record::{ALIGNMENT, FORMAT_VERSION_UNMARKED, Kind, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::watermark::{self, Mark};
use crate::RaftError;
use crate::convert;
use crate::types::{Entry, LogId, Vote};

/// A segment that is complete, oldest first in [`Recovered::segments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its number.
    pub(crate) number: u64,
    /// Its salt.
    pub(crate) salt: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// Highest index among its entries; the segment may go once that one is purged.
    pub(crate) last_index: Option<u64>,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LogContent {
    /// Entries after `purged`, without a hole.
    pub(crate) entries: VecDeque<Entry>,
    /// Whom the member follows or stands for.
    pub(crate) vote: Option<Vote>,
    /// Entries up to here are in a snapshot.
    pub(crate) purged: Option<LogId>,
    /// Entries up to here were known to be committed.
    pub(crate) committed: Option<LogId>,
}

impl LogContent {
    /// Takes away the entries after `last`.
    pub(crate) fn truncate_after(&mut self, last: Option<u64>) {
        let keep = |entry: &Entry| last.is_some_and(|last| entry.log_id.index <= last);
        while self.entries.back().is_some_and(|entry| !keep(entry)) {
            self.entries.pop_back();
        }
    }

    /// Takes away the entries up to `id`.
    pub(crate) fn purge(&mut self, id: LogId) {
        if self.purged.is_none_or(|purged| purged.index < id.index) {
            self.purged = Some(id);
        }
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= id.index) {
            self.entries.pop_front();
        }
    }
}

/// A log read back.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// What it holds.
    pub(crate) content: LogContent,
    /// Its segments, oldest first, all complete.
    pub(crate) segments: Vec<Segment>,
    /// Bytes of a torn tail that were cut, for the operator's log.
    pub(crate) cut_bytes: u64,
    /// How far the watermark says that it had been durable; none when there is no watermark yet.
    pub(crate) mark: Option<Mark>,
}

/// Whose log this must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) member: u64,
    pub(crate) group_sum: u32,
}

/// Reads the log in `folder`, cutting a torn tail from the newest segment.
pub(crate) fn recover(folder: &Path, owner: Owner) -> Result<Recovered, RaftError> {
    let mark = watermark::read(folder)?;
    let mut recovered = Recovered { mark, ..Recovered::default() };
    let mark_rotten = |reason: String| RaftError::Rot { path: watermark::path_in(folder), at: 0, reason };
    let paths =
        list(folder).map_err(|source| RaftError::Io { what: "list", path: folder.to_owned(), source })?;
    let count = paths.len();
    let newest_number = paths.last().map_or(0, |(number, _)| *number);
    if let Some(mark) = mark.filter(|mark| mark.segment > newest_number) {
        return Err(mark_rotten(format!(
            "the log had reached segment {}, and segment {newest_number} is the last that is there",
            mark.segment
        )));
    }
    let mut before: Option<Segment> = None;
    for (place, (number, path)) in paths.into_iter().enumerate() {
        let newest = place + 1 == count;
        let bytes =
            fs::read(&path).map_err(|source| RaftError::Io { what: "read", path: path.clone(), source })?;
        let rotten = |reason: &str, at: usize| RaftError::Rot {
            path: path.clone(),
            at: u64::try_from(at).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
        };
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            // A crash while the file was being made: no record of it can have been durable.
            Err(_) if newest && is_unborn(&bytes) && mark.is_none_or(|mark| mark.segment < number) => {
                remove(folder, &path)?;
                recovered.cut_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                break;
            }
            Err(reason) => return Err(rotten(reason, 0)),
        };
        if (header.member, header.group_sum) != (owner.member, owner.group_sum) {
            return Err(RaftError::ForeignLog { path, member: header.member });
        }
        if header.number != number {
            return Err(rotten("the segment is not the one its name says", 0));
        }
        if let Some(before) = &before {
            let expected = (before.number + 1, before.salt, before.bytes);
            if (header.number, header.previous_salt, header.previous_bytes) != expected {
                return Err(rotten("the segment does not follow the one before it", 0));
            }
        }
        let (mut segment, end) = replay(&bytes, header, &path, &mut recovered.content)?;
        segment.bytes = u64::try_from(end).expect("a length fits 64 bits");
        // Before anything is cut: what is refused stays as it was found.
        match mark {
            Some(mark) if mark.segment == number && mark.salt != header.salt => {
                return Err(rotten("the watermark speaks of another segment of this number", 0));
            }
            Some(mark) if mark.segment == number && mark.bytes > segment.bytes => {
                let reason =
                    format!("a record fails its sum that had been durable, as all were up to {}", mark.bytes);
                return Err(rotten(&reason, end));
            }
            None if newest && header.version != FORMAT_VERSION_UNMARKED => {
                return Err(mark_rotten("the watermark of the log is gone".to_owned()));
            }
            _ => {}
        }
        if end < bytes.len() {
            if !newest {
                return Err(rotten("a record fails its sum and newer segments follow", end));
            }
            cut(&path, end)?;
            let zeros = bytes[end..].iter().all(|byte| *byte == 0);
            recovered.cut_bytes +=
                if zeros { 0 } else { u64::try_from(bytes.len() - end).unwrap_or(u64::MAX) };
        }
        before = Some(segment.clone());
        recovered.segments.push(segment);
    }
    let content = &recovered.content;
    let first = content.purged.map_or(0, |purged| purged.index + 1);
    if let (Some(entry), Some(segment)) = (content.entries.front(), recovered.segments.first())
        && entry.log_id.index != first
    {
        let reason =
            format!("the log begins at entry {} but {first} is the first it needs", entry.log_id.index);
        return Err(RaftError::Rot { path: segment.path.clone(), at: 0, reason });
    }
    Ok(recovered)
}

/// Applies the records of one segment; gives the segment and the place where its records end.
fn replay(
    bytes: &[u8],
    header: SegmentHeader,
    path: &Path,
    content: &mut LogContent,
) -> Result<(Segment, usize), RaftError> {
    let rotten = |reason: String, at: usize| RaftError::Rot {
        path: path.to_owned(),
        at: u64::try_from(at).unwrap_or(u64::MAX),
        reason,
    };
    let mut segment = Segment {
        path: path.to_owned(),
        number: header.number,
        salt: header.salt,
        bytes: 0,
        last_index: None,
    };
    let mut at = SEGMENT_HEADER_BYTES;
    // Batch that a record at `at` belongs to.
    let mut batch = 1_u32;
    while let Some(record) = bytes.get(at..).and_then(|rest| Record::decode(rest, header.salt)) {
        if record.batch != batch {
            return Err(rotten(
                format!("a record of batch {} stands where batch {batch} goes on", record.batch),
                at,
            ));
        }
        apply(&record, content, &mut segment).map_err(|reason| rotten(reason, at))?;
        at += record.bytes();
        batch += u32::from(record.last_of_batch);
    }
    if let Some(later) = find_later(bytes, at, header.salt, batch) {
        return Err(rotten(format!("a record fails its sum, and a durable one follows at {later}"), at));
    }
    Ok((segment, at))
}

/// Where, after a record at `from` that does not read, a record of a batch later than `batch` stands.
fn find_later(bytes: &[u8], from: usize, salt: u64, batch: u32) -> Option<usize> {
    let mut at = from + ALIGNMENT;
    while at < bytes.len() {
        match Record::decode(&bytes[at..], salt) {
            Some(record) if record.batch > batch => return Some(at),
            _ => at += ALIGNMENT,
        }
    }
    None
}

fn apply(record: &Record<'_>, content: &mut LogContent, segment: &mut Segment) -> Result<(), String> {
    let log_id = || -> Result<LogId, String> {
        pb::LogId::decode(record.payload).map(convert::log_id_from).map_err(|e| e.to_string())
    };
    match record.kind {
        Kind::Entry => {
            let entry = pb::Entry::decode(record.payload).map_err(|e| e.to_string())?;
            let entry = convert::entry_from(entry)?;
            let index = entry.log_id.index;
            segment.last_index = segment.last_index.max(Some(index));
            // Older segments are removed once their entries are purged, and the mark of that purge may stand further
            // on: an empty log takes any entry that is not purged. Whether one is missing shows at the end.
            match content.entries.back() {
                Some(last) if index != last.log_id.index + 1 => {
                    return Err(format!("entry {index} follows entry {}", last.log_id.index));
                }
                None if content.purged.is_some_and(|purged| index <= purged.index) => {}
                _ => content.entries.push_back(entry),
            }
        }
        Kind::Vote => {
            let vote = pb::Vote::decode(record.payload).map_err(|e| e.to_string())?;
            content.vote = Some(convert::vote_from(vote));
        }
        Kind::Truncate => {
            let truncation = pb::Truncation::decode(record.payload).map_err(|e| e.to_string())?;
            content.truncate_after(truncation.last.map(|id| id.index));
        }
        Kind::Purge => content.purge(log_id()?),
        Kind::Committed => content.committed = Some(log_id()?),
    }
    Ok(())
}

/// Whether a file whose header does not read never got one: nothing but zeros follows where records would stand.
fn is_unborn(bytes: &[u8]) -> bool {
    bytes.iter().skip(SEGMENT_HEADER_BYTES).all(|byte| *byte == 0)
}

/// The segments of `folder` by number.
fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".wal"))
            .and_then(|name| u64::from_str_radix(name, 16).ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Where segment `number` of a log in `folder` lies.
pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.wal"))
}

fn cut(path: &Path, end: usize) -> Result<(), RaftError> {
    let length = u64::try_from(end).expect("a length fits 64 bits");
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(length).and_then(|()| file.sync_all()))
        .map_err(|source| RaftError::Io { what: "cut the torn tail of", path: path.to_owned(), source })
}

fn remove(folder: &Path, path: &Path) -> Result<(), RaftError> {
    fs::remove_file(path).and_then(|()| File::open(folder)?.sync_all()).map_err(|source| RaftError::Io {
        what: "remove",
        path: path.to_owned(),
        source,
    })
}

//! Bytes out: ranges of a file, whole files, whole trees.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Seek as _, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use nova_api::files::{Block, Resolved};
use nova_ring::abi::{Answer, ClientCommand, Status};
use nova_units::{BLOCK_BYTES_MAX, BlockId, GroupId};

use crate::at::At;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::content::is_zeros;
use crate::data::{Attachment, CHUNK_BYTES};
use crate::error::ClientError;
use crate::local;
use crate::progress::Progress;
use crate::space::Piece;

/// Where the bytes of a file go, in order.
pub(crate) trait Sink {
    /// These come next.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// So many zeros come next.
    fn hole(&mut self, bytes: u64) -> io::Result<()>;
}

/// Takes holes as the zeros that they are.
pub(crate) struct Plain<'w>(pub(crate) &'w mut dyn Write);

impl Sink for Plain<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut self.0).map(drop)
    }
}

/// A new local file: a hole stays one.
struct Sparse<'f>(&'f File);

impl Sink for Sparse<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        let forward = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.0.seek_relative(forward)
    }
}

/// Reads of one file in flight: 8 MiB.
const IN_FLIGHT_MAX: usize = 8;

/// How to get.
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// Files in flight; each has a thread.
    pub files_in_flight: usize,
    /// How long one step may take before the file fails.
    pub deadline: Duration,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self { files_in_flight: 16, deadline: Duration::from_secs(60) }
    }
}

/// What a get did.
#[derive(Debug, Default)]
pub struct GetReport {
    /// Files whole on the local disk.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that failed.
    pub failed: u64,
    /// The first hundred of them, by path in NovaFS.
    pub failures: Vec<(String, ClientError)>,
    /// Symbolic links made, and further names of files.
    pub links: u64,
    /// Files without their extended attributes: the local file system keeps none.
    pub xattrs_lost: u64,
    /// Files without the bits that run them as their owner or group: the local owner or group is another one.
    pub set_id_left: u64,
}

/// What became of one file.
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    bytes: u64,
    xattrs_lost: bool,
    set_id_left: bool,
}

impl GetReport {
    fn count(&mut self, Fetched { bytes, xattrs_lost, set_id_left }: Fetched) {
        self.files += 1;
        self.bytes += bytes;
        self.xattrs_lost += u64::from(xattrs_lost);
        self.set_id_left += u64::from(set_id_left);
    }

    fn fail(&mut self, path: String, error: ClientError) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push((path, error));
        }
    }

    /// Adds what another get did.
    pub fn add(&mut self, other: Self) {
        let Self { files, bytes, failed, failures, links, xattrs_lost, set_id_left } = other;
        self.files += files;
        self.bytes += bytes;
        self.failed += failed;
        self.failures.extend(failures);
        self.links += links;
        self.xattrs_lost += xattrs_lost;
        self.set_id_left += set_id_left;
    }
}

const FAILURES_MAX: usize = 100;
/// Names found and not yet fetched.
const FOUND_MAX: usize = 4096;

/// One piece of a block to read.
#[derive(Clone, Copy)]
struct Wanted<'b> {
    block: &'b Block,
    offset: u32,
    bytes: u32,
}

/// A file cut into reads, in order; a gap between blocks is zeros.
fn cut(blocks: &[Block], range: Range<u64>) -> Result<Vec<Result<Wanted<'_>, u64>>, ClientError> {
    let mut wanted = Vec::new();
    let mut at = range.start;
    for block in blocks {
        let begin = block.offset.max(at);
        let end = block.offset.saturating_add(block.bytes).min(range.end);
        if block.bytes > BLOCK_BYTES_MAX {
            return Err(ClientError::Protocol("the file's metadata has a block that cannot be"));
        }
        if begin >= end {
            continue;
        }
        if begin > at {
            wanted.push(Err(begin - at));
        }
        at = begin;
        while at < end {
            // Transfers end at multiples of their size in the block, so that no unit is opened twice.
            let offset = at - block.offset;
            let bytes = (CHUNK_BYTES - offset % CHUNK_BYTES).min(end - at);
            let narrow = |value: u64| u32::try_from(value).expect("within a block of 128 MiB");
            wanted.push(Ok(Wanted { block, offset: narrow(offset), bytes: narrow(bytes) }));
            at += bytes;
        }
    }
    if at < range.end {
        wanted.push(Err(range.end - at));
    }
    Ok(wanted)
}

/// A read under way.
struct Flight<'a, 'b> {
    wanted: Wanted<'b>,
    piece: Piece<'a>,
    inbox: mpsc::Sender<(u64, Option<Answer>)>,
    answers: mpsc::Receiver<(u64, Option<Answer>)>,
    sent: Instant,
}

fn send_read(link: &Attachment, flight: &Flight<'_, '_>) -> Result<(), ClientError> {
    let Wanted { block, offset, bytes } = flight.wanted;
    let unit_log2 =
        u8::try_from(block.unit_log2).map_err(|_| ClientError::Protocol("a block's unit size"))?;
    let block_bytes = u32::try_from(block.bytes).expect("checked when it was cut");
    link.submit(&flight.inbox, |request| ClientCommand::Read {
        request,
        group: GroupId(block.group),
        block: BlockId(block.block),
        key_domain: block.key_domain,
        key_version: block.key_version,
        unit_log2,
        block_bytes,
        sparse: block.sparse,
        offset,
        bytes,
        arena_offset: flight.piece.offset,
    })?;
    Ok(())
}

impl Client {
    /// Bytes of a file, in order, to `sink`; the range is cut at the file's end. Answers how many came.
    ///
    /// # Errors
    /// Of the file, its blocks, or `sink`.
    pub fn read(
        &self,
        path: &str,
        range: Range<u64>,
        sink: &mut dyn Write,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let resolved = self.resolve(path)?;
        self.read_resolved(&resolved, range, sink, path.as_ref(), progress)
    }

    /// As [`Client::read`], of a file that was resolved before; `name` is for errors of `sink`.
    ///
    /// # Errors
    /// Of its blocks or `sink`.
    pub fn read_resolved(
        &self,
        resolved: &Resolved,
        range: Range<u64>,
        sink: &mut dyn Write,
        name: &Path,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let bytes = resolved.entry.as_ref().map_or(0, |entry| entry.bytes);
        let range = range.start.min(bytes)..range.end.min(bytes);
        self.read_blocks(&resolved.blocks, range, &mut Plain(sink), name, progress)
    }

    /// Bytes of a range of a file with these blocks, in order; what no block holds is zeros.
    pub(crate) fn read_blocks(
        &self,
        blocks: &[Block],
        range: Range<u64>,
        sink: &mut dyn Sink,
        name: &Path,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let wanted = cut(blocks, range)?;
        let mut done = 0;
        let mut delivered = 0;
        let mut backoff = Backoff::new(self.deadline);
        while delivered < wanted.len() {
            let link = self.data.attachment()?;
            match read_in_order(
                &link,
                &wanted,
                &mut delivered,
                &mut done,
                sink,
                name,
                self.deadline,
                progress,
            ) {
                Err(ClientError::Lost) => backoff.pause("read from the data plane", "it went away")?,
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(done)
    }

    /// Fetches a file, a symbolic link, or a directory with everything below it, to `target`. Each file appears whole or
    /// not at all, with its mode, time and extended attributes (`user.`); files with several names below the directory
    /// have them here too. Holes stay holes.
    ///
    /// # Errors
    /// When `path` itself cannot be read; files below it that fail are in the report.
    pub fn get(
        &self,
        path: &str,
        target: &Path,
        options: &GetOptions,
        progress: &Progress,
    ) -> Result<GetReport, ClientError> {
        let entry = self.stat(path)?;
        match entry.kind() {
            crate::EntryKind::Directory => {}
            crate::EntryKind::Symlink => {
                make_link(&entry.link_target, target)?;
                return Ok(GetReport { links: 1, ..GetReport::default() });
            }
            crate::EntryKind::File | crate::EntryKind::Unspecified => {
                let mut report = GetReport::default();
                report.count(self.get_file(path, target, None, progress)?);
                return Ok(report);
            }
        }
        fs::create_dir_all(target).map_err(ClientError::local("make", target))?;
        let queue = Queue::default();
        let report = Mutex::new(GetReport::default());
        // By inode, where a file with several names goes under its first; and its others.
        let (mut first_names, mut more_names) = (HashMap::new(), Vec::new());
        let mut links = 0;
        let outcome = std::thread::scope(|scope| {
            for _ in 0..options.files_in_flight.clamp(1, 256) {
                scope.spawn(|| {
                    while let Some((path, target, known)) = queue.pop() {
                        let outcome = self.get_file(&path, &target, known, progress);
                        let mut report = report.lock().expect("no holder of this lock panics");
                        match outcome {
                            Ok(fetched) => report.count(fetched),
                            Err(error) => {
                                progress.file_failed();
                                report.fail(path, error);
                            }
                        }
                    }
                });
            }
            let walked = self.walk_mapped(path, &mut |below, entry, blocks| {
                let place = target.join(below);
                match entry.kind() {
                    crate::EntryKind::Directory => {
                        fs::create_dir_all(&place).map_err(ClientError::local("make", &place))?;
                    }
                    crate::EntryKind::Symlink => {
                        make_link(&entry.link_target, &place)?;
                        links += 1;
                    }
                    crate::EntryKind::File | crate::EntryKind::Unspecified => {
                        if entry.links > 1 {
                            if let Some(first) = first_names.get(&entry.inode) {
                                more_names.push((join(path, below), PathBuf::clone(first), place));
                                return Ok(());
                            }
                            first_names.insert(entry.inode, place.clone());
                        }
                        let known = blocks.map(|blocks| Resolved { entry: Some(entry), blocks });
                        queue.push((join(path, below), place, known));
                    }
                }
                Ok(())
            });
            queue.close();
            walked
        });
        outcome?;
        let mut report = report.into_inner().expect("no holder of this lock panics");
        report.links = links;
        for (path, first, place) in more_names {
            match name_again(&first, &place) {
                Ok(()) => report.links += 1,
                Err(error) => report.fail(path, error),
            }
        }
        Ok(report)
    }

    /// `known`: what the walk found, which saves asking again unless the file has changed since.
    fn get_file(
        &self,
        path: &str,
        target: &Path,
        known: Option<Resolved>,
        progress: &Progress,
    ) -> Result<Fetched, ClientError> {
        let temporary = temporary_beside(target)?;
        let fetched = match known {
            Some(resolved) => match self.fetch(&resolved, &temporary, target, progress) {
                Err(ClientError::Data { .. }) => {
                    self.fetch(&self.resolve(path)?, &temporary, target, progress)
                }
                other => other,
            },
            None => self.fetch(&self.resolve(path)?, &temporary, target, progress),
        };
        match &fetched {
            Ok(_) => progress.file_done(),
            // What is left of the attempt is no use to anyone; that it cannot be removed changes nothing.
            Err(_) => drop(fs::remove_file(&temporary)),
        }
        fetched
    }

    fn fetch(
        &self,
        resolved: &Resolved,
        temporary: &Path,
        target: &Path,
        progress: &Progress,
    ) -> Result<Fetched, ClientError> {
        let file = File::create(temporary).map_err(ClientError::local("make", temporary))?;
        let entry = resolved.entry.as_ref().ok_or(ClientError::Protocol("a file without an entry"))?;
        let mut sink = Sparse(&file);
        let bytes = self.read_blocks(&resolved.blocks, 0..entry.bytes, &mut sink, temporary, progress)?;
        // A hole at the end has no byte that was written.
        file.set_len(entry.bytes).map_err(ClientError::local("set the length of", temporary))?;
        // Before the mode, which may forbid it.
        let xattrs_lost = match entry.xattrs {
            0 => false,
            _ => !local::set_xattrs(&file, temporary, &self.xattrs(At::inode(entry.inode))?)?,
        };
        let whole =
            local::set_mode(&file, entry).map_err(ClientError::local("set the mode of", temporary))?;
        let modified = match entry.modified_ns {
            0 => Duration::from_millis(entry.modified_ms),
            ns => Duration::from_nanos(ns),
        };
        let modified = std::time::UNIX_EPOCH + modified;
        file.set_modified(modified).map_err(ClientError::local("set the time of", temporary))?;
        fs::rename(temporary, target).map_err(ClientError::local("move into place", target))?;
        Ok(Fetched { bytes, xattrs_lost, set_id_left: !whole })
    }
}

/// Another name of a local file; a file that has it is replaced.
fn name_again(first: &Path, place: &Path) -> Result<(), ClientError> {
    let temporary = temporary_beside(place)?;
    fs::hard_link(first, &temporary).map_err(ClientError::local("make another name of", first))?;
    let named = fs::rename(&temporary, place).map_err(ClientError::local("move into place", place));
    match fs::remove_file(&temporary) {
        // Gone with the rename; it stays when both were names of the same file already.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            named.and(Err(ClientError::local("remove", &temporary)(error)))
        }
        _ => named,
    }
}

/// A symbolic link on the local disk; one that is there is replaced.
fn make_link(target: &str, place: &Path) -> Result<(), ClientError> {
    if fs::symlink_metadata(place).is_ok_and(|there| there.is_symlink()) {
        fs::remove_file(place).map_err(ClientError::local("replace the link", place))?;
    }
    std::os::unix::fs::symlink(target, place).map_err(ClientError::local("make the link", place))
}

#[expect(clippy::too_many_arguments, reason = "the state of one read over several attachments")]
fn read_in_order(
    link: &Attachment,
    wanted: &[Result<Wanted<'_>, u64>],
    delivered: &mut usize,
    done: &mut u64,
    sink: &mut dyn Sink,
    name: &Path,
    deadline: Duration,
    progress: &Progress,
) -> Result<(), ClientError> {
    let mut flights: VecDeque<Option<Flight<'_, '_>>> = VecDeque::new();
    let mut next = *delivered;
    let mut buffer = Vec::new();
    let result = (|| {
        while *delivered < wanted.len() {
            while next < wanted.len() && flights.len() < IN_FLIGHT_MAX {
                let flight = match wanted[next] {
                    Err(_) => None,
                    Ok(wanted) => {
                        let piece = match link.room_now(u64::from(wanted.bytes)) {
                            Some(piece) => piece,
                            None if flights.iter().all(Option::is_none) => {
                                link.room(u64::from(wanted.bytes))?
                            }
                            None => break,
                        };
                        let (inbox, answers) = mpsc::channel();
                        let flight = Flight { wanted, piece, inbox, answers, sent: Instant::now() };
                        send_read(link, &flight)?;
                        Some(flight)
                    }
                };
                flights.push_back(flight);
                next += 1;
            }
            let count = match (flights.front(), &wanted[*delivered]) {
                (Some(Some(flight)), _) => {
                    finish(link, flight, deadline)?;
                    let count = u64::from(flight.wanted.bytes);
                    buffer.resize(usize::try_from(count).expect("at most 1 MiB"), 0);
                    link.area.copy_out(flight.piece.offset, &mut buffer).expect("the slab lies in the area");
                    progress.answered(count, flight.sent);
                    // Only there a unit that was never written reads as zeros.
                    let written = if flight.wanted.block.sparse && is_zeros(&buffer) {
                        sink.hole(count)
                    } else {
                        sink.data(&buffer)
                    };
                    written.map_err(ClientError::local("write", name))?;
                    count
                }
                (_, Err(zeros)) => {
                    sink.hole(*zeros).map_err(ClientError::local("write", name))?;
                    progress.passed(*zeros);
                    *zeros
                }
                (_, Ok(_)) => unreachable!("every wanted piece has its flight"),
            };
            *done += count;
            *delivered += 1;
            flights.pop_front();
        }
        Ok(())
    })();
    if result.is_err() {
        // The data plane may still write into the slabs in flight: wait before others use them. The first was
        // answered, or the attachment is over.
        for flight in flights.iter().skip(1).flatten() {
            if link.answer(&flight.answers).is_err() {
                break;
            }
        }
    }
    result
}

/// Waits for a read; sends it again when that may help.
fn finish(link: &Attachment, flight: &Flight<'_, '_>, deadline: Duration) -> Result<(), ClientError> {
    let mut backoff = Backoff::new(deadline);
    loop {
        let answer = link.answer(&flight.answers)?;
        match answer.status {
            Status::Ok if answer.bytes == flight.wanted.bytes => return Ok(()),
            Status::Ok => return Err(ClientError::Protocol("the data plane answered another length")),
            status if status.is_retryable() => {
                backoff.pause("read from the replicas", status)?;
                send_read(link, flight)?;
            }
            status => {
                let Wanted { block, .. } = flight.wanted;
                let what = format!("read {} from {}", BlockId(block.block), GroupId(block.group));
                return Err(ClientError::Data { what, status });
            }
        }
    }
}

/// `path` with what lies below it.
pub(crate) fn join(path: &str, below: &str) -> String {
    format!("{}/{below}", path.trim_end_matches('/'))
}

fn temporary_beside(target: &Path) -> Result<PathBuf, ClientError> {
    let name = target
        .file_name()
        .ok_or_else(|| ClientError::Usage(format!("{} is no name for a file", target.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".nova-{}", std::process::id()));
    // A name near the limit of the file system would not fit with its suffix.
    if hidden.len() > 255 {
        hidden = format!(".nova-{}-{:x}", std::process::id(), fnv(target)).into();
    }
    Ok(target.with_file_name(hidden))
}

fn fnv(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A walk over names below a directory.
pub type Tree<'f> = &'f mut dyn FnMut(&str, &crate::Entry) -> Result<(), ClientError>;

/// A file in NovaFS, where it goes, and what the walk knows of it.
type Found = (String, PathBuf, Option<Resolved>);

/// Files found by the walk and wanted by the workers.
#[derive(Default)]
struct Queue {
    state: Mutex<(VecDeque<Found>, bool)>,
    changed: Condvar,
}

impl Queue {
    fn push(&self, file: Found) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        while state.0.len() >= FOUND_MAX {
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
        state.0.push_back(file);
        drop(state);
        self.changed.notify_all();
    }

    fn pop(&self) -> Option<Found> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        loop {
            if let Some(file) = state.0.pop_front() {
                drop(state);
                self.changed.notify_all();
                return Some(file);
            }
            if state.1 {
                return None;
            }
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
    }

    fn close(&self) {
        self.state.lock().expect("no holder of this lock panics").1 = true;
        self.changed.notify_all();
    }
}

//! The thread that writes the log.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::record::{self, FORMAT_VERSION, Kind, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::recover::{Owner, Recovered, Segment, segment_path};
use super::watermark::{Mark, Watermark};
use crate::RaftError;
use crate::types::Types;

/// Spec A.1: a segment is closed at 64 MiB.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Spec A.1: or after 5 minutes.
pub const SEGMENT_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Space is taken from the file system in steps of this, so that an append changes no file size.
pub const PREALLOCATE_BYTES: u64 = 4 << 20;
/// A batch is closed when it has this many bytes; one record may reach over it.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Requests that may wait for the thread; the next one waits for room.
pub const QUEUE_MAX: usize = 4096;

const _: () = assert!((BATCH_BYTES_MAX + record::PAYLOAD_BYTES_MAX) as u64 + (1 << 20) < SEGMENT_BYTES_MAX);

/// What the thread is asked to do, in the order in which it becomes durable.
pub(crate) enum Request {
    /// Entries, encoded; the callback is told when they are durable.
    Append { entries: Vec<Vec<u8>>, last_index: u64, flushed: IOFlushed<Types> },
    /// A vote; the sender is told when it is durable.
    Vote { vote: Vec<u8>, done: oneshot::Sender<()> },
    /// Entries after this one are gone. Durable with the next batch.
    Truncate { after: Vec<u8> },
    /// Entries up to this one are in a snapshot. Durable with the next batch.
    Purge { id: Vec<u8>, index: u64 },
    /// Entries up to this one are committed. Durable with the next batch.
    Committed { id: Vec<u8> },
    /// Time has passed: close an old segment, make durable what waits and the watermark.
    Tick,
    /// Make everything durable and end.
    Close,
}

/// What the thread has done, for metrics and for the cadence of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Bytes of records written.
    pub(crate) bytes: AtomicU64,
    /// Entries written.
    pub(crate) entries: AtomicU64,
    /// Calls of `fdatasync`, for batches and for the watermark.
    pub(crate) syncs: AtomicU64,
}

/// Sizes that tests make small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Duration,
    pub(crate) preallocate_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_MAX,
            segment_age: SEGMENT_AGE_MAX,
            preallocate_bytes: PREALLOCATE_BYTES,
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread on a log that was read back; it goes on in a segment of its own, so that nothing is ever written
/// after a tail that was cut.
pub(crate) fn start(
    folder: PathBuf,
    lock: File,
    owner: Owner,
    recovered: &Recovered,
    limits: Limits,
) -> Result<Writer, RaftError> {
    let counters = Arc::new(Counters::default());
    let (requests, queue) = mpsc::channel(QUEUE_MAX);
    let mut log = Log::new(folder, owner, recovered, limits, Arc::clone(&counters))?;
    let name = format!("wal-{:08x}", owner.group_sum);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            log.run(queue);
            // Until here nobody else may open the log.
            drop(lock);
        })
        .map_err(|source| RaftError::Io { what: "start the log thread of", path: PathBuf::new(), source })?;
    Ok(Writer { requests, counters, thread })
}

/// A record that waits to be written.
struct Pending {
    kind: Kind,
    payload: Vec<u8>,
}

/// The newest record of each kind that is not an entry.
#[derive(Clone, Default)]
struct Marks {
    vote: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
    purged_index: Option<u64>,
    committed: Option<Vec<u8>>,
}

/// Callers to be told once a batch is durable.
#[derive(Default)]
struct Waiters {
    flushed: Vec<IOFlushed<Types>>,
    votes: Vec<oneshot::Sender<()>>,
}

struct Log {
    folder: PathBuf,
    owner: Owner,
    limits: Limits,
    counters: Arc<Counters>,
    sealed: Vec<Segment>,
    current: Segment,
    file: File,
    /// Bytes of the current file that are taken from the file system.
    allocated: u64,
    watermark: Watermark,
    born: Instant,
    /// Number of the next batch in the current segment.
    batch: u32,
    /// Durable state, repeated at the start of every segment so that older ones can go.
    durable: Marks,
    /// State once the next batch is durable. Repeating this one early would let a torn batch show a mark before the
    /// entries it speaks of.
    next: Marks,
    /// Records of the next batch, and the bytes they take.
    pending: Vec<Pending>,
    pending_bytes: usize,
    pending_last_index: Option<u64>,
    buffer: Vec<u8>,
}

impl Log {
    fn new(
        folder: PathBuf,
        owner: Owner,
        recovered: &Recovered,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Result<Self, RaftError> {
        use prost::Message as _;
        let content = &recovered.content;
        // First the file, because a segment without one would be rot.
        let mut watermark = Watermark::open(&folder, recovered.mark)?;
        let (current, file) = create_segment(&folder, owner, recovered.segments.last())?;
        watermark
            .note(mark_of(&current))
            .and_then(|()| watermark.make_durable())
            .map_err(|source| RaftError::Io { what: "write", path: watermark.path().to_owned(), source })?;
        let log_id = |id: &crate::types::LogId| crate::convert::log_id(id).encode_to_vec();
        let marks = Marks {
            vote: content.vote.as_ref().map(|vote| crate::convert::vote(vote).encode_to_vec()),
            purged: content.purged.as_ref().map(log_id),
            purged_index: content.purged.map(|id| id.index),
            committed: content.committed.as_ref().map(log_id),
        };
        Ok(Self {
            folder,
            owner,
            limits,
            counters,
            sealed: recovered.segments.clone(),
            allocated: current.bytes,
            current,
            file,
            watermark,
            born: Instant::now(),
            batch: 1,
            durable: marks.clone(),
            next: marks,
            pending: Vec::new(),
            pending_bytes: 0,
            pending_last_index: None,
            buffer: Vec::with_capacity(1 << 16),
        })
    }

    fn run(&mut self, mut queue: mpsc::Receiver<Request>) {
        let mut waiters = Waiters::default();
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            let mut ticked = false;
            while let Some(request) = next.take() {
                match request {
                    Request::Close => {
                        self.commit(&mut waiters);
                        self.remove_purged();
                        self.flush_watermark();
                        return;
                    }
                    Request::Tick => ticked = true,
                    request => self.take(request, &mut waiters),
                }
                if self.pending_bytes < BATCH_BYTES_MAX {
                    next = queue.try_recv().ok();
                }
            }
            // Truncations, purges and commit marks wait for something that must be durable anyway.
            let wanted = ticked || !waiters.flushed.is_empty() || !waiters.votes.is_empty();
            if wanted || self.pending_bytes >= BATCH_BYTES_MAX {
                self.commit(&mut waiters);
                self.remove_purged();
            }
            if ticked {
                self.flush_watermark();
            }
            if ticked && self.batch > 1 && self.born.elapsed() >= self.limits.segment_age {
                self.rotate();
            }
        }
    }

    fn take(&mut self, request: Request, waiters: &mut Waiters) {
        match request {
            Request::Append { entries, last_index, flushed } => {
                let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
                self.counters.entries.fetch_add(count, Ordering::Relaxed);
                for entry in entries {
                    self.push(Kind::Entry, entry);
                }
                self.pending_last_index = self.pending_last_index.max(Some(last_index));
                waiters.flushed.push(flushed);
            }
            Request::Vote { vote, done } => {
                self.next.vote = Some(vote.clone());
                self.push(Kind::Vote, vote);
                waiters.votes.push(done);
            }
            Request::Truncate { after } => self.push(Kind::Truncate, after),
            Request::Purge { id, index } => {
                self.next.purged = Some(id.clone());
                self.next.purged_index = self.next.purged_index.max(Some(index));
                self.push(Kind::Purge, id);
            }
            Request::Committed { id } => {
                self.next.committed = Some(id.clone());
                self.push(Kind::Committed, id);
            }
            Request::Tick | Request::Close => unreachable!("the loop takes these"),
        }
    }

    fn push(&mut self, kind: Kind, payload: Vec<u8>) {
        self.pending_bytes += record::record_bytes(payload.len());
        self.pending.push(Pending { kind, payload });
    }

    /// Writes what is pending as one batch, makes it durable and tells the callers.
    fn commit(&mut self, waiters: &mut Waiters) {
        if self.pending.is_empty() {
            return;
        }
        let bytes = u64::try_from(self.pending_bytes).expect("a batch is bounded");
        if self.batch > 1 && self.current.bytes + bytes > self.limits.segment_bytes {
            self.rotate();
        }
        if self.batch == 1 {
            self.repeat_state();
        }
        self.buffer.clear();
        let count = self.pending.len();
        for (place, pending) in self.pending.drain(..).enumerate() {
            let last_of_batch = place + 1 == count;
            let record =
                Record { kind: pending.kind, batch: self.batch, last_of_batch, payload: &pending.payload };
            record::encode(&mut self.buffer, self.current.salt, &record);
        }
        self.pending_bytes = 0;
        self.write();
        self.durable.clone_from(&self.next);
        self.batch += 1;
        self.current.last_index = self.current.last_index.max(self.pending_last_index.take());
        for flushed in waiters.flushed.drain(..) {
            flushed.io_completed(Ok(()));
        }
        for done in waiters.votes.drain(..) {
            // A caller that went away needs no answer.
            let _ = done.send(());
        }
    }

    /// Puts the durable vote, purge and commit mark in front of the first batch of a segment.
    fn repeat_state(&mut self) {
        let Marks { vote, purged, committed, .. } = &self.durable;
        let state = [(Kind::Vote, vote), (Kind::Purge, purged), (Kind::Committed, committed)];
        let head: Vec<Pending> = state
            .into_iter()
            .filter_map(|(kind, payload)| payload.clone().map(|payload| Pending { kind, payload }))
            .collect();
        self.pending_bytes +=
            head.iter().map(|pending| record::record_bytes(pending.payload.len())).sum::<usize>();
        self.pending.splice(0..0, head);
    }

    fn write(&mut self) {
        let count = u64::try_from(self.buffer.len()).expect("a batch is bounded");
        let end = self.current.bytes + count;
        if end > self.allocated {
            let step = self.limits.preallocate_bytes;
            let target = end.next_multiple_of(step);
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&self.file, flags, self.allocated, target - self.allocated)
                .unwrap_or_else(|error| die("take space for", &self.current.path, &error.into()));
            self.allocated = target;
        }
        self.file
            .write_all_at(&self.buffer, self.current.bytes)
            .unwrap_or_else(|error| die("write", &self.current.path, &error));
        self.file.sync_data().unwrap_or_else(|error| die("sync", &self.current.path, &error));
        self.current.bytes = end;
        self.watermark
            .note(mark_of(&self.current))
            .unwrap_or_else(|error| die("write", self.watermark.path(), &error));
        self.counters.bytes.fetch_add(count, Ordering::Relaxed);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes what the watermark says outlive a power cut too.
    fn flush_watermark(&mut self) {
        let flushed =
            self.watermark.make_durable().unwrap_or_else(|error| die("sync", self.watermark.path(), &error));
        self.counters.syncs.fetch_add(u64::from(flushed), Ordering::Relaxed);
    }

    /// Closes the current segment and begins the next.
    fn rotate(&mut self) {
        // The space after the last record goes back, so that a closed segment ends where its records end.
        self.file
            .set_len(self.current.bytes)
            .and_then(|()| self.file.sync_all())
            .unwrap_or_else(|error| die("close", &self.current.path, &error));
        let (next, file) = create_segment(&self.folder, self.owner, Some(&self.current))
            .unwrap_or_else(|error| die_of("begin a segment in", &self.folder, &error));
        self.allocated = next.bytes;
        self.sealed.push(std::mem::replace(&mut self.current, next));
        self.file = file;
        self.born = Instant::now();
        self.batch = 1;
    }

    /// Removes closed segments, oldest first, whose entries are all purged. The purge is durable by now.
    fn remove_purged(&mut self) {
        // The current segment repeats the state in its first batch; until that is durable nothing may go.
        while self.batch > 1
            && let Some(oldest) = self.sealed.first()
        {
            let purged = self.durable.purged_index;
            if oldest.last_index.is_some_and(|last| purged.is_none_or(|purged| purged < last)) {
                return;
            }
            fs::remove_file(&oldest.path)
                .and_then(|()| File::open(&self.folder)?.sync_all())
                .unwrap_or_else(|error| die("remove", &oldest.path, &error));
            self.sealed.remove(0);
        }
    }
}

/// What the watermark says of a segment that is durable up to its end.
fn mark_of(segment: &Segment) -> Mark {
    Mark { segment: segment.number, bytes: segment.bytes, salt: segment.salt }
}

/// Makes the segment that follows `previous`, durable with its name.
fn create_segment(
    folder: &Path,
    owner: Owner,
    previous: Option<&Segment>,
) -> Result<(Segment, File), RaftError> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|error| RaftError::Options(format!("no random numbers: {error}")))?;
    let header = SegmentHeader {
        version: FORMAT_VERSION,
        number: previous.map_or(1, |segment| segment.number + 1),
        salt: u64::from_le_bytes(salt),
        previous_salt: previous.map_or(0, |segment| segment.salt),
        previous_bytes: previous.map_or(0, |segment| segment.bytes),
        member: owner.member,
        group_sum: owner.group_sum,
    };
    let path = segment_path(folder, header.number);
    let make = || -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    let file = make().map_err(|source| RaftError::Io { what: "create", path: path.clone(), source })?;
    let bytes = u64::try_from(SEGMENT_HEADER_BYTES).expect("a header is small");
    Ok((Segment { path, number: header.number, salt: header.salt, bytes, last_index: None }, file))
}

fn die(what: &str, path: &Path, error: &io::Error) -> ! {
    die_of(what, path, error)
}

/// Ends the process: what is on the disk is not known any more, and a restart reads it back.
fn die_of(what: &str, path: &Path, error: &dyn std::error::Error) -> ! {
    let cause = error.source().map_or(String::new(), |source| format!(": {source}"));
    tracing::error!(path = %path.display(), %error, "the Raft log could not {what} its file; the process ends");
    eprintln!(
        "nova-raft: could not {what} {}: {error}{cause}. The controller stops here rather than acknowledge what may \
         not be durable. Check the disk and its free space, then start it again.",
        path.display()
    );
    std::process::abort()
}

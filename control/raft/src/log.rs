//! The log as openraft sees it: entries in memory, made durable by the WAL thread.

use core::fmt::Debug;
use core::ops::RangeBounds;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use nova_api::raft as pb;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use crate::RaftError;
use crate::convert;
use crate::types::{Entry, LogId, Types, Vote};
use crate::wal::recover::{LogContent, Owner, recover};
use crate::wal::writer::{self, Counters, Limits, Request};

/// Folders above a new one whose names may be as new: group, member, data folder.
const NEW_FOLDERS_MAX: usize = 3;
/// Entries sent to a follower in one message add up to about this.
pub(crate) const APPEND_BYTES_TARGET: usize = 1 << 20;

/// A handle on the log; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    content: Arc<RwLock<LogContent>>,
    requests: mpsc::Sender<Request>,
    counters: Arc<Counters>,
}

/// A log that was opened, and the thread to join when it is closed.
pub(crate) struct OpenLog {
    pub(crate) store: LogStore,
    pub(crate) thread: JoinHandle<()>,
}

impl LogStore {
    /// Reads the log in `folder` back and starts its thread. Blocks on the disk.
    pub(crate) fn open(
        folder: &Path,
        member: u64,
        group: &str,
        limits: Limits,
    ) -> Result<OpenLog, RaftError> {
        create_folder(folder)?;
        let lock = lock(folder)?;
        let owner = Owner { member, group_sum: crc32fast::hash(group.as_bytes()) };
        let recovered = recover(folder, owner)?;
        if recovered.cut_bytes > 0 {
            tracing::warn!(
                group,
                bytes = recovered.cut_bytes,
                "cut a torn tail that nobody was told of off the log"
            );
        }
        let running = writer::start(folder.to_owned(), lock, owner, &recovered, limits)?;
        let store = Self {
            content: Arc::new(RwLock::new(recovered.content)),
            requests: running.requests,
            counters: running.counters,
        };
        Ok(OpenLog { store, thread: running.thread })
    }

    /// What the WAL thread has done.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether nothing was ever in it.
    pub(crate) fn is_blank(&self) -> bool {
        *self.read() == LogContent::default()
    }

    /// What the log holds in memory.
    #[cfg(test)]
    pub(crate) fn content(&self) -> LogContent {
        self.read().clone()
    }

    /// The last entry that is not in the log any more.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.read().purged
    }

    /// Lets time pass for the WAL thread.
    pub(crate) async fn tick(&self) {
        // The thread ends only when the group closes; then there is nothing to tick.
        let _ = self.requests.send(Request::Tick).await;
    }

    /// Makes everything durable and ends the thread.
    pub(crate) async fn close(&self) {
        let _ = self.requests.send(Request::Close).await;
    }

    // A panic while the lock is held is in our own code and ends the process through the group's task; what is
    // guarded stays whole in between single calls.
    fn read(&self) -> RwLockReadGuard<'_, LogContent> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, LogContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        self.requests.send(request).await.map_err(|_| io::Error::other("the log is closed"))
    }
}

/// Makes a folder whose name outlives a crash: what is inside counts only as long as the folder does.
pub(crate) fn create_folder(folder: &Path) -> Result<(), RaftError> {
    let make = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for ancestor in
            folder.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).take(NEW_FOLDERS_MAX)
        {
            File::open(ancestor)?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|source| RaftError::Io { what: "create", path: folder.to_owned(), source })
}

/// Takes the log for this process alone; the lock goes with the file.
fn lock(folder: &Path) -> Result<File, RaftError> {
    let path = folder.join("lock");
    let file =
        File::create(&path).map_err(|source| RaftError::Io { what: "create", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RaftError::InUse { path: folder.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(RaftError::Io { what: "lock", path, source }),
    }
}

/// The entries of `content` whose index is in `range`.
fn select<'a>(content: &'a LogContent, range: &impl RangeBounds<u64>) -> impl Iterator<Item = &'a Entry> {
    use core::ops::Bound;
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let until = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    let first = content.entries.front().map_or(0, |entry| entry.log_id.index);
    let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX).min(content.entries.len());
    content.entries.range(skip..).take_while(move |entry| entry.log_id.index < until)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(select(&self.read(), &range).cloned().collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let content = self.read();
        let mut bytes = 0_usize;
        let mut entries = Vec::new();
        for entry in select(&content, &(start..end)) {
            if let EntryPayload::Normal(command) = &entry.payload {
                bytes += command.0.len();
            }
            // The first goes whatever its size, or replication would stand still.
            if bytes > APPEND_BYTES_TARGET && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let content = self.read();
        let last = content.entries.back().map(|entry| entry.log_id);
        Ok(LogState { last_log_id: last.or(content.purged), last_purged_log_id: content.purged })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        self.send(Request::Vote { vote: convert::vote(vote).encode_to_vec(), done }).await?;
        durable.await.map_err(|_| io::Error::other("the log closed before a vote was durable"))?;
        self.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        self.write().committed = Some(committed);
        self.send(Request::Committed { id: convert::log_id(&committed).encode_to_vec() }).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let content = self.read();
        // A snapshot taken over moves the mark past the log before the log is purged; a crash in between leaves a
        // mark that names no entry here, and then the leader tells how far the log is committed.
        let named = |id: &LogId| {
            let entry = select(&content, &(id.index..=id.index)).next();
            content.purged == Some(*id) || entry.is_some_and(|entry| entry.log_id == *id)
        };
        Ok(content.committed.filter(named))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(last_index) = entries.last().map(Entry::index) else {
            flushed.io_completed(Ok(()));
            return Ok(());
        };
        let encoded = entries.iter().map(|entry| convert::entry(entry).encode_to_vec()).collect();
        self.write().entries.extend(entries);
        self.send(Request::Append { entries: encoded, last_index, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.write().truncate_after(last.map(|id| id.index));
        let truncation = pb::Truncation { last: last.as_ref().map(convert::log_id) };
        self.send(Request::Truncate { after: truncation.encode_to_vec() }).await
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.write().purge(id);
        self.send(Request::Purge { id: convert::log_id(&id).encode_to_vec(), index: id.index }).await
    }
}

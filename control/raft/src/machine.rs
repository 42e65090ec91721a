//! The replicated state as openraft sees it: applies entries, makes and takes snapshots.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prost::Message as _;
use tokio::sync::watch;

use crate::snapshot::{self, SnapshotFile, SnapshotFolder};
use crate::types::{AnswerBox, LogId, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::{RaftError, StateMachine};

/// A state and the entry it is as of.
#[derive(Clone, Debug)]
struct Applied<S> {
    state: S,
    last: Option<LogId>,
    membership: StoredMembership,
}

struct Shared<S> {
    applied: RwLock<Applied<S>>,
    index: watch::Sender<u64>,
    snapshots: SnapshotFolder,
}

/// A handle on the state; clones share it.
pub(crate) struct Machine<S>(Arc<Shared<S>>);

impl<S> Clone for Machine<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: StateMachine> Machine<S> {
    /// Starts from the newest snapshot that reads, or from `initial` when there is none. Blocks on the disk.
    pub(crate) fn open(
        snapshots: SnapshotFolder,
        initial: S,
        purged: Option<LogId>,
    ) -> Result<Self, RaftError> {
        let folder = snapshots.path().to_owned();
        let listed = snapshots.list().map_err(|source| RaftError::Io {
            what: "list",
            path: folder.clone(),
            source,
        })?;
        let mut applied = Applied { state: initial, last: None, membership: StoredMembership::default() };
        let mut reason = "there is none".to_owned();
        let mut rotten = Vec::new();
        for (_, path) in listed {
            let loaded = snapshot::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|(meta, bytes)| Ok((meta, S::decode(&bytes)?)));
            match loaded {
                Ok((meta, state)) => {
                    applied = Applied { state, last: meta.last_log_id, membership: meta.last_membership };
                    break;
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), error, "a snapshot does not read; trying an older one");
                    reason = error;
                    rotten.push(path);
                }
            }
        }
        // Entries after the snapshot must all be in the log.
        if purged.map(|id| id.index) > applied.last.map(|id| id.index) {
            return Err(RaftError::NoSnapshot { folder, reason });
        }
        // Out of the way, or they would count as snapshots kept; for an operator to look at.
        for path in rotten {
            let aside = path.with_extension("rotten");
            std::fs::rename(&path, &aside).map_err(|source| RaftError::Io {
                what: "set aside",
                path,
                source,
            })?;
        }
        let (index, _) = watch::channel(applied.last.map_or(0, |id| id.index));
        Ok(Self(Arc::new(Shared { applied: RwLock::new(applied), index, snapshots })))
    }

    /// The state as of the last entry applied here.
    pub(crate) fn state(&self) -> S {
        self.with(|applied| applied.state.clone())
    }

    /// Tells the index of the last entry applied here, whenever it has grown.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.index.subscribe()
    }

    /// The folder of the snapshots.
    pub(crate) fn snapshots(&self) -> &SnapshotFolder {
        &self.0.snapshots
    }

    fn with<T>(&self, read: impl FnOnce(&Applied<S>) -> T) -> T {
        read(&self.0.applied.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Applied<S>) -> T) -> T {
        change(&mut self.0.applied.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A state to be written as a snapshot while the original goes on.
pub(crate) struct Builder<S> {
    applied: Applied<S>,
    machine: Machine<S>,
}

impl<S: StateMachine> RaftSnapshotBuilder<Types> for Builder<S> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let Applied { state, last, membership } = self.applied.clone();
        let machine = self.machine.clone();
        let meta = SnapshotMeta { last_log_id: last, last_membership: membership };
        let written = {
            let meta = meta.clone();
            tokio::task::spawn_blocking(move || machine.snapshots().write(&meta, &state))
        };
        let snapshot = written.await.map_err(io::Error::other)??;
        tracing::info!(path = %snapshot.path.display(), bytes = snapshot.bytes, "wrote a snapshot");
        Ok(Snapshot { meta, snapshot })
    }
}

impl<S: StateMachine> RaftStateMachine<Types> for Machine<S> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<S>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.with(|applied| (applied.last, applied.membership.clone())))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> Result<(), io::Error>
    where
        Entries: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let answer = match entry.payload {
                EntryPayload::Blank => {
                    self.change(|applied| applied.last = Some(id));
                    AnswerBox(None)
                }
                EntryPayload::Membership(membership) => {
                    self.change(|applied| {
                        applied.last = Some(id);
                        applied.membership = StoredMembership::new(Some(id), membership);
                    });
                    AnswerBox(None)
                }
                EntryPayload::Normal(bytes) => {
                    // A member that skipped what it cannot read would differ from the others for ever.
                    let command = S::Command::decode(bytes.0).map_err(|error| {
                        io::Error::other(format!(
                            "entry {} does not decode in this version: {error}",
                            id.index
                        ))
                    })?;
                    let answer = self.change(|applied| {
                        applied.last = Some(id);
                        applied.state.apply(id.index, command)
                    });
                    AnswerBox(Some(Box::new(answer)))
                }
            };
            self.0.index.send_replace(id.index);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S> {
        Builder { applied: self.with(Clone::clone), machine: self.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotFile) -> Result<(), io::Error> {
        let machine = self.clone();
        let expected = meta.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (meta, bytes) = snapshot::read(&data.path)?;
            if meta != expected {
                return Err(io::Error::other("the snapshot holds something else than its sender said"));
            }
            let state = S::decode(&bytes).map_err(io::Error::other)?;
            machine.snapshots().adopt(&data.path, &meta)?;
            Ok((meta, state))
        });
        let (meta, state) = read.await.map_err(io::Error::other)??;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.change(|applied| {
            *applied = Applied { state, last: meta.last_log_id, membership: meta.last_membership };
        });
        self.0.index.send_replace(index);
        tracing::info!(index, "took over a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let machine = self.clone();
        let newest = tokio::task::spawn_blocking(move || {
            for (_, path) in machine.snapshots().list()? {
                // A rotten one is not sent on; the next older one, or a new one, is.
                if let Ok(meta) = snapshot::verify(&path) {
                    let bytes = std::fs::metadata(&path)?.len();
                    return Ok(Some(Snapshot { meta, snapshot: SnapshotFile { path, bytes } }));
                }
            }
            Ok(None)
        });
        newest.await.map_err(io::Error::other)?
    }
}

//! One Raft group on this controller.

mod cadence;
mod threads;

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use nova_security::Credentials;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError as OpenraftError,
};
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::threads::Threads;
use crate::log::{LogStore, OpenLog};
use crate::machine::Machine;
use crate::peer::{LocalMember, Network, Peers};
use crate::snapshot::SnapshotFolder;
use crate::types::{Address, CommandBytes, Types};
use crate::wal::record::PAYLOAD_BYTES_MAX;
use crate::wal::writer::Limits;
use crate::{ProposeError, RaftError, ReadError, StateMachine};

/// Largest encoded command.
pub const COMMAND_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
/// A proposal whose outcome is not known after this is given back as unknown.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A read that no majority confirmed after this is given back.
pub const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Leaders show themselves this often.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// A member that heard of no leader for a random time between this and [`ELECTION_MAX`] stands for election.
pub const ELECTION_MIN: Duration = Duration::from_millis(500);
/// See [`ELECTION_MIN`].
pub const ELECTION_MAX: Duration = Duration::from_millis(1000);
/// Spec A.1: a snapshot every 15 minutes.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Or when the log since the last one passes this.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
/// Entries sent in one message, at most.
const ENTRIES_PER_MESSAGE_MAX: u64 = 2048;
/// Followers further behind than this get a snapshot rather than entries.
const LAG_MAX: u64 = 1 << 20;

/// When snapshots are made and segments closed. The defaults are the named constants; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// See [`SNAPSHOT_INTERVAL`].
    pub snapshot_interval: Duration,
    /// See [`SNAPSHOT_LOG_BYTES`].
    pub snapshot_log_bytes: u64,
    /// See [`crate::wal::SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// See [`crate::wal::SEGMENT_AGE_MAX`].
    pub segment_age: Duration,
    /// How often the cadence looks at the clock.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            snapshot_interval: SNAPSHOT_INTERVAL,
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
            segment_bytes: crate::wal::SEGMENT_BYTES_MAX,
            segment_age: crate::wal::SEGMENT_AGE_MAX,
            tick: Duration::from_secs(1),
        }
    }
}

/// How to open a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Name of the group, the same on every member: `cluster` or `files`.
    pub name: String,
    /// Id of this member, never used again for another.
    pub id: u64,
    /// Id and gRPC address (`host:port`) of the first members. What the log says later goes before it.
    pub members: BTreeMap<u64, String>,
    /// Folder of this group on this member; `wal` and `snapshots` are made in it.
    pub folder: PathBuf,
    /// What this controller shows to the others.
    pub credentials: Credentials,
    /// The service this group is reached by.
    pub peers: Peers,
    /// Begin the group with `members` when this member has never heard of it. All members may say so at once, with
    /// the same `members`.
    pub bootstrap: bool,
    /// When snapshots are made.
    pub timing: Timing,
}

/// Where a group stands on this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Current term.
    pub term: u64,
    /// Id and address of the leader, when one is known.
    pub leader: Option<(u64, String)>,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Index of the last entry in the log.
    pub last: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry applied here.
    pub applied: Option<u64>,
    /// Index of the last entry in a snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last entry taken out of the log.
    pub purged: Option<u64>,
    /// Entries this member has written since it started.
    pub entries_written: u64,
    /// Times it has waited for the disk since it started.
    pub syncs: u64,
}

/// One Raft group on this controller. Clones share it.
pub struct Group<S: StateMachine>(Arc<Inner<S>>);

struct Inner<S: StateMachine> {
    name: String,
    id: u64,
    raft: Raft<Types, Machine<S>>,
    machine: Machine<S>,
    log: LogStore,
    peers: Peers,
    cadence: AbortHandle,
    /// Held for its Drop: what openraft runs goes with the last handle.
    _threads: Threads,
    wal_thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: StateMachine> Drop for Inner<S> {
    fn drop(&mut self) {
        // It holds handles on the rest and would keep them alive.
        self.cadence.abort();
    }
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: StateMachine> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.0.name).field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Group<S> {
    /// Opens this controller's member of a group: reads log and snapshots back, then takes part, on threads of its own.
    ///
    /// `initial` is the state before the first entry, the same on every member. The process aborts later when the
    /// disk under the log errs.
    ///
    /// # Errors
    /// [`RaftError::Rot`] and [`RaftError::NoSnapshot`] when what was durable does not read any more;
    /// [`RaftError::Options`] for options that contradict each other.
    pub async fn open(options: GroupOptions, initial: S) -> Result<Self, RaftError> {
        check(&options)?;
        let threads = Threads::start(&options.name)?;
        let timing = options.timing;
        let limits = Limits {
            segment_bytes: timing.segment_bytes,
            segment_age: timing.segment_age,
            ..Limits::default()
        };
        let (folder, name, id) = (options.folder.clone(), options.name.clone(), options.id);
        let opened = tokio::task::spawn_blocking(move || {
            let log = LogStore::open(&folder.join("wal"), id, &name, limits)?;
            let machine = SnapshotFolder::open(folder.join("snapshots")).and_then(|snapshots| {
                check_not_lost(&log.store, &snapshots, &folder.join("wal"))?;
                Machine::open(snapshots, initial, log.store.purged())
            });
            match machine {
                Ok(machine) => Ok((log, machine)),
                Err(error) => {
                    // The log is let go of before anybody hears of it, so that the next attempt finds it free.
                    let OpenLog { store, thread } = log;
                    drop(store);
                    // A thread that panicked has said so; the error is why we end.
                    let _ = thread.join();
                    Err(error)
                }
            }
        });
        let (OpenLog { store: log, thread }, machine) =
            opened.await.map_err(|error| RaftError::Stopped(error.to_string()))??;

        let network = Network { group: options.name.clone(), credentials: options.credentials };
        let config = Arc::new(raft_config(&options.name)?);
        let stopped = |error: &dyn fmt::Display| RaftError::Stopped(error.to_string());
        // What openraft spawns, and the connections to other members, stay where this runs.
        let raft = threads
            .spawn(Raft::new(options.id, config, network, log.clone(), machine.clone()))
            .await
            .map_err(|error| stopped(&error))?
            .map_err(|error| stopped(&error))?;
        let member = LocalMember { id: options.id, raft: raft.clone(), machine: machine.clone() };
        options.peers.add(&options.name, Arc::new(member));

        if options.bootstrap && !raft.is_initialized().await.map_err(|error| stopped(&error))? {
            let members: BTreeMap<u64, Address> =
                options.members.into_iter().map(|(id, address)| (id, Address(address))).collect();
            match raft.initialize(members).await {
                // Another member was faster and its log has reached us.
                Ok(()) | Err(OpenraftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(stopped(&error)),
            }
        }
        let cadence =
            threads.spawn(cadence::run(raft.clone(), machine.clone(), log.clone(), timing)).abort_handle();
        Ok(Self(Arc::new(Inner {
            name: options.name,
            id: options.id,
            raft,
            machine,
            log,
            peers: options.peers,
            cadence,
            _threads: threads,
            wal_thread: Mutex::new(Some(thread)),
        })))
    }

    /// Has `command` carried out on every member; gives the answer of the state machine once the command is durable
    /// on a majority and applied here. Proposals made at the same time share writes to the log.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`]: not carried out, ask the leader. [`ProposeError::Unknown`]: may have been carried
    /// out. See [`ProposeError`].
    ///
    /// # Cancel safety
    /// A dropped proposal may still be carried out.
    pub async fn propose(&self, command: S::Command) -> Result<S::Answer, ProposeError> {
        let bytes = command.encoded_len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, bound: COMMAND_BYTES_MAX });
        }
        let command = CommandBytes(Bytes::from(command.encode_to_vec()));
        let Ok(written) = timeout(PROPOSE_TIMEOUT, self.0.raft.client_write(command)).await else {
            return Err(ProposeError::Unknown {
                reason: format!("not committed within {PROPOSE_TIMEOUT:?}"),
            });
        };
        let response = written.map_err(|error| match error {
            OpenraftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                ProposeError::NotLeader { leader: leader_of(to) }
            }
            OpenraftError::APIError(error) => ProposeError::Unknown { reason: error.to_string() },
            OpenraftError::Fatal(error) => ProposeError::Unavailable { reason: error.to_string() },
        })?;
        let answer = response.data.0.and_then(|answer| answer.downcast::<S::Answer>().ok());
        Ok(*answer.expect("a command is answered by the state machine it was applied to"))
    }

    /// The state, not older than the moment of the call: a majority confirms that this member still leads.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self) -> Result<S, ReadError> {
        let confirmed = timeout(READ_TIMEOUT, self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        match confirmed {
            Ok(Ok(_)) => Ok(self.0.machine.state()),
            Ok(Err(OpenraftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ReadError::NotLeader { leader: leader_of(to) })
            }
            Ok(Err(OpenraftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ReadError::NoQuorum(READ_TIMEOUT))
            }
            Ok(Err(OpenraftError::Fatal(error))) => Err(ReadError::Unavailable { reason: error.to_string() }),
        }
    }

    /// The state as of the last entry applied here; on any member, and possibly old.
    #[must_use]
    pub fn local(&self) -> S {
        self.0.machine.state()
    }

    /// Id of this member.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether this member leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0.raft.is_leader()
    }

    /// Id and address of the leader, when one is known.
    #[must_use]
    pub fn leader(&self) -> Option<(u64, String)> {
        self.metrics().leader
    }

    /// Where the group stands on this member.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        use std::sync::atomic::Ordering;
        let watched = self.0.raft.metrics();
        let raft = watched.borrow_watched();
        let members = raft.membership_config.membership();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
        let counters = self.0.log.counters();
        Metrics {
            term: raft.current_term,
            leader: raft.current_leader.map(|id| {
                let address = members.get_node(&id).map(|address| address.0.clone()).unwrap_or_default();
                (id, address)
            }),
            is_leader: raft.state.is_leader(),
            last: raft.last_log_index,
            committed: index(&raft.local_committed),
            applied: index(&raft.last_applied),
            snapshot: index(&raft.snapshot),
            purged: index(&raft.purged),
            entries_written: counters.entries.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
        }
    }

    /// Tells the index of the last entry applied here, whenever it has grown.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.machine.watch()
    }

    /// Resolves when the group has failed on this member, with the reason; the process should then end, for a restart
    /// reads everything back. Never resolves while the group runs.
    pub async fn failed(&self) -> String {
        let mut metrics = self.0.raft.metrics();
        loop {
            if let Err(error) = &metrics.borrow_watched().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "its task has ended".to_owned();
            }
        }
    }

    /// Puts a new member in the place of one that is lost: it learns the log first, then one change of members swaps
    /// them. Ids are never used again, for a member that forgot what it acknowledged must not vote under its old one.
    ///
    /// # Errors
    /// [`RaftError::Membership`] when this member does not lead, or another change is under way.
    pub async fn replace_member(&self, gone: u64, id: u64, address: String) -> Result<(), RaftError> {
        let refused = |error: &dyn fmt::Display| RaftError::Membership(error.to_string());
        self.0.raft.add_learner(id, Address(address), true).await.map_err(|error| refused(&error))?;
        let voters: BTreeSet<u64> =
            self.0.raft.voter_ids().filter(|voter| *voter != gone).chain(core::iter::once(id)).collect();
        self.0.raft.change_membership(voters, false).await.map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Makes a snapshot soon, whatever the cadence says.
    ///
    /// # Errors
    /// [`RaftError::Stopped`] when the group does not run any more.
    pub async fn snapshot(&self) -> Result<(), RaftError> {
        self.0.raft.trigger().snapshot().await.map_err(|error| RaftError::Stopped(error.to_string()))
    }

    /// Asks member `to` to take over from this leader; it does so when it has the whole log.
    ///
    /// # Errors
    /// [`RaftError::Stopped`] when the group does not run any more.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), RaftError> {
        self.0.raft.trigger().transfer_leader(to).await.map_err(|error| RaftError::Stopped(error.to_string()))
    }

    /// Stops taking part and makes everything durable. Proposals under way end as unknown.
    ///
    /// # Errors
    /// [`RaftError::Stopped`] when a task had failed before.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        self.0.cadence.abort();
        let ended = self.0.raft.shutdown().await.map_err(|error| RaftError::Stopped(error.to_string()));
        // From here on callers hear that there is no such group, rather than that it has failed.
        self.0.peers.remove(&self.0.name);
        self.0.log.close().await;
        let thread = self.0.wal_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(RaftError::Stopped("the log thread panicked".to_owned()));
            }
        }
        ended
    }
}

/// Refuses a log that is gone: a member that takes over a snapshot has voted before, so one with snapshots and no vote
/// has forgotten whom it voted for.
fn check_not_lost(log: &LogStore, snapshots: &SnapshotFolder, folder: &Path) -> Result<(), RaftError> {
    let listed = snapshots.list().map_err(|source| RaftError::Io {
        what: "list",
        path: snapshots.path().to_owned(),
        source,
    })?;
    if log.is_blank() && !listed.is_empty() {
        let reason = "the log is gone, and snapshots that were made of it are left".to_owned();
        return Err(RaftError::Rot { path: folder.to_owned(), at: 0, reason });
    }
    Ok(())
}

fn check(options: &GroupOptions) -> Result<(), RaftError> {
    let name = &options.name;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(RaftError::Options(format!("{name:?} cannot name a group: use a-z")));
    }
    if options.bootstrap && !options.members.contains_key(&options.id) {
        return Err(RaftError::Options(format!(
            "member {} begins group {name} but is not among its members",
            options.id
        )));
    }
    Ok(())
}

fn raft_config(name: &str) -> Result<Config, RaftError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        enable_pre_vote: Some(true),
        max_payload_entries: ENTRIES_PER_MESSAGE_MAX,
        replication_lag_threshold: LAG_MAX,
        // Both are ours: by time and bytes, and so that the older of two snapshots can still serve.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A leader that restarts asks for votes again: its state may be older than what it had served.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| RaftError::Options(error.to_string()))
}

fn leader_of(to: ForwardToLeader<Types>) -> Option<(u64, String)> {
    Some((to.leader_id?, to.leader_node?.0))
}

//! A writer session: renewed while it lives, with block ids in reserve.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{CloseSession, OpenSession, RenewSession, ReserveBlocks, response};
use nova_units::{BlockId, GroupId, UNIT_LOG2_DEFAULT, UNIT_LOG2_MAX, UNIT_LOG2_MIN};

use crate::error::ClientError;
use crate::metadata::Metadata;

/// Lease asked for.
const LEASE: Duration = Duration::from_secs(30);
/// Block ids reserved at once.
const RESERVE_COUNT: u32 = 1024;

/// Block ids of one namespace.
#[derive(Debug, Default)]
struct Reserve {
    first: u64,
    next: u64,
    end: u64,
    groups: Vec<u32>,
    unit_log2: u8,
    key_domain: u32,
}

/// A block id that was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreshBlock {
    pub(crate) block: BlockId,
    /// The group it belongs in.
    pub(crate) group: GroupId,
    /// Unit size that its namespace asks for, 12..=16.
    pub(crate) unit_log2: u8,
    /// Key domain of its namespace; 0: the edge chooses.
    pub(crate) key_domain: u32,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// A writer session. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    metadata: Arc<Metadata>,
    namespace: String,
    reserves: Mutex<HashMap<String, Reserve>>,
    ended: Arc<AtomicBool>,
    stop: Arc<Stop>,
    renewer: Option<JoinHandle<()>>,
}

impl Session {
    /// Opens a session for files of `namespace` and keeps it renewed.
    pub(crate) fn open(metadata: &Arc<Metadata>, namespace: &str) -> Result<Self, ClientError> {
        let lease_ms = u32::try_from(LEASE.as_millis()).expect("half a minute");
        let opened = match metadata.change(Op::OpenSession(OpenSession { lease_ms }))? {
            response::Result::SessionOpened(opened) => opened,
            _ => return Err(ClientError::Protocol("opening a session was answered with something else")),
        };
        let (ended, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(Stop::default()));
        let every = Duration::from_millis(u64::from(opened.lease_ms.max(300) / 3));
        let renewer = {
            let (metadata, ended, stop) = (Arc::clone(metadata), Arc::clone(&ended), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("nova-session".into())
                .spawn(move || renew(&metadata, opened.session, every, &ended, &stop))
                .map_err(ClientError::local("start a thread for", "the writer session".as_ref()))?
        };
        Ok(Self {
            id: opened.session,
            metadata: Arc::clone(metadata),
            namespace: namespace.to_owned(),
            reserves: Mutex::default(),
            ended,
            stop,
            renewer: Some(renewer),
        })
    }

    /// Whether metadata said that it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Metadata refused a request of it: the next file opens another.
    pub(crate) fn mark_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The namespace that the session was opened for; empty: none in particular.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A fresh block for a file of `namespace`; empty: where the controllers choose.
    pub(crate) fn next_block_of(&self, namespace: &str) -> Result<FreshBlock, ClientError> {
        let mut reserves = self.reserves.lock().expect("no holder of this lock panics");
        let reserve = match reserves.get_mut(namespace) {
            Some(reserve) if reserve.next < reserve.end => reserve,
            _ => {
                let reserve = self.reserve(namespace)?;
                reserves.entry(namespace.to_owned()).insert_entry(reserve).into_mut()
            }
        };
        let block = reserve.next;
        reserve.next += 1;
        let count = u64::try_from(reserve.groups.len()).expect("a length fits 64 bits");
        let index = usize::try_from((block - reserve.first) % count).expect("under a length");
        let group = GroupId(reserve.groups[index]);
        let Reserve { unit_log2, key_domain, .. } = *reserve;
        Ok(FreshBlock { block: BlockId(block), group, unit_log2, key_domain })
    }

    fn reserve(&self, namespace: &str) -> Result<Reserve, ClientError> {
        let ask = ReserveBlocks { session: self.id, count: RESERVE_COUNT, namespace: namespace.to_owned() };
        let found = match self.metadata.change(Op::ReserveBlocks(ask)) {
            Ok(response::Result::BlocksReserved(found)) => found,
            Ok(_) => return Err(ClientError::Protocol("a reservation was answered with something else")),
            Err(error) => {
                if matches!(error, ClientError::Refused { code: Code::Fenced, .. }) {
                    self.mark_ended();
                }
                return Err(error);
            }
        };
        if found.count == 0 || found.groups.is_empty() {
            return Err(ClientError::Protocol("a reservation without blocks or groups"));
        }
        let (first, count) = (found.first_block, u64::from(found.count));
        // A namespace without rules, or an older controller, says nothing.
        let unit_log2 =
            u8::try_from(found.unit_log2).ok().filter(|log2| (UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(log2));
        let (end, unit_log2) = (first.saturating_add(count), unit_log2.unwrap_or(UNIT_LOG2_DEFAULT));
        let key_domain = found.key_domain;
        Ok(Reserve { first, next: first, end, groups: found.groups, unit_log2, key_domain })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.stop.stopped.lock().expect("no holder of this lock panics") = true;
        self.stop.changed.notify_all();
        if let Some(renewer) = self.renewer.take() {
            // One that panicked has said so.
            let _ = renewer.join();
        }
        if !self.has_ended() {
            // When nobody hears it, the session ends with its lease.
            let _ = self.metadata.change(Op::CloseSession(CloseSession { session: self.id }));
        }
    }
}

fn renew(metadata: &Metadata, session: u64, every: Duration, ended: &AtomicBool, stop: &Stop) {
    loop {
        let stopped = stop.stopped.lock().expect("no holder of this lock panics");
        let (stopped, _) = stop
            .changed
            .wait_timeout_while(stopped, every, |stopped| !*stopped)
            .expect("no holder of this lock panics");
        if *stopped {
            return;
        }
        drop(stopped);
        // Unreachable metadata is tried again at the next turn; only a clear answer ends the session.
        if let Err(ClientError::Refused { code: Code::Fenced, .. }) =
            metadata.read(Op::RenewSession(RenewSession { session }))
        {
            ended.store(true, Ordering::Release);
            return;
        }
    }
}

//! Where data enter and leave a region: seal, gather, write, read, check, fail over.
//!
//! The edge holds the only keys of the data path. It seals each unit once, out of the program's memory into its own,
//! and from there on every host handles sealed bytes (design: NovaFS protocol, sections 2 and 3). The code is generic
//! over the seams, so the simulator runs exactly what `novad` runs (docs/adr/0003).
#![forbid(unsafe_code)]

mod block_keys;
mod cut;
mod error;
mod gather;
mod hedge;
mod keyring;
mod nearest;
mod order;
mod read;
mod write;
mod writer;

pub use cut::TrimRequest;
pub use error::EdgeError;
pub use gather::{GATHER_BYTES_MAX, MESSAGES_IN_FLIGHT_MAX};
pub use keyring::{HeldKey, Keyring};
pub use read::{Located, ReadRequest};
pub use write::{Plaintext, WriteRequest};
pub use writer::{BlockSummary, WRITERS_MAX, WriterId, WriterOpened};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use gather::GroupQueue;
use nearest::Nearest;
use nova_device::sync::Notify;
use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, Epoch, Generation, GroupId};
use novafs_replica::Configuration;
use write::Memory;
use writer::Writers;

/// Limits and pace of an edge; the defaults suit one shard with a 64 MiB arena.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// How long a write or read is tried over members and epochs before it is answered `Unavailable`.
    pub deadline: Duration,
    /// How long one attempt at one host may take.
    pub attempt: Duration,
    /// Plaintext on its way, over all groups, what is read to be merged included; further writes wait for room.
    pub pending_bytes_max: usize,
    /// Blocks that writers may have open at once; each holds its unit digests.
    pub open_blocks_max: usize,
    /// How long a request waits for a key that is not here, and was asked for.
    pub key_wait: Duration,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempt: Duration::from_secs(5),
            pending_bytes_max: 64 << 20,
            open_blocks_max: 65_536,
            key_wait: Duration::from_secs(5),
        }
    }
}

/// While a request waits for a key, somebody is told so this often.
const KEY_ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What an edge has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Units sealed.
    pub units_sealed: u64,
    /// Units read and merged with a write that covered them only partly.
    pub units_merged: u64,
    /// Units opened, each with a verified tag.
    pub units_opened: u64,
    /// Plaintext bytes acknowledged as durable in every member.
    pub bytes_written: u64,
    /// Plaintext bytes given out.
    pub bytes_read: u64,
    /// Replies of members whose bytes failed a check here, or that reported a bad page themselves.
    pub bad_replies: u64,
    /// Members that were asked for no other reason than that one had a bad copy.
    pub looks: u64,
    /// Attempts that were made again elsewhere or under a newer epoch.
    pub retries: u64,
    /// Reads that were asked of a second member because the first took longer than it mostly does.
    pub reads_hedged: u64,
    /// Of those, how many the second member answered first.
    pub hedges_won: u64,
    /// Reads that would have been asked twice, but too many were lately.
    pub hedges_held_back: u64,
    /// Longest time between two acknowledged writes while writes were waiting, in milliseconds.
    pub write_stall_ms_max: u64,
}

/// The edge of one host. One per shard; `!Send`.
#[derive(Debug)]
pub struct Edge<S: Shard, P: Peers> {
    shard: S,
    peers: P,
    keys: Keyring,
    options: EdgeOptions,
    map: RefCell<Rc<Configuration>>,
    map_changed: Notify,
    writers: Writers,
    queues: RefCell<HashMap<GroupId, Rc<GroupQueue>>>,
    nearest: Nearest,
    counters: RefCell<EdgeCounters>,
    memory: Rc<Memory>,
    last_progress: Cell<Option<Duration>>,
    /// Looks at further members under way.
    looking: Cell<usize>,
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// An edge without a map: everything answers `Unavailable` until [`Edge::configure`] brings one.
    #[must_use]
    pub fn new(shard: S, peers: P, keys: Keyring, options: EdgeOptions) -> Rc<Self> {
        Rc::new(Self {
            writers: Writers::new(options.open_blocks_max),
            shard,
            peers,
            keys,
            options,
            map: RefCell::default(),
            map_changed: Notify::new(),
            queues: RefCell::default(),
            nearest: Nearest::default(),
            counters: RefCell::default(),
            memory: Rc::default(),
            last_progress: Cell::new(None),
            looking: Cell::new(0),
        })
    }

    /// Takes a newer map; an older one is ignored. Whoever waits for a new epoch goes on.
    pub fn configure(&self, map: Rc<Configuration>) {
        if map.version < self.map.borrow().version {
            return;
        }
        self.map.replace(map);
        self.map_changed.notify_all();
    }

    /// What it has done since it started.
    #[must_use]
    pub fn counters(&self) -> EdgeCounters {
        *self.counters.borrow()
    }

    /// Opens a writer: a fresh salt from the shard's secret randomness, so that no key of an earlier writer, of this
    /// run or another, can come up again (docs/adr/0006).
    ///
    /// It seals under one version of one domain's key for as long as it lives, because that belongs to a block: version
    /// 0 is the current one, domain 0 the first that is here. Waits for a key that has to be brought, `key_wait` at most.
    ///
    /// # Errors
    /// `NoKey` when this edge holds none to seal with, `KeyDropped` when there never will be one; `TooManyWriters` while
    /// [`WRITERS_MAX`] are open.
    ///
    /// # Cancel safety
    /// Safe: nothing is opened before it is answered.
    pub async fn open_writer(&self, domain: u32, version: u32) -> Result<WriterOpened, EdgeError> {
        let key = self.key(domain, version).await?;
        let mut salt = [0; 16];
        self.shard.fill_secret(&mut salt);
        self.writers.open(salt, key)
    }

    /// Version of the key that new blocks of the domain are sealed with; domain 0 is the first that is here.
    ///
    /// # Errors
    /// As [`Edge::open_writer`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn current_key(&self, domain: u32) -> Result<(u32, u32), EdgeError> {
        self.key(domain, 0).await.map(|key| (key.domain(), key.version()))
    }

    /// Forgets a key domain for good: its keys, and every block that a writer has open under them. Requests under way
    /// end within their deadline; what comes later is answered `KeyDropped`.
    pub fn drop_domain(&self, domain: u32) {
        self.keys.drop_domain(domain);
        self.writers.forget_keys(|held, _| (held == domain).then_some(EdgeError::KeyDropped { domain }));
    }

    /// Forgets the keys whose time is over, and what is open under them.
    pub fn expire_keys(&self) {
        let gone = self.keys.expire(self.shard.clock().now());
        if !gone.is_empty() {
            self.writers.forget_keys(|domain, version| {
                gone.contains(&(domain, version)).then_some(EdgeError::NoKey { domain, version })
            });
        }
    }

    /// The keys of this edge.
    #[must_use]
    pub const fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// A key by name, version 0 for the current one; waits while somebody may bring it.
    async fn key(&self, domain: u32, version: u32) -> Result<Rc<HeldKey>, EdgeError> {
        let clock = self.shard.clock();
        let until = clock.now() + self.options.key_wait;
        let mut ask_at = clock.now();
        loop {
            let found = match version {
                0 => self.keys.current(domain),
                version => self.keys.find(domain, version),
            };
            match found {
                Err(EdgeError::NoKey { .. }) if clock.now() < until => {}
                settled => return settled,
            }
            // Whoever was told may have lost the word, or the key on its way.
            if clock.now() >= ask_at {
                self.keys.ask_again(domain);
                ask_at = clock.now() + KEY_ASKED_AGAIN;
            }
            futures_lite::future::or(self.keys.changed(), clock.sleep_until(ask_at.min(until))).await;
        }
    }

    /// Ends a writer and forgets the blocks that it left open. Writes in flight are still carried out.
    pub fn close_writer(&self, writer: WriterId) {
        self.writers.close(writer);
    }

    /// Sums up a block: all of its units are sealed and acknowledged. Forgets the block.
    ///
    /// # Errors
    /// `UnknownWriter` when the writer or the block is not open here; `Invalid` when what was sealed does not reach
    /// exactly to `plain_bytes` without a gap, or writes are still under way.
    pub fn close_block(
        &self,
        writer: WriterId,
        block: BlockId,
        generation: Generation,
        plain_bytes: u64,
    ) -> Result<BlockSummary, EdgeError> {
        self.writers.close_block(writer, block, generation, plain_bytes)
    }

    fn map(&self) -> Rc<Configuration> {
        Rc::clone(&self.map.borrow())
    }

    fn count(&self, change: impl FnOnce(&mut EdgeCounters)) {
        change(&mut self.counters.borrow_mut());
    }

    /// Waits until the map changes or `pause` has passed, whichever is first.
    async fn wait_for_map(&self, pause: Duration) {
        let clock = self.shard.clock();
        let until = clock.now() + pause;
        futures_lite::future::or(self.map_changed.notified(), clock.sleep_until(until)).await;
    }

    /// What `attempt` comes to; `None` once the map has a later epoch of the group: a member that hangs or is cut off does
    /// not answer, and the others go on without it.
    async fn within_epoch<T>(
        &self,
        group: GroupId,
        epoch: Epoch,
        attempt: impl Future<Output = T>,
    ) -> Option<T> {
        let passes = async {
            loop {
                let changed = self.map_changed.notified();
                if self.map().group(group).is_none_or(|view| view.epoch > epoch) {
                    return None;
                }
                changed.await;
            }
        };
        futures_lite::future::or(async { Some(attempt.await) }, passes).await
    }
}

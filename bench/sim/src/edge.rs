//! Edges of the simulator: the real seal and the real messages, with the rudeness that a good edge avoids: copies
//! sent again long after, writers that go on after they were fenced, maps that are old.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::mem::MemShard;
use nova_device::{Clock, Peers, Request, Shard};
use nova_units::{BlockId, Generation, GroupId, NodeId, Priority, TaskClass, UnitIndex};
use novafs_format::LogEntry;
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_replica::message::BODY_BYTES_MAX;
use novafs_replica::{Answer, Configuration, Message};

use crate::cluster::StorageHost;
use crate::history::{History, VersionNumber, claimed_version, plaintext};
use crate::net::SimPeers;

/// How long a write is tried before its writer gives up.
const WRITE_PATIENCE: Duration = Duration::from_secs(6);
/// How long one answer is waited for.
const ATTEMPT: Duration = Duration::from_millis(1_200);
/// Copies that wait at once: each holds its body.
const ECHOES_MAX: usize = 8;
const PAUSE: Duration = Duration::from_millis(30);
/// How often a block is collected that cannot be collected now, and how long apart.
const COLLECT_TRIES_MAX: usize = 20;
const COLLECT_AGAIN: Duration = Duration::from_millis(300);

/// A block that the edges write and read.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) id: BlockId,
    pub(crate) group: GroupId,
    pub(crate) unit_log2: u8,
    pub(crate) units: u16,
    salts: RefCell<BTreeMap<Generation, [u8; 16]>>,
    counters: RefCell<BTreeMap<Generation, u64>>,
}

impl Block {
    pub(crate) fn new(id: BlockId, group: GroupId, unit_log2: u8, units: u16, salt: [u8; 16]) -> Self {
        let salts = RefCell::new([(Generation(1), salt)].into());
        Self { id, group, unit_log2, units, salts, counters: RefCell::default() }
    }

    fn generation(&self) -> Generation {
        *self.salts.borrow().keys().next_back().expect("a block has a writer")
    }

    fn key(&self, domain: &DomainKey, generation: Generation) -> Option<BlockKey> {
        let salt = *self.salts.borrow().get(&generation)?;
        Some(BlockKey::derive(domain, &salt, self.id, generation).with_unit_log2(self.unit_log2))
    }
}

/// An edge.
#[derive(Debug)]
pub(crate) struct SimEdge {
    pub(crate) node: NodeId,
    pub(crate) shard: MemShard,
    pub(crate) peers: SimPeers,
    pub(crate) map: RefCell<Configuration>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) domain: DomainKey,
    pub(crate) stopping: Rc<Cell<bool>>,
    /// Copies that wait to be sent.
    pub(crate) echoes: Cell<usize>,
    /// Of a thousand writes, how many are sent a second time, later.
    pub(crate) echo_permille: u32,
    /// Of a thousand writes, how many begin with another writer taking the block over.
    pub(crate) takeover_permille: u32,
    /// Longest pause between two writes of a writer, in milliseconds.
    pub(crate) idle_ms: u64,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    Fenced,
    Full,
    Unknown,
}

impl SimEdge {
    fn chance(&self, permille: u32) -> bool {
        self.shard.random() % 1000 < u64::from(permille)
    }

    fn below(&self, bound: u64) -> u64 {
        self.shard.random() % bound.max(1)
    }

    async fn pause(&self, time: Duration) {
        self.shard.clock().sleep_until(self.shard.clock().now() + time).await;
    }

    async fn ask(&self, to: NodeId, message: &Message, body: Option<SharedBuf>) -> Option<(Answer, Vec<u8>)> {
        let request = Request {
            priority: Priority::P1,
            hop: 0,
            head: message.encode(),
            body,
            reply_bytes_max: u32::try_from(BODY_BYTES_MAX).expect("1 MiB"),
            deadline: ATTEMPT,
            control: false,
        };
        let reply = self.peers.call(to, request).await.ok()?;
        let body = reply.body.map(|body| body.to_vec()).unwrap_or_default();
        Some((Answer::decode(&reply.head).ok()?, body))
    }

    /// Offers an entry to whoever the map says is primary, until there is an answer that ends it.
    async fn offer(&self, group: GroupId, entry: &LogEntry, body: Option<SharedBuf>) -> Outcome {
        let until = self.shard.clock().now() + WRITE_PATIENCE;
        while self.shard.clock().now() < until {
            let target = self.map.borrow().group(group).map(|view| (view.epoch, view.primary));
            let Some((epoch, primary)) = target else {
                self.pause(PAUSE).await;
                continue;
            };
            let message = Message::Write { group, epoch, entry: entry.clone() };
            match self.ask(primary, &message, body.clone()).await {
                Some((Answer::Written { .. }, _)) => return Outcome::Written,
                Some((Answer::Fenced { .. }, _)) => return Outcome::Fenced,
                Some((Answer::Full, _)) => return Outcome::Full,
                Some((Answer::Conflict, _)) => {
                    self.history.borrow_mut().violation(format!("a retry was called a conflict: {entry:?}"));
                    return Outcome::Unknown;
                }
                Some((Answer::Damaged, _)) => {
                    self.history.borrow_mut().violation("an intact write was called damaged".to_owned());
                    return Outcome::Unknown;
                }
                _ => self.pause(PAUSE).await,
            }
        }
        Outcome::Unknown
    }

    /// Writes versions of some units of a block, as the writer of `generation`.
    async fn write_units(self: &Rc<Self>, block: &Block, generation: Generation, first: u16, count: u16) {
        let (entry, stored, versions) = self.seal(block, generation, first, count);
        let mut body = self.shard.pool().take(stored.len()).await;
        body.copy_from_slice(&stored);
        let body = body.freeze();
        let outcome = self.offer(block.group, &entry, Some(body.clone())).await;
        self.note(block, outcome, &versions);
        if self.chance(self.echo_permille) && self.echoes.get() < ECHOES_MAX {
            self.echoes.set(self.echoes.get() + 1);
            self.echo(block.group, entry, body);
        }
        if outcome == Outcome::Full {
            self.pause(Duration::from_millis(200)).await;
        }
    }

    fn note(&self, block: &Block, outcome: Outcome, versions: &[(UnitIndex, VersionNumber)]) {
        let mut history = self.history.borrow_mut();
        match outcome {
            Outcome::Written => {
                for (unit, version) in versions {
                    history.ack_write(block.id, *unit, *version);
                }
            }
            Outcome::Fenced => history.counts.fenced += 1,
            Outcome::Full => history.counts.full += 1,
            Outcome::Unknown => history.counts.writes_unknown += versions.len() as u64,
        }
    }

    /// The same bytes once more, much later, to anybody.
    fn echo(self: &Rc<Self>, group: GroupId, entry: LogEntry, body: SharedBuf) {
        let edge = Rc::clone(self);
        self.shard.spawn(TaskClass::Client, async move {
            edge.pause(Duration::from_millis(edge.below(3_000))).await;
            let target = edge.map.borrow().group(group).map(|view| (view.epoch, view.primary));
            if let Some((epoch, primary)) = target {
                let message = Message::Write { group, epoch, entry };
                let _ = edge.ask(primary, &message, Some(body)).await;
            }
            edge.echoes.set(edge.echoes.get() - 1);
        });
    }

    fn seal(
        &self,
        block: &Block,
        generation: Generation,
        first: u16,
        count: u16,
    ) -> (LogEntry, Vec<u8>, Vec<(UnitIndex, VersionNumber)>) {
        let key = block.key(&self.domain, generation).expect("a writer has a salt");
        let salt = block.salts.borrow()[&generation];
        let mut stored = Vec::new();
        let (mut units, mut versions) = (Vec::new(), Vec::new());
        for index in first..first + count {
            let unit = UnitIndex(index);
            let mut history = self.history.borrow_mut();
            let version = history.begin_write(block.id, unit, generation);
            let counter = {
                let mut counters = block.counters.borrow_mut();
                let counter = counters.entry(generation).or_default();
                *counter += 1;
                *counter
            };
            history.note_seal(salt, block.id, generation, unit, counter);
            drop(history);
            let plain = plaintext(block.id, unit, version, block.unit_log2);
            let mut out = vec![0; plain.len().next_multiple_of(novafs_format::PAGE)];
            units.push(key.seal(unit, counter, &plain, &mut out));
            stored.extend_from_slice(&out);
            versions.push((unit, version));
        }
        (LogEntry::Units(units), stored, versions)
    }

    /// Writes one block, again and again, until the run ends.
    pub(crate) async fn run_writer(self: Rc<Self>, block: Rc<Block>) {
        let most = u16::try_from(BODY_BYTES_MAX >> block.unit_log2).unwrap_or(256).min(block.units).min(8);
        while !self.stopping.get() {
            if self.chance(self.takeover_permille) {
                self.take_over(&block).await;
            }
            let count = 1 + u16::try_from(self.below(u64::from(most))).expect("small");
            let first = u16::try_from(self.below(u64::from(block.units - count + 1))).expect("small");
            self.write_units(&block, block.generation(), first, count).await;
            self.pause(Duration::from_millis(self.below(self.idle_ms))).await;
        }
    }

    /// Another writer takes the block over; the one before goes on for a while, as one that was cut off would.
    async fn take_over(self: &Rc<Self>, block: &Rc<Block>) {
        let old = block.generation();
        let new = old.next();
        let fence = LogEntry::Fence { block: block.id, generation: new };
        loop {
            match self.offer(block.group, &fence, None).await {
                Outcome::Written => break,
                Outcome::Fenced => return,
                _ if self.stopping.get() => return,
                _ => self.pause(PAUSE).await,
            }
        }
        self.history.borrow_mut().ack_fence(block.id, new);
        let mut salt = [0; 16];
        self.shard.fill_secret(&mut salt);
        block.salts.borrow_mut().insert(new, salt);
        let (edge, block) = (Rc::clone(self), Rc::clone(block));
        self.shard.spawn(TaskClass::Client, async move {
            edge.pause(Duration::from_millis(edge.below(500))).await;
            edge.write_units(&block, old, 0, 1).await;
        });
    }

    /// Reads some units now and then, until the run ends.
    pub(crate) async fn run_reader(self: Rc<Self>, blocks: Rc<Vec<Rc<Block>>>) {
        while !self.stopping.get() {
            let block = &blocks[usize::try_from(self.below(blocks.len() as u64)).expect("few blocks")];
            let first = u16::try_from(self.below(u64::from(block.units))).expect("small");
            let count = 1 + u16::try_from(self.below(4)).expect("small").min(block.units - first - 1);
            let count = count.min(u16::try_from(BODY_BYTES_MAX >> block.unit_log2).unwrap_or(256));
            let member = usize::try_from(self.below(3)).expect("small");
            if !self.read_units(block, first, count, Some(member)).await {
                self.history.borrow_mut().counts.reads_unanswered += 1;
            }
            self.pause(Duration::from_millis(self.below(50))).await;
        }
    }

    /// Reads a run of units, from one member (by its place in the map) or whichever answers; false when nobody does.
    pub(crate) async fn read_units(
        &self,
        block: &Block,
        first: u16,
        count: u16,
        member: Option<usize>,
    ) -> bool {
        self.try_read(block, first, count, member).await.is_ok()
    }

    /// As [`SimEdge::read_units`].
    ///
    /// # Errors
    /// The last answer that was none.
    pub(crate) async fn try_read(
        &self,
        block: &Block,
        first: u16,
        count: u16,
        member: Option<usize>,
    ) -> Result<(), String> {
        let units: Vec<_> = (first..first + count).map(UnitIndex).collect();
        let least: Vec<_> = {
            let history = self.history.borrow();
            units.iter().map(|unit| history.begin_read(block.id, *unit)).collect()
        };
        let Some((epoch, members)) = self.map.borrow().group(block.group).map(|view| {
            let members: Vec<_> = view.members.iter().map(|member| member.node).collect();
            (view.epoch, members)
        }) else {
            return Err("no map".to_owned());
        };
        let mut last = String::new();
        let tried: Vec<_> = match member {
            Some(index) => vec![members[index % members.len()]],
            None => members,
        };
        for node in tried {
            let message =
                Message::Read { group: block.group, epoch, block: block.id, first: UnitIndex(first), count };
            match self.ask(node, &message, None).await {
                Some((Answer::Units { units: found }, body)) => {
                    self.judge(node, block, &units, &least, &found, &body);
                    return Ok(());
                }
                other => last = format!("{node}: {:?}", other.map(|(answer, _)| answer)),
            }
        }
        Err(last)
    }

    /// Reads a unit of any block from one host for the sake of what reading does there: a bad copy is repaired.
    pub(crate) async fn poke(&self, node: NodeId, group: GroupId, block: BlockId, unit: UnitIndex) {
        let epoch = self.map.borrow().group(group).map(|view| view.epoch);
        if let Some(epoch) = epoch {
            let message = Message::Read { group, epoch, block, first: unit, count: 1 };
            let _ = self.ask(node, &message, None).await;
        }
    }

    fn judge(
        &self,
        node: NodeId,
        block: &Block,
        units: &[UnitIndex],
        least: &[VersionNumber],
        found: &[novafs_replica::Versioned],
        body: &[u8],
    ) {
        let who = format!("{} from {node}", self.node);
        let mut history = self.history.borrow_mut();
        let mut at = 0;
        let mut found = found.iter().peekable();
        for (unit, least) in units.iter().zip(least) {
            let Some(record) = found.next_if(|record| record.sealed.unit == *unit) else {
                history.end_read(&who, block.id, *unit, *least, 0);
                continue;
            };
            let stored = &body[at..at + record.sealed.padded_bytes()];
            at += stored.len();
            match self.open(block, record, stored) {
                Some(version) => history.end_read(&who, block.id, *unit, *least, version),
                None => history.violation(format!("wrong bytes: {who} read {} {unit}", block.id)),
            }
        }
        if found.next().is_some() || at != body.len() {
            history.violation(format!("{who} was given more than it asked for"));
        }
    }

    /// The version that the bytes are, when they are the authentic bytes of one.
    fn open(
        &self,
        block: &Block,
        record: &novafs_replica::Versioned,
        stored: &[u8],
    ) -> Option<VersionNumber> {
        let sealed = &record.sealed;
        sealed.check_pages(stored).ok()?;
        let key = block.key(&self.domain, sealed.generation)?;
        let mut plain = vec![0; sealed.stored_bytes as usize];
        key.open(sealed, stored, &mut plain).ok()?;
        let version = claimed_version(&plain)?;
        (sealed.block == block.id && plain == plaintext(block.id, sealed.unit, version, block.unit_log2))
            .then_some(version)
    }

    /// Lets the host of the primary collect a block, as the controllers order it.
    pub(crate) async fn collect(&self, block: &Block, hosts: &BTreeMap<NodeId, Rc<StorageHost>>) {
        self.history.borrow_mut().begin_delete(block.id);
        for _ in 0..COLLECT_TRIES_MAX {
            let primary = self.map.borrow().group(block.group).map(|view| view.primary);
            if let Some(collected) = primary.and_then(|node| hosts.get(&node)?.collect(block.group, block.id))
                && let Ok(Ok(collected)) = collected.await
            {
                // Where nothing was held there was nothing to delete, and a writer may still begin.
                if collected.blocks > 0 {
                    self.history.borrow_mut().ack_delete(block.id);
                }
                return;
            }
            self.shard.clock().sleep_until(self.shard.clock().now() + COLLECT_AGAIN).await;
        }
    }

    /// Deletes a block.
    pub(crate) async fn delete(&self, block: &Block) {
        self.history.borrow_mut().begin_delete(block.id);
        for _ in 0..20 {
            if self.offer(block.group, &LogEntry::Delete { block: block.id }, None).await == Outcome::Written
            {
                self.history.borrow_mut().ack_delete(block.id);
                return;
            }
        }
    }
}

//! Three hosts of one group that do what they are told, or what a test makes them do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::MemShard;
use nova_device::{Clock, PeerError, Peers, Reply, Request, Shard};
use nova_units::{
    BlockId, CommitPoint, Epoch, Generation, GroupId, Incarnation, NodeId, Replicas, Seq, UnitIndex,
};
use novafs_format::{Cut, LogEntry};
use novafs_replica::{Answer, Configuration, GroupView, MemberView, Message, NodeView, Role, Versioned};

pub(crate) const GROUP: GroupId = GroupId(1);
type Stored = BTreeMap<(BlockId, UnitIndex), (Versioned, Vec<u8>)>;

/// The hosts, and what a test knows and wants of them.
#[derive(Clone)]
pub(crate) struct FakeHosts {
    pub(crate) shard: MemShard,
    pub(crate) seen: Rc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) stored: RefCell<Stored>,
    /// Fence and latest cut of each block.
    pub(crate) fences: RefCell<BTreeMap<BlockId, (Generation, Cut)>>,
    /// Head and body of every write that arrived, answered well or not.
    pub(crate) writes: RefCell<Vec<(LogEntry, Vec<u8>)>>,
    /// Answers to give to the next writes instead of storing them.
    pub(crate) refuse: RefCell<Vec<Result<Answer, PeerError>>>,
    /// Hosts whose bytes come back with a bit flipped.
    pub(crate) rotten: RefCell<Vec<NodeId>>,
    /// Hosts that take so long to answer a read.
    pub(crate) slow: RefCell<BTreeMap<NodeId, Duration>>,
    /// Requests of this epoch are never answered.
    pub(crate) hangs: Cell<Option<Epoch>>,
    /// While true, writes wait.
    pub(crate) held: Cell<bool>,
    pub(crate) released: nova_device::sync::Notify,
}

pub(crate) fn map(version: u64, epoch: u64) -> Rc<Configuration> {
    let nodes = (1..=3).map(|node| (NodeId(node), NodeView::default())).collect();
    let members = (1..=3)
        .map(|node| MemberView { node: NodeId(node), incarnation: Incarnation(1), role: Role::InSync })
        .collect();
    let view = GroupView {
        epoch: Epoch(epoch),
        primary: NodeId(1),
        replicas: Replicas::DEFAULT,
        members,
        frozen: false,
        former: Vec::new(),
    };
    Rc::new(Configuration {
        version,
        self_node: NodeId(9),
        nodes,
        groups: [(GROUP, view)].into(),
        ..Configuration::default()
    })
}

impl Peers for FakeHosts {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        while self.seen.held.get() {
            self.seen.released.notified().await;
        }
        let message = Message::decode(&request.head).expect("the edge sends sound heads");
        if let Message::Write { epoch, .. } | Message::Read { epoch, .. } = &message
            && self.seen.hangs.get() == Some(*epoch)
        {
            std::future::pending::<()>().await;
        }
        let (answer, bytes) = match message {
            Message::Write { epoch, entry, .. } => {
                (self.write(epoch, &entry, request.body.as_deref().unwrap_or_default())?, None)
            }
            Message::Read { block, first, count, .. } => {
                let slow = self.seen.slow.borrow().get(&to).copied();
                if let Some(slow) = slow {
                    let clock = self.shard.clock();
                    clock.sleep_until(clock.now() + slow).await;
                }
                self.read(to, block, first, count)
            }
            other => panic!("not asked for here: {other:?}"),
        };
        let body = bytes.map(|bytes| {
            let mut body = self.shard.pool().try_take(bytes.len()).expect("room in the pool");
            body.copy_from_slice(&bytes);
            body
        });
        Ok(Reply { head: answer.encode(), body })
    }
}

impl FakeHosts {
    fn write(&self, epoch: Epoch, entry: &LogEntry, body: &[u8]) -> Result<Answer, PeerError> {
        self.seen.writes.borrow_mut().push((entry.clone(), body.to_vec()));
        let refusal = self.seen.refuse.borrow_mut().pop();
        if let Some(refusal) = refusal {
            return refusal;
        }
        if let Some(answer) = self.refused(entry) {
            return Ok(answer);
        }
        let commit = CommitPoint { epoch, seq: Seq(self.seen.writes.borrow().len() as u64) };
        let mut at = 0;
        for sealed in entry.units() {
            let bytes = body[at..at + sealed.padded_bytes()].to_vec();
            sealed.check_pages(&bytes).expect("what the edge sends matches its sums");
            at += bytes.len();
            let versioned = Versioned { sealed: *sealed, commit };
            self.seen.stored.borrow_mut().insert((sealed.block, sealed.unit), (versioned, bytes));
        }
        assert_eq!(at, body.len(), "nothing beyond the units");
        match *entry {
            LogEntry::Fence { block, generation } => {
                self.seen.fences.borrow_mut().entry(block).or_default().0 = generation;
            }
            LogEntry::Trim { block, from_unit, cut } => {
                self.seen.fences.borrow_mut().entry(block).or_default().1 = cut;
                self.seen.stored.borrow_mut().retain(|(of, unit), _| *of != block || *unit < from_unit);
            }
            LogEntry::Units(_) | LogEntry::Delete { .. } => {}
        }
        Ok(Answer::Written { epoch, seq: commit.seq })
    }

    /// What a primary would say instead of ordering the entry.
    fn refused(&self, entry: &LogEntry) -> Option<Answer> {
        let fences = self.seen.fences.borrow();
        let known = |block| fences.get(&block).copied().unwrap_or_default();
        let fenced = |block, generation| {
            let fence = known(block).0;
            (generation < fence).then_some(Answer::Fenced { generation: fence })
        };
        match *entry {
            LogEntry::Units(ref units) => units.iter().find_map(|unit| {
                let cut = known(unit.block).1;
                assert!(
                    unit.generation != cut.generation || unit.counter > cut.counter,
                    "an edge waits for its writes before it cuts"
                );
                fenced(unit.block, unit.generation)
            }),
            LogEntry::Fence { block, generation } => fenced(block, generation),
            LogEntry::Trim { block, cut, .. } => fenced(block, cut.generation),
            LogEntry::Delete { .. } => None,
        }
    }

    fn read(&self, host: NodeId, block: BlockId, first: UnitIndex, count: u16) -> (Answer, Option<Vec<u8>>) {
        let stored = self.seen.stored.borrow();
        let last = UnitIndex(first.0 + count - 1);
        let found: Vec<_> = stored.range((block, first)..=(block, last)).map(|(_, found)| found).collect();
        let mut body: Vec<u8> = found.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        if self.seen.rotten.borrow().contains(&host) && body.len() > 5000 {
            body[5000] ^= 1;
        }
        let units = found.iter().map(|(versioned, _)| versioned.clone()).collect();
        (Answer::Units { units }, (!body.is_empty()).then_some(body))
    }
}

//! A few hosts around a model of their stores, with time and messages under the test's control.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nova_units::{
    BlockId, BootId, CommitPoint, Epoch, Generation, GroupId, Incarnation, NodeId, Replicas, Seq, UnitIndex,
};
use novafs_format::{Codec, Cut, LogEntry, SealedUnit};

use super::{Host, HostIdentity};
use crate::effect::{
    CallId, Effect, Input, KnownUnit, Loaded, RecoveredGroup, SavedGroup, ScanFrom, StoreFault, StoreRequest,
    Stored, Ticket, Trust, Version,
};
use crate::{
    Answer, BlockFence, Configuration, Grant, GroupView, MemberView, Message, NodeView, Report, Role, Route,
    Versioned,
};

mod chain;
mod change;
mod join;
mod steady;

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const BLOCK: BlockId = BlockId::new(0, 42);
/// The sender of writes.
const EDGE: NodeId = NodeId(100);
const MS: Duration = Duration::from_millis(1);

/// A sealed unit of [`BLOCK`] with this counter; its digest tells versions apart.
pub(crate) fn unit(unit: u16, counter: u64) -> SealedUnit {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&counter.to_le_bytes());
    SealedUnit {
        block: BLOCK,
        unit: UnitIndex(unit),
        generation: Generation(1),
        counter,
        plain_bytes: 4096,
        stored_bytes: 4096,
        codec: Codec::Raw,
        unit_log2: 16,
        tag: [0; 16],
        salt: [1; 16],
        digest,
        page_crc: [0; 16],
    }
}

/// What a device holds of a group. The body of an entry is the counter of its first unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelGroup {
    saved: Option<SavedGroup>,
    log: BTreeMap<Seq, (CommitPoint, LogEntry, Option<u64>)>,
    /// Entries up to here are forgotten by the log.
    forgotten: Seq,
    commit: Seq,
    pub(crate) units: BTreeMap<(BlockId, UnitIndex), Versioned>,
    pub(crate) fences: BTreeMap<BlockId, Generation>,
    pub(crate) cuts: BTreeMap<BlockId, Cut>,
}

impl ModelGroup {
    fn commit(&mut self, seq: Seq) {
        let entries: Vec<_> =
            self.log.range(self.commit.next()..=seq).map(|(_, entry)| entry.clone()).collect();
        for (at, entry, _) in entries {
            match entry {
                LogEntry::Units(units) => {
                    for sealed in units {
                        self.put(Versioned { sealed, commit: at });
                    }
                }
                LogEntry::Fence { block, generation } => {
                    self.fences.insert(block, generation);
                }
                LogEntry::Delete { block } => self.units.retain(|(held, _), _| *held != block),
                LogEntry::Trim { block, from_unit, cut } => {
                    self.units.retain(|(held, unit), _| *held != block || *unit < from_unit);
                    self.cuts.insert(block, cut);
                }
            }
        }
        self.commit = self.commit.max(seq);
    }

    fn put(&mut self, unit: Versioned) {
        let key = (unit.sealed.block, unit.sealed.unit);
        if self.units.get(&key).is_none_or(|held| held.commit.seq <= unit.commit.seq) {
            self.units.insert(key, unit);
        }
    }
}

pub(crate) struct Node {
    pub(crate) host: Host<u64>,
    pub(crate) store: BTreeMap<GroupId, ModelGroup>,
    pub(crate) bytes_free: u64,
    /// Appends of units find no room, although there seemed to be some.
    pub(crate) no_room: bool,
    /// Bytes of entries cannot be read back, and nobody else has them.
    pub(crate) unreadable: bool,
    /// Appends wait while this is set.
    pub(crate) disk_hangs: bool,
    /// How often the device was told that its mount is confirmed.
    pub(crate) settled: usize,
    held: Vec<(crate::effect::OpId, StoreRequest<u64>)>,
    boot: BootId,
    up: bool,
    pub(crate) reports: Vec<Report>,
}

/// The hosts and everything under way.
pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    queue: VecDeque<(NodeId, Input<u64>)>,
    tickets: BTreeMap<Ticket, (NodeId, CallId)>,
    next_ticket: u64,
    pub(crate) answers: BTreeMap<Ticket, Answer>,
    /// Pairs that cannot talk.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// A host whose answers to an open are held back.
    pub(crate) late: Option<NodeId>,
    held_back: Vec<(NodeId, Input<u64>)>,
    pub(crate) view: GroupView,
    version: u64,
}

pub(crate) fn member(node: u64, role: Role) -> MemberView {
    MemberView { node: NodeId(node), incarnation: Incarnation(1), role }
}

impl Net {
    /// Hosts 1 to `count`, members in sync of one group in epoch 1, host 1 primary, past their first hold.
    pub(crate) fn new(count: u64) -> Self {
        let members = (1..=count).map(|node| member(node, Role::InSync)).collect();
        let view = GroupView {
            epoch: Epoch(1),
            primary: NodeId(1),
            replicas: u32::try_from(count).ok().and_then(Replicas::new).expect("2 to 5"),
            members,
            frozen: false,
            former: Vec::new(),
        };
        let mut net = Self {
            now: Duration::from_secs(100),
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            answers: BTreeMap::new(),
            cut: BTreeSet::new(),
            late: None,
            held_back: Vec::new(),
            view,
            version: 0,
        };
        for node in 1..=count {
            net.start(node, BTreeMap::new());
        }
        net.configure_all();
        net.run(1_000);
        net
    }

    /// Starts a host over what its device holds.
    pub(crate) fn start(&mut self, node: u64, store: BTreeMap<GroupId, ModelGroup>) {
        let id = NodeId(node);
        let boot = BootId(self.nodes.get(&id).map_or(node * 1000, |old| old.boot.0 + 1));
        let me = HostIdentity { node: id, boot, incarnation: Incarnation(1) };
        let recovered = store
            .iter()
            .filter_map(|(group, held)| {
                let commit = held.log.get(&held.commit).map(|entry| entry.0);
                Some(RecoveredGroup {
                    group: *group,
                    saved: held.saved?,
                    commit: commit.unwrap_or(CommitPoint { epoch: Epoch(0), seq: held.commit }),
                    trust: Trust::Whole,
                    tail: held
                        .log
                        .range(held.commit.next()..)
                        .map(|(_, entry)| (entry.0, entry.1.clone()))
                        .collect(),
                })
            })
            .collect();
        let host = Host::new(me, self.now, recovered);
        let node = Node {
            host,
            store,
            bytes_free: 1 << 30,
            no_room: false,
            unreadable: false,
            disk_hangs: false,
            settled: 0,
            held: Vec::new(),
            boot,
            up: true,
            reports: Vec::new(),
        };
        self.nodes.insert(id, node);
    }

    /// Stops a host at once; what its device holds.
    pub(crate) fn kill(&mut self, node: u64) -> BTreeMap<GroupId, ModelGroup> {
        let node = self.nodes.get_mut(&NodeId(node)).unwrap();
        node.up = false;
        node.store.clone()
    }

    pub(crate) fn store(&self, node: u64) -> &ModelGroup {
        &self.nodes[&NodeId(node)].store[&GROUP]
    }

    pub(crate) fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&NodeId(node)).unwrap()
    }

    /// The log forgets what is committed, as after a checkpoint.
    pub(crate) fn forget_log(&mut self, node: u64) {
        let held = self.node(node).store.get_mut(&GROUP).unwrap();
        held.forgotten = held.commit;
        held.log = held.log.split_off(&held.commit.next());
    }

    /// Raises the epoch with these members; the first in-sync one is primary.
    pub(crate) fn reconfigure(&mut self, members: &[(u64, Role)]) {
        let primary = members.iter().find(|(_, role)| *role == Role::InSync).unwrap().0;
        let members: Vec<_> = members.iter().map(|(node, role)| member(*node, *role)).collect();
        let frozen = members.iter().filter(|member| member.role == Role::InSync).count() < 2;
        self.view = GroupView {
            epoch: self.view.epoch.next(),
            primary: NodeId(primary),
            replicas: self.view.replicas,
            members,
            frozen,
            former: Vec::new(),
        };
        self.configure_all();
    }

    pub(crate) fn configuration(&mut self, node: NodeId) -> Configuration {
        self.version += 1;
        let known = |node: &Node| NodeView { boot: Some(node.boot), addr: None };
        Configuration {
            version: self.version,
            self_node: node,
            nodes: self.nodes.iter().map(|(id, node)| (*id, known(node))).collect(),
            groups: [(GROUP, self.view.clone())].into(),
            confirmed: Some(Incarnation(1)),
            node_lease_until: self.now + Duration::from_secs(25),
        }
    }

    pub(crate) fn configure_all(&mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.configure(node);
        }
    }

    pub(crate) fn configure(&mut self, node: NodeId) {
        let configuration = self.configuration(node);
        self.queue.push_back((node, Input::Configure(configuration)));
    }

    /// Lets `ms` pass.
    pub(crate) fn run(&mut self, ms: u32) {
        for _ in 0..ms {
            self.settle();
            self.now += MS;
            if self.now.as_millis().is_multiple_of(5) {
                for (&node, held) in &self.nodes {
                    self.queue.push_back((node, Input::Tick { bytes_free: held.bytes_free }));
                }
            }
        }
        self.settle();
    }

    /// Carries out everything under way.
    pub(crate) fn settle(&mut self) {
        while let Some((node, input)) = self.queue.pop_front() {
            if !self.nodes[&node].up {
                continue;
            }
            let mut out = Vec::new();
            let now = self.now;
            self.node(node.0).host.on(now, input, &mut out);
            self.carry_out(node, out);
        }
    }

    fn carry_out(&mut self, node: NodeId, effects: Vec<Effect<u64>>) {
        for effect in effects {
            match effect {
                Effect::Answer { ticket, answer, body } => match self.tickets.remove(&ticket) {
                    Some((caller, call)) if !self.cut.contains(&(node, caller)) => {
                        let late = self.late == Some(node) && matches!(answer, Answer::Tail { .. });
                        let input = Input::Replied { call, reply: Some((answer, body)) };
                        if late {
                            self.held_back.push((caller, input));
                        } else {
                            self.queue.push_back((caller, input));
                        }
                    }
                    Some(_) => {}
                    None => assert!(self.answers.insert(ticket, answer).is_none(), "answered twice"),
                },
                Effect::Call { call, to, message, body, .. } => {
                    let up = self.nodes.get(&to).is_some_and(|node| node.up);
                    if !up || self.cut.contains(&(node, to)) {
                        self.queue.push_back((node, Input::Replied { call, reply: None }));
                        continue;
                    }
                    let head = message.encode();
                    let message = Message::decode(&head).expect("what is sent can be read");
                    self.next_ticket += 1;
                    let ticket = Ticket(self.next_ticket);
                    self.tickets.insert(ticket, (node, call));
                    self.queue.push_back((to, Input::Request { ticket, from: node, message, body }));
                }
                Effect::Commit { group, seq } => {
                    self.node(node.0).store.get_mut(&group).unwrap().commit(seq);
                }
                Effect::Store { op, request } => {
                    if self.nodes[&node].disk_hangs && matches!(request, StoreRequest::Append { .. }) {
                        self.node(node.0).held.push((op, request));
                        continue;
                    }
                    let result = self.serve_store(node, request);
                    self.queue.push_back((node, Input::Stored { op, result }));
                }
                Effect::Report(report) => self.node(node.0).reports.push(report),
                Effect::WakeAt(_) => {}
            }
        }
    }

    /// What was held back arrives.
    pub(crate) fn deliver_late(&mut self) {
        self.late = None;
        assert!(!self.held_back.is_empty(), "nothing was held back");
        self.queue.extend(self.held_back.drain(..));
    }

    /// The disk works again.
    pub(crate) fn release_disk(&mut self, node: u64) {
        self.node(node).disk_hangs = false;
        for (op, request) in core::mem::take(&mut self.node(node).held) {
            let result = self.serve_store(NodeId(node), request);
            self.queue.push_back((NodeId(node), Input::Stored { op, result }));
        }
    }

    fn serve_store(&mut self, node: NodeId, request: StoreRequest<u64>) -> Result<Stored<u64>, StoreFault> {
        let (no_room, unreadable) = (self.nodes[&node].no_room, self.nodes[&node].unreadable);
        if matches!(request, StoreRequest::SettleMount) {
            self.node(node.0).settled += 1;
            return Ok(Stored::Done);
        }
        let store = &mut self.node(node.0).store;
        Ok(match request {
            StoreRequest::SaveGroup { group, saved } => {
                store.entry(group).or_default().saved = Some(saved);
                Stored::Done
            }
            StoreRequest::SettleMount => unreachable!("answered above"),
            StoreRequest::StartAnew(_) => {
                store.clear();
                Stored::Done
            }
            StoreRequest::Empty { group, saved, through } => {
                let empty = ModelGroup {
                    saved: Some(saved),
                    commit: through,
                    forgotten: through,
                    ..ModelGroup::default()
                };
                store.insert(group, empty);
                Stored::Done
            }
            StoreRequest::DiscardAbove { group, seq } => {
                store.entry(group).or_default().log.split_off(&seq.next());
                Stored::Done
            }
            StoreRequest::Append { entry: LogEntry::Units(_), .. } if no_room => {
                return Err(StoreFault::Full);
            }
            StoreRequest::Append { group, at, entry, body } => {
                let expected = store.entry(group).or_default();
                let newest = expected.log.keys().next_back().copied().unwrap_or(expected.commit);
                if at.seq != newest.next() {
                    return Err(StoreFault::Full);
                }
                store.entry(group).or_default().log.insert(at.seq, (at, entry, body));
                Stored::Done
            }
            StoreRequest::Lookup { group, units } => {
                let held = store.entry(group).or_default();
                let known = units.iter().map(|(block, unit)| KnownUnit {
                    version: held.units.get(&(*block, *unit)).map(|found| Version {
                        generation: found.sealed.generation,
                        counter: found.sealed.counter,
                        salt: found.sealed.salt,
                        digest: found.sealed.digest,
                        seq: found.commit.seq,
                    }),
                    fence: held.fences.get(block).copied(),
                    cut: held.cuts.get(block).copied().unwrap_or_default(),
                });
                Stored::Known(known.collect())
            }
            StoreRequest::Load { .. } if unreadable => return Err(StoreFault::Corrupt),
            StoreRequest::Load { group, after } => {
                let held = store.entry(group).or_default();
                Stored::Loaded(if after < held.forgotten {
                    Loaded::Gone
                } else {
                    match held.log.range(after.next()..).next() {
                        Some((_, (at, entry, body))) => {
                            Loaded::Entry { at: *at, entry: entry.clone(), body: *body }
                        }
                        None => Loaded::End,
                    }
                })
            }
            StoreRequest::Scan { group, from } => {
                let held = store.entry(group).or_default();
                let after = match from {
                    ScanFrom::Start | ScanFrom::FencesAfter(_) => {
                        let blocks: BTreeSet<_> =
                            held.fences.keys().chain(held.cuts.keys()).copied().collect();
                        let fence = |block| BlockFence {
                            block,
                            generation: held.fences.get(&block).copied().unwrap_or(Generation(0)),
                            cut: held.cuts.get(&block).copied().unwrap_or_default(),
                        };
                        let fences = blocks.into_iter().map(fence).collect();
                        let next = Some(ScanFrom::Units);
                        return Ok(Stored::Scanned {
                            units: Vec::new(),
                            body: None,
                            lost: Vec::new(),
                            fences,
                            next,
                        });
                    }
                    ScanFrom::Units => None,
                    ScanFrom::UnitsAfter(block, unit) => Some((block, unit)),
                };
                let above = held.units.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
                let units: Vec<_> = above.map(|(_, unit)| unit.clone()).take(2).collect();
                let next = units.last().map(|unit| ScanFrom::UnitsAfter(unit.sealed.block, unit.sealed.unit));
                Stored::Scanned { units, body: Some(1), lost: Vec::new(), fences: Vec::new(), next }
            }
            StoreRequest::PutPage { group, fences, units, .. } => {
                let held = store.entry(group).or_default();
                for BlockFence { block, generation, cut } in fences {
                    held.fences.insert(block, generation);
                    held.cuts.insert(block, cut);
                }
                held.fences.retain(|_, generation| *generation > Generation(0));
                held.cuts.retain(|_, cut| *cut != Cut::default());
                units.into_iter().for_each(|unit| held.put(unit));
                Stored::Done
            }
        })
    }

    /// An edge asks `node`; its answer comes to [`Net::answer`].
    pub(crate) fn ask(&mut self, node: u64, message: Message) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let body = match &message {
            Message::Write { entry: LogEntry::Units(units), .. } => units.first().map(|unit| unit.counter),
            _ => None,
        };
        self.queue.push_back((NodeId(node), Input::Request { ticket, from: EDGE, message, body }));
        ticket
    }

    pub(crate) fn write(&mut self, node: u64, units: Vec<SealedUnit>) -> Ticket {
        let (group, epoch) = (GROUP, self.view.epoch);
        self.ask(node, Message::Write { group, epoch, entry: LogEntry::Units(units) })
    }

    pub(crate) fn answer(&self, ticket: Ticket) -> Option<Answer> {
        self.answers.get(&ticket).cloned()
    }
}

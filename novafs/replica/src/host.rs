//! All replica groups of one storage host, as one machine.
//!
//! The machine decides; it neither reads a clock nor a disk. [`Host::on`] takes what happened and the time, and
//! appends what is to be done. Reads need no order among themselves, so they are asked about directly:
//! [`Host::begin_read`], then the store's read, then [`Host::end_read`].

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{BootId, Epoch, GroupId, Incarnation, NodeId, Seq};

use crate::effect::{
    CallId, Effect, Input, OpId, RecoveredGroup, ScanFrom, StoreFault, StoreRequest, Stored, Ticket,
};
use crate::options::CHAIN_BYTES_MIN;
use crate::{Answer, Configuration, Message, Report};

mod adopt;
mod device;
mod follow;
mod group;
mod lead;
mod log;
mod pass;
mod pulse;
mod read;
mod stream;
mod versions;

#[cfg(test)]
mod tests;

use device::Device;
use group::Group;
use pass::Passing;
use pulse::Pulses;
pub use read::{ReadEnd, ReadPermit};

/// Who this member is. A host with several devices is several members, never two of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The host.
    pub node: NodeId,
    /// This start of its daemon.
    pub boot: BootId,
    /// The life of its device.
    pub incarnation: Incarnation,
}

/// All replica groups of a storage host on one of its devices, and the pings to its peers.
pub struct Host<B> {
    core: Core<B>,
    groups: BTreeMap<GroupId, Group<B>>,
    pulses: Pulses,
}

/// What the groups share.
pub(crate) struct Core<B> {
    me: HostIdentity,
    configuration: Configuration,
    /// Whether the controllers have confirmed this start with this incarnation.
    confirmed: bool,
    /// Set while a new incarnation is being written.
    anew: Option<Incarnation>,
    device_failed: bool,
    device: Device,
    bytes_free: u64,
    /// Nothing is acknowledged before: promises of a former start may bind until then.
    started_hold: Duration,
    next_id: u64,
    calls: BTreeMap<CallId, CallFor>,
    ops: BTreeMap<OpId, OpFor<B>>,
    /// Entries that were passed on, and who waits for both ends.
    passing: Passing,
    chain_bytes_min: usize,
    counters: HostCounters,
}

/// What the host did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Entries given a number as primary.
    pub entries_proposed: u64,
    /// Entries committed as primary.
    pub entries_committed: u64,
    /// Bytes of sealed units in them.
    pub bytes_committed: u64,
    /// Entries appended as member.
    pub entries_followed: u64,
    /// Entries sent along a chain as primary.
    pub entries_chained: u64,
    /// Those that the end of the chain had to be sent after all.
    pub chains_broken: u64,
    /// Pages stored as joiner.
    pub pages_filled: u64,
    /// Epochs adopted.
    pub epochs_adopted: u64,
    /// Silences reported.
    pub silences: u64,
}

/// Why a call was made; what comes back is judged by it.
#[derive(Clone, Debug)]
pub(crate) enum CallFor {
    Ping { peer: NodeId, sent: Duration, groups: Vec<(GroupId, Epoch)> },
    Stream { group: GroupId, turn: u64, node: NodeId, what: StreamCall },
    PassOn { ticket: Ticket },
    Commits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamCall {
    Open {
        opened: u64,
    },
    /// `last`: the member at the end of the chain, and its opening.
    Prepare {
        opened: u64,
        seq: Seq,
        last: Option<(NodeId, u64)>,
    },
    Page {
        opened: u64,
        next: Option<ScanFrom>,
    },
    Fetch,
    Withdraw {
        opened: u64,
        keep: Seq,
    },
}

/// Why the store was asked.
#[derive(Clone, Debug)]
pub(crate) enum OpFor<B> {
    StartAnew,
    SettleMount,
    Adopt { group: GroupId, turn: u64 },
    Append { group: GroupId, seq: Seq },
    Lookup { group: GroupId, turn: u64, write: lead::PendingWrite<B> },
    LoadForStream { group: GroupId, turn: u64, node: NodeId, opened: u64 },
    LoadForFetch { ticket: Ticket },
    Scan { group: GroupId, turn: u64, node: NodeId, opened: u64 },
    Fill { group: GroupId, turn: u64, page: follow::FillPage<B> },
    CountJoiner { group: GroupId, turn: u64, node: NodeId },
    Rewind { group: GroupId, turn: u64, keep: Seq, ticket: Option<Ticket> },
}

/// The moment and where effects go.
pub(crate) struct Cx<'a, B> {
    now: Duration,
    core: &'a mut Core<B>,
    out: &'a mut Vec<Effect<B>>,
}

impl<B: Clone> Cx<'_, B> {
    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let Some(answer) = self.core.passing.stored(ticket, answer) else { return };
        self.out.push(Effect::Answer { ticket, answer, body: None });
    }

    fn call(
        &mut self,
        to: NodeId,
        message: Message,
        body: Option<B>,
        deadline: Duration,
        why: CallFor,
    ) -> CallId {
        let call = CallId(self.core.fresh());
        self.core.calls.insert(call, why);
        self.out.push(Effect::Call { call, to, message, body, deadline });
        call
    }

    fn store(&mut self, request: StoreRequest<B>, why: OpFor<B>) -> OpId {
        let op = OpId(self.core.fresh());
        self.core.device.begin(why.writes(), self.now);
        self.core.ops.insert(op, why);
        self.out.push(Effect::Store { op, request });
        op
    }
}

impl<B> Core<B> {
    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl<B: Clone> Host<B> {
    /// The machine of a host whose store was just opened and holds `recovered`.
    ///
    /// It serves nothing until a configuration confirms it, and acknowledges nothing for the time a promise lasts.
    #[must_use]
    pub fn new(me: HostIdentity, now: Duration, recovered: Vec<RecoveredGroup>) -> Self {
        let core = Core {
            me,
            configuration: Configuration::default(),
            confirmed: false,
            anew: None,
            device_failed: false,
            device: Device::default(),
            bytes_free: 0,
            started_hold: now + crate::options::PROMISE,
            next_id: 0,
            calls: BTreeMap::new(),
            ops: BTreeMap::new(),
            passing: Passing::default(),
            chain_bytes_min: CHAIN_BYTES_MIN,
            counters: HostCounters::default(),
        };
        let groups = recovered.into_iter().map(|found| (found.group, Group::recovered(found))).collect();
        Self { core, groups, pulses: Pulses::new(now) }
    }

    /// Entries with at least this many bytes of sealed units go along a chain, instead of [`CHAIN_BYTES_MIN`].
    #[must_use]
    pub fn with_chains_from(mut self, bytes: usize) -> Self {
        self.core.chain_bytes_min = bytes;
        self
    }

    /// Takes what happened at `now` and appends what is to be done.
    ///
    /// `now` is the host's time since boot and never goes back.
    pub fn on(&mut self, now: Duration, input: Input<B>, out: &mut Vec<Effect<B>>) {
        match input {
            Input::Tick { bytes_free } => self.tick(now, bytes_free, out),
            Input::Configure(configuration) => self.configure(now, configuration, out),
            Input::Request { ticket, from, message, body } => {
                self.request(now, ticket, from, message, body, out)
            }
            Input::Replied { call, reply } => self.replied(now, call, reply, out),
            Input::Stored { op, result } => self.stored(now, op, result, out),
        }
    }

    /// What the host did since it started.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        self.core.counters
    }

    /// Who this host is; the incarnation changes when the controllers start its device anew.
    #[must_use]
    pub fn identity(&self) -> HostIdentity {
        self.core.me
    }

    /// Epoch and last committed number of a group this host takes part in.
    #[must_use]
    pub fn position(&self, group: GroupId) -> Option<(Epoch, Seq)> {
        self.groups
            .get(&group)
            .filter(|group| group.is_active())
            .map(|group| (group.epoch(), group.log.commit.seq))
    }

    /// How this host stands in a group, in words for a person who looks for what holds it up.
    #[must_use]
    pub fn describe(&self, group: GroupId) -> String {
        self.groups.get(&group).map_or_else(|| "unknown here".to_owned(), Group::describe)
    }

    /// Told when the device failed outside the machine's own requests, in a read or a checkpoint.
    pub fn fail_device(&mut self, now: Duration, out: &mut Vec<Effect<B>>) {
        if self.core.device_failed {
            return;
        }
        self.core.device_failed = true;
        out.push(Effect::Report(Report::DeviceFailed));
        let mut cx = Cx { now, core: &mut self.core, out };
        for group in self.groups.values_mut() {
            group.stop(&mut cx, &Answer::DeviceFailed);
        }
        for ticket in cx.core.passing.waiting() {
            cx.answer(ticket, Answer::DeviceFailed);
        }
    }

    fn tick(&mut self, now: Duration, bytes_free: u64, out: &mut Vec<Effect<B>>) {
        self.core.bytes_free = bytes_free;
        self.pulses.tick(&mut self.groups, &mut Cx { now, core: &mut self.core, out });
        if self.core.device_failed {
            return;
        }
        let mut cx = Cx { now, core: &mut self.core, out };
        for group in self.groups.values_mut() {
            group.tick(&mut cx);
        }
    }

    fn request(
        &mut self,
        now: Duration,
        ticket: Ticket,
        from: NodeId,
        message: Message,
        body: Option<B>,
        out: &mut Vec<Effect<B>>,
    ) {
        let mut cx = Cx { now, core: &mut self.core, out };
        if cx.core.device_failed {
            return cx.answer(ticket, Answer::DeviceFailed);
        }
        let (id, epoch) = match &message {
            Message::Ping { boot, groups } => {
                return self.pulses.serve_ping(&mut self.groups, &mut cx, ticket, from, *boot, groups);
            }
            Message::Commits { groups } => {
                for pulse in groups {
                    if let Some(group) = self.groups.get_mut(&pulse.group) {
                        group.learn_commit(&mut cx, from, pulse.epoch, pulse.commit);
                    }
                }
                return cx.answer(ticket, Answer::Noted);
            }
            Message::Write { group, epoch, .. }
            | Message::Open { group, epoch }
            | Message::Prepare { group, epoch, .. }
            | Message::Page { group, epoch, .. }
            | Message::Withdraw { group, epoch, .. }
            | Message::CommitQuery { group, epoch }
            | Message::Fetch { group, epoch, .. } => (*group, *epoch),
            Message::Read { .. }
            | Message::Locate { .. }
            | Message::Copy { .. }
            | Message::Compare { .. } => {
                return cx.answer(ticket, Answer::Damaged);
            }
        };
        let Some(group) = self.groups.get_mut(&id) else { return cx.answer(ticket, Answer::NotMember) };
        if let Err(refusal) = group.check_epoch(cx.core, epoch) {
            return cx.answer(ticket, refusal);
        }
        match message {
            Message::Write { entry, .. } => group.serve_write(&mut cx, ticket, entry, body),
            Message::Open { .. } => group.serve_open(&mut cx, ticket, from),
            Message::Prepare { grant, previous, at, commit, route, entry, .. } => {
                let prepare = follow::Prepare { ticket, previous, at, commit, entry, body };
                group.serve_prepare(&mut cx, from, grant, route, prepare);
            }
            Message::Page { grant, first, last, through, fences, units, lost, .. } => {
                let page = follow::FillPage { ticket, first, last, through, fences, units, lost, body };
                group.serve_page(&mut cx, from, grant, page);
            }
            Message::Withdraw { grant, keep, .. } => group.serve_withdraw(&mut cx, ticket, from, grant, keep),
            Message::CommitQuery { .. } => group.serve_commit_query(&mut cx, ticket),
            Message::Fetch { after, .. } => group.serve_fetch(&mut cx, ticket, from, after),
            Message::Ping { .. }
            | Message::Commits { .. }
            | Message::Read { .. }
            | Message::Locate { .. }
            | Message::Copy { .. }
            | Message::Compare { .. } => unreachable!("answered above"),
        }
    }

    fn replied(
        &mut self,
        now: Duration,
        call: CallId,
        reply: Option<(Answer, Option<B>)>,
        out: &mut Vec<Effect<B>>,
    ) {
        let Some(why) = self.core.calls.remove(&call) else { return };
        if self.core.device_failed {
            return;
        }
        let mut cx = Cx { now, core: &mut self.core, out };
        match why {
            CallFor::Ping { peer, sent, groups } => {
                let answer = reply.map(|(answer, _)| answer);
                self.pulses.heard(&mut self.groups, &mut cx, peer, sent, &groups, answer);
            }
            CallFor::Stream { group, turn, node, what } => {
                if let Some(group) = self.groups.get_mut(&group).filter(|group| group.turn == turn) {
                    group.stream_replied(&mut cx, node, what, reply);
                }
            }
            CallFor::PassOn { ticket } => {
                if let Some(answer) = cx.core.passing.replied(ticket, reply.map(|(answer, _)| answer)) {
                    cx.answer(ticket, answer);
                }
            }
            CallFor::Commits => {}
        }
    }

    fn stored(
        &mut self,
        now: Duration,
        op: OpId,
        result: Result<Stored<B>, StoreFault>,
        out: &mut Vec<Effect<B>>,
    ) {
        let Some(why) = self.core.ops.remove(&op) else { return };
        self.core.device.end(why.writes(), now);
        if matches!(result, Err(StoreFault::DeviceFailed)) {
            let mut cx = Cx { now, core: &mut self.core, out };
            why.refuse(&mut cx, &Answer::DeviceFailed);
            return self.fail_device(now, out);
        }
        let mut cx = Cx { now, core: &mut self.core, out };
        if cx.core.device_failed {
            return why.refuse(&mut cx, &Answer::DeviceFailed);
        }
        match why {
            OpFor::StartAnew => self.started_anew(now, out),
            // A device that does not know it is asked about the mounts before it once more: that is all.
            OpFor::SettleMount => {}
            OpFor::LoadForFetch { ticket } => follow::answer_fetch(&mut cx, ticket, result),
            OpFor::Append { group, seq } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.appended(&mut cx, seq, result);
                }
            }
            why => {
                let (id, _) = why.turn().expect("what is left belongs to a group");
                match self.groups.get_mut(&id) {
                    Some(group) => group.stored(&mut cx, why, result),
                    None => why.refuse(&mut cx, &Answer::NotMember),
                }
            }
        }
    }
}

impl<B: Clone> OpFor<B> {
    fn turn(&self) -> Option<(GroupId, u64)> {
        match self {
            Self::StartAnew | Self::SettleMount | Self::Append { .. } | Self::LoadForFetch { .. } => None,
            Self::Adopt { group, turn }
            | Self::Lookup { group, turn, .. }
            | Self::LoadForStream { group, turn, .. }
            | Self::Scan { group, turn, .. }
            | Self::Fill { group, turn, .. }
            | Self::CountJoiner { group, turn, .. }
            | Self::Rewind { group, turn, .. } => Some((*group, *turn)),
        }
    }

    /// Whether the request changes the group's record or log.
    fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Adopt { .. } | Self::Fill { .. } | Self::CountJoiner { .. } | Self::Rewind { .. }
        )
    }

    /// Whether the request makes something durable.
    fn writes(&self) -> bool {
        self.is_change() || matches!(self, Self::StartAnew | Self::SettleMount | Self::Append { .. })
    }

    /// Answers whoever waits for a request to the store that has lost its meaning.
    fn refuse(&self, cx: &mut Cx<'_, B>, answer: &Answer) {
        match self {
            Self::Lookup { write, .. } => cx.answer(write.ticket, answer.clone()),
            Self::LoadForFetch { ticket } => cx.answer(*ticket, answer.clone()),
            Self::Fill { page, .. } => cx.answer(page.ticket, answer.clone()),
            Self::Rewind { ticket: Some(ticket), .. } => cx.answer(*ticket, answer.clone()),
            Self::StartAnew
            | Self::SettleMount
            | Self::Adopt { .. }
            | Self::Append { .. }
            | Self::LoadForStream { .. }
            | Self::Scan { .. }
            | Self::CountJoiner { .. }
            | Self::Rewind { .. } => {}
        }
    }
}

impl<B> std::fmt::Debug for Host<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("me", &self.core.me)
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

//! A primary: it aligns the members' tails, gives numbers, and commits what all of them hold.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{CommitPoint, NodeId, Seq};
use novafs_format::LogEntry;

use super::group::Group;
use super::stream::Stream;
use super::versions::{DELETED, Judgement, Versions};
use super::{CallFor, Cx, OpFor, StreamCall};
use crate::effect::{Effect, KnownUnit, SavedGroup, StoreFault, StoreRequest, Stored, Ticket};
use crate::options::{
    COMMIT_NOTICE, COMMITS_DEADLINE, ENTRIES_IN_FLIGHT_MAX, FULL_PAUSE, PREPARE_DEADLINE, REPORT_EVERY,
    RETRY_FROZEN_MS, RETRY_SOON_MS,
};
use crate::{Answer, GroupView, Message, Pulse, Report, Role};

/// What a primary keeps for one epoch.
#[derive(Debug)]
pub(crate) struct Lead<B> {
    pub(crate) streams: BTreeMap<NodeId, Stream<B>>,
    /// False until the tails of all in-sync members are known and the longest is held here.
    pub(crate) ready: bool,
    /// Last number that an earlier primary gave: until it is committed here, nobody knows whether it was.
    settled_through: Seq,
    waiting: BTreeMap<Seq, Vec<Ticket>>,
    versions: Versions,
    fetching: bool,
    /// Where the log is cut because a member had no room for what follows; set until every member is cut.
    head: Option<Seq>,
    /// No new units before: a member lately had no room.
    full_until: Duration,
    /// When commits are told that no other message carried.
    notice_at: Option<Duration>,
    reported_at: Option<Duration>,
}

/// A write whose units are being looked up.
#[derive(Clone, Debug)]
pub(crate) struct PendingWrite<B> {
    pub(crate) ticket: Ticket,
    entry: LogEntry,
    body: Option<B>,
    mark: u64,
}

impl<B: Clone> Lead<B> {
    /// The primary of `view` on this host. With `joiners_count` its joiners have been reported ready by a former
    /// start of this host, and may be promoted any moment.
    pub(crate) fn new(view: &GroupView, me: NodeId, now: Duration, joiners_count: bool) -> Self {
        let others = view.members.iter().filter(|member| member.node != me);
        let streams = others
            .map(|member| {
                let counts = member.role == Role::InSync || joiners_count;
                (member.node, Stream::new(member.role, counts, now))
            })
            .collect();
        Self {
            streams,
            ready: false,
            settled_through: Seq(0),
            waiting: BTreeMap::new(),
            versions: Versions::default(),
            fetching: false,
            head: None,
            full_until: Duration::ZERO,
            notice_at: None,
            reported_at: None,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!(" leads, ready {} settled {}", self.ready, self.settled_through);
        for (node, stream) in &self.streams {
            text.push_str(&format!("; {node} {}", stream.describe()));
        }
        text
    }

    pub(crate) fn stop(self, cx: &mut Cx<'_, B>, answer: &Answer) {
        for ticket in self.waiting.into_values().flatten() {
            cx.answer(ticket, answer.clone());
        }
    }
}

impl<B: Clone> Group<B> {
    /// Whether this primary knows of every entry whether it is committed.
    pub(super) fn knows_commit(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.ready && self.log.commit.seq >= lead.settled_through)
    }

    pub(super) fn serve_commit_query(&mut self, cx: &mut Cx<'_, B>, ticket: Ticket) {
        let answer = match self.primary() {
            Some(primary) if primary != cx.core.me.node => Answer::NotPrimary { primary },
            _ if self.knows_commit() => Answer::CommitIs { seq: self.log.commit.seq },
            _ => Answer::Unsettled,
        };
        cx.answer(ticket, answer);
    }

    /// An edge wants an entry in the log.
    pub(super) fn serve_write(
        &mut self,
        cx: &mut Cx<'_, B>,
        ticket: Ticket,
        entry: LogEntry,
        body: Option<B>,
    ) {
        let (Some(lead), Some(view)) = (&mut self.lead, &self.view) else {
            let primary = self.primary();
            return cx
                .answer(ticket, primary.map_or(Answer::NotMember, |primary| Answer::NotPrimary { primary }));
        };
        if !view.writable() {
            return cx.answer(ticket, Answer::Frozen { retry_after_ms: RETRY_FROZEN_MS });
        }
        let in_flight = self.log.tail.len() + lead.versions.lookups();
        if !lead.ready || in_flight >= ENTRIES_IN_FLIGHT_MAX {
            return cx.answer(ticket, Answer::Busy { retry_after_ms: RETRY_SOON_MS });
        }
        let units = match &entry {
            LogEntry::Units(units) => units.iter().map(|unit| (unit.block, unit.unit)).collect(),
            LogEntry::Trim { block, .. } | LogEntry::Fence { block, .. } | LogEntry::Delete { block } => {
                vec![(*block, nova_units::UnitIndex(0))]
            }
        };
        let mark = lead.versions.begin_lookup();
        let write = PendingWrite { ticket, entry, body, mark };
        let why = OpFor::Lookup { group: self.id, turn: self.turn, write };
        cx.store(StoreRequest::Lookup { group: self.id, units }, why);
    }

    /// What the store knows of the units of a write.
    pub(super) fn looked_up(
        &mut self,
        cx: &mut Cx<'_, B>,
        write: PendingWrite<B>,
        result: Result<Stored<B>, StoreFault>,
    ) {
        let PendingWrite { ticket, entry, body, mark } = write;
        let known = match result {
            Ok(Stored::Known(known)) => known,
            _ => {
                self.end_lookup(mark);
                return cx.answer(ticket, Answer::Busy { retry_after_ms: RETRY_SOON_MS });
            }
        };
        let verdict = self.judge(&entry, &known);
        self.end_lookup(mark);
        match verdict {
            Verdict::Refuse(answer) => cx.answer(ticket, answer),
            Verdict::Known(seq) if seq <= self.log.commit.seq => {
                cx.answer(ticket, Answer::Written { epoch: self.epoch(), seq });
            }
            Verdict::Known(seq) => {
                if let Some(lead) = &mut self.lead {
                    lead.waiting.entry(seq).or_default().push(ticket);
                }
            }
            Verdict::New if !self.lead.as_ref().is_some_and(|lead| lead.ready) => {
                cx.answer(ticket, Answer::Busy { retry_after_ms: RETRY_SOON_MS });
            }
            Verdict::New if !self.has_room(cx, &entry) => cx.answer(ticket, Answer::Full),
            Verdict::New => self.propose(cx, ticket, entry, body),
        }
    }

    fn end_lookup(&mut self, mark: u64) {
        if let Some(lead) = &mut self.lead {
            lead.versions.end_lookup(mark);
        }
    }

    fn judge(&self, entry: &LogEntry, known: &[KnownUnit]) -> Verdict {
        let Some(lead) = &self.lead else {
            return Verdict::Refuse(Answer::Busy { retry_after_ms: RETRY_SOON_MS });
        };
        match entry {
            LogEntry::Units(units) => {
                if known.len() != units.len() {
                    return Verdict::Refuse(Answer::Busy { retry_after_ms: RETRY_SOON_MS });
                }
                let mut newest = None;
                let mut new = 0;
                for (unit, known) in units.iter().zip(known) {
                    match lead.versions.judge(unit, known, self.log.commit.seq) {
                        Judgement::New => new += 1,
                        Judgement::Known(seq) => newest = newest.max(Some(seq)),
                        Judgement::Fenced(generation) => {
                            return Verdict::Refuse(Answer::Fenced { generation });
                        }
                        Judgement::Conflict => return Verdict::Refuse(Answer::Conflict),
                    }
                }
                match newest {
                    Some(seq) if new == 0 => Verdict::Known(seq),
                    // A retry repeats its first attempt unit by unit; a mixture was never sent before.
                    Some(_) => Verdict::Refuse(Answer::Conflict),
                    None => Verdict::New,
                }
            }
            LogEntry::Fence { block, generation } => {
                let stored = known.first().and_then(|known| known.fence);
                match lead.versions.fence(*block, stored) {
                    Some((fence, _)) if fence > *generation => {
                        Verdict::Refuse(Answer::Fenced { generation: fence })
                    }
                    Some((fence, seq)) if fence == *generation => {
                        Verdict::Known(seq.unwrap_or(self.log.commit.seq))
                    }
                    _ => Verdict::New,
                }
            }
            LogEntry::Delete { block } => {
                let stored = known.first().and_then(|known| known.fence);
                match lead.versions.fence(*block, stored) {
                    Some((DELETED, seq)) => Verdict::Known(seq.unwrap_or(self.log.commit.seq)),
                    _ => Verdict::New,
                }
            }
            LogEntry::Trim { block, cut, .. } => {
                let known = known.first().copied().unwrap_or_default();
                match lead.versions.judge_cut(*block, cut, &known, self.log.commit.seq) {
                    Judgement::New => Verdict::New,
                    Judgement::Known(seq) => Verdict::Known(seq),
                    Judgement::Fenced(generation) => Verdict::Refuse(Answer::Fenced { generation }),
                    Judgement::Conflict => Verdict::Refuse(Answer::Conflict),
                }
            }
        }
    }

    /// Whether every member of the epoch has room for the entry and what is under way to it.
    ///
    /// A member is never dropped for want of room: the write fails instead, before it has a number. Members tell
    /// their room with every answer. What they tell may be out of date, or scattered over cells of other sizes: then
    /// the entry is taken back ([`Group::withdraw`]).
    fn has_room(&self, cx: &Cx<'_, B>, entry: &LogEntry) -> bool {
        let Some(lead) = &self.lead else { return false };
        if entry.units().is_empty() {
            return true;
        }
        if cx.now < lead.full_until {
            return false;
        }
        let needed = room_for(entry);
        let under_way = |above: Seq| -> u64 {
            self.log.tail.range(above.next()..).map(|(_, behind)| room_for(&behind.entry)).sum()
        };
        cx.core.bytes_free >= needed + under_way(self.log.durable.seq)
            && lead
                .streams
                .values()
                .filter(|stream| stream.counts)
                .all(|stream| stream.bytes_free >= needed + under_way(stream.acked))
    }

    fn propose(&mut self, cx: &mut Cx<'_, B>, ticket: Ticket, entry: LogEntry, body: Option<B>) {
        let at = CommitPoint { epoch: self.epoch(), seq: self.log.last.seq.next() };
        if let Some(lead) = &mut self.lead {
            lead.versions.insert(at.seq, &entry);
            lead.waiting.entry(at.seq).or_default().push(ticket);
        }
        cx.core.counters.entries_proposed += 1;
        self.append(cx, at, entry, body);
        self.pump_all(cx);
    }

    /// Commits what every counted member holds, at least two of them, and answers.
    pub(super) fn advance_commit(&mut self, cx: &mut Cx<'_, B>) {
        let (Some(lead), Some(view)) = (&self.lead, &self.view) else { return };
        if !lead.ready || !view.writable() || cx.now < self.may_acknowledge_at(cx.core) {
            return;
        }
        let counted = lead.streams.values().filter(|stream| stream.counts).map(|stream| stream.acked);
        let held = counted.min().map_or(self.log.durable.seq, |acked| acked.min(self.log.durable.seq));
        let committed = self.commit_to(cx, held);
        if committed.is_empty() {
            return;
        }
        let epoch = self.epoch();
        let Some(lead) = &mut self.lead else { return };
        for entry in committed {
            cx.core.counters.entries_committed += 1;
            cx.core.counters.bytes_committed += entry.entry.body_bytes() as u64;
            for ticket in lead.waiting.remove(&entry.at.seq).unwrap_or_default() {
                cx.answer(ticket, Answer::Written { epoch, seq: entry.at.seq });
            }
            lead.versions.settle(entry.at.seq, entry.entry);
        }
        if lead.notice_at.is_none() {
            let at = cx.now + COMMIT_NOTICE;
            lead.notice_at = Some(at);
            cx.out.push(Effect::WakeAt(at));
        }
    }

    /// What a primary does as time passes.
    pub(super) fn tick_lead(&mut self, cx: &mut Cx<'_, B>) {
        if self.lead.is_none() {
            return;
        }
        self.open_streams(cx);
        self.align(cx);
        self.pump_all(cx);
        self.advance_commit(cx);
        self.notice_commits(cx);
        self.judge_joiners(cx);
    }

    /// An append of this primary ended.
    pub(super) fn lead_settled(&mut self, cx: &mut Cx<'_, B>) {
        if self.lead.is_none() {
            return;
        }
        if self.log.has_failed() {
            self.withdraw(cx, self.log.durable.seq, &Answer::Full);
        }
        self.align(cx);
        self.judge_joiners(cx);
    }

    /// Takes back everything above `keep`, and tells its writers `answer`: a member that a commit needs has no room for
    /// it, or cannot be sent it intact. None of it is committed, for that member lacks it; and as long as the log is not
    /// cut on every member, nothing new is ordered, so that a number is never given twice in one epoch.
    pub(super) fn withdraw(&mut self, cx: &mut Cx<'_, B>, keep: Seq, answer: &Answer) {
        let commit = self.log.commit.seq;
        let Some(lead) = self.lead.as_mut().filter(|_| keep >= commit) else { return };
        let keep = lead.head.map_or(keep, |head| head.min(keep));
        lead.head = Some(keep);
        if *answer == Answer::Full {
            lead.full_until = cx.now + FULL_PAUSE;
        }
        lead.ready = false;
        for ticket in lead.waiting.split_off(&keep.next()).into_values().flatten() {
            cx.answer(ticket, answer.clone());
        }
        for stream in lead.streams.values_mut() {
            stream.restart(cx.now, keep);
        }
    }

    /// Takes what the longest tail has and this host lacks, or cuts what a member has no room for; then the primary is
    /// ready.
    pub(super) fn align(&mut self, cx: &mut Cx<'_, B>) {
        let Some(lead) = &mut self.lead else { return };
        let quiet = self.log.is_settled() && !lead.fetching && !self.follower.rewinding;
        if lead.ready || !quiet || cx.now < self.hold_until.max(cx.core.started_hold) {
            return;
        }
        if let Some(head) = lead.head
            && (self.log.last.seq > head || self.log.has_failed())
        {
            return self.rewind(cx, head, None);
        }
        // When the log is cut, it is cut on joiners too.
        let cut = lead.head.is_some();
        let needed = || lead.streams.iter().filter(|(_, stream)| cut || stream.role == Role::InSync);
        if needed().any(|(_, stream)| stream.tail.is_none()) {
            return;
        }
        let longest = needed().max_by_key(|(_, stream)| stream.tail.map(|tail| tail.last));
        if let Some((&node, stream)) = longest
            && !cut
            && stream.tail.is_some_and(|tail| tail.last > self.log.last.seq)
        {
            lead.fetching = true;
            let epoch = self.view.as_ref().expect("a primary has a configuration").epoch;
            let after = self.log.last.seq;
            let why = CallFor::Stream { group: self.id, turn: self.turn, node, what: StreamCall::Fetch };
            cx.call(node, Message::Fetch { group: self.id, epoch, after }, None, PREPARE_DEADLINE, why);
            return;
        }
        let last = self.log.last.seq;
        if needed().any(|(_, stream)| stream.tail.is_some_and(|tail| tail.last > last)) {
            return self.cut_streams(cx);
        }
        let known = needed().filter_map(|(_, stream)| stream.tail).map(|tail| tail.commit).max();
        self.tail_in_doubt = false;
        lead.ready = true;
        lead.head = None;
        lead.settled_through = last;
        lead.versions.restore(self.log.tail.iter().map(|(seq, entry)| (*seq, &entry.entry)));
        if let Some(known) = known {
            for entry in self.commit_to(cx, known) {
                if let Some(lead) = &mut self.lead {
                    lead.versions.settle(entry.at.seq, entry.entry);
                }
            }
        }
        self.pump_all(cx);
        self.advance_commit(cx);
    }

    pub(super) fn fetched(&mut self, cx: &mut Cx<'_, B>, node: NodeId, reply: Option<(Answer, Option<B>)>) {
        let Some(lead) = &mut self.lead else { return };
        lead.fetching = false;
        match reply {
            Some((Answer::Entry { at, entry }, body)) if at.seq > self.log.last.seq => {
                self.append(cx, at, entry, body);
            }
            _ => {
                if let Some(stream) = lead.streams.get_mut(&node) {
                    stream.fail(cx.now);
                    stream.tail = None;
                }
            }
        }
    }

    /// Tells members of commits that nothing else told them.
    fn notice_commits(&mut self, cx: &mut Cx<'_, B>) {
        let epoch = self.epoch();
        let Some(lead) = &mut self.lead else { return };
        if lead.notice_at.is_none_or(|at| at > cx.now) {
            return;
        }
        lead.notice_at = None;
        let commit = self.log.commit.seq;
        for (&node, stream) in &mut lead.streams {
            if stream.needs_notice(commit) {
                let groups = vec![Pulse { group: self.id, epoch, commit }];
                cx.call(node, Message::Commits { groups }, None, COMMITS_DEADLINE, CallFor::Commits);
            }
        }
    }

    /// A joiner that holds everything is made to count, durably, and then reported.
    pub(super) fn judge_joiners(&mut self, cx: &mut Cx<'_, B>) {
        let Some(lead) = &mut self.lead else { return };
        // What is committed, and what may have been by an earlier primary.
        let needed = self.log.commit.seq.max(lead.settled_through);
        let mut ready = Vec::new();
        for (&node, stream) in &mut lead.streams {
            if stream.role != Role::Joining || !lead.ready || !stream.holds_all(needed) {
                continue;
            }
            if stream.reportable {
                ready.push(node);
            } else if !stream.counting {
                stream.counts = true;
                stream.counting = true;
                let Some(saved) = self.saved else { continue };
                let saved = SavedGroup { joiners_count: true, ..saved };
                self.saved = Some(saved);
                let why = OpFor::CountJoiner { group: self.id, turn: self.turn, node };
                self.changes += 1;
                cx.store(StoreRequest::SaveGroup { group: self.id, saved }, why);
            }
        }
        if ready.is_empty() || lead.reported_at.is_some_and(|at| cx.now < at + REPORT_EVERY) {
            return;
        }
        lead.reported_at = Some(cx.now);
        let (group, epoch) = (self.id, self.epoch());
        for node in ready {
            cx.out.push(Effect::Report(Report::JoinReady { group, epoch, node }));
        }
    }

    /// It is durable that this joiner counts.
    pub(super) fn joiner_counts(&mut self, node: NodeId, done: bool) {
        if let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) {
            stream.counting = done;
            stream.reportable = done;
        }
    }
}

enum Verdict {
    New,
    Known(Seq),
    Refuse(Answer),
}

/// Room an entry takes on a device at most: every unit in a cell of a power of two, and its records.
fn room_for(entry: &LogEntry) -> u64 {
    const RECORD_BYTES: u64 = 256;
    let cells = entry.units().iter().map(|unit| (unit.padded_bytes() as u64).next_power_of_two());
    cells.map(|bytes| bytes + RECORD_BYTES).sum()
}

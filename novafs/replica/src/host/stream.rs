//! What a primary sends to one member: entries in order, and pages to a joiner the log cannot fill.
//!
//! A stream is opened, and from then on shows the member's grant with everything it sends. Whatever goes wrong
//! breaks it; it is opened again and goes on behind what the member then holds. To a joiner, pages and entries
//! alternate: a page leaves only when every entry before it is durable there, and no entry leaves before the page
//! is, so that nothing old can overtake something new.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use nova_units::{NodeId, Seq};

use super::group::Group;
use super::{CallFor, Cx, OpFor, StreamCall};
use crate::effect::{Loaded, ScanFrom, StoreFault, StoreRequest, Stored};
use crate::options::{
    CHAIN_DEADLINE, FULL_PAUSE, OPEN_DEADLINE, PREPARE_DEADLINE, REOPEN_AFTER, RETRY_SOON_MS, STALL,
    STREAM_BYTES_MAX, STREAM_ENTRIES_MAX,
};
use crate::{Answer, Grant, Message, Role, Route};

/// A joiner that had no room this often in a row is filled anew.
const REFUSALS_MAX: u32 = 3;
/// An entry that arrived damaged this often in a row is bad in the memory of this host, not on its way; one that could
/// not be read this often is bad on its device, and nobody else has it.
const DAMAGED_MAX: u32 = 2;

/// The way to one member.
#[derive(Debug)]
pub(crate) struct Stream<B> {
    pub(crate) role: Role,
    /// Whether a commit needs this member.
    pub(crate) counts: bool,
    /// A joiner that is being made to count, durably.
    pub(crate) counting: bool,
    /// A joiner that counts durably.
    pub(crate) reportable: bool,
    /// Everything up to here is durable on the member, as it said in this epoch.
    pub(crate) acked: Seq,
    /// Room on the member's device, as it last said.
    pub(crate) bytes_free: u64,
    /// Where the member stood when it was first opened in this epoch.
    pub(crate) tail: Option<Tail>,
    /// Since when nothing was heard although something is under way.
    waiting_since: Option<Duration>,
    /// The member had no room for what was sent to it last.
    no_room: bool,
    /// How often in a row that was so.
    refusals: u32,
    /// How often in a row what was sent arrived damaged, or could not be read here.
    damaged: u32,
    link: Link,
    body: PhantomData<B>,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) last: Seq,
    pub(crate) commit: Seq,
}

#[derive(Debug)]
enum Link {
    Down {
        retry_at: Duration,
    },
    /// Asked under this number; an answer to an earlier question says where the member stood then.
    Opening {
        opened: u64,
    },
    Up(Flow),
}

#[derive(Debug)]
struct Flow {
    /// Tells answers of this opening from those of earlier ones.
    opened: u64,
    grant: Grant,
    sent: Seq,
    commit_told: Seq,
    /// Bytes of the entries under way, by number.
    out: BTreeMap<Seq, usize>,
    loading: bool,
    cutting: bool,
    fill: Option<Fill>,
}

/// A joiner being filled with pages.
#[derive(Debug)]
struct Fill {
    /// Where the next page begins.
    from: ScanFrom,
    first: bool,
    /// What was committed when the first page was read: the log goes on from there.
    through: Seq,
    /// A page is being read or is under way.
    busy: bool,
}

impl Fill {
    const START: Self = Self { from: ScanFrom::Start, first: true, through: Seq(0), busy: false };
}

impl<B> Stream<B> {
    pub(crate) fn new(role: Role, counts: bool, now: Duration) -> Self {
        Self {
            role,
            counts,
            counting: false,
            reportable: false,
            acked: Seq(0),
            bytes_free: u64::MAX,
            tail: None,
            waiting_since: None,
            no_room: false,
            refusals: 0,
            damaged: 0,
            link: Link::Down { retry_at: now },
            body: PhantomData,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Self { role, counts, reportable, acked, bytes_free, .. } = self;
        let link = match &self.link {
            Link::Down { .. } => "down".to_owned(),
            Link::Opening { .. } => "opening".to_owned(),
            Link::Up(flow) => {
                format!(
                    "up, sent {} out {} loading {} fill {:?}",
                    flow.sent,
                    flow.out.len(),
                    flow.loading,
                    flow.fill
                )
            }
        };
        format!("{role:?} counts {counts} reported {reportable} acked {acked} free {bytes_free} {link}")
    }

    /// The stream broke; it is opened again soon.
    pub(crate) fn fail(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
        self.link = Link::Down { retry_at: now + REOPEN_AFTER };
    }

    /// The member had no room: one that counts is asked at once how far it got, a joiner is given time.
    fn fail_for_room(&mut self, now: Duration) {
        self.fail(now);
        let pause = if self.counts { Duration::ZERO } else { FULL_PAUSE };
        self.link = Link::Down { retry_at: now + pause };
        self.no_room = true;
        self.refusals += 1;
    }

    /// The log is cut above `keep`: the member is opened again to see whether it holds more.
    pub(crate) fn restart(&mut self, now: Duration, keep: Seq) {
        self.fail(now);
        self.link = Link::Down { retry_at: now };
        self.tail = None;
        self.acked = self.acked.min(keep);
    }

    /// Whether the member has kept the primary waiting for too long; want of room is no reason.
    pub(crate) fn is_stalled(&self, now: Duration) -> bool {
        !self.no_room && self.waiting_since.is_some_and(|since| now >= since + STALL)
    }

    /// Whether a joiner holds everything up to `needed`.
    pub(crate) fn holds_all(&self, needed: Seq) -> bool {
        matches!(&self.link, Link::Up(flow) if flow.fill.is_none()) && self.acked >= needed
    }

    /// Whether the member was not told yet that `commit` is; it is from now on.
    pub(crate) fn needs_notice(&mut self, commit: Seq) -> bool {
        match &mut self.link {
            Link::Up(flow) if flow.commit_told < commit => {
                flow.commit_told = commit;
                true
            }
            _ => false,
        }
    }

    fn flow(&mut self, opened: u64) -> Option<&mut Flow> {
        match &mut self.link {
            Link::Up(flow) if flow.opened == opened => Some(flow),
            _ => None,
        }
    }

    /// Something was heard: the wait starts over, or ends when nothing is under way.
    fn progressed(&mut self, now: Duration) {
        let busy = match &self.link {
            Link::Up(flow) => !flow.out.is_empty() || flow.fill.as_ref().is_some_and(|fill| fill.busy),
            _ => true,
        };
        self.waiting_since = busy.then_some(now);
        self.no_room = false;
    }
}

impl<B: Clone> Group<B> {
    /// Opens the streams that are due.
    pub(super) fn open_streams(&mut self, cx: &mut Cx<'_, B>) {
        let (id, turn, epoch) = (self.id, self.turn, self.epoch());
        let Some(lead) = &mut self.lead else { return };
        for (&node, stream) in &mut lead.streams {
            if !matches!(stream.link, Link::Down { retry_at } if retry_at <= cx.now) {
                continue;
            }
            let opened = cx.core.fresh();
            stream.link = Link::Opening { opened };
            stream.waiting_since.get_or_insert(cx.now);
            let why = CallFor::Stream { group: id, turn, node, what: StreamCall::Open { opened } };
            cx.call(node, Message::Open { group: id, epoch }, None, OPEN_DEADLINE, why);
        }
    }

    /// A member answered this primary, or did not.
    pub(super) fn stream_replied(
        &mut self,
        cx: &mut Cx<'_, B>,
        node: NodeId,
        what: StreamCall,
        reply: Option<(Answer, Option<B>)>,
    ) {
        match what {
            StreamCall::Open { opened } => {
                self.opened(cx, node, opened, reply.map(|(answer, _)| answer));
            }
            StreamCall::Prepare { opened, seq, last } => {
                let mut answer = reply.map(|(answer, _)| answer);
                let mut next = None;
                if let Some(Answer::Passed { seq, bytes_free, next: of_next }) = answer {
                    answer = Some(Answer::Prepared { seq, bytes_free });
                    next = of_next.map(|(seq, bytes_free)| Answer::Prepared { seq, bytes_free });
                }
                match (last, next) {
                    (Some((last, opened)), None) => self.send_after_all(cx, last, opened, seq),
                    (Some((last, opened)), next) => self.prepared(cx, last, opened, seq, next),
                    (None, _) => {}
                }
                self.prepared(cx, node, opened, seq, answer);
            }
            StreamCall::Page { opened, next } => {
                self.page_stored(cx, node, opened, next, reply.map(|(answer, _)| answer));
            }
            StreamCall::Fetch => self.fetched(cx, node, reply),
            StreamCall::Withdraw { opened, keep } => {
                let answer = reply.map(|(answer, _)| answer);
                self.cut(cx, node, opened, keep, answer.as_ref());
            }
        }
        self.align(cx);
        self.pump_all(cx);
        self.advance_commit(cx);
        self.judge_joiners(cx);
    }

    fn opened(&mut self, cx: &mut Cx<'_, B>, node: NodeId, opened: u64, answer: Option<Answer>) {
        let Some(lead) = &mut self.lead else { return };
        let Some(stream) = lead.streams.get_mut(&node) else { return };
        if !matches!(stream.link, Link::Opening { opened: latest } if latest == opened) {
            return;
        }
        let Some(Answer::Tail { grant, last, commit, complete, bytes_free }) = answer else {
            return stream.fail(cx.now);
        };
        // A joiner's log is compared with nobody's: it discarded what was not committed.
        let tail = Tail { last: last.seq, commit };
        stream.tail = if lead.ready { stream.tail.or(Some(tail)) } else { Some(tail) };
        stream.bytes_free = bytes_free;
        if !complete && stream.counts {
            // It was whole when it began to count; filling it again now could empty an in-sync member.
            return stream.fail(cx.now);
        }
        // A joiner that cannot hold the log beside what it has, or whose free cells have the wrong sizes, is emptied
        // and filled again: it must hold no more than the others do.
        let cramped = !stream.counts && stream.refusals >= REFUSALS_MAX;
        if cramped {
            stream.refusals = 0;
        }
        let fill = (!complete || cramped).then_some(Fill::START);
        if stream.role == Role::InSync {
            stream.acked = stream.acked.max(last.seq);
        } else {
            stream.acked = if fill.is_none() { last.seq } else { Seq(0) };
        }
        let flow = Flow {
            opened,
            grant,
            sent: last.seq,
            commit_told: Seq(0),
            out: BTreeMap::new(),
            loading: false,
            cutting: false,
            fill,
        };
        stream.link = Link::Up(flow);
        let lacks_room = stream.no_room && stream.counts;
        // Sent again it would arrive damaged again: it is taken back, and its writer sends its own bytes anew. A member in
        // sync that lacks it proves that it was never committed.
        let spoiled = stream.damaged >= DAMAGED_MAX && stream.counts;
        stream.progressed(cx.now);
        if (lacks_room || spoiled) && lead.ready && last.seq < self.log.last.seq {
            stream.damaged = 0;
            let answer =
                if lacks_room { Answer::Full } else { Answer::Busy { retry_after_ms: RETRY_SOON_MS } };
            self.withdraw(cx, last.seq, &answer);
        }
    }

    /// Lets every member whose log is longer than this one's forget the rest.
    pub(super) fn cut_streams(&mut self, cx: &mut Cx<'_, B>) {
        let (group, turn, epoch, keep) = (self.id, self.turn, self.epoch(), self.log.last.seq);
        let Some(lead) = &mut self.lead else { return };
        for (&node, stream) in &mut lead.streams {
            let longer = stream.tail.is_some_and(|tail| tail.last > keep);
            let Link::Up(flow) = &mut stream.link else { continue };
            if !longer || flow.cutting {
                continue;
            }
            flow.cutting = true;
            stream.waiting_since.get_or_insert(cx.now);
            let message = Message::Withdraw { group, epoch, grant: flow.grant, keep };
            let what = StreamCall::Withdraw { opened: flow.opened, keep };
            cx.call(node, message, None, PREPARE_DEADLINE, CallFor::Stream { group, turn, node, what });
        }
    }

    fn cut(&mut self, cx: &mut Cx<'_, B>, node: NodeId, opened: u64, keep: Seq, answer: Option<&Answer>) {
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let Some(flow) = stream.flow(opened) else { return };
        flow.cutting = false;
        if answer == Some(&Answer::Noted) {
            flow.sent = keep;
            if let Some(tail) = &mut stream.tail {
                tail.last = tail.last.min(keep);
            }
            stream.acked = stream.acked.min(keep);
            stream.progressed(cx.now);
        } else {
            stream.restart(cx.now + REOPEN_AFTER, keep);
        }
    }

    fn prepared(&mut self, cx: &mut Cx<'_, B>, node: NodeId, opened: u64, seq: Seq, answer: Option<Answer>) {
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let Some(flow) = stream.flow(opened) else { return };
        match answer {
            Some(Answer::Prepared { seq: durable, bytes_free }) => {
                flow.out.remove(&seq);
                (stream.refusals, stream.damaged) = (0, 0);
                stream.bytes_free = bytes_free;
                stream.acked = stream.acked.max(durable);
                stream.progressed(cx.now);
            }
            Some(Answer::Full) => stream.fail_for_room(cx.now),
            Some(Answer::Damaged) => {
                stream.fail(cx.now);
                stream.damaged += 1;
            }
            _ => stream.fail(cx.now),
        }
    }

    /// Sends what may be sent to every member. This is where the topology is chosen: small entries go from the primary
    /// to each member, large ones along a chain where two members have had the same so far, and else like small ones.
    pub(super) fn pump_all(&mut self, cx: &mut Cx<'_, B>) {
        let Some(lead) = &self.lead else { return };
        let nodes: Vec<_> = lead.streams.keys().copied().collect();
        loop {
            for node in &nodes {
                self.pump(cx, *node, cx.core.chain_bytes_min);
            }
            if !self.chain(cx) {
                break;
            }
        }
        for node in nodes {
            self.pump(cx, node, usize::MAX);
        }
    }

    /// Sends the next entry along a chain of two members that have had the same so far, of those that are furthest behind;
    /// false when it is small, or there are no such two. A group of five has two such chains, and one of four a member
    /// that is left over.
    fn chain(&mut self, cx: &mut Cx<'_, B>) -> bool {
        let (group, turn, epoch, commit) = (self.id, self.turn, self.epoch(), self.log.commit.seq);
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.ready) else { return false };
        let ends = lead.streams.iter_mut().filter_map(|(&node, stream)| {
            let whole = stream.role == Role::InSync && stream.counts;
            let Link::Up(flow) = &mut stream.link else { return None };
            let free = !flow.loading && !flow.cutting && flow.fill.is_none() && flow.has_room();
            (whole && free).then_some((node, flow, &mut stream.waiting_since))
        });
        let bytes_min = cx.core.chain_bytes_min;
        let next = |sent: Seq| {
            let next = self.log.tail.get(&sent.next()).filter(|entry| entry.is_whole());
            next.filter(|next| next.entry.body_bytes() >= bytes_min)
        };
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by_key(|(node, flow, _)| (flow.sent, *node));
        let is_pair = |two: &[(NodeId, &mut Flow, &mut Option<Duration>)]| {
            two[0].1.sent == two[1].1.sent && next(two[0].1.sent).is_some()
        };
        let Some(first) = ends.windows(2).position(is_pair) else { return false };
        let mut ends = ends.drain(first..);
        let (Some(one), Some(other)) = (ends.next(), ends.next()) else { return false };
        let previous = one.1.sent;
        let Some(next) = next(previous) else { return false };
        let bytes = next.entry.body_bytes();
        // Each is the first of every other chain, so that both carry the same.
        let (first, last) = if next.at.seq.0.is_multiple_of(2) { (one, other) } else { (other, one) };
        let message = Message::Prepare {
            group,
            epoch,
            grant: first.1.grant,
            previous,
            at: next.at,
            commit,
            route: Route::Chain { next: last.0, grant: last.1.grant },
            entry: next.entry.clone(),
        };
        let what = StreamCall::Prepare {
            opened: first.1.opened,
            seq: next.at.seq,
            last: Some((last.0, last.1.opened)),
        };
        let (node, body) = (first.0, next.body.clone());
        for (_, flow, waiting_since) in [first, last] {
            flow.begin(next.at.seq, bytes, commit);
            waiting_since.get_or_insert(cx.now);
        }
        cx.core.counters.entries_chained += 1;
        cx.call(node, message, body, CHAIN_DEADLINE, CallFor::Stream { group, turn, node, what });
        true
    }

    /// The end of a chain did not say that it has an entry: it is sent to it directly, which changes nothing if it has.
    fn send_after_all(&mut self, cx: &mut Cx<'_, B>, node: NodeId, opened: u64, seq: Seq) {
        let (group, turn, epoch, commit) = (self.id, self.turn, self.epoch(), self.log.commit.seq);
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let Some(flow) = stream.flow(opened).filter(|flow| flow.out.contains_key(&seq)) else { return };
        cx.core.counters.chains_broken += 1;
        let Some(entry) = self.log.tail.get(&seq).filter(|entry| entry.is_whole()) else {
            return stream.fail(cx.now);
        };
        let message = Message::Prepare {
            group,
            epoch,
            grant: flow.grant,
            previous: Seq(seq.0 - 1),
            at: entry.at,
            commit,
            route: Route::Direct,
            entry: entry.entry.clone(),
        };
        let what = StreamCall::Prepare { opened, seq, last: None };
        let why = CallFor::Stream { group, turn, node, what };
        cx.call(node, message, entry.body.clone(), PREPARE_DEADLINE, why);
    }

    /// Sends entries with fewer bytes than `bytes_max`, up to the first that has more, to one member.
    fn pump(&mut self, cx: &mut Cx<'_, B>, node: NodeId, bytes_max: usize) {
        let (id, turn, epoch) = (self.id, self.turn, self.epoch());
        let Some(lead) = &mut self.lead else { return };
        let ready = lead.ready;
        let Some(stream) = lead.streams.get_mut(&node) else { return };
        let Link::Up(flow) = &mut stream.link else { return };
        while ready && !flow.loading {
            // A joiner that is filled gets no more than what is committed: a page shows that, and must not show what an
            // entry takes away that the joiner has already and hears of the commit of while the page is under way. It
            // does not count yet, so no commit waits for it.
            let until = if flow.fill.is_some() { self.log.commit.seq } else { self.log.last.seq };
            let behind = flow.sent < until;
            if let Some(fill) = &mut flow.fill {
                if fill.busy || (!fill.first && !flow.out.is_empty()) {
                    return;
                }
                if fill.first || !behind {
                    fill.busy = true;
                    if fill.first {
                        fill.through = self.log.commit.seq;
                    }
                    let why = OpFor::Scan { group: id, turn, node, opened: flow.opened };
                    cx.store(StoreRequest::Scan { group: id, from: fill.from }, why);
                    return;
                }
            }
            if !behind || !flow.has_room() {
                return;
            }
            let whole = self.log.tail.get(&flow.sent.next()).filter(|entry| entry.is_whole());
            let Some(next) = whole else {
                flow.loading = true;
                let why = OpFor::LoadForStream { group: id, turn, node, opened: flow.opened };
                cx.store(StoreRequest::Load { group: id, after: flow.sent }, why);
                return;
            };
            if next.entry.body_bytes() >= bytes_max {
                return;
            }
            let message = Message::Prepare {
                group: id,
                epoch,
                grant: flow.grant,
                previous: flow.sent,
                at: next.at,
                commit: self.log.commit.seq,
                route: Route::Direct,
                entry: next.entry.clone(),
            };
            flow.begin(next.at.seq, next.entry.body_bytes(), self.log.commit.seq);
            stream.waiting_since.get_or_insert(cx.now);
            let what = StreamCall::Prepare { opened: flow.opened, seq: next.at.seq, last: None };
            let why = CallFor::Stream { group: id, turn, node, what };
            cx.call(node, message, next.body.clone(), PREPARE_DEADLINE, why);
        }
    }

    /// An entry that is no longer in memory was read.
    pub(super) fn loaded_for_stream(
        &mut self,
        cx: &mut Cx<'_, B>,
        node: NodeId,
        opened: u64,
        result: Result<Stored<B>, StoreFault>,
    ) {
        let (id, turn, epoch, commit) = (self.id, self.turn, self.epoch(), self.log.commit.seq);
        let last = self.log.last.seq;
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let fillable = !stream.counts;
        let Some(flow) = stream.flow(opened) else { return };
        flow.loading = false;
        match result {
            Ok(Stored::Loaded(Loaded::Entry { at, entry, body })) => {
                let bytes = entry.body_bytes();
                let (grant, previous) = (flow.grant, flow.sent);
                let route = Route::Direct;
                let message =
                    Message::Prepare { group: id, epoch, grant, previous, at, commit, route, entry };
                flow.begin(at.seq, bytes, commit);
                stream.waiting_since.get_or_insert(cx.now);
                let what = StreamCall::Prepare { opened, seq: at.seq, last: None };
                let why = CallFor::Stream { group: id, turn, node, what };
                cx.call(node, message, body, PREPARE_DEADLINE, why);
            }
            Ok(Stored::Loaded(Loaded::Gone | Loaded::End)) if fillable => {
                if flow.sent < last {
                    flow.fill = Some(Fill::START);
                    flow.out.clear();
                }
            }
            Err(StoreFault::Corrupt) => {
                // Bad here, and no other host has it.
                stream.fail(cx.now);
                stream.damaged += 1;
            }
            _ => stream.fail(cx.now),
        }
        self.pump_all(cx);
        self.judge_joiners(cx);
    }

    /// A page for a joiner was read.
    pub(super) fn scanned(
        &mut self,
        cx: &mut Cx<'_, B>,
        node: NodeId,
        opened: u64,
        result: Result<Stored<B>, StoreFault>,
    ) {
        let (group, turn, epoch) = (self.id, self.turn, self.epoch());
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let Some(flow) = stream.flow(opened) else { return };
        let (Some(fill), Ok(Stored::Scanned { units, body, lost, fences, next })) = (&mut flow.fill, result)
        else {
            return stream.fail(cx.now);
        };
        let first = fill.first;
        if first {
            // Everything up to the commit is in the pages, this one or a later one; the log goes on from there.
            flow.sent = fill.through;
            flow.out.clear();
        }
        let (grant, last, through) = (flow.grant, next.is_none(), flow.sent);
        let message = Message::Page { group, epoch, grant, first, last, through, fences, units, lost };
        stream.waiting_since.get_or_insert(cx.now);
        let why = CallFor::Stream { group, turn, node, what: StreamCall::Page { opened, next } };
        cx.call(node, message, body, PREPARE_DEADLINE, why);
    }

    fn page_stored(
        &mut self,
        cx: &mut Cx<'_, B>,
        node: NodeId,
        opened: u64,
        next: Option<ScanFrom>,
        answer: Option<Answer>,
    ) {
        let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&node)) else { return };
        let Some(flow) = stream.flow(opened) else { return };
        if answer != Some(Answer::Noted) {
            return if answer == Some(Answer::Full) {
                stream.fail_for_room(cx.now)
            } else {
                stream.fail(cx.now)
            };
        }
        let sent = flow.sent;
        match (&mut flow.fill, next) {
            (Some(fill), Some(next)) => (fill.from, fill.first, fill.busy) = (next, false, false),
            (fill, None) => *fill = None,
            (None, Some(_)) => {}
        }
        stream.acked = stream.acked.max(sent);
        stream.progressed(cx.now);
    }
}

impl Flow {
    /// Whether one more entry may be under way.
    fn has_room(&self) -> bool {
        self.out.len() < STREAM_ENTRIES_MAX && self.out.values().sum::<usize>() < STREAM_BYTES_MAX
    }

    fn begin(&mut self, seq: Seq, bytes: usize, commit: Seq) {
        self.out.insert(seq, bytes);
        self.sent = seq;
        self.commit_told = self.commit_told.max(commit);
    }
}

//! A member that follows its primary.

use std::collections::BTreeMap;

use nova_units::{CommitPoint, Epoch, NodeId, Seq};
use novafs_format::LogEntry;

use super::group::Group;
use super::log::Log;
use super::{Cx, OpFor};
use crate::effect::{Effect, Loaded, SavedGroup, Standing, StoreFault, StoreRequest, Stored, Ticket};
use crate::options::{EARLY_MAX, RETRY_SOON_MS};
use crate::{Answer, BlockFence, Grant, Role, Route, Versioned};

/// What a member keeps for the primary it follows.
#[derive(Debug)]
pub(crate) struct Follower<B> {
    /// Shown by the primary with everything it sends.
    grant: Option<Grant>,
    grants: u64,
    /// An open that waits until this host may acknowledge.
    opening: Option<Ticket>,
    /// Prepares that came before the one they follow, by its number.
    early: BTreeMap<Seq, Prepare<B>>,
    /// Who waits for which number to be durable.
    waiting: BTreeMap<Seq, Vec<Ticket>>,
    /// Committed, says the primary; it may be more than is durable here.
    commit_known: Seq,
    filling: bool,
    pub(super) rewinding: bool,
}

impl<B> Default for Follower<B> {
    fn default() -> Self {
        Self {
            grant: None,
            grants: 0,
            opening: None,
            early: BTreeMap::new(),
            waiting: BTreeMap::new(),
            commit_known: Seq(0),
            filling: false,
            rewinding: false,
        }
    }
}

/// An entry a primary wants durable.
#[derive(Clone, Debug)]
pub(crate) struct Prepare<B> {
    pub(crate) ticket: Ticket,
    pub(crate) previous: Seq,
    pub(crate) at: CommitPoint,
    pub(crate) commit: Seq,
    pub(crate) entry: LogEntry,
    pub(crate) body: Option<B>,
}

/// A page for a joiner.
#[derive(Clone, Debug)]
pub(crate) struct FillPage<B> {
    pub(crate) ticket: Ticket,
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) through: Seq,
    pub(crate) fences: Vec<BlockFence>,
    pub(crate) units: Vec<Versioned>,
    pub(crate) lost: Vec<Versioned>,
    pub(crate) body: Option<B>,
}

impl<B: Clone> Follower<B> {
    /// Forgets the epoch. What the store is still at work on ends in another.
    pub(crate) fn stop(&mut self, cx: &mut Cx<'_, B>, answer: &Answer) {
        self.dismiss(cx, answer);
        self.commit_known = Seq(0);
        (self.filling, self.rewinding) = (false, false);
    }

    /// Answers whoever waits and takes the grant back.
    fn dismiss(&mut self, cx: &mut Cx<'_, B>, answer: &Answer) {
        let early = core::mem::take(&mut self.early).into_values().map(|prepare| prepare.ticket);
        let waiting = core::mem::take(&mut self.waiting).into_values().flatten();
        for ticket in early.chain(waiting).chain(self.opening.take()) {
            cx.answer(ticket, answer.clone());
        }
        self.grant = None;
    }

    /// Answers every prepare that `durable` covers.
    pub(crate) fn acknowledge(&mut self, cx: &mut Cx<'_, B>, durable: Seq) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= durable
        {
            for ticket in first.remove() {
                cx.answer(ticket, Answer::Prepared { seq: durable, bytes_free: cx.core.bytes_free });
            }
        }
    }
}

impl<B: Clone> Group<B> {
    /// A primary begins to lead this member.
    pub(super) fn serve_open(&mut self, cx: &mut Cx<'_, B>, ticket: Ticket, from: NodeId) {
        if let Err(refusal) = self.check_primary(from) {
            return cx.answer(ticket, refusal);
        }
        self.follower.dismiss(cx, &Answer::NoGrant);
        self.follower.opening = Some(ticket);
        let at = self.may_acknowledge_at(cx.core);
        if at > cx.now {
            cx.out.push(Effect::WakeAt(at));
        }
        self.follower_settled(cx);
    }

    fn check_primary(&self, from: NodeId) -> Result<(), Answer> {
        match self.primary() {
            Some(primary) if primary == from => Ok(()),
            Some(primary) => Err(Answer::NotPrimary { primary }),
            None => Err(Answer::NotMember),
        }
    }

    /// Answers an open once the hold has passed and the store is quiet.
    pub(super) fn open_if_possible(&mut self, cx: &mut Cx<'_, B>) {
        let held = cx.now < self.may_acknowledge_at(cx.core);
        let changing = self.follower.rewinding || self.follower.filling;
        let busy = !self.log.is_settled() || self.log.has_failed() || changing;
        if held || busy || self.follower.opening.is_none() {
            return;
        }
        let Some(ticket) = self.follower.opening.take() else { return };
        self.follower.grants += 1;
        let grant = Grant { boot: cx.core.me.boot, number: self.follower.grants };
        self.follower.grant = Some(grant);
        let complete = self.saved.is_some_and(|saved| saved.standing != Standing::Filling);
        let (last, commit) = (self.log.durable, self.log.commit.seq);
        cx.answer(ticket, Answer::Tail { grant, last, commit, complete, bytes_free: cx.core.bytes_free });
    }

    pub(super) fn serve_prepare(
        &mut self,
        cx: &mut Cx<'_, B>,
        from: NodeId,
        grant: Grant,
        route: Route,
        prepare: Prepare<B>,
    ) {
        let passed_on = route == Route::PassedOn && self.role(from) == Some(Role::InSync);
        if let Err(refusal) = self.check_primary(from)
            && !passed_on
        {
            return cx.answer(prepare.ticket, refusal);
        }
        if self.follower.grant != Some(grant) || self.follower.rewinding {
            return cx.answer(prepare.ticket, Answer::NoGrant);
        }
        if self.log.has_failed() {
            let refusal = self.no_room();
            return cx.answer(prepare.ticket, refusal);
        }
        let early = prepare.previous > self.log.last.seq;
        if early && self.follower.early.len() >= EARLY_MAX {
            return cx.answer(prepare.ticket, Answer::Busy { retry_after_ms: RETRY_SOON_MS });
        }
        if let Route::Chain { next, grant } = route {
            self.pass_on(cx, next, grant, &prepare);
        }
        if early {
            if let Some(twice) = self.follower.early.insert(prepare.previous, prepare) {
                cx.answer(twice.ticket, Answer::NoGrant);
            }
            return;
        }
        self.follow(cx, prepare);
        while let Some(next) = self.follower.early.remove(&self.log.last.seq) {
            self.follow(cx, next);
        }
        self.follower.acknowledge(cx, self.log.durable.seq);
        self.apply_known_commit(cx);
    }

    /// What a primary is told when there is no room. It concludes that what this member lacks was never committed,
    /// which does not hold while this member may have lost entries.
    fn no_room(&self) -> Answer {
        if self.tail_in_doubt { Answer::Busy { retry_after_ms: RETRY_SOON_MS } } else { Answer::Full }
    }

    fn follow(&mut self, cx: &mut Cx<'_, B>, prepare: Prepare<B>) {
        let Prepare { ticket, previous, at, commit, entry, body } = prepare;
        self.follower.commit_known = self.follower.commit_known.max(commit);
        if at.seq > self.log.last.seq {
            if previous != self.log.last.seq || at.seq != previous.next() {
                return cx.answer(ticket, Answer::NoGrant);
            }
            cx.core.counters.entries_followed += 1;
            self.append(cx, at, entry, body);
        }
        self.follower.waiting.entry(at.seq).or_default().push(ticket);
    }

    /// The primary told what is committed in a message of its own.
    pub(super) fn learn_commit(&mut self, cx: &mut Cx<'_, B>, from: NodeId, epoch: Epoch, commit: Seq) {
        let granted = self.follower.grant.is_some() || self.role(cx.core.me.node) == Some(Role::InSync);
        if self.is_active() && self.epoch() == epoch && self.primary() == Some(from) && granted {
            self.follower.commit_known = self.follower.commit_known.max(commit);
            self.apply_known_commit(cx);
        }
    }

    pub(super) fn apply_known_commit(&mut self, cx: &mut Cx<'_, B>) {
        if self.is_active() && self.lead.is_none() {
            let known = self.follower.commit_known;
            if known > Seq(0) && self.log.durable.seq >= known && self.follower.grant.is_some() {
                self.tail_in_doubt = false;
            }
            self.commit_to(cx, known);
        }
    }

    /// After an append ended: goes back behind entries the device had no room for, or answers a waiting open.
    pub(super) fn follower_settled(&mut self, cx: &mut Cx<'_, B>) {
        if self.lead.is_some() || !self.log.is_settled() {
            return;
        }
        if self.log.has_failed() && !self.follower.rewinding {
            let opening = self.follower.opening.take();
            let refusal = self.no_room();
            self.follower.dismiss(cx, &refusal);
            self.follower.opening = opening;
            self.rewind(cx, self.log.durable.seq, None);
        }
        self.open_if_possible(cx);
    }

    /// Lets the device forget everything above `keep`.
    pub(super) fn rewind(&mut self, cx: &mut Cx<'_, B>, keep: Seq, ticket: Option<Ticket>) {
        self.follower.rewinding = true;
        let request = StoreRequest::DiscardAbove { group: self.id, seq: keep };
        self.change(cx, request, OpFor::Rewind { group: self.id, turn: self.turn, keep, ticket });
    }

    pub(super) fn rewound(&mut self, cx: &mut Cx<'_, B>, keep: Seq, ticket: Option<Ticket>, done: bool) {
        self.follower.rewinding = false;
        if done {
            self.log.discard_above(keep);
        }
        if let Some(ticket) = ticket {
            cx.answer(ticket, if done { Answer::Noted } else { Answer::NoGrant });
        }
        self.open_if_possible(cx);
        self.align(cx);
    }

    /// The primary takes back entries that a member had no room for. Only the holder of the newest grant may, before
    /// it sends anything else, so that no old request of its kind can take back what came later.
    pub(super) fn serve_withdraw(
        &mut self,
        cx: &mut Cx<'_, B>,
        ticket: Ticket,
        from: NodeId,
        grant: Grant,
        keep: Seq,
    ) {
        if let Err(refusal) = self.check_primary(from) {
            return cx.answer(ticket, refusal);
        }
        let quiet = self.log.is_settled() && !self.log.has_failed() && !self.follower.rewinding;
        if self.follower.grant != Some(grant) || !quiet || keep < self.log.commit.seq {
            return cx.answer(ticket, Answer::NoGrant);
        }
        if keep >= self.log.last.seq {
            return cx.answer(ticket, Answer::Noted);
        }
        self.rewind(cx, keep, Some(ticket));
    }

    pub(super) fn serve_page(&mut self, cx: &mut Cx<'_, B>, from: NodeId, grant: Grant, page: FillPage<B>) {
        if let Err(refusal) = self.check_primary(from) {
            return cx.answer(page.ticket, refusal);
        }
        let Some(saved) = self.saved else { return cx.answer(page.ticket, Answer::NoGrant) };
        let joining = self.role(cx.core.me.node) == Some(Role::Joining);
        let in_place = page.first || saved.standing == Standing::Filling;
        if self.follower.grant != Some(grant) || !joining || !in_place {
            return cx.answer(page.ticket, Answer::NoGrant);
        }
        if self.follower.filling || !self.log.is_settled() {
            return cx.answer(page.ticket, Answer::Busy { retry_after_ms: RETRY_SOON_MS });
        }
        self.follower.filling = true;
        if page.first {
            let saved = SavedGroup { standing: Standing::Filling, ..saved };
            let request = StoreRequest::Empty { group: self.id, saved, through: page.through };
            self.saved = Some(saved);
            self.change(cx, request, OpFor::Fill { group: self.id, turn: self.turn, page });
        } else {
            self.put_page(cx, page);
        }
    }

    fn put_page(&mut self, cx: &mut Cx<'_, B>, mut page: FillPage<B>) {
        let request = StoreRequest::PutPage {
            group: self.id,
            fences: core::mem::take(&mut page.fences),
            units: core::mem::take(&mut page.units),
            body: page.body.take(),
            lost: core::mem::take(&mut page.lost),
        };
        page.first = false;
        self.change(cx, request, OpFor::Fill { group: self.id, turn: self.turn, page });
    }

    /// The store emptied the group or stored a page.
    pub(super) fn filled(
        &mut self,
        cx: &mut Cx<'_, B>,
        page: FillPage<B>,
        result: Result<Stored<B>, StoreFault>,
    ) {
        if result.is_err() {
            self.follower.filling = false;
            cx.answer(page.ticket, Answer::Full);
            return self.open_if_possible(cx);
        }
        if page.first {
            self.emptied(page.through);
            self.follower.commit_known = page.through;
            return self.put_page(cx, page);
        }
        if let (true, Some(saved)) = (page.last, self.saved) {
            let saved = SavedGroup { standing: Standing::Joining, ..saved };
            self.saved = Some(saved);
            let page = FillPage { last: false, ..page };
            let why = OpFor::Fill { group: self.id, turn: self.turn, page };
            return self.change(cx, StoreRequest::SaveGroup { group: self.id, saved }, why);
        }
        self.follower.filling = false;
        cx.core.counters.pages_filled += 1;
        cx.answer(page.ticket, Answer::Noted);
        self.open_if_possible(cx);
    }

    /// The device forgot the group's data; its log goes on after `through`.
    pub(super) fn emptied(&mut self, through: Seq) {
        self.log = Log::starting_at(CommitPoint { epoch: self.epoch(), seq: through });
        (self.ragged, self.tail_in_doubt, self.damaged) = (false, false, false);
    }

    /// A new primary asks for what it lacks of this member's tail.
    pub(super) fn serve_fetch(&mut self, cx: &mut Cx<'_, B>, ticket: Ticket, from: NodeId, after: Seq) {
        if let Err(refusal) = self.check_primary(from) {
            return cx.answer(ticket, refusal);
        }
        cx.store(StoreRequest::Load { group: self.id, after }, OpFor::LoadForFetch { ticket });
    }
}

/// Answers a fetch with what the store read.
pub(super) fn answer_fetch<B: Clone>(
    cx: &mut Cx<'_, B>,
    ticket: Ticket,
    result: Result<Stored<B>, StoreFault>,
) {
    match result {
        Ok(Stored::Loaded(Loaded::Entry { at, entry, body })) => {
            cx.out.push(Effect::Answer { ticket, answer: Answer::Entry { at, entry }, body });
        }
        _ => cx.answer(ticket, Answer::Absent),
    }
}

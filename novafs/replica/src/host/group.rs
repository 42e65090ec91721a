//! One replica group on this host.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{CommitPoint, Epoch, GroupId, NodeId, Seq};

use super::follow::Follower;
use super::lead::Lead;
use super::log::Log;
use super::{Core, Cx, OpFor};
use crate::effect::{Effect, RecoveredGroup, SavedGroup, StoreFault, StoreRequest, Stored, Trust};
use crate::options::RETRY_SOON_MS;
use crate::{Answer, GroupView, Role};

/// A group this device holds or shall hold.
#[derive(Debug)]
pub(crate) struct Group<B> {
    pub(crate) id: GroupId,
    /// The record on the device.
    pub(crate) saved: Option<SavedGroup>,
    /// The configuration in which this host is, or becomes, a member.
    pub(crate) view: Option<GroupView>,
    /// Counts the configurations taken up, so that what was begun in an earlier one is told apart.
    pub(crate) turn: u64,
    pub(crate) state: State,
    pub(crate) log: Log<B>,
    /// True while entries behind a gap wait to be discarded from the device.
    pub(crate) ragged: bool,
    /// Acknowledged entries may be missing here until the primary has brought this member up to the commit.
    pub(crate) tail_in_doubt: bool,
    /// What the device holds is good for a joiner only.
    pub(crate) damaged: bool,
    /// Nothing is acknowledged before: a promise to a former member binds until then.
    pub(crate) hold_until: Duration,
    /// Until when this host promised each peer not to acknowledge without it.
    pub(crate) promises: BTreeMap<NodeId, Duration>,
    /// Until when each peer's promise lets this host read.
    pub(crate) leases: BTreeMap<NodeId, Duration>,
    /// When each peer last answered a ping in this epoch.
    pub(crate) agreed_at: BTreeMap<NodeId, Duration>,
    /// Changes of the record or the log that the store is at work on; a new configuration waits for them.
    pub(crate) changes: usize,
    pub(crate) follower: Follower<B>,
    pub(crate) lead: Option<Lead<B>>,
}

/// How far this host is with the newest configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has none, or is no member.
    Idle,
    /// Entries of the former epoch are still under way to the store.
    Draining,
    /// The epoch is being made durable.
    Saving,
    /// The device forgets entries this member must not keep.
    Discarding,
    /// It takes part, since then.
    Active { since: Duration },
}

impl<B: Clone> Group<B> {
    pub(crate) fn new(id: GroupId) -> Self {
        Self::with_log(id, None, Log::starting_at(CommitPoint::default()), false)
    }

    pub(crate) fn recovered(found: RecoveredGroup) -> Self {
        let (log, ragged) = Log::recovered(found.commit, found.tail);
        let mut group = Self::with_log(found.group, Some(found.saved), log, ragged);
        group.tail_in_doubt = found.trust == Trust::TailInDoubt;
        group.damaged = found.trust == Trust::Damaged;
        group
    }

    fn with_log(id: GroupId, saved: Option<SavedGroup>, log: Log<B>, ragged: bool) -> Self {
        Self {
            id,
            saved,
            view: None,
            turn: 0,
            state: State::Idle,
            log,
            ragged,
            tail_in_doubt: false,
            damaged: false,
            hold_until: Duration::ZERO,
            promises: BTreeMap::new(),
            leases: BTreeMap::new(),
            agreed_at: BTreeMap::new(),
            changes: 0,
            follower: Follower::default(),
            lead: None,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let log = &self.log;
        let (commit, durable, last) = (log.commit.seq, log.durable.seq, log.last.seq);
        let mut text = format!(
            "{:?} {} commit {commit} durable {durable} last {last} saved {:?} changes {}",
            self.state,
            self.epoch(),
            self.saved.map(|saved| saved.standing),
            self.changes
        );
        let doubts = [
            (self.tail_in_doubt, " tail-in-doubt"),
            (self.damaged, " damaged"),
            (log.has_failed(), " no-room"),
        ];
        text.extend(doubts.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word));
        if let Some(lead) = &self.lead {
            text.push_str(&lead.describe());
        }
        text
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// The epoch taken part in, or being taken up; 0 when there is none.
    pub(crate) fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch(0), |view| view.epoch)
    }

    pub(crate) fn role(&self, me: NodeId) -> Option<Role> {
        self.view.as_ref().and_then(|view| view.member(me)).map(|member| member.role)
    }

    pub(crate) fn primary(&self) -> Option<NodeId> {
        self.view.as_ref().map(|view| view.primary)
    }

    /// Whether a request of this epoch can be looked at now.
    ///
    /// # Errors
    /// The answer to give when it cannot.
    pub(crate) fn check_epoch(&self, core: &Core<B>, epoch: Epoch) -> Result<(), Answer> {
        if !core.confirmed || self.state == State::Idle {
            return Err(Answer::NotMember);
        }
        let mine = self.epoch();
        if epoch < mine {
            Err(Answer::StaleEpoch { epoch: mine })
        } else if epoch > mine || !self.is_active() {
            Err(Answer::Busy { retry_after_ms: RETRY_SOON_MS })
        } else {
            Ok(())
        }
    }

    /// When this host may acknowledge in this epoch.
    pub(crate) fn may_acknowledge_at(&self, core: &Core<B>) -> Duration {
        self.hold_until.max(core.started_hold)
    }

    /// Whether every other in-sync member's promise lets this host read at `now`.
    pub(crate) fn has_lease(&self, core: &Core<B>, now: Duration) -> bool {
        let Some(view) = &self.view else { return false };
        let mut others = view.in_sync().filter(|&node| node != core.me.node).peekable();
        if others.peek().is_none() {
            return now < core.configuration.node_lease_until;
        }
        others.all(|node| self.leases.get(&node).is_some_and(|until| now < *until))
    }

    /// Ends what was begun in this configuration; whoever waits gets `answer`.
    pub(crate) fn stop(&mut self, cx: &mut Cx<'_, B>, answer: &Answer) {
        self.follower.stop(cx, answer);
        if let Some(lead) = self.lead.take() {
            lead.stop(cx, answer);
            // A tail may stay uncommitted for long, and memory is needed to fill the joiner that it waits for.
            self.log.release_bodies();
        }
        self.leases.clear();
        self.agreed_at.clear();
        self.state = State::Idle;
        self.turn += 1;
    }

    pub(crate) fn tick(&mut self, cx: &mut Cx<'_, B>) {
        match self.state {
            State::Idle | State::Saving | State::Discarding => {}
            State::Draining => self.adopt_further(cx),
            State::Active { .. } => {
                self.open_if_possible(cx);
                self.tick_lead(cx);
            }
        }
    }

    /// Asks the store for a change of the record or the log.
    pub(crate) fn change(&mut self, cx: &mut Cx<'_, B>, request: StoreRequest<B>, why: OpFor<B>) {
        self.changes += 1;
        cx.store(request, why);
    }

    /// The store finished something.
    pub(crate) fn stored(
        &mut self,
        cx: &mut Cx<'_, B>,
        why: OpFor<B>,
        result: Result<Stored<B>, StoreFault>,
    ) {
        if why.is_change() {
            self.changes -= 1;
        }
        let (_, turn) = why.turn().expect("what comes here belongs to a group");
        if turn != self.turn {
            if let OpFor::Fill { page, .. } = &why
                && page.first
                && result.is_ok()
            {
                self.emptied(page.through);
            }
            if let (OpFor::Rewind { keep, .. }, true) = (&why, result.is_ok()) {
                self.log.discard_above(*keep);
            }
            why.refuse(cx, &Answer::Busy { retry_after_ms: RETRY_SOON_MS });
            if self.state == State::Draining {
                self.adopt_further(cx);
            }
            return;
        }
        match why {
            OpFor::Adopt { .. } => self.adopted_step(cx, result.is_ok()),
            OpFor::Lookup { write, .. } => self.looked_up(cx, write, result),
            OpFor::LoadForStream { node, opened, .. } => self.loaded_for_stream(cx, node, opened, result),
            OpFor::Scan { node, opened, .. } => self.scanned(cx, node, opened, result),
            OpFor::Fill { page, .. } => self.filled(cx, page, result),
            OpFor::CountJoiner { node, .. } => self.joiner_counts(node, result.is_ok()),
            OpFor::Rewind { keep, ticket, .. } => self.rewound(cx, keep, ticket, result.is_ok()),
            OpFor::StartAnew | OpFor::SettleMount | OpFor::Append { .. } | OpFor::LoadForFetch { .. } => {
                unreachable!("not of a turn")
            }
        }
    }

    /// The store finished an append, of whatever turn.
    pub(crate) fn appended(&mut self, cx: &mut Cx<'_, B>, seq: Seq, result: Result<Stored<B>, StoreFault>) {
        let stored = result.is_ok();
        let grew = if stored {
            self.log.complete(seq)
        } else {
            self.log.fail(seq);
            false
        };
        if self.lead.is_none()
            && let Some(entry) = self.log.tail.get_mut(&seq)
            && stored
        {
            entry.body = None;
        }
        if grew {
            self.follower.acknowledge(cx, self.log.durable.seq);
            self.apply_known_commit(cx);
            self.advance_commit(cx);
        }
        match self.state {
            State::Draining => self.adopt_further(cx),
            State::Active { .. } => {
                self.follower_settled(cx);
                self.lead_settled(cx);
            }
            State::Idle | State::Saving | State::Discarding => {}
        }
    }

    /// Gives an entry to the store.
    pub(crate) fn append(
        &mut self,
        cx: &mut Cx<'_, B>,
        at: CommitPoint,
        entry: novafs_format::LogEntry,
        body: Option<B>,
    ) {
        self.log.issue(at, entry.clone(), body.clone());
        let why = OpFor::Append { group: self.id, seq: at.seq };
        cx.store(StoreRequest::Append { group: self.id, at, entry, body }, why);
    }

    /// Makes everything up to `seq` visible, as far as it is durable; what this committed.
    pub(crate) fn commit_to(&mut self, cx: &mut Cx<'_, B>, seq: Seq) -> Vec<super::log::TailEntry<B>> {
        let before = self.log.commit.seq;
        let committed = self.log.advance(seq);
        if self.log.commit.seq > before {
            cx.out.push(Effect::Commit { group: self.id, seq: self.log.commit.seq });
        }
        committed
    }
}

//! Taking up what the controllers decided: an epoch is durable before it is used.

use std::time::Duration;

use nova_units::{GroupId, Incarnation};

use super::group::{Group, State};
use super::lead::Lead;
use super::{Cx, Host, OpFor};
use crate::effect::{Effect, SavedGroup, Standing, StoreRequest};
use crate::{Answer, Configuration, GroupView, Role};

impl<B: Clone> Host<B> {
    pub(super) fn configure(&mut self, now: Duration, new: Configuration, out: &mut Vec<Effect<B>>) {
        let known = &mut self.core.configuration;
        if new.version < known.version || self.core.device_failed {
            return;
        }
        if new.version == known.version {
            known.node_lease_until = known.node_lease_until.max(new.node_lease_until);
        }
        if new.version > known.version {
            *known = new;
        }
        let me = self.core.me;
        let own = self.core.configuration.nodes.get(&me.node).and_then(|view| view.boot);
        if own.is_some_and(|boot| boot != me.boot) {
            return;
        }
        match self.core.configuration.confirmed {
            Some(incarnation) if incarnation == me.incarnation => self.confirmed(now, out),
            Some(incarnation) if incarnation > me.incarnation => {
                return self.start_anew(now, incarnation, out);
            }
            _ => {}
        }
        if self.core.confirmed {
            self.adopt_groups(now, out);
        }
    }

    /// The controllers know this start of the device, in the life that it has.
    fn confirmed(&mut self, now: Duration, out: &mut Vec<Effect<B>>) {
        if !std::mem::replace(&mut self.core.confirmed, true) {
            let mut cx = Cx { now, core: &mut self.core, out };
            cx.store(StoreRequest::SettleMount, OpFor::SettleMount);
        }
    }

    /// Whether a group was left for good: this device holds none of its replicas, and it is whole without it. Another
    /// device of the host may hold one.
    #[must_use]
    pub fn has_left(&self, group: GroupId) -> bool {
        let me = self.core.me;
        let configuration = &self.core.configuration;
        self.core.confirmed
            && !self.core.device_failed
            && self.core.anew.is_none()
            && configuration.group(group).is_some_and(|view| {
                view.member(me.node).is_none_or(|member| member.incarnation != me.incarnation)
                    && view.in_sync().count() >= view.replicas.count()
            })
    }

    /// Forgets a group that was left, so that its data can be dropped from the device. False when it is still in use;
    /// then nothing changes. Promises given as a member bind for [`crate::options::PROMISE`]: leave before that.
    pub fn forget(&mut self, group: GroupId) -> bool {
        let quiet =
            |found: &Group<B>| found.state == State::Idle && found.changes == 0 && found.log.is_settled();
        let forgotten = self.has_left(group) && self.groups.get(&group).is_none_or(quiet);
        if forgotten {
            self.groups.remove(&group);
        }
        forgotten
    }

    /// The controllers gave the device a new life: it begins empty.
    fn start_anew(&mut self, now: Duration, incarnation: Incarnation, out: &mut Vec<Effect<B>>) {
        if self.core.anew.is_some() {
            return;
        }
        self.core.anew = Some(incarnation);
        self.core.confirmed = false;
        let mut cx = Cx { now, core: &mut self.core, out };
        for group in self.groups.values_mut() {
            group.stop(&mut cx, &Answer::NotMember);
        }
        cx.store(StoreRequest::StartAnew(incarnation), OpFor::StartAnew);
    }

    pub(super) fn started_anew(&mut self, now: Duration, out: &mut Vec<Effect<B>>) {
        let Some(incarnation) = self.core.anew.take() else { return };
        self.core.me.incarnation = incarnation;
        self.groups.clear();
        let newest = self.core.configuration.clone();
        self.configure(now, newest, out);
    }

    fn adopt_groups(&mut self, now: Duration, out: &mut Vec<Effect<B>>) {
        let views: Vec<_> = self
            .core
            .configuration
            .groups
            .iter()
            .filter(|(_, view)| {
                view.member(self.core.me.node)
                    .is_some_and(|mine| mine.incarnation == self.core.me.incarnation)
            })
            .map(|(group, view)| (*group, view.clone()))
            .collect();
        let mut cx = Cx { now, core: &mut self.core, out };
        for (id, group) in &mut self.groups {
            // No member any more: what it holds stays, in case it is reinstated or joins again.
            let dropped = views.binary_search_by_key(id, |(group, _)| *group).is_err();
            let newer = cx.core.configuration.groups.get(id).is_none_or(|view| view.epoch > group.epoch());
            if dropped && newer && group.state != State::Idle {
                let epoch = cx.core.configuration.groups.get(id).map_or(group.epoch(), |view| view.epoch);
                group.stop(&mut cx, &Answer::StaleEpoch { epoch });
                group.view = None;
            }
        }
        for (id, view) in views {
            self.groups.entry(id).or_insert_with(|| Group::new(id)).adopt(&mut cx, view);
        }
    }
}

impl<B: Clone> Group<B> {
    fn adopt(&mut self, cx: &mut Cx<'_, B>, view: GroupView) {
        let known = if self.state == State::Idle { None } else { self.view.as_ref().map(|view| view.epoch) };
        let saved = self.saved.map(|saved| saved.epoch);
        if known.is_some_and(|epoch| epoch >= view.epoch) || saved.is_some_and(|epoch| epoch > view.epoch) {
            return;
        }
        let joining = view.member(cx.core.me.node).is_some_and(|mine| mine.role == Role::Joining);
        if self.damaged && !joining {
            return;
        }
        self.stop(cx, &Answer::StaleEpoch { epoch: view.epoch });
        // A promise binds whoever is no longer needed for a commit; those still in sync speak for themselves.
        self.promises.retain(|_, until| *until > cx.now);
        for (node, until) in &self.promises {
            if !view.in_sync().any(|member| member == *node) {
                self.hold_until = self.hold_until.max(*until);
            }
        }
        self.view = Some(view);
        self.state = State::Draining;
        self.adopt_further(cx);
    }

    /// Goes on once nothing of the former epoch is under way to the store.
    pub(super) fn adopt_further(&mut self, cx: &mut Cx<'_, B>) {
        let quiet = self.log.is_settled() && self.changes == 0;
        let (Some(view), true) = (&self.view, quiet) else { return };
        let joining = self.role(cx.core.me.node) == Some(Role::Joining);
        let standing = match self.saved {
            _ if !joining => Standing::InSync,
            Some(SavedGroup { standing: Standing::Filling, .. }) => Standing::Filling,
            _ if self.damaged => Standing::Filling,
            _ => Standing::Joining,
        };
        let joiners_count = self.saved.is_some_and(|saved| saved.epoch == view.epoch && saved.joiners_count);
        let saved = SavedGroup { epoch: view.epoch, standing, joiners_count };
        self.state = State::Saving;
        if self.saved == Some(saved) {
            return self.adopted_step(cx, true);
        }
        self.saved = Some(saved);
        let why = OpFor::Adopt { group: self.id, turn: self.turn };
        self.change(cx, StoreRequest::SaveGroup { group: self.id, saved }, why);
    }

    /// The store finished a step of the adoption.
    pub(super) fn adopted_step(&mut self, cx: &mut Cx<'_, B>, done: bool) {
        if !done {
            // No room for the record: tried again with the next tick.
            self.saved = None;
            self.state = State::Draining;
            return;
        }
        let joining = self.role(cx.core.me.node) == Some(Role::Joining);
        let keep = if joining { self.log.commit.seq } else { self.log.durable.seq };
        if self.state == State::Saving && (self.ragged || self.log.last.seq > keep) {
            self.state = State::Discarding;
            let why = OpFor::Adopt { group: self.id, turn: self.turn };
            return self.change(cx, StoreRequest::DiscardAbove { group: self.id, seq: keep }, why);
        }
        if self.state == State::Discarding {
            self.log.discard_above(keep);
            self.ragged = false;
        }
        self.state = State::Active { since: cx.now };
        cx.core.counters.epochs_adopted += 1;
        let me = cx.core.me.node;
        if self.primary() == Some(me) && !joining {
            let view = self.view.as_ref().expect("an adopted group has a configuration");
            let joiners_count = self.saved.is_some_and(|saved| saved.joiners_count);
            self.lead = Some(Lead::new(view, me, cx.now, joiners_count));
            self.tick_lead(cx);
        }
    }
}

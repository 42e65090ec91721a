//! Pings: who lives, who lends a lease, and who is reported silent.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{BootId, Epoch, GroupId, Incarnation, NodeId};

use super::group::{Group, State};
use super::{CallFor, Cx};
use crate::effect::{Effect, Ticket};
use crate::message::PULSES_MAX;
use crate::options::{
    LEASE, PING_DEADLINE, PING_EVERY, PINGS_OUT_MAX, PROMISE, QUIET_AFTER_LATE_TICK, REPORT_EVERY, SILENCE,
    STALL, TICK_EVERY, TICK_LATE,
};
use crate::{Agreed, Answer, Message, Pulse, Report, Role};

/// Pings to every host this one shares a group with: one for all their groups.
#[derive(Debug)]
pub(crate) struct Pulses {
    peers: BTreeMap<NodeId, Peer>,
    ticked_at: Duration,
    /// Nobody is accused before: this host itself was away.
    quiet_until: Duration,
    device_report_at: Duration,
}

#[derive(Debug)]
struct Peer {
    /// Its start that is watched.
    boot: Option<BootId>,
    /// The start that the controllers knew when they were last asked.
    registered: Option<BootId>,
    /// Since when that start is watched, or when it last answered.
    heard_at: Duration,
    ping_at: Duration,
    out: usize,
    reported_at: Option<Duration>,
}

impl Peer {
    fn watched_since(now: Duration) -> Self {
        Self { boot: None, registered: None, heard_at: now, ping_at: now, out: 0, reported_at: None }
    }

    /// The peer runs as `boot`: silence of an earlier start is no silence of this one.
    fn meet(&mut self, boot: BootId, now: Duration) {
        if self.boot.replace(boot) != Some(boot) {
            self.heard_at = now;
        }
    }
}

impl Pulses {
    pub(crate) fn new(now: Duration) -> Self {
        Self { peers: BTreeMap::new(), ticked_at: now, quiet_until: now, device_report_at: Duration::ZERO }
    }

    pub(crate) fn tick<B: Clone>(&mut self, groups: &mut BTreeMap<GroupId, Group<B>>, cx: &mut Cx<'_, B>) {
        if cx.now > self.ticked_at + TICK_EVERY + TICK_LATE {
            self.quiet_until = cx.now + QUIET_AFTER_LATE_TICK;
        }
        self.ticked_at = cx.now;
        if cx.core.device_failed {
            if cx.now >= self.device_report_at {
                self.device_report_at = cx.now + REPORT_EVERY;
                cx.out.push(Effect::Report(Report::DeviceFailed));
            }
            return;
        }
        let shared = shared_groups(groups, cx.core.me.node);
        self.peers.retain(|node, _| shared.contains_key(node));
        for (&node, pulses) in &shared {
            let peer = self.peers.entry(node).or_insert_with(|| Peer::watched_since(cx.now));
            // The map may be behind what the peer itself said: only what is new in it counts.
            let registered = cx.core.configuration.nodes.get(&node).and_then(|view| view.boot);
            if let Some(boot) = registered
                && peer.registered.replace(boot) != Some(boot)
            {
                peer.meet(boot, cx.now);
            }
            if cx.now >= peer.ping_at && peer.out < PINGS_OUT_MAX {
                peer.ping_at = cx.now + PING_EVERY;
                for chunk in pulses.chunks(PULSES_MAX) {
                    peer.out += 1;
                    let asked = chunk.iter().map(|pulse| (pulse.group, pulse.epoch)).collect();
                    let message = Message::Ping { boot: cx.core.me.boot, groups: chunk.to_vec() };
                    let why = CallFor::Ping { peer: node, sent: cx.now, groups: asked };
                    cx.call(node, message, None, PING_DEADLINE, why);
                }
            }
        }
        if cx.now >= self.quiet_until {
            self.report_own_device(cx, &shared);
            self.report_silence(groups, cx, &shared);
        }
    }

    /// This host says so itself when its device hangs: where it is the primary, nobody else can see what is missing.
    fn report_own_device<B: Clone>(&mut self, cx: &mut Cx<'_, B>, shared: &BTreeMap<NodeId, Vec<Pulse>>) {
        if !cx.core.device.hangs(cx.now) || cx.now < self.device_report_at {
            return;
        }
        self.device_report_at = cx.now + REPORT_EVERY;
        cx.core.counters.silences += 1;
        let groups: BTreeMap<GroupId, Epoch> =
            shared.values().flatten().map(|pulse| (pulse.group, pulse.epoch)).collect();
        cx.out.push(Effect::Report(Report::Silence {
            peer: cx.core.me.node,
            boot: Some(cx.core.me.boot),
            device: Some(cx.core.me.incarnation),
            groups: groups.into_iter().collect(),
            hears: shared.keys().copied().filter(|peer| self.hears(*peer, cx.now)).collect(),
        }));
    }

    fn hears(&self, node: NodeId, now: Duration) -> bool {
        self.peers.get(&node).is_some_and(|peer| now < peer.heard_at + SILENCE)
    }

    fn report_silence<B: Clone>(
        &mut self,
        groups: &BTreeMap<GroupId, Group<B>>,
        cx: &mut Cx<'_, B>,
        shared: &BTreeMap<NodeId, Vec<Pulse>>,
    ) {
        let heard: Vec<_> = self.peers.keys().copied().filter(|node| self.hears(*node, cx.now)).collect();
        for (&node, pulses) in shared {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            let silent = cx.now >= peer.heard_at + SILENCE;
            let mut lost = BTreeMap::<Option<Incarnation>, Vec<(GroupId, Epoch)>>::new();
            for pulse in pulses {
                let Some(group) = groups.get(&pulse.group) else { continue };
                let held_on = group.view.as_ref().and_then(|view| view.member(node));
                let device = held_on.map(|member| member.incarnation).filter(|_| !silent);
                if silent || group.lags(cx.now, node) {
                    lost.entry(device).or_default().push((pulse.group, pulse.epoch));
                }
            }
            let due = peer.reported_at.is_none_or(|at| cx.now >= at + REPORT_EVERY);
            if lost.is_empty() || !due {
                continue;
            }
            peer.reported_at = Some(cx.now);
            cx.core.counters.silences += 1;
            let hears: Vec<_> = heard.iter().copied().filter(|other| *other != node).collect();
            for (device, groups) in lost {
                let hears = hears.clone();
                cx.out.push(Effect::Report(Report::Silence {
                    peer: node,
                    boot: peer.boot,
                    device,
                    groups,
                    hears,
                }));
            }
        }
    }

    /// A peer pings: this host promises the groups they agree on.
    pub(crate) fn serve_ping<B: Clone>(
        &mut self,
        groups: &mut BTreeMap<GroupId, Group<B>>,
        cx: &mut Cx<'_, B>,
        ticket: Ticket,
        from: NodeId,
        boot: BootId,
        pulses: &[Pulse],
    ) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.meet(boot, cx.now);
        }
        let bytes_free = cx.core.bytes_free;
        let mut agreed = Vec::new();
        for pulse in pulses {
            let Some(group) = groups.get_mut(&pulse.group) else { continue };
            if group.promise(cx, from, pulse.epoch) {
                agreed.push(Agreed { group: pulse.group, bytes_free });
                group.learn_commit(cx, from, pulse.epoch, pulse.commit);
            }
        }
        cx.answer(ticket, Answer::Pong { boot: cx.core.me.boot, agreed });
    }

    /// A ping was answered, or not.
    pub(crate) fn heard<B: Clone>(
        &mut self,
        groups: &mut BTreeMap<GroupId, Group<B>>,
        cx: &mut Cx<'_, B>,
        node: NodeId,
        sent: Duration,
        asked: &[(GroupId, Epoch)],
        answer: Option<Answer>,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.out = peer.out.saturating_sub(1);
        let Some(Answer::Pong { boot, agreed }) = answer else { return };
        peer.meet(boot, cx.now);
        peer.heard_at = cx.now;
        for Agreed { group: id, bytes_free } in agreed {
            let epoch = asked.iter().find(|(asked, _)| *asked == id).map(|(_, epoch)| *epoch);
            if let (Some(epoch), Some(group)) = (epoch, groups.get_mut(&id)) {
                group.lend(node, epoch, sent, cx.now, bytes_free);
            }
        }
    }
}

/// Every host this one shares a group with, and those groups.
fn shared_groups<B: Clone>(groups: &BTreeMap<GroupId, Group<B>>, me: NodeId) -> BTreeMap<NodeId, Vec<Pulse>> {
    let mut shared = BTreeMap::<NodeId, Vec<Pulse>>::new();
    for (id, group) in groups.iter().filter(|(_, group)| group.is_active()) {
        let Some(view) = &group.view else { continue };
        let pulse = Pulse { group: *id, epoch: view.epoch, commit: group.log.commit.seq };
        for member in view.members.iter().filter(|member| member.node != me) {
            shared.entry(member.node).or_default().push(pulse);
        }
    }
    shared
}

impl<B: Clone> Group<B> {
    /// Promises `peer` not to acknowledge writes of a later epoch without it for a while; false when the two are not
    /// in the same epoch.
    fn promise(&mut self, cx: &Cx<'_, B>, peer: NodeId, epoch: Epoch) -> bool {
        let agrees = self.is_active() && self.epoch() == epoch;
        let in_sync = self.view.as_ref().is_some_and(|view| view.in_sync().any(|node| node == peer));
        if agrees && in_sync {
            self.promises.insert(peer, cx.now + PROMISE);
        }
        agrees
    }

    /// `peer` promised at some time after `sent`.
    fn lend(&mut self, peer: NodeId, epoch: Epoch, sent: Duration, now: Duration, bytes_free: u64) {
        if !self.is_active() || self.epoch() != epoch {
            return;
        }
        let until = self.leases.entry(peer).or_default();
        *until = (*until).max(sent + LEASE);
        self.agreed_at.insert(peer, now);
        if let Some(stream) = self.lead.as_mut().and_then(|lead| lead.streams.get_mut(&peer)) {
            stream.bytes_free = bytes_free;
        }
    }

    /// Whether `peer` answers pings and still does not keep up in this group.
    fn lags(&self, now: Duration, peer: NodeId) -> bool {
        let State::Active { since } = self.state else { return false };
        let in_sync = self.view.as_ref().and_then(|view| view.member(peer)).map(|member| member.role);
        let disagrees = in_sync == Some(Role::InSync)
            && now >= self.agreed_at.get(&peer).copied().unwrap_or(since).max(since) + STALL;
        let stalls = self.lead.as_ref().is_some_and(|lead| {
            lead.streams.get(&peer).is_some_and(|stream| stream.counts && stream.is_stalled(now))
        });
        disagrees || stalls
    }
}

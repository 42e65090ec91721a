//! Steps that are taken at once, because a world in which they were taken can do whatever one can in which they were not.
//!
//! A lease lets its holder read, and its giver wait. So more leases are never worse, as long as the holder gives them up
//! when somebody waits for that. In detail, where *better* means that all that may follow from the one may follow from the
//! other with the same reads and commits, or more:
//!
//! - **Ping**. A member pings whomever it meets as soon as it does. Promises bind only givers that have adopted an epoch
//!   without the holder, and such a giver never meets the holder in its epoch again: epochs only grow. So when a giver
//!   waits, a holder that never had this promise cannot read any more, and giving up all leases is better than
//!   that.
//! - **Expire**. A holder gives its leases up only when a giver waits for it; before that nobody gains. It gives them
//!   up by itself when it can never hold all of them any more, as then they are good for nothing but waiting.
//! - **Lapse**. A promise that nobody counts on lapses. Promises only stop a member from acknowledging, and within an
//!   epoch they only go: hosts outside of it get no new ones. A primary commits nothing before all that count have
//!   acknowledged once, and from then on they acknowledge everything, with or without the promise that lapsed early. So
//!   it commits the same.
//! - **Hear**. The controllers hear a lone host as soon as it is alone. Its node lease stops nobody but the controllers
//!   from bringing members back, and it is silent for as long as that takes: **Silence** is part of that step, and after
//!   it the epoch is over in which the host could be heard again. Who is not alone has no use of a node lease.
//! - **Start** and **TakeMount** of a host that is no member, that cannot be brought back, and whose old image, if one may
//!   still come, would hold no more than it does now: nothing. Being up and known lets it join. No other step asks for such a
//!   host to be down.
//!
//! Steps that are not offered, because all that may follow may follow without them:
//!
//! - **Crash** of a start that the controllers have not taken: it did nothing but make the trail longer, and what that
//!   names of before it goes on naming.
//! - **Crash** of a host as above, for which it would be started and taken at once.
//! - **Crash**, **Start** and **StartOld** in the last epoch that the bounds allow: who starts is taken in no epoch any more,
//!   and without it others can do no more than with it. A holder that crashes loses its leases; so it does in
//!   Expire.

use crate::host_set::{HOSTS, HostSet};
use crate::rules::Rules;
use crate::steps::Step;
use crate::world::World;

impl World {
    /// Takes every step that is better taken than not.
    pub(crate) fn settle(&mut self) {
        for host in 0..HOSTS {
            let view = self.hosts[host].view;
            if !self.may_be_leased(host) {
                self.hosts[host].leases = HostSet::default();
            } else if view.in_sync.contains(host) {
                self.ping(host);
            }
            let heard = self.is_heard_alone(host);
            let it = &mut self.hosts[host];
            it.node_lease = view.is_lone(host) && (heard || it.node_lease);
        }
        (0..HOSTS).for_each(|host| self.lapse(host));
    }

    /// It holds all promises that it needs to read, or may still get those it lacks.
    pub(crate) fn may_be_leased(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        let lacking = it.view.others(host).without(it.leases);
        let adopts = |other: usize| {
            it.view.epoch == self.control.epoch && self.hosts[other].up && self.hosts[other].known
        };
        it.view.in_sync.contains(host) && lacking.iter().all(|other| self.meets(host, other) || adopts(other))
    }

    /// No more epochs within the bounds.
    pub(crate) fn is_last_epoch(&self, rules: &Rules) -> bool {
        self.control.epoch >= rules.bounds.epochs
    }

    /// A step so harmless that no other need be tried before it.
    pub(crate) fn step_without_choice(&self, rules: &Rules) -> Option<Step> {
        if !rules.reductions.at_once || self.is_last_epoch(rules) {
            return None;
        }
        let mut left_over = (0..HOSTS).filter(|host| self.is_left_over(*host, rules));
        left_over.find_map(|host| match &self.hosts[host] {
            it if !it.up => Some(Step::Start(host)),
            it if !it.known => Some(Step::TakeMount(host)),
            _ => None,
        })
    }

    /// It is no member, acts in no epoch, cannot be brought back, and has nothing to lose to an old image.
    fn is_left_over(&self, host: usize, rules: &Rules) -> bool {
        let it = &self.hosts[host];
        let is_empty = it.disk.log.len() == 0 && it.disk.commit == 0;
        !it.view.exists()
            && !self.control.members().with(self.control.writable).contains(host)
            && (is_empty || self.amnesias >= rules.bounds.amnesias)
    }

    /// A crash of this host is no step of its own; see above.
    pub(crate) fn crashes_for_nothing(&self, host: usize, rules: &Rules) -> bool {
        let it = &self.hosts[host];
        rules.reductions.at_once && (self.is_last_epoch(rules) || !it.known || self.is_left_over(host, rules))
    }
}

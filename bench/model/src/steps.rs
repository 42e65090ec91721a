//! Everything that may happen. Messages and waits are steps of their own, so that every order of them is tried; a lease is
//! a flag that its holder loses before its giver is free again. A read changes nothing, so it is no step: what every
//! member would answer is checked after each.

use crate::host_set::{HOSTS, HostSet};
use crate::rules::{Broken, Rules};
use crate::world::World;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A host takes over the epoch that the controllers have.
    Adopt(usize),
    /// A primary takes the longest tail of the in-sync members.
    Align(usize),
    /// A client's write reaches a primary.
    Propose(usize),
    /// A primary sends its log to a member, and hears of it.
    Replicate(usize, usize),
    /// A primary commits what all have, and tells the client.
    Commit(usize),
    /// A member hears how far the primary has committed.
    Learn(usize, usize),
    /// A member pings whom it meets: it holds their promises from then on.
    Ping(usize),
    /// A member has not pinged for long: it holds no promises any more.
    Expire(usize),
    /// Promises of a host that nobody counts on any more have run out.
    Lapse(usize),
    /// A primary makes its complete joiner count, and reports it.
    Count(usize),
    /// The controllers hear a host, which may then read alone for a while.
    Hear(usize),
    /// The node lease runs out.
    Silence(usize),
    /// A host loses its memory.
    Crash(usize),
    /// It starts again.
    Start(usize),
    /// It starts again on an old image of its device.
    StartOld(usize),
    /// The controllers take the mount of one host while another in-sync member runs.
    TakeMount(usize),
    /// The controllers take every mount that waits: no in-sync member was left running.
    ColdStart,
    /// The controllers drop a member.
    DropMember(usize),
    /// The controllers let another member in sync order writes.
    MovePrimary(usize),
    /// The controllers let a host join.
    Join(usize),
    /// The controllers admit the joiner that was reported complete.
    AdmitJoiner,
    /// The controllers bring back members of the last writable epoch for a survivor that is lost.
    BringBack,
}

impl World {
    /// Every step that may be taken here.
    pub(crate) fn steps(&self, rules: &Rules, steps: &mut Vec<Step>) {
        if self.violation.is_some() {
            return;
        }
        if let Some(step) = self.step_without_choice(rules) {
            steps.push(step);
            return;
        }
        for host in 0..HOSTS {
            if self.hosts[host].up {
                self.steps_of_running(host, rules, steps);
            } else if !(rules.reductions.at_once && self.is_last_epoch(rules)) {
                steps.push(Step::Start(host));
                if self.amnesias < rules.bounds.amnesias {
                    steps.push(Step::StartOld(host));
                }
            }
        }
        if self.control.epoch < rules.bounds.epochs {
            self.steps_of_controllers(rules, steps);
        }
    }

    fn steps_of_running(&self, host: usize, rules: &Rules, steps: &mut Vec<Step>) {
        let it = &self.hosts[host];
        if self.crashes < rules.bounds.crashes && !self.crashes_for_nothing(host, rules) {
            steps.push(Step::Crash(host));
        }
        if self.may_adopt(host) {
            steps.push(Step::Adopt(host));
        }
        if rules.reductions.at_once {
            if self.is_waited_for(host) {
                steps.push(Step::Expire(host));
            }
        } else {
            self.waits(host, steps);
        }
        if it.view.is_led_by(host) {
            self.steps_of_primary(host, rules, steps);
        }
    }

    /// It adopts only the newest epoch, as a member of it.
    pub(crate) fn may_adopt(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        it.up
            && it.known
            && it.view.epoch < self.control.epoch
            && self.has_its_life(host)
            && self.control.members().contains(host)
    }

    /// Promises and leases that come and go.
    fn waits(&self, host: usize, steps: &mut Vec<Step>) {
        let it = &self.hosts[host];
        if !it.leases.is_empty() {
            steps.push(Step::Expire(host));
        }
        if it.node_lease {
            steps.push(Step::Silence(host));
        } else if self.is_heard_alone(host) {
            steps.push(Step::Hear(host));
        }
        if it.view.in_sync.contains(host) && !it.leases.holds(self.met(host, it.view.others(host))) {
            steps.push(Step::Ping(host));
        }
        if it.promises != self.counted_on(host).and(it.promises) {
            steps.push(Step::Lapse(host));
        }
    }

    /// The controllers hear a host that knows itself to be the only one in sync.
    pub(crate) fn is_heard_alone(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        it.known && it.view.is_lone(host) && it.view.epoch == self.control.epoch
    }

    /// Who holds a promise of this host.
    pub(crate) fn counted_on(&self, host: usize) -> HostSet {
        self.hosts_that(|other| other.leases.contains(host))
    }

    /// Somebody acknowledges nothing before this host has stopped counting on it.
    fn is_waited_for(&self, host: usize) -> bool {
        self.hosts[host].leases.iter().any(|giver| {
            let view = self.hosts[giver].view;
            view.exists() && !view.in_sync.contains(host)
        })
    }

    fn steps_of_primary(&self, host: usize, rules: &Rules, steps: &mut Vec<Step>) {
        let it = &self.hosts[host];
        let view = it.view;
        if !it.ready {
            if self.met(host, view.others(host)) == view.others(host) {
                steps.push(Step::Align(host));
            }
            return;
        }
        let writable = view.writable() || rules.breaks(Broken::CommitsAlone);
        if writable && self.written < rules.bounds.writes {
            steps.push(Step::Propose(host));
        }
        for member in self.met(host, view.others(host).with(view.joining)).iter() {
            let disk = &self.hosts[member].disk;
            if it.acked[member] != it.disk.log.len() {
                steps.push(Step::Replicate(host, member));
            }
            if disk.commit < it.disk.commit.min(disk.log.len()) {
                steps.push(Step::Learn(member, host));
            }
        }
        if self.committable(host, rules) > it.disk.commit {
            steps.push(Step::Commit(host));
        }
        if view.joining.iter().any(|joiner| it.acked[joiner] == it.disk.log.len()) && !it.counts {
            steps.push(Step::Count(host));
        }
    }

    /// What a primary may commit now.
    pub(crate) fn committable(&self, host: usize, rules: &Rules) -> u8 {
        let it = &self.hosts[host];
        if !it.ready || !self.answers(host, rules) {
            return 0;
        }
        if it.view.writable() {
            self.agreed(host)
        } else if rules.breaks(Broken::CommitsAlone) {
            it.disk.log.len()
        } else {
            0
        }
    }

    /// A host may acknowledge now.
    pub(crate) fn answers(&self, host: usize, rules: &Rules) -> bool {
        self.may_acknowledge(host) || rules.breaks(Broken::PromiseForgotten)
    }

    fn steps_of_controllers(&self, rules: &Rules, steps: &mut Vec<Step>) {
        let control = &self.control;
        let (running, waiting) = (self.running(), self.waiting());
        let survives = !control.in_sync.and(running).is_empty();
        let taken = if survives { waiting } else { waiting.without(control.in_sync) };
        steps.extend(taken.iter().map(Step::TakeMount));
        if !survives && !control.in_sync.and(waiting).is_empty() {
            steps.push(Step::ColdStart);
        }
        let dropped = if control.in_sync.len() > 1 { control.in_sync } else { HostSet::default() };
        steps.extend(dropped.with(control.joining).iter().map(Step::DropMember));
        let led = HostSet::of(control.primary.into());
        steps.extend(control.in_sync.and(running).without(led).iter().map(Step::MovePrimary));
        let full = control.members().len() >= rules.bounds.members;
        if control.joining.is_empty() && !full {
            steps.extend(running.without(control.in_sync).iter().map(Step::Join));
        }
        if self.reported {
            steps.push(Step::AdmitJoiner);
        }
        if !self.returning(rules).is_empty() {
            steps.push(Step::BringBack);
        }
    }

    /// Members of the last writable epoch that could take over: the survivor reads no more, or its life is over.
    pub(crate) fn returning(&self, rules: &Rules) -> HostSet {
        let control = &self.control;
        let reads = |host: usize| !control.over.contains(host) && self.hosts[host].node_lease;
        let silent = rules.reductions.at_once || rules.breaks(Broken::SurvivorReads);
        if control.in_sync.len() > 1 || !silent && control.in_sync.iter().any(reads) {
            return HostSet::default();
        }
        control.writable.and(self.running()).without(control.in_sync)
    }

    /// The longest tail of the in-sync members beside a primary; the host that has it.
    pub(crate) fn longest(&self, host: usize) -> Option<usize> {
        let others = self.hosts[host].view.others(host);
        others.iter().max_by_key(|other| self.hosts[*other].disk.log.len())
    }
}

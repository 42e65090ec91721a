//! What comes of a step.

use crate::Reconfiguration;
use crate::controllers::{Claims, Decided, Decision};
use crate::host_set::{HOSTS, HostSet};
use crate::log::Log;
use crate::rules::{Broken, Rules};
use crate::steps::Step;
use crate::world::{Disk, NONE, Violation, World};

/// A step that a check must meet at least once, or it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rare {
    /// A joiner became a member in sync.
    Admitted,
    /// Members of the last writable epoch took over from a survivor that was lost.
    BroughtBack,
    /// All in-sync members were down, and are confirmed.
    ColdStart,
    /// A device began another life.
    NewLife,
    /// A write was acknowledged after a change of members.
    WrittenLater,
}

impl Reconfiguration {
    /// Everything that may come of a step: the controllers may choose.
    pub(crate) fn take(&self, world: &World, step: Step, mut to: impl FnMut(World, Option<Rare>)) {
        let mut end = |mut next: World, rare: Option<Rare>| {
            self.finish(&mut next);
            to(next, rare);
        };
        let Some(decision) = world.decision(step, &self.rules) else {
            let mut next = *world;
            let rare = next.act(step, &self.rules);
            return end(next, rare);
        };
        for decided in self.controllers.decide(world.control, decision).iter() {
            let mut next = *world;
            let rare = next.follow(step, decision, *decided, &self.rules);
            end(next, rare);
        }
    }
}

impl World {
    /// What the controllers are asked in a step of theirs.
    pub(crate) fn decision(&self, step: Step, rules: &Rules) -> Option<Decision> {
        Some(match step {
            Step::TakeMount(host) => self.taking(HostSet::of(host), HostSet::default(), rules),
            Step::ColdStart => {
                let waiting = self.waiting();
                let keeps = |host: &usize| {
                    let (control, it) = (&self.control, &self.hosts[*host]);
                    it.disk.traced && !it.disk.past && !control.over.contains(*host)
                };
                self.taking(waiting, waiting.and(self.control.in_sync).iter().filter(keeps).collect(), rules)
            }
            Step::DropMember(host) => Decision::Drop(host),
            Step::MovePrimary(host) => Decision::Lead(host),
            Step::Join(host) => Decision::Join(host),
            Step::AdmitJoiner => Decision::Admit(self.control.joining.iter().next()?),
            Step::BringBack => Decision::BringBack(self.returning(rules)),
            _ => return None,
        })
    }

    fn taking(&self, hosts: HostSet, confirm: HostSet, rules: &Rules) -> Decision {
        let all = self.claims();
        let claims = if rules.breaks(Broken::OldImageBelieved) {
            Claims { traced: hosts, past: HostSet::default() }
        } else {
            Claims { traced: all.traced.and(hosts), past: all.past.and(hosts) }
        };
        Decision::Take { hosts, claims, confirm }
    }

    /// The controllers have decided.
    fn follow(&mut self, step: Step, decision: Decision, decided: Decided, rules: &Rules) -> Option<Rare> {
        let before = self.control;
        self.control = decided.control;
        if self.control.epoch != before.epoch {
            // What was reported of an earlier epoch is stale.
            self.reported = false;
        }
        let accepted = |rare| decided.accepted.then_some(rare);
        match decision {
            Decision::Take { hosts, confirm, .. } => {
                for host in hosts.iter() {
                    self.hosts[host].taken(decided.reborn.contains(host));
                }
                match step {
                    Step::ColdStart => (!confirm.is_empty()).then_some(Rare::ColdStart),
                    _ => (!decided.reborn.is_empty()).then_some(Rare::NewLife),
                }
            }
            Decision::Join(host) => {
                if rules.breaks(Broken::JoinerIsWritable) && before.writable.contains(host) {
                    self.control.writable.insert(host);
                }
                None
            }
            Decision::Drop(_) | Decision::Lead(_) => None,
            Decision::Admit(_) => {
                self.reported = false;
                accepted(Rare::Admitted)
            }
            Decision::BringBack(_) => {
                if rules.reductions.at_once && !rules.breaks(Broken::SurvivorReads) {
                    // Its node lease had to run out first.
                    before.in_sync.iter().for_each(|host| self.hosts[host].node_lease = false);
                }
                accepted(Rare::BroughtBack)
            }
        }
    }

    /// A step of hosts.
    fn act(&mut self, step: Step, rules: &Rules) -> Option<Rare> {
        match step {
            Step::Adopt(host) => self.adopt(host, rules),
            Step::Align(host) => self.align(host),
            Step::Propose(host) => {
                self.written += 1;
                let entry = self.written;
                self.hosts[host].disk.log.push(entry);
            }
            Step::Replicate(primary, member) => self.replicate(primary, member, rules),
            Step::Commit(host) => return self.commit(host, rules),
            Step::Learn(member, primary) => {
                let commit = self.hosts[primary].disk.commit;
                let disk = &mut self.hosts[member].disk;
                disk.commit = commit.min(disk.log.len());
            }
            Step::Ping(host) => self.ping(host),
            Step::Expire(host) => self.hosts[host].leases = HostSet::default(),
            Step::Lapse(host) => self.lapse(host),
            Step::Count(host) => {
                self.hosts[host].counts = !rules.breaks(Broken::JoinerUncounted);
                self.reported = self.hosts[host].view.epoch == self.control.epoch;
            }
            Step::Hear(host) => self.hosts[host].node_lease = true,
            Step::Silence(host) => self.hosts[host].node_lease = false,
            Step::Crash(host) => {
                self.crashes += 1;
                self.hosts[host].crash();
            }
            Step::Start(host) => self.start(host),
            Step::StartOld(host) => {
                self.amnesias += 1;
                let it = &mut self.hosts[host];
                it.disk = it.image;
                it.amnesic = true;
                self.start(host);
            }
            Step::TakeMount(_)
            | Step::ColdStart
            | Step::DropMember(_)
            | Step::MovePrimary(_)
            | Step::Join(_)
            | Step::AdmitJoiner
            | Step::BringBack => unreachable!("a step of the controllers"),
        }
        None
    }

    pub(crate) fn ping(&mut self, host: usize) {
        let met = self.met(host, self.hosts[host].view.others(host));
        self.hosts[host].leases = self.hosts[host].leases.with(met);
        met.iter().for_each(|other| self.hosts[other].promises.insert(host));
    }

    pub(crate) fn lapse(&mut self, host: usize) {
        let counted_on = self.counted_on(host);
        let it = &mut self.hosts[host];
        it.promises = it.promises.and(counted_on);
    }

    fn start(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.image = it.disk;
        it.up = true;
        // What the start before this one promised, it no longer knows: it waits as if it had promised everything.
        it.promises = (0..HOSTS).filter(|other| *other != host).collect();
    }

    fn adopt(&mut self, host: usize, rules: &Rules) {
        let view = self.newest();
        let it = &mut self.hosts[host];
        if view.joining.contains(host) || rules.breaks(Broken::TailDiscarded) {
            it.disk.log = it.disk.log.first(it.disk.commit);
        }
        it.view = view;
        it.leave_epoch();
        it.leases = HostSet::default();
    }

    fn align(&mut self, host: usize) {
        let longest = self.longest(host).map_or(Log::default(), |other| self.hosts[other].disk.log);
        let it = &mut self.hosts[host];
        if longest.len() > it.disk.log.len() {
            it.disk.log = longest;
        }
        it.ready = true;
        it.settled = it.disk.log.len();
    }

    fn replicate(&mut self, primary: usize, member: usize, rules: &Rules) {
        let log = self.hosts[primary].disk.log;
        let it = &mut self.hosts[member];
        it.disk.log = log;
        if it.disk.commit > log.len() {
            self.violation = Some(Violation::Forgotten);
        } else if self.answers(member, rules) {
            self.hosts[primary].acked[member] = log.len();
        }
    }

    fn commit(&mut self, host: usize, rules: &Rules) -> Option<Rare> {
        let commit = self.committable(host, rules);
        let it = &mut self.hosts[host];
        it.disk.commit = commit;
        let told = it.disk.log.first(commit);
        let common = commit.min(self.acknowledged.len());
        if told.first(common) != self.acknowledged.first(common) {
            self.violation = Some(Violation::Replaced);
            return None;
        }
        if commit <= self.acknowledged.len() {
            return None;
        }
        self.acknowledged = told;
        (it.view.epoch > 1).then_some(Rare::WrittenLater)
    }

    /// How many entries a read of this member sees; `None` when it may not serve it now.
    pub(crate) fn read_at(&self, host: usize, rules: &Rules) -> Option<u8> {
        let it = &self.hosts[host];
        let may_read =
            self.leased(host) || rules.breaks(Broken::LeaseNotChecked) && it.view.in_sync.contains(host);
        if !may_read {
            return None;
        }
        if it.disk.log.len() == it.disk.commit || rules.breaks(Broken::PrimaryNotAsked) {
            return Some(it.disk.commit);
        }
        // A prepared newer version: the primary knows what is committed, when it may speak at all.
        let first = usize::from(it.view.primary);
        let primary = &self.hosts[first];
        let settled = primary.disk.commit >= primary.settled || rules.breaks(Broken::UnsettledTold);
        let asks = first == host || (self.meets(host, first) && self.leased(first));
        (primary.ready && settled && asks).then(|| primary.disk.commit.min(it.disk.log.len()))
    }

    /// What must never happen, and did in this step.
    pub(crate) fn check(&mut self, rules: &Rules) {
        if self.violation.is_some() {
            return;
        }
        let lacks = |host: usize| {
            self.has_its_life(host) && !self.hosts[host].disk.log.starts_with(self.acknowledged)
        };
        let misses =
            |host: usize| self.read_at(host, rules).is_some_and(|entries| entries < self.acknowledged.len());
        if self.control.in_sync.iter().any(lacks) {
            self.violation = Some(Violation::Lacking);
        } else if (0..HOSTS).any(misses) {
            self.violation = Some(Violation::ReadMisses);
        }
    }
}

impl crate::world::Host {
    /// The controllers have taken its mount; a device that begins another life starts empty.
    fn taken(&mut self, reborn: bool) {
        self.known = true;
        self.amnesic = false;
        self.disk.past = false;
        // From now on they know this mount, which no image names.
        self.disk.traced = true;
        self.image.traced = false;
        if reborn {
            self.disk = Disk::EMPTY;
            // Whatever an image holds, it is of a life that is over now.
            self.image = Disk::LOST;
            self.acked = [NONE; HOSTS];
        }
    }
}

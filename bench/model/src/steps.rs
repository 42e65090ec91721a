//! Everything that may happen, and what comes of it. Messages and waits are steps of their own, so that every order of
//! them is tried; a lease is a flag that its holder loses before its giver is free again.

use nova_groups::{
    AddJoining, Admit, ConfirmGroup, Drop, DropMembers, Joining, Op, Reinstate, ReinstateGroup, Restart,
};

use crate::world::{Bounds, GROUP, HOSTS, Host, Rare, View, World, host_of, node};

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
    /// A member serves a read.
    Read(usize),
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
    /// The controllers let a host join.
    Join(usize),
    /// The controllers admit the joiner that was reported complete.
    AdmitJoiner,
    /// The controllers bring back members of the last writable epoch for a survivor that is lost.
    BringBack,
}

impl World {
    /// Every step that may be taken here.
    pub(crate) fn steps(&self, bounds: Bounds, steps: &mut Vec<Step>) {
        if self.violation.is_some() {
            return;
        }
        for host in 0..HOSTS {
            let it = &self.hosts[host];
            if it.up {
                self.steps_of_running(host, bounds, steps);
            } else {
                steps.push(Step::Start(host));
                if self.amnesias < bounds.amnesias {
                    steps.push(Step::StartOld(host));
                }
            }
            if (0..HOSTS).any(|other| self.is_idle(host, other)) {
                steps.push(Step::Lapse(host));
            }
        }
        self.steps_of_controllers(bounds, steps);
    }

    fn steps_of_running(&self, host: usize, bounds: Bounds, steps: &mut Vec<Step>) {
        let it = &self.hosts[host];
        if self.crashes < bounds.crashes {
            steps.push(Step::Crash(host));
        }
        if self.confirmed(host) && (it.view.is_none() || it.disk.epoch < self.epoch()) && self.is_member(host)
        {
            steps.push(Step::Adopt(host));
        }
        if it.leases.contains(&true) {
            steps.push(Step::Expire(host));
        }
        if it.node_lease {
            steps.push(Step::Silence(host));
        }
        let Some(view) = &it.view else { return };
        if view.in_sync == [host] && !it.node_lease && self.confirmed(host) && it.disk.epoch == self.epoch() {
            steps.push(Step::Hear(host));
        }
        if view.in_sync.contains(&host) {
            if view.others(host).any(|other| self.meets(host, other) && !it.leases[other]) {
                steps.push(Step::Ping(host));
            }
            if self.read_at(host).is_some() {
                steps.push(Step::Read(host));
            }
        }
        if view.primary != host {
            return;
        }
        if !it.ready {
            if view.others(host).all(|other| self.meets(host, other)) {
                steps.push(Step::Align(host));
            }
            return;
        }
        if view.writable() && self.written < bounds.writes {
            steps.push(Step::Propose(host));
        }
        for member in view.others(host).chain(view.joining).filter(|member| self.meets(host, *member)) {
            if it.acked[member] != Some(it.disk.log.len()) {
                steps.push(Step::Replicate(host, member));
            }
            if self.hosts[member].disk.commit < it.disk.commit.min(self.hosts[member].disk.log.len()) {
                steps.push(Step::Learn(member, host));
            }
        }
        if self.committable(host) > it.disk.commit {
            steps.push(Step::Commit(host));
        }
        let complete = view.joining.is_some_and(|joiner| it.acked[joiner] == Some(it.disk.log.len()));
        if complete && it.disk.counts_in != Some(it.disk.epoch) {
            steps.push(Step::Count(host));
        }
    }

    fn steps_of_controllers(&self, bounds: Bounds, steps: &mut Vec<Step>) {
        if self.epoch() >= bounds.epochs {
            return;
        }
        let members = self.members();
        let waiting = |host: usize| self.hosts[host].up && !self.confirmed(host);
        let runs = |host: usize| self.hosts[host].up && self.confirmed(host);
        let survives = members.in_sync.iter().any(|host| runs(*host));
        for host in (0..HOSTS).filter(|host| waiting(*host)) {
            if survives || !members.in_sync.contains(&host) {
                steps.push(Step::TakeMount(host));
            }
        }
        if !survives && members.in_sync.iter().any(|host| waiting(*host)) {
            steps.push(Step::ColdStart);
        }
        for host in
            members.in_sync.iter().copied().filter(|_| members.in_sync.len() > 1).chain(members.joining)
        {
            steps.push(Step::DropMember(host));
        }
        if members.joining.is_none() && !self.is_full() {
            let joins = |host: &usize| !members.in_sync.contains(host) && runs(*host);
            steps.extend((0..HOSTS).filter(joins).map(Step::Join));
        }
        if self.ready.is_some_and(|(epoch, _)| epoch == self.epoch()) {
            steps.push(Step::AdmitJoiner);
        }
        if !self.returning().is_empty() {
            steps.push(Step::BringBack);
        }
    }

    /// Takes a step.
    pub(crate) fn take(&mut self, step: Step) {
        self.rare = None;
        match step {
            Step::Adopt(host) => self.adopt(host),
            Step::Align(host) => self.align(host),
            Step::Propose(host) => {
                self.written += 1;
                let entry = self.written;
                self.hosts[host].disk.log.push(entry);
            }
            Step::Replicate(primary, member) => self.replicate(primary, member),
            Step::Commit(host) => self.commit(host),
            Step::Learn(member, primary) => {
                let commit = self.hosts[primary].disk.commit;
                let disk = &mut self.hosts[member].disk;
                disk.commit = commit.min(disk.log.len());
            }
            Step::Ping(host) => {
                let view = self.view_of(host);
                for other in view.others(host).filter(|other| self.meets(host, *other)).collect::<Vec<_>>() {
                    self.hosts[host].leases[other] = true;
                    self.hosts[other].promises[host] = true;
                }
            }
            Step::Expire(host) => self.hosts[host].leases = [false; HOSTS],
            Step::Lapse(host) => {
                for other in (0..HOSTS).filter(|other| self.is_idle(host, *other)).collect::<Vec<_>>() {
                    self.hosts[host].promises[other] = false;
                }
            }
            Step::Count(host) => {
                let it = &mut self.hosts[host];
                it.disk.counts_in = Some(it.disk.epoch);
                let joiner = it.view.as_ref().and_then(|view| view.joining);
                self.ready = joiner.map(|joiner| (self.hosts[host].disk.epoch, joiner));
            }
            Step::Read(host) => {
                if self.read_at(host).is_some_and(|entries| entries < self.acknowledged.len()) {
                    self.violation = Some("a read misses a write that was acknowledged before it");
                }
            }
            Step::Hear(host) => self.hosts[host].node_lease = true,
            Step::Silence(host) => self.hosts[host].node_lease = false,
            Step::Crash(host) => {
                self.crashes += 1;
                let it = &mut self.hosts[host];
                let (boot, disk, image) = (it.boot, it.disk.clone(), it.image.clone());
                *it = Host { boot, disk, image, amnesic: it.amnesic, ..Host::default() };
            }
            Step::Start(host) => self.start(host),
            Step::StartOld(host) => {
                self.amnesias += 1;
                let it = &mut self.hosts[host];
                it.disk = it.image.clone();
                it.amnesic = true;
                self.start(host);
            }
            Step::TakeMount(host) => {
                let lives = self.groups.devices_of(node(host)).next().map(|(_, device)| device.incarnation.0);
                let mount = self.mount(host);
                self.restart(Restart { mounts: vec![mount], confirm: Vec::new() });
                let now = self.groups.devices_of(node(host)).next().map(|(_, device)| device.incarnation.0);
                self.rare = (lives != now).then_some(Rare::NewLife);
            }
            Step::ColdStart => self.cold_start(),
            Step::DropMember(host) => {
                let drop = DropMembers { group: GROUP.0, epoch: self.epoch(), nodes: vec![node(host).0] };
                self.apply(Op::Drop(Drop { groups: vec![drop] }));
            }
            Step::Join(host) => {
                let joining = self.joining(host);
                self.apply(Op::AddJoining(AddJoining { groups: vec![joining] }));
            }
            Step::AdmitJoiner => {
                let (_, host) = self.ready.take().expect("a step that may be taken");
                let joining = self.joining(host);
                let admitted = self.apply(Op::Admit(Admit { groups: vec![joining] })).accepted();
                self.rare = admitted.then_some(Rare::Admitted);
            }
            Step::BringBack => {
                let nodes = self.returning().into_iter().map(|host| node(host).0).collect();
                let back = ReinstateGroup { group: GROUP.0, epoch: self.epoch(), nodes };
                let back = self.apply(Op::Reinstate(Reinstate { groups: vec![back] })).accepted();
                self.rare = back.then_some(Rare::BroughtBack);
            }
        }
        self.check_copies();
    }

    fn joining(&self, host: usize) -> Joining {
        Joining { group: GROUP.0, epoch: self.epoch(), node: node(host).0, replaces: 0 }
    }

    fn is_member(&self, host: usize) -> bool {
        let members = self.members();
        self.has_its_life(host) && (members.in_sync.contains(&host) || members.joining == Some(host))
    }

    /// A promise that its holder does not count on any more.
    fn is_idle(&self, host: usize, other: usize) -> bool {
        self.hosts[host].promises[other] && !self.hosts[other].leases[host]
    }

    /// Both run and act in the same epoch.
    fn meets(&self, host: usize, other: usize) -> bool {
        let (a, b) = (&self.hosts[host], &self.hosts[other]);
        a.up && b.up && a.view.is_some() && b.view.is_some() && a.disk.epoch == b.disk.epoch
    }

    /// Nothing is acknowledged in an epoch while a promise to someone outside of it binds.
    fn may_acknowledge(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        let Some(view) = &it.view else { return false };
        (0..HOSTS).all(|other| !it.promises[other] || view.in_sync.contains(&other))
    }

    fn start(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.image = it.disk.clone();
        it.disk.mount_counter += 1;
        it.up = true;
        it.boot += 1;
        // What the start before this one promised, it no longer knows: it waits as if it had promised everything.
        it.promises = [true; HOSTS];
        it.promises[host] = false;
    }

    fn adopt(&mut self, host: usize) {
        let (epoch, view) = (self.epoch(), self.members());
        let it = &mut self.hosts[host];
        if view.joining == Some(host) {
            it.disk.log.truncate(it.disk.commit);
        }
        it.disk.epoch = epoch;
        it.view = Some(view);
        it.ready = false;
        it.acked = [None; HOSTS];
        it.leases = [false; HOSTS];
    }

    fn align(&mut self, host: usize) {
        let view = self.view_of(host);
        let longest = view.others(host).map(|other| &self.hosts[other].disk.log).max_by_key(|log| log.len());
        let longest = longest.filter(|log| log.len() > self.hosts[host].disk.log.len()).cloned();
        let it = &mut self.hosts[host];
        if let Some(log) = longest {
            it.disk.log = log;
        }
        it.ready = true;
        it.settled = it.disk.log.len();
    }

    fn replicate(&mut self, primary: usize, member: usize) {
        let log = self.hosts[primary].disk.log.clone();
        let it = &mut self.hosts[member];
        it.disk.log = log;
        if it.disk.commit > it.disk.log.len() {
            self.violation = Some("a member is made to forget what it knows to be committed");
            return;
        }
        if self.may_acknowledge(member) {
            self.hosts[primary].acked[member] = Some(self.hosts[member].disk.log.len());
        }
    }

    /// How many entries every member that counts has.
    fn committable(&self, host: usize) -> usize {
        let it = &self.hosts[host];
        let view = self.view_of(host);
        if !it.ready || !view.writable() || !self.may_acknowledge(host) {
            return 0;
        }
        let counted = view.joining.filter(|_| it.disk.counts_in == Some(it.disk.epoch));
        let held = view.others(host).chain(counted).map(|member| it.acked[member].unwrap_or(0));
        held.min().unwrap_or(0).min(it.disk.log.len())
    }

    fn commit(&mut self, host: usize) {
        let commit = self.committable(host);
        let it = &mut self.hosts[host];
        it.disk.commit = commit;
        let told = &it.disk.log[..commit];
        let common = commit.min(self.acknowledged.len());
        if told[..common] != self.acknowledged[..common] {
            self.violation = Some("an acknowledged write was replaced by another one");
            return;
        }
        if commit > self.acknowledged.len() {
            self.acknowledged = told.to_vec();
            self.rare = (it.disk.epoch > 1).then_some(Rare::WrittenLater);
        }
    }

    /// How many entries a read of this member sees; `None` when it may not serve it now.
    fn read_at(&self, host: usize) -> Option<usize> {
        let it = &self.hosts[host];
        let view = it.view.as_ref()?;
        if !self.leased(host) {
            return None;
        }
        if it.disk.log.len() == it.disk.commit {
            return Some(it.disk.commit);
        }
        // A prepared newer version: the primary knows what is committed, when it may speak at all.
        let primary = &self.hosts[view.primary];
        let knows = primary.ready && primary.disk.commit >= primary.settled;
        let asks = view.primary == host || (self.meets(host, view.primary) && self.leased(view.primary));
        (knows && asks).then(|| primary.disk.commit.min(it.disk.log.len()))
    }

    fn leased(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        let Some(view) = &it.view else { return false };
        view.in_sync.contains(&host)
            && if view.in_sync.len() == 1 {
                it.node_lease
            } else {
                view.others(host).all(|other| it.leases[other])
            }
    }

    fn view_of(&self, host: usize) -> View {
        self.hosts[host].view.clone().expect("a host that leads has adopted an epoch")
    }

    fn cold_start(&mut self) {
        let members = self.members();
        let waiting: Vec<usize> =
            (0..HOSTS).filter(|host| self.hosts[*host].up && !self.confirmed(*host)).collect();
        let keeps = |host: &usize| {
            let known = self.groups.devices_of(node(*host)).next().map(|(_, device)| device);
            let mount = self.mount(*host);
            self.has_life(*host)
                && known.is_some_and(|known| {
                    known.mount_counter < mount.mount_counter && known.incarnation.0 == mount.incarnation
                })
        };
        let nodes: Vec<u64> = waiting
            .iter()
            .filter(|host| members.in_sync.contains(host))
            .filter(|host| keeps(host))
            .map(|host| node(*host).0)
            .collect();
        let confirm = ConfirmGroup { group: GROUP.0, epoch: self.epoch(), nodes };
        let confirm = if confirm.nodes.is_empty() { Vec::new() } else { vec![confirm] };
        let mounts = waiting.iter().map(|host| self.mount(*host)).collect();
        self.rare = (!confirm.is_empty()).then_some(Rare::ColdStart);
        self.restart(Restart { mounts, confirm });
    }

    /// Whether the life a device believes in is the one its membership has.
    fn has_life(&self, host: usize) -> bool {
        let group = self.groups.group(GROUP).expect("made at the start");
        group
            .member(node(host))
            .is_some_and(|member| member.incarnation.0 == self.hosts[host].disk.incarnation)
    }

    /// Members of the last writable epoch that could take over: the survivor reads no more, or its life is over.
    fn returning(&self) -> Vec<usize> {
        let group = self.groups.group(GROUP).expect("made at the start");
        let lost = |host: usize| {
            let member = group.member(node(host)).expect("in sync");
            let device = self.groups.devices_of(node(host)).next().map(|(_, device)| device.incarnation);
            device != Some(member.incarnation) || !self.hosts[host].node_lease
        };
        let members = self.members();
        if !group.frozen() || !members.in_sync.iter().all(|host| lost(*host)) {
            return Vec::new();
        }
        let back = group.last_writable.iter().filter(|(back, incarnation)| {
            let host = host_of(*back);
            let serves = self.groups.device(*back, *incarnation).is_some();
            serves && self.hosts[host].up && self.confirmed(host) && !members.in_sync.contains(&host)
        });
        back.map(|(back, _)| host_of(*back)).collect()
    }

    /// Whoever the controllers call in sync holds every acknowledged write, as long as its device is what they think.
    fn check_copies(&mut self) {
        let members = self.members();
        let mut held = members.in_sync.iter().filter(|host| self.has_its_life(**host));
        if held.any(|host| !self.hosts[*host].disk.log.starts_with(&self.acknowledged)) {
            self.violation = Some("a member in sync lacks an acknowledged write");
        }
    }
}

//! The faults of a run, as time passes.

use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{DiskFaults, KillMode};
use nova_units::NodeId;

use crate::cluster::Cluster;
use crate::controller::CONTROLLER;
use crate::files::Files;
use crate::files_group::{FILES, Troubles};
use crate::scenario::Scenario;

/// Between two draws.
const STEP: Duration = Duration::from_millis(100);

/// What is broken now and when it ends.
#[derive(Debug, Default)]
pub(crate) struct Chaos {
    down: Vec<(Duration, NodeId)>,
    cuts: Vec<(Duration, NodeId, NodeId)>,
    stopped: Vec<(Duration, NodeId)>,
    pub(crate) stops: u64,
    pub(crate) events: Vec<(Duration, String)>,
}

impl Chaos {
    fn note(&mut self, cluster: &Cluster, what: String) {
        self.events.push((cluster.world.now(), what));
    }

    /// Breaks things for as long as the scenario says.
    pub(crate) fn rage(
        &mut self,
        cluster: &Cluster,
        files: &Rc<Files>,
        scenario: &Scenario,
        rng: &mut fastrand::Rng,
    ) {
        if let Some(victim) = scenario.victim {
            cluster.set_disk_faults(NodeId(victim), scenario.disk_faults);
        }
        cluster.net.weather.set(scenario.weather);
        files.group.troubles.set(scenario.troubles);
        let end = cluster.world.now() + scenario.chaos;
        let mut jump = (scenario.clock_jump_ms != 0).then_some(end - scenario.chaos / 2);
        while cluster.world.now() < end {
            cluster.world.run_for(STEP);
            if jump.take_if(|at| *at <= cluster.world.now()).is_some() {
                self.note(cluster, format!("the calendars jump by {} ms", scenario.clock_jump_ms));
                cluster.world.set_calendar(scenario.clock_jump_ms);
                cluster.controller.jumped_ms.set(scenario.clock_jump_ms);
                files.group.jumped_ms.set(scenario.clock_jump_ms);
            }
            self.recover_due(cluster, files, rng);
            // Rates are per second; ten steps make one.
            if rng.u32(..10_000) < scenario.kill_permille {
                self.kill_one(cluster, scenario, rng);
            }
            if rng.u32(..10_000) < scenario.cut_permille {
                self.cut_some(cluster, scenario, rng);
            }
            if rng.u32(..10_000) < scenario.away_permille {
                let away = Duration::from_millis(rng.u64(200..3_000));
                let until = cluster.world.now() + away;
                let shown = until + Duration::from_secs(CONTROLLER.0 * 10);
                cluster.controller.away_until.set(shown);
                self.note(cluster, format!("no leader for {away:?}"));
            }
            // Drawn only where there are stops, so that other seeds stand for what they always did.
            if scenario.stop_permille > 0 && rng.u32(..10_000) < scenario.stop_permille {
                self.stop_one(cluster, files, scenario, rng);
            }
            self.trouble_files(cluster, files, scenario, rng);
        }
    }

    /// Stops a host as SIGSTOP does, for less or more than leases and silences last.
    fn stop_one(&mut self, cluster: &Cluster, files: &Files, scenario: &Scenario, rng: &mut fastrand::Rng) {
        let node = if rng.u8(..4) == 0 { pick_file_host(rng) } else { Self::pick(scenario, rng) };
        let short = rng.bool();
        let away = Duration::from_millis(if short { rng.u64(50..900) } else { rng.u64(900..8_000) });
        if cluster.hosts.contains_key(&node) {
            cluster.stop(node);
        } else {
            files.stop(&cluster.world, node);
        }
        self.stops += 1;
        self.note(cluster, format!("{node} stopped for {away:?}"));
        self.stopped.push((cluster.world.now() + away, node));
    }

    fn resume_due(&mut self, cluster: &Cluster, files: &Files) {
        let now = cluster.world.now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stopped).into_iter().partition(|(until, _)| *until <= now);
        self.stopped = later;
        for (_, node) in due {
            if cluster.hosts.contains_key(&node) {
                cluster.resume(node);
            } else {
                files.resume(&cluster.world, node);
            }
            self.note(cluster, format!("{node} goes on"));
        }
    }

    fn trouble_files(
        &mut self,
        cluster: &Cluster,
        files: &Rc<Files>,
        scenario: &Scenario,
        rng: &mut fastrand::Rng,
    ) {
        if rng.u32(..10_000) < scenario.edge_kill_permille {
            let node = pick_file_host(rng);
            if files.is_up(node) {
                let off = Duration::from_millis(rng.u64(5..3_000));
                files.kill(&cluster.world, node);
                files.history.borrow_mut().counts.edges_killed += 1;
                self.note(cluster, format!("{node} killed for {off:?}"));
                self.down.push((cluster.world.now() + off, node));
            }
        }
        if rng.u32(..10_000) < scenario.edge_cut_permille {
            let node = pick_file_host(rng);
            let other = if rng.bool() { FILES } else { NodeId(rng.u64(1..=scenario.hosts)) };
            let until = cluster.world.now() + Duration::from_millis(rng.u64(100..4_000));
            let (to, from) = (rng.u8(..4) != 0, rng.u8(..4) != 0);
            self.note(cluster, format!("{node} cut from {other} (to {to}, from {from}) until {until:?}"));
            self.cut(cluster, until, (to, node, other));
            self.cut(cluster, until, (from, other, node));
        }
        if rng.u32(..10_000) < scenario.files_away_permille {
            let away = Duration::from_millis(rng.u64(100..3_000));
            files.group.go_away(away);
            self.note(cluster, format!("the files group has no leader for {away:?}"));
        }
    }

    fn cut(&mut self, cluster: &Cluster, until: Duration, (cut, from, to): (bool, NodeId, NodeId)) {
        if cut {
            cluster.net.cut(from, to);
            self.cuts.push((until, from, to));
        }
    }

    fn pick(scenario: &Scenario, rng: &mut fastrand::Rng) -> NodeId {
        match scenario.victim {
            Some(victim) if scenario.victim_lies => NodeId(victim),
            _ => NodeId(rng.u64(1..=scenario.hosts)),
        }
    }

    fn kill_one(&mut self, cluster: &Cluster, scenario: &Scenario, rng: &mut fastrand::Rng) {
        let node = Self::pick(scenario, rng);
        if !cluster.is_up(node) {
            return;
        }
        let mode = if rng.bool() { KillMode::Process } else { KillMode::Power };
        let short = rng.bool();
        let off = Duration::from_millis(if short { rng.u64(5..500) } else { rng.u64(500..6_000) });
        cluster.kill(node, mode);
        self.note(cluster, format!("{node} killed ({mode:?}) for {off:?}"));
        self.down.push((cluster.world.now() + off, node));
    }

    fn cut_some(&mut self, cluster: &Cluster, scenario: &Scenario, rng: &mut fastrand::Rng) {
        let one = Self::pick(scenario, rng);
        let mut others: Vec<_> = cluster.hosts.keys().copied().filter(|node| *node != one).collect();
        others.push(CONTROLLER);
        let until = cluster.world.now() + Duration::from_millis(rng.u64(100..5_000));
        let (to, from) = (rng.u8(..4) != 0, rng.u8(..4) != 0);
        let all = rng.u8(..3) == 0;
        let chosen = *rng.choice(&others).expect("there are other hosts");
        let other_ends = if all { others } else { vec![chosen] };
        self.note(cluster, format!("{one} cut from {other_ends:?} (to {to}, from {from}) until {until:?}"));
        for other in other_ends {
            self.cut(cluster, until, (to, one, other));
            self.cut(cluster, until, (from, other, one));
        }
    }

    /// Ends what is over; a device that failed is replaced after a while.
    pub(crate) fn recover_due(&mut self, cluster: &Cluster, files: &Rc<Files>, rng: &mut fastrand::Rng) {
        let now = cluster.world.now();
        self.resume_due(cluster, files);
        for (until, from, to) in std::mem::take(&mut self.cuts) {
            if until <= now {
                cluster.net.heal(from, to);
            } else {
                self.cuts.push((until, from, to));
            }
        }
        for (until, node) in std::mem::take(&mut self.down) {
            if until > now {
                self.down.push((until, node));
            } else if Files::nodes().any(|host| host == node) {
                files.start(&cluster.world, node);
                self.note(cluster, format!("{node} starts"));
            } else {
                if cluster.disk_failed(node) {
                    cluster.replace_disk(node);
                    self.note(cluster, format!("{node} has a new disk"));
                }
                cluster.start(node);
                self.note(cluster, format!("{node} starts"));
            }
        }
        for &node in cluster.hosts.keys() {
            if cluster.is_up(node) && cluster.disk_failed(node) {
                cluster.kill(node, KillMode::Process);
                let off = Duration::from_millis(rng.u64(100..2_000));
                self.note(cluster, format!("{node} lost its disk, off for {off:?}"));
                self.down.push((now + off, node));
            }
        }
    }

    /// The faults stop: everything that is off starts, every way is free.
    pub(crate) fn end(&mut self, cluster: &Cluster, files: &Files) {
        cluster.net.heal_all();
        files.group.troubles.set(Troubles::FAIR);
        files.group.come_back();
        self.cuts.clear();
        for (until, _) in &mut self.stopped {
            *until = cluster.world.now();
        }
        for (until, _) in &mut self.down {
            *until = cluster.world.now();
        }
        for &node in cluster.hosts.keys() {
            cluster.set_disk_faults(node, DiskFaults::NONE);
        }
        self.note(cluster, "the faults stop".to_owned());
    }
}

fn pick_file_host(rng: &mut fastrand::Rng) -> NodeId {
    let hosts: Vec<_> = Files::nodes().collect();
    *rng.choice(&hosts).expect("there are hosts of programs")
}

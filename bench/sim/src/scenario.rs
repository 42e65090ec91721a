//! What a seed stands for: sizes, and which faults may come how often.

use std::time::Duration;

use nova_device::mem::{Chance, DiskFaults, Latency};
use nova_units::Replicas;
use novafs_member::ScrubOptions;
use novafs_replica::options::CHAIN_BYTES_MIN;

use crate::files_group::Troubles;
use crate::net::Weather;

/// Everything that is drawn before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) hosts: u64,
    /// How many members the groups have.
    pub(crate) replicas: Replicas,
    pub(crate) groups: usize,
    pub(crate) blocks: u64,
    pub(crate) disk_bytes: u64,
    /// Disks that fill up.
    pub(crate) small: bool,
    pub(crate) unit_log2: (u8, u8),
    pub(crate) units: u16,
    pub(crate) readers: usize,
    pub(crate) chaos: Duration,
    /// Kills, cuts and pauses of the controllers, in a second each, of a thousand.
    pub(crate) kill_permille: u32,
    pub(crate) cut_permille: u32,
    pub(crate) away_permille: u32,
    pub(crate) weather: Weather,
    /// The host whose disk lies or errs, if any does, and how. When it lies, only this host is killed or cut: the
    /// last good copy is never taken.
    pub(crate) victim: Option<u64>,
    pub(crate) victim_lies: bool,
    pub(crate) disk_faults: DiskFaults,
    pub(crate) drift_ppm: i32,
    pub(crate) takeover_permille: u32,
    pub(crate) echo_permille: u32,
    pub(crate) idle_ms: u64,
    pub(crate) deletes: bool,
    /// Kills and cuts of hosts of programs, and pauses of the files group, in a second each, of a thousand.
    pub(crate) edge_kill_permille: u32,
    pub(crate) edge_cut_permille: u32,
    pub(crate) files_away_permille: u32,
    pub(crate) troubles: Troubles,
    /// Files that are opened again and rewritten.
    pub(crate) rewritten: u64,
    /// Entries this large go along a chain of members; in half of the seeds nearly all are.
    pub(crate) chain_bytes_min: usize,
    /// The pace of the scrub, where it runs.
    pub(crate) scrub: Option<ScrubOptions>,
    /// Storage hosts and hosts of programs that are stopped for a while, in a second, of a thousand.
    pub(crate) stop_permille: u32,
    /// In the middle of the faults the calendars of controllers and hosts jump by so many milliseconds.
    pub(crate) clock_jump_ms: i64,
}

/// Goes over a simulated device about once a second, beside the clients.
const SCRUB: ScrubOptions = ScrubOptions {
    percent_a_day: 2,
    idle_bytes_a_second: 8 << 20,
    idle_after: Duration::ZERO,
    pass_every: Duration::from_millis(500),
};

impl Scenario {
    /// What `seed` stands for.
    pub(crate) fn of(seed: u64) -> Self {
        // Drawn apart, so that a seed stands otherwise for what it always did.
        let all: Vec<Replicas> = Replicas::all().collect();
        let replicas = *fastrand::Rng::with_seed(seed ^ 0x4e7b_11ca).choice(&all).expect("there are some");
        Self::of_three(seed).with_replicas(replicas)
    }

    /// The same with another number of replicas, and hosts to suit: as many more or less than three.
    fn with_replicas(mut self, replicas: Replicas) -> Self {
        self.replicas = replicas;
        self.hosts = self.hosts + u64::from(replicas.get()) - u64::from(Replicas::DEFAULT.get());
        if replicas == Replicas::MIN {
            // Any host may be killed: with a bad device besides, the last good copy would be taken.
            (self.victim, self.victim_lies, self.disk_faults) = (None, false, DiskFaults::NONE);
        }
        self
    }

    /// What `seed` stands for where groups have three members.
    pub(crate) fn of_three(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5ce0_a510);
        let one_in = |rng: &mut fastrand::Rng, n: u32| rng.u32(..n) == 0;
        let few = rng.bool();
        // Disks that fill up: all hosts hold the same groups then, for a joiner that has more to hold than its peers
        // could never be filled.
        let small = one_in(&mut rng, 6);
        let hosts = if few || small { 3 } else { 4 };
        let windy = one_in(&mut rng, 2);
        let weather = Weather {
            micros: if one_in(&mut rng, 4) { (100, 5_000) } else { (20, 300) },
            reset_permille: if windy { rng.u32(..20) } else { 0 },
            late_permille: if windy { rng.u32(..20) } else { 0 },
            late_ms: rng.u64(10..4_000),
        };
        let victim = one_in(&mut rng, 2).then(|| rng.u64(1..=hosts));
        let victim_lies = victim.is_some() && rng.bool();
        let disk_faults = if victim.is_none() {
            DiskFaults::NONE
        } else if victim_lies {
            DiskFaults {
                lost_write: Chance::per_million(if rng.bool() { rng.u32(..3_000) } else { 0 }),
                misdirected_write: Chance::per_million(if rng.bool() { rng.u32(..2_000) } else { 0 }),
                rot: Chance::per_million(if rng.bool() { rng.u32(..20_000) } else { 0 }),
                read_error: Chance::per_million(if rng.bool() { rng.u32(..10_000) } else { 0 }),
                ..DiskFaults::NONE
            }
        } else {
            DiskFaults {
                latency: if rng.bool() { Latency::micros(100, 20_000) } else { Latency::micros(10, 100) },
                slow: Chance::per_million(if rng.bool() { rng.u32(..3_000) } else { 0 }),
                slow_by: Duration::from_millis(rng.u64(10..6_000)),
                write_error: Chance::per_million(if rng.bool() { rng.u32(..800) } else { 0 }),
                flush_error: Chance::per_million(if rng.bool() { rng.u32(..2_000) } else { 0 }),
                no_space: Chance::per_million(if rng.bool() { rng.u32(..500) } else { 0 }),
                ..DiskFaults::NONE
            }
        };
        Self {
            hosts,
            replicas: Replicas::DEFAULT,
            groups: rng.usize(1..=3),
            blocks: if small { 12 } else { rng.u64(3..=6) },
            small,
            disk_bytes: if small { 16 << 20 } else { 40 << 20 },
            unit_log2: if small { (15, 16) } else { (12, 16) },
            units: if small { 40 } else { rng.u16(4..=24) },
            readers: rng.usize(1..=2),
            chaos: Duration::from_millis(rng.u64(3_000..9_000)),
            kill_permille: if one_in(&mut rng, 4) { 0 } else { rng.u32(..400) },
            cut_permille: if one_in(&mut rng, 3) { 0 } else { rng.u32(..400) },
            away_permille: if one_in(&mut rng, 2) { 0 } else { rng.u32(..200) },
            weather,
            victim,
            victim_lies,
            disk_faults,
            drift_ppm: if rng.bool() { 0 } else { rng.i32(0..10_000) },
            takeover_permille: rng.u32(..60),
            echo_permille: rng.u32(..100),
            idle_ms: if small { 10 } else { rng.u64(8..80) },
            deletes: rng.bool(),
            edge_kill_permille: if one_in(&mut rng, 3) { 0 } else { rng.u32(..800) },
            edge_cut_permille: if one_in(&mut rng, 3) { 0 } else { rng.u32(..300) },
            files_away_permille: if one_in(&mut rng, 3) { 0 } else { rng.u32(..400) },
            troubles: Troubles {
                log_ms: if one_in(&mut rng, 3) { (1, 300) } else { (1, 20) },
                lost_permille: if rng.bool() { rng.u32(..150) } else { 0 },
                late_permille: if rng.bool() { rng.u32(..100) } else { 0 },
                late_ms: rng.u64(10..3_000),
                snapshot_permille: rng.u32(..100),
            },
            rewritten: if one_in(&mut rng, 3) { rng.u64(1..=2) } else { 0 },
            // Drawn apart, so that a seed stands for what it always did.
            chain_bytes_min: if seed.is_multiple_of(2) { 4096 } else { CHAIN_BYTES_MIN },
            scrub: fastrand::Rng::with_seed(seed ^ 0x5c4b_b1e5).bool().then_some(SCRUB),
            stop_permille: match fastrand::Rng::with_seed(seed ^ 0x5109_57a1).u32(..600) {
                drawn @ ..300 => drawn,
                _ => 0,
            },
            clock_jump_ms: 0,
        }
    }

    /// Three hosts on a good day, with the scrub on; `seed` draws sizes.
    pub(crate) fn calm(seed: u64) -> Self {
        Self {
            hosts: 3,
            groups: 2,
            blocks: 4,
            small: false,
            disk_bytes: 40 << 20,
            weather: Weather::FAIR,
            victim: None,
            victim_lies: false,
            disk_faults: DiskFaults::NONE,
            takeover_permille: 0,
            echo_permille: 0,
            deletes: false,
            edge_kill_permille: 0,
            edge_cut_permille: 0,
            stop_permille: 0,
            files_away_permille: 0,
            rewritten: 0,
            chain_bytes_min: CHAIN_BYTES_MIN,
            scrub: Some(SCRUB),
            ..Self::of_three(seed)
        }
    }
}

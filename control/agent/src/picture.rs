//! What the agent knows, shared by its tasks: of novad, of the cluster, and what one has for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nova_api::cluster::{self, host_report::Report};
use nova_ring::Counter;
use nova_ring::abi::AgentCommand;
use tokio::sync::{Notify, mpsc, watch};

/// Reports that may wait for a controller; past it the oldest is dropped, because whatever matters is said again.
const REPORTS_MAX: usize = 4096;
/// A novad that shows no turn of its first shard for so long stands still, in milliseconds: it would look ten times a second.
const NOVAD_SILENT_MAX_MS: u64 = 5_000;
/// Keys that novad still waits for are asked for again after this; a request there waits five seconds.
const KEYS_ASKED_AGAIN: Duration = Duration::from_secs(2);
/// Commands that may wait for novad.
const COMMANDS_MAX: usize = 256;

/// The data plane, as its ring shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Daemon {
    /// Its start; 0 while none is attached.
    pub(crate) boot: u64,
    /// Its devices as far as it has told them.
    pub(crate) devices: cluster::DevicesMounted,
    /// It has told all of them.
    pub(crate) devices_told: bool,
    /// Room on each device, and its pace.
    pub(crate) usage: BTreeMap<u128, Room>,
    pub(crate) map_version: u64,
}

/// Room on a device, and its pace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Room {
    pub(crate) bytes_total: u64,
    pub(crate) bytes_free: u64,
    /// In its last window; none before the first.
    pub(crate) pace: Option<cluster::DevicePace>,
}

impl Daemon {
    /// Takes the list of its devices in the place of what it told before.
    pub(crate) fn take_devices(&mut self, told: cluster::DevicesMounted) {
        let is_open = |id: &u128| told.devices.iter().any(|device| *device.device == id.to_be_bytes());
        self.usage.retain(|id, _| is_open(id));
        self.devices = told;
        self.devices_told = true;
    }
}

/// The keys that a start of novad asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyWants {
    /// The start; 0 while nothing is wanted.
    pub(crate) boot: u64,
    /// What keys are sealed to.
    pub(crate) public: [u8; 32],
    pub(crate) domains: BTreeSet<u32>,
    /// Raised when novad still waits for what it asked for: it may have been lost.
    pub(crate) asked: u64,
}

/// What novad said of its copies, and how often that changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    groups: BTreeMap<u32, cluster::GroupHealth>,
    /// Raised by every change.
    pub(crate) version: u64,
}

impl Health {
    /// Takes what is told of a copy; what is told apart of it stays.
    pub(crate) fn take(&mut self, health: cluster::GroupHealth) {
        self.change(health.group, |known| {
            let before = std::mem::replace(known, health);
            known.lost_units = before.lost_units;
            known.lost = before.lost;
            (known.filled_block, known.filled_unit) = (before.filled_block, before.filled_unit);
            (known.filling, known.followed) = (before.filling, before.followed);
        });
    }

    /// Changes what is known of the copy of `group`.
    pub(crate) fn change(&mut self, group: u32, change: impl FnOnce(&mut cluster::GroupHealth)) {
        let fresh = cluster::GroupHealth { group, ..cluster::GroupHealth::default() };
        change(self.groups.entry(group).or_insert(fresh));
        self.version += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.version += 1;
    }

    pub(crate) fn groups(&self) -> Vec<cluster::GroupHealth> {
        self.groups.values().cloned().collect()
    }
}

/// A map, and for whom it came.
#[derive(Clone, Debug)]
pub(crate) struct KnownMap {
    pub(crate) map: cluster::ClusterMap,
    pub(crate) self_node: u64,
    pub(crate) region_era: u64,
}

/// What the tasks share.
#[derive(Debug)]
pub(crate) struct Picture {
    /// The data plane now.
    pub(crate) daemon: watch::Sender<Daemon>,
    /// What novad needs keys of.
    pub(crate) key_wants: watch::Sender<KeyWants>,
    /// The newest map of the cluster.
    pub(crate) map: watch::Sender<Option<KnownMap>>,
    /// Counters of novad at its last turn.
    pub(crate) counters: Mutex<Vec<cluster::Counter>>,
    /// What novad knows of its copies.
    pub(crate) health: Mutex<Health>,
    /// When the keys were last asked for.
    keys_asked_at: Mutex<Option<Instant>>,
    commands: mpsc::Sender<AgentCommand>,
    waiting_commands: Mutex<Option<mpsc::Receiver<AgentCommand>>>,
    reports: Mutex<Vec<Report>>,
    /// Notified when a report was added.
    pub(crate) reported: Notify,
}

impl Picture {
    /// Novad is attached and its first shard turns. A start that has not counted yet counts as turning.
    pub(crate) fn novad_is_up(&self, now_boottime_ms: u64) -> bool {
        let counters = self.counters.lock().expect("no holder of this lock panics");
        let name = Counter::AliveBoottimeMs.name();
        let alive = counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value);
        self.daemon.borrow().boot != 0
            && (alive == 0 || now_boottime_ms.saturating_sub(alive) <= NOVAD_SILENT_MAX_MS)
    }

    pub(crate) fn new() -> Self {
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        Self {
            daemon: watch::Sender::new(Daemon::default()),
            key_wants: watch::Sender::new(KeyWants::default()),
            map: watch::Sender::new(None),
            counters: Mutex::default(),
            health: Mutex::default(),
            keys_asked_at: Mutex::default(),
            commands,
            waiting_commands: Mutex::new(Some(waiting)),
            reports: Mutex::default(),
            reported: Notify::new(),
        }
    }

    /// The receiving end of [`Picture::command`]; there is one.
    pub(crate) fn take_commands(&self) -> mpsc::Receiver<AgentCommand> {
        self.waiting_commands
            .lock()
            .expect("no holder of this lock panics")
            .take()
            .expect("taken once, at start")
    }

    /// Hands novad a command. False when novad takes none: whoever asked tries again later.
    pub(crate) fn command(&self, command: AgentCommand) -> bool {
        self.daemon.borrow().boot != 0 && self.commands.try_send(command).is_ok()
    }

    /// Novad needs the keys of a domain, sealed to its start's public key. It says so again and again while somebody waits for
    /// them; they are asked for again every [`KEYS_ASKED_AGAIN`] at most, for an answer needs its time.
    pub(crate) fn want_key(&self, boot: u64, public: [u8; 32], domain: u32, now: Instant) {
        let mut asked_at = self.keys_asked_at.lock().expect("no holder of this lock panics");
        let modified = self.key_wants.send_if_modified(|wants| {
            if (wants.boot, wants.public) != (boot, public) {
                *wants = KeyWants { boot, public, domains: BTreeSet::new(), asked: wants.asked };
            }
            let is_new = wants.domains.insert(domain);
            let is_late = asked_at.is_some_and(|at| now.saturating_duration_since(at) >= KEYS_ASKED_AGAIN);
            if !is_new && is_late {
                tracing::warn!(domain, "novad still waits for keys: they are asked for again");
                wants.asked += 1;
            }
            is_new || is_late
        });
        if modified {
            *asked_at = Some(now);
        }
    }

    /// Adds a report for the controllers.
    pub(crate) fn report(&self, report: Report) {
        let mut reports = self.reports.lock().expect("no holder of this lock panics");
        if reports.len() == REPORTS_MAX {
            reports.remove(0);
        }
        reports.push(report);
        self.reported.notify_one();
    }

    /// Takes the reports that wait.
    pub(crate) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut *self.reports.lock().expect("no holder of this lock panics"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(picture: &Picture) -> (Vec<u32>, u64) {
        let wants = picture.key_wants.borrow();
        (wants.domains.iter().copied().collect(), wants.asked)
    }

    #[test]
    fn keys_that_are_still_waited_for_are_asked_for_again_but_not_at_every_word() {
        let (picture, begun) = (Picture::new(), Instant::now());
        let say = |domain, after_ms| {
            picture.want_key(7, [1; 32], domain, begun + Duration::from_millis(after_ms));
            asked(&picture)
        };
        assert_eq!(say(1, 0), (vec![1], 0));
        assert_eq!(say(1, 1_000), (vec![1], 0), "its answer may be on its way");
        assert_eq!(say(2, 1_500), (vec![1, 2], 0), "a new one is asked for at once");
        assert_eq!(say(1, 3_499), (vec![1, 2], 0));
        assert_eq!(say(1, 3_500), (vec![1, 2], 1));
        assert_eq!(say(2, 3_600), (vec![1, 2], 1));
        picture.want_key(8, [2; 32], 2, begun);
        assert_eq!(asked(&picture), (vec![2], 1), "another start begins anew");
    }

    #[test]
    fn a_new_list_of_devices_takes_the_place_of_the_old_one_and_nothing_is_told_of_what_was_closed() {
        let told = |ids: &[u8]| cluster::DevicesMounted {
            devices: ids
                .iter()
                .map(|id| cluster::DeviceMounted {
                    device: vec![*id; 16].into(),
                    ..cluster::DeviceMounted::default()
                })
                .collect(),
            ..cluster::DevicesMounted::default()
        };
        let mut daemon = Daemon::default();
        daemon.take_devices(told(&[1, 2]));
        for id in [1, 2] {
            daemon.usage.insert(u128::from_be_bytes([id; 16]), Room { bytes_total: 9, ..Room::default() });
        }
        daemon.take_devices(told(&[2, 3]));
        assert_eq!(daemon.devices, told(&[2, 3]));
        let left: Vec<u128> = daemon.usage.keys().copied().collect();
        assert_eq!(left, [u128::from_be_bytes([2; 16])]);
    }

    #[test]
    fn a_novad_that_does_not_turn_is_not_up() {
        let picture = Picture::new();
        assert!(!picture.novad_is_up(50_000), "none is attached");
        picture.daemon.send_modify(|daemon| daemon.boot = 3);
        assert!(picture.novad_is_up(50_000), "it has not counted yet");
        let name = Counter::AliveBoottimeMs.name().to_owned();
        *picture.counters.lock().unwrap() = vec![cluster::Counter { name, value: 50_000 }];
        assert!(picture.novad_is_up(55_000));
        assert!(!picture.novad_is_up(55_001));
    }
}

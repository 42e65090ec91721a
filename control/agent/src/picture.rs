//! What the agent knows, shared by its tasks: of novad, of the cluster, and what one has for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use nova_api::cluster::{self, host_report::Report};
use nova_ring::abi::AgentCommand;
use tokio::sync::{Notify, mpsc, watch};

/// Reports that may wait for a controller; past it the oldest is dropped, because whatever matters is said again.
const REPORTS_MAX: usize = 4096;
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
    /// Room on each device.
    pub(crate) usage: BTreeMap<u128, Room>,
    pub(crate) map_version: u64,
}

/// Room on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) bytes_total: u64,
    pub(crate) bytes_free: u64,
}

/// The keys that a start of novad asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyWants {
    /// The start; 0 while nothing is wanted.
    pub(crate) boot: u64,
    /// What keys are sealed to.
    pub(crate) public: [u8; 32],
    pub(crate) domains: BTreeSet<u32>,
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
    commands: mpsc::Sender<AgentCommand>,
    waiting_commands: Mutex<Option<mpsc::Receiver<AgentCommand>>>,
    reports: Mutex<Vec<Report>>,
    /// Notified when a report was added.
    pub(crate) reported: Notify,
}

impl Picture {
    pub(crate) fn new() -> Self {
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        Self {
            daemon: watch::Sender::new(Daemon::default()),
            key_wants: watch::Sender::new(KeyWants::default()),
            map: watch::Sender::new(None),
            counters: Mutex::default(),
            health: Mutex::default(),
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

    /// Novad needs the keys of a domain, sealed to its start's public key.
    pub(crate) fn want_key(&self, boot: u64, public: [u8; 32], domain: u32) {
        self.key_wants.send_if_modified(|wants| {
            if (wants.boot, wants.public) != (boot, public) {
                *wants = KeyWants { boot, public, domains: BTreeSet::new() };
            }
            wants.domains.insert(domain)
        });
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

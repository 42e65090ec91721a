//! What a state of the model is: the group as the controllers have it, and four hosts of which some form it.

use crate::controllers::{Claims, Control};
use crate::host_set::{HOSTS, HostSet};
use crate::log::Log;

/// No host, or nothing acknowledged.
pub(crate) const NONE: u8 = 15;

/// How far the model goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Members of the group when it is whole, 2 to 4; the other hosts are spare.
    pub members: u8,
    /// Entries that clients write, at most 4.
    pub writes: u8,
    /// Crashes, each followed by a restart or not.
    pub crashes: u8,
    /// Restarts from an old image of the device; each is a crash too.
    pub amnesias: u8,
    /// The group's epochs, at most 14.
    pub epochs: u8,
}

/// What a device holds. Its epoch is not here: a host that starts again acts in none before the controllers took its
/// mount, and that ends the epoch which it was a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    /// Of a life before the one that the controllers know.
    pub(crate) past: bool,
    /// Its trail names the mount that the controllers know.
    pub(crate) traced: bool,
    /// How many entries of the log are known to be committed.
    pub(crate) commit: u8,
    pub(crate) log: Log,
}

impl Disk {
    /// Of a life that is over: the controllers make it empty before anybody looks.
    pub(crate) const LOST: Self = Self { past: true, traced: false, commit: 0, log: Log(0) };
    /// With nothing on it, under the mount that the controllers know.
    pub(crate) const EMPTY: Self = Self { past: false, traced: true, commit: 0, log: Log(0) };
}

/// The members as a host knows them since it adopted an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// 0: none.
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) in_sync: HostSet,
    pub(crate) joining: HostSet,
}

impl View {
    pub(crate) const NONE: Self = Self { epoch: 0, primary: NONE, in_sync: HostSet(0), joining: HostSet(0) };

    pub(crate) fn exists(self) -> bool {
        self.epoch != 0
    }

    pub(crate) fn writable(self) -> bool {
        self.in_sync.len() >= 2
    }

    pub(crate) fn is_led_by(self, host: usize) -> bool {
        self.exists() && usize::from(self.primary) == host
    }

    /// In-sync members beside `host`.
    pub(crate) fn others(self, host: usize) -> HostSet {
        self.in_sync.without(HostSet::of(host))
    }

    /// `host` is the only one that may answer.
    pub(crate) fn is_lone(self, host: usize) -> bool {
        self.in_sync == HostSet::of(host)
    }
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) up: bool,
    /// The controllers know this start of it.
    pub(crate) known: bool,
    /// The device runs on an old image, and the controllers have not judged it yet.
    pub(crate) amnesic: bool,
    pub(crate) disk: Disk,
    /// What the device held before it was last mounted: an old image of it.
    pub(crate) image: Disk,
    /// The epoch it acts in, once it has adopted one in this start.
    pub(crate) view: View,
    /// As primary: the members' tails are known, and the longest is held here.
    pub(crate) ready: bool,
    /// As primary: the joiner counts, and nothing is committed without it.
    pub(crate) counts: bool,
    /// As primary: entries up to here were ordered by an earlier one.
    pub(crate) settled: u8,
    /// As primary: entries that each member has acknowledged in this epoch, or [`NONE`].
    pub(crate) acked: [u8; HOSTS],
    /// Whose promises it holds.
    pub(crate) leases: HostSet,
    /// To whom it has given promises that bind.
    pub(crate) promises: HostSet,
    /// It may read alone: the controllers heard it lately.
    pub(crate) node_lease: bool,
}

impl Host {
    /// Forgets everything that is not on the device.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.known = false;
        self.forget_view();
        self.promises = HostSet::default();
    }

    /// Acts in no epoch.
    pub(crate) fn forget_view(&mut self) {
        self.view = View::NONE;
        self.leave_epoch();
        self.leases = HostSet::default();
        self.node_lease = false;
    }

    /// Forgets what a primary knows of its epoch.
    pub(crate) fn leave_epoch(&mut self) {
        self.ready = false;
        self.counts = false;
        self.settled = 0;
        self.acked = [NONE; HOSTS];
    }
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) control: Control,
    /// A primary of this epoch has reported that its joiner is complete.
    pub(crate) reported: bool,
    pub(crate) hosts: [Host; HOSTS],
    /// What clients were told is written, in order.
    pub(crate) acknowledged: Log,
    pub(crate) written: u8,
    pub(crate) crashes: u8,
    pub(crate) amnesias: u8,
    /// What must never happen, and did.
    pub(crate) violation: Option<Violation>,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A read sees less than was acknowledged before it.
    ReadMisses,
    /// At the place of an acknowledged write is another one.
    Replaced,
    /// A commit point went back.
    Forgotten,
    /// Whoever the controllers call in sync holds every acknowledged write, as long as its device is what they think.
    Lacking,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ReadMisses => "a read misses a write that was acknowledged before it",
            Self::Replaced => "an acknowledged write was replaced by another one",
            Self::Forgotten => "a member is made to forget what it knows to be committed",
            Self::Lacking => "a member in sync lacks an acknowledged write",
        })
    }
}

impl World {
    /// What must never happen, and did.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// All four devices are mounted for the first time, and some of the hosts form the group.
    pub(crate) fn first(control: Control) -> Self {
        let host = Host {
            up: true,
            known: true,
            amnesic: false,
            disk: Disk::EMPTY,
            image: Disk::LOST,
            view: View::NONE,
            ready: false,
            counts: false,
            settled: 0,
            acked: [NONE; HOSTS],
            leases: HostSet::default(),
            promises: HostSet::default(),
            node_lease: false,
        };
        Self {
            control,
            reported: false,
            hosts: [host; HOSTS],
            acknowledged: Log::default(),
            written: 0,
            crashes: 0,
            amnesias: 0,
            violation: None,
        }
    }

    /// The members as the controllers have them.
    pub(crate) fn newest(&self) -> View {
        let Control { epoch, primary, in_sync, joining, .. } = self.control;
        View { epoch, primary, in_sync, joining }
    }

    pub(crate) fn hosts_that(&self, is: impl Fn(&Host) -> bool) -> HostSet {
        (0..HOSTS).filter(|host| is(&self.hosts[*host])).collect()
    }

    /// They run, and the controllers know this start of them.
    pub(crate) fn running(&self) -> HostSet {
        self.hosts_that(|host| host.up && host.known)
    }

    /// They run, and the controllers do not know this start of them.
    pub(crate) fn waiting(&self) -> HostSet {
        self.hosts_that(|host| host.up && !host.known)
    }

    /// What hosts would say of their devices.
    pub(crate) fn claims(&self) -> Claims {
        Claims {
            traced: self.hosts_that(|host| host.disk.traced),
            past: self.hosts_that(|host| host.disk.past),
        }
    }

    /// The host and the controllers mean the same life, and its device is not an unnoticed old image.
    pub(crate) fn has_its_life(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        !it.amnesic && !it.disk.past && !self.control.over.contains(host)
    }

    /// Both run and act in the same epoch.
    pub(crate) fn meets(&self, host: usize, other: usize) -> bool {
        let (a, b) = (&self.hosts[host], &self.hosts[other]);
        a.view.exists() && a.view.epoch == b.view.epoch
    }

    /// Of `others`, whom `host` meets.
    pub(crate) fn met(&self, host: usize, others: HostSet) -> HostSet {
        others.iter().filter(|other| self.meets(host, *other)).collect()
    }

    /// Nothing is acknowledged in an epoch while a promise to someone outside of it binds.
    pub(crate) fn may_acknowledge(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        it.view.exists() && it.view.in_sync.holds(it.promises)
    }

    /// How many entries every member that counts has.
    pub(crate) fn agreed(&self, host: usize) -> u8 {
        let it = &self.hosts[host];
        let counted = if it.counts { it.view.joining } else { HostSet::default() };
        let held = it.view.others(host).with(counted).iter().map(|member| it.acked[member]);
        let held = held.map(|acked| if acked == NONE { 0 } else { acked });
        held.min().unwrap_or(0).min(it.disk.log.len())
    }

    pub(crate) fn leased(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        it.view.in_sync.contains(host)
            && if it.view.is_lone(host) { it.node_lease } else { it.leases.holds(it.view.others(host)) }
    }
}

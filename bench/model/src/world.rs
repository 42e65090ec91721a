//! What a state of the model is: the real slice of groups, and four hosts of which some form one group.

use std::hash::{Hash, Hasher};

use nova_groups::{Command, CreateGroups, DeviceState, Groups, Mount, NewGroup, Op, Restart, Role};
use nova_units::{BootId, GroupId, NodeId};

/// Hosts: members, and those that are left over.
pub(crate) const HOSTS: usize = 4;
/// The one group.
pub(crate) const GROUP: GroupId = GroupId(1);

/// How far the model goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Members of the group when it is whole, 2 to 4; the other hosts are spare.
    pub members: u8,
    /// Entries that clients write.
    pub writes: u8,
    /// Crashes, each followed by a restart or not.
    pub crashes: u8,
    /// Restarts from an old image of the device; each is a crash too.
    pub amnesias: u8,
    /// The group's epochs.
    pub epochs: u64,
}

/// The members as a host knows them since it adopted an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) primary: usize,
    pub(crate) in_sync: Vec<usize>,
    pub(crate) joining: Option<usize>,
}

impl View {
    pub(crate) fn writable(&self) -> bool {
        self.in_sync.len() >= 2
    }

    /// In-sync members beside `host`.
    pub(crate) fn others(&self, host: usize) -> impl Iterator<Item = usize> + '_ {
        self.in_sync.iter().copied().filter(move |other| *other != host)
    }
}

/// What a device holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) mount_counter: u64,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    /// Entries in order, each a number of its own.
    pub(crate) log: Vec<u8>,
    /// How many of them are known to be committed.
    pub(crate) commit: usize,
    /// In this epoch the joiner counts: nothing is committed without it.
    pub(crate) counts_in: Option<u64>,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) up: bool,
    pub(crate) boot: u64,
    pub(crate) disk: Disk,
    /// What the device held before it was last mounted: what an old image of it holds.
    pub(crate) image: Disk,
    /// The device runs on an old image, and the controllers have not noticed yet.
    pub(crate) amnesic: bool,
    /// The epoch it acts in, once it has adopted one in this start.
    pub(crate) view: Option<View>,
    /// As primary: the members' tails are known, and the longest is held here.
    pub(crate) ready: bool,
    /// As primary: entries up to here were ordered by an earlier one.
    pub(crate) settled: usize,
    /// As primary: entries that each member has acknowledged in this epoch.
    pub(crate) acked: [Option<usize>; HOSTS],
    /// Promises that it holds from others.
    pub(crate) leases: [bool; HOSTS],
    /// Promises that it has given and that bind.
    pub(crate) promises: [bool; HOSTS],
    /// It may read alone: the controllers heard it lately.
    pub(crate) node_lease: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub(crate) groups: Groups,
    pub(crate) hosts: [Host; HOSTS],
    /// What clients were told is written, in order.
    pub(crate) acknowledged: Vec<u8>,
    pub(crate) written: u8,
    pub(crate) crashes: u8,
    pub(crate) amnesias: u8,
    /// A joiner that a primary has reported complete: epoch and host.
    pub(crate) ready: Option<(u64, usize)>,
    /// What must never happen, and did.
    pub(crate) violation: Option<&'static str>,
    /// What the last step was, when it was a rare one.
    pub(crate) rare: Option<Rare>,
}

/// A step that a check must meet at least once, or it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rare {
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

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The clock stands still and waits after repeated drops concern only the plan, so this is all of the slice
        // that can make a difference.
        for (id, device) in self.groups.devices() {
            let mounted = match device.state {
                DeviceState::Mounted { boot } => Some(boot.0),
                DeviceState::Absent | DeviceState::Failed => None,
            };
            (id, device.mount_counter, device.incarnation.0, mounted).hash(state);
        }
        if let Some(group) = self.groups.group(GROUP) {
            (group.epoch.0, group.primary).hash(state);
            for member in &group.members {
                (member.node, member.incarnation.0, member.role).hash(state);
            }
            group.last_writable.hash(state);
            group.homes.hash(state);
        }
        (&self.hosts, &self.acknowledged, self.written, self.crashes, self.amnesias).hash(state);
        (self.ready, self.violation, self.rare).hash(state);
    }
}

pub(crate) fn node(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

pub(crate) fn host_of(node: NodeId) -> usize {
    usize::try_from(node.0 - 1).expect("one of four hosts")
}

fn device(host: usize) -> Vec<u8> {
    (host as u128 + 1).to_be_bytes().to_vec()
}

impl World {
    /// What must never happen, and did.
    #[must_use]
    pub fn violation(&self) -> Option<&'static str> {
        self.violation
    }

    /// All four devices are mounted for the first time, and the first `members` hosts form the group.
    ///
    /// # Panics
    /// When `members` are more than there are hosts, or too few for a group.
    pub(crate) fn first(members: u8) -> Self {
        let mut world = Self {
            groups: Groups::default(),
            hosts: Default::default(),
            acknowledged: Vec::new(),
            written: 0,
            crashes: 0,
            amnesias: 0,
            ready: None,
            violation: None,
            rare: None,
        };
        for host in &mut world.hosts {
            host.up = true;
            host.boot = 1;
            host.disk.mount_counter = 1;
        }
        let mounts = (0..HOSTS).map(|host| world.mount(host)).collect();
        world.restart(Restart { mounts, confirm: Vec::new() });
        let create = CreateGroups {
            namespace: String::new(),
            groups: vec![NewGroup {
                nodes: (0..members.into()).map(|host| node(host).0).collect(),
                primary: node(0).0,
            }],
        };
        assert!(world.apply(Op::CreateGroups(create)).accepted(), "no group of {members} on {HOSTS} hosts");
        world
    }

    /// What a host says of its device.
    pub(crate) fn mount(&self, host: usize) -> Mount {
        let it = &self.hosts[host];
        Mount {
            node: node(host).0,
            boot: it.boot,
            device: device(host),
            mount_counter: it.disk.mount_counter,
            incarnation: it.disk.incarnation,
            bytes_total: 1,
        }
    }

    pub(crate) fn apply(&mut self, op: Op) -> nova_groups::Answer {
        self.groups.apply(&Command { at_ms: 0, op: Some(op) })
    }

    /// Takes mounts; a device that begins another life starts empty.
    pub(crate) fn restart(&mut self, restart: Restart) {
        for taken in self.apply(Op::Restart(restart)).incarnated {
            let host = &mut self.hosts[host_of(taken.node)];
            if taken.wipe {
                let mount_counter = host.disk.mount_counter;
                host.disk = Disk { mount_counter, incarnation: taken.incarnation.0, ..Disk::default() };
            }
            host.amnesic = false;
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.groups.group(GROUP).map_or(0, |group| group.epoch.0)
    }

    /// The controllers know this start of the host, with the life that its device has.
    pub(crate) fn confirmed(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        self.groups.devices_of(node(host)).next().is_some_and(|(_, device)| {
            device.state == DeviceState::Mounted { boot: BootId(it.boot) }
                && device.incarnation.0 == it.disk.incarnation
        })
    }

    /// The group has no member to spare and lacks none.
    pub(crate) fn is_full(&self) -> bool {
        self.groups.group(GROUP).is_some_and(nova_groups::Group::is_full)
    }

    /// The members as the controllers have them.
    pub(crate) fn members(&self) -> View {
        let group = self.groups.group(GROUP).expect("made at the start");
        let with =
            |role: Role| group.members.iter().filter(move |it| it.role == role).map(|it| host_of(it.node));
        View {
            primary: host_of(group.primary),
            in_sync: with(Role::InSync).collect(),
            joining: with(Role::Joining).next(),
        }
    }

    /// The host and the controllers mean the same life, and its device is not an unnoticed old image.
    pub(crate) fn has_its_life(&self, host: usize) -> bool {
        let group = self.groups.group(GROUP).expect("made at the start");
        let it = &self.hosts[host];
        !it.amnesic
            && group.member(node(host)).is_some_and(|member| member.incarnation.0 == it.disk.incarnation)
    }
}

//! What exists.

use core::time::Duration;
use std::collections::BTreeSet;

use imbl::{OrdMap, OrdSet};
use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, MountNonce, NodeId, Replicas, Timestamp};

use crate::command::Mount;

/// Members that must be in sync for a group to take writes.
pub(crate) const WRITABLE_MIN: usize = Replicas::MIN.count();

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds every acknowledged write; reads and counts.
    InSync,
    /// Receives new writes and is back-filled; neither reads nor counts.
    Joining,
}

/// A replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its host.
    pub node: NodeId,
    /// The life of its device that holds the replica.
    pub incarnation: Incarnation,
    /// What it may do.
    pub role: Role,
}

/// A replica group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Namespaces whose blocks it takes; empty: all.
    pub namespace: String,
    /// How many members it has when it is whole.
    pub replicas: Replicas,
    /// Raised by every change below.
    pub epoch: Epoch,
    /// The member that orders writes; always in sync.
    pub primary: NodeId,
    /// By node; at most as many in sync as it has replicas, and one joining. Both at once only while a replica moves to
    /// another host.
    pub members: Vec<Member>,
    /// The in-sync members of the last epoch that took writes, as long as their copies hold all of these. One of
    /// them may be reinstated when the lone survivor is lost.
    pub last_writable: Vec<(NodeId, Incarnation)>,
    /// The hosts that should be its members, by id, each with the device that last held the replica there: one that
    /// was away joins again with what that device still has. While a replica moves, the host it leaves is none of them.
    pub homes: Vec<(NodeId, Incarnation)>,
    /// Since when it has had fewer in-sync members than homes.
    pub short_since: Option<Timestamp>,
}

impl Group {
    /// Members in sync.
    pub fn in_sync(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == Role::InSync)
    }

    /// No member is missing, whether it is in sync or still joining.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.members.len() >= self.replicas.count()
    }

    /// As many members as it should have, all in sync.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.members.len() == self.replicas.count() && self.joining().is_none()
    }

    /// The member on `node`.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Takes no writes: fewer than two members are in sync.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.in_sync().count() < WRITABLE_MIN
    }

    /// Hosts that are no members now and may still hold what members held: those of the last epoch that took writes,
    /// and homes. At most twice [`Replicas::MAX`]; by id. What they hold may be old: they are asked for one version.
    #[must_use]
    pub fn former(&self) -> BTreeSet<NodeId> {
        let writable = self.last_writable.iter().map(|(node, _)| *node);
        writable.chain(self.homes()).filter(|node| self.member(*node).is_none()).collect()
    }

    /// Hosts that should be its members.
    pub fn homes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.homes.iter().map(|(node, _)| *node)
    }

    pub(crate) fn joining(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.role == Role::Joining)
    }
}

/// Whether a device may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Under this start of its host.
    Mounted {
        /// That start.
        boot: BootId,
    },
    /// Its host has started anew since, and it was not among the devices that it mounted then. It may come back.
    Absent,
    /// It answered with an error: never trusted again.
    Failed,
}

/// A device that was mounted at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its host.
    pub node: NodeId,
    /// The counter of its mount. One that is not higher shows an old image of the device.
    pub mount_counter: u64,
    /// The mount. A later one that does not name it shows an old image of the device.
    pub mount: MountNonce,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its size.
    pub bytes_total: u64,
    /// Whether it may serve.
    pub state: DeviceState,
    /// Since when it has been far slower than the others of the region, if it is, in this mount.
    pub slow: Option<Timestamp>,
}

impl Device {
    /// The mount is the one that is known.
    pub(crate) fn is_newest_of(&self, mount: &Mount) -> bool {
        mount.mount_trail().is_some_and(|trail| trail.newest() == self.mount)
    }

    /// The mount is the one that is known, with its nonce: of a device that is absent it was taken out of service in it.
    pub(crate) fn is_closed_in(&self, mount: &Mount) -> bool {
        self.node == NodeId(mount.node)
            && self.mount_counter == mount.mount_counter
            && self.is_newest_of(mount)
    }

    /// The mount shows the device as it was when it was last served, and not an old image of it: it is a later one, of the
    /// same life on the same host, and names the one that is known.
    pub(crate) fn goes_on_in(&self, mount: &Mount) -> bool {
        self.node == NodeId(mount.node)
            && self.incarnation == Incarnation(mount.incarnation)
            && self.mount_counter < mount.mount_counter
            && mount.mount_trail().is_some_and(|trail| trail.names(self.mount))
    }
}

/// How often a host was dropped lately (control design, section 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaps {
    /// When it was last dropped.
    pub last: Timestamp,
    /// When it was first dropped in the event that this belongs to.
    pub began: Timestamp,
    /// How long it waits before it may join again; zero after a single drop.
    pub wait: Duration,
}

/// All replica groups of a region, and the devices under them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    pub(crate) groups: OrdMap<GroupId, Group>,
    pub(crate) devices: OrdMap<DeviceId, Device>,
    /// Which of them each host mounted last.
    pub(crate) devices_of: OrdMap<NodeId, OrdSet<DeviceId>>,
    /// Lives of devices that turned up on another host while this one, for all that is known, still serves them: over
    /// once it starts anew.
    pub(crate) astray: OrdSet<(NodeId, Incarnation)>,
    pub(crate) flaps: OrdMap<NodeId, Flaps>,
    pub(crate) last_group: u32,
    pub(crate) last_incarnation: u64,
    /// Never goes back.
    pub(crate) clock: Timestamp,
}

impl Groups {
    /// The slice in which exactly these exist and nothing is remembered of what was before, neither drops nor the time: for
    /// models and tests, which look at any moment without living through what led to it.
    pub fn at_rest(
        devices: impl IntoIterator<Item = (DeviceId, Device)>,
        groups: impl IntoIterator<Item = (GroupId, Group)>,
    ) -> Self {
        let mut slice = Self::default();
        for (id, device) in devices {
            slice.last_incarnation = slice.last_incarnation.max(device.incarnation.0);
            slice.put_device(id, device);
        }
        for (id, group) in groups {
            slice.last_group = slice.last_group.max(id.0);
            slice.groups.insert(id, group);
        }
        slice
    }

    /// Groups by id.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// A group.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// Devices by id.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, &Device)> {
        self.devices.iter().map(|(id, device)| (*id, device))
    }

    /// The devices that `node` mounted last, by id, whether they serve or not.
    pub fn all_devices_of(&self, node: NodeId) -> impl Iterator<Item = (DeviceId, &Device)> {
        self.devices_of.get(&node).into_iter().flatten().map(|id| (*id, &self.devices[id]))
    }

    /// The devices that serve on `node`, by id.
    pub fn devices_of(&self, node: NodeId) -> impl Iterator<Item = (DeviceId, &Device)> {
        self.all_devices_of(node).filter(|(_, device)| matches!(device.state, DeviceState::Mounted { .. }))
    }

    /// The device that serves on `node` under `incarnation`.
    #[must_use]
    pub fn device(&self, node: NodeId, incarnation: Incarnation) -> Option<(DeviceId, &Device)> {
        self.devices_of(node).find(|(_, device)| device.incarnation == incarnation)
    }

    /// Since when the device that serves on `node` under `incarnation` has been slow, if it is.
    #[must_use]
    pub fn slow_since(&self, node: NodeId, incarnation: Incarnation) -> Option<Timestamp> {
        self.device(node, incarnation).and_then(|(_, device)| device.slow)
    }

    /// Whether devices serve on `node` and all of them are slow.
    #[must_use]
    pub fn is_slow(&self, node: NodeId) -> bool {
        self.stores(node) && self.devices_of(node).all(|(_, device)| device.slow.is_some())
    }

    /// Whether some device serves on `node`.
    #[must_use]
    pub fn stores(&self, node: NodeId) -> bool {
        self.devices_of(node).next().is_some()
    }

    /// How often a host was dropped lately.
    #[must_use]
    pub fn flaps(&self, node: NodeId) -> Flaps {
        self.flaps.get(&node).copied().unwrap_or_default()
    }

    /// Groups that take writes now and may hold blocks of `namespace` in `replicas` copies, by id.
    pub fn writable<'a>(
        &'a self,
        namespace: &'a str,
        replicas: Replicas,
    ) -> impl Iterator<Item = GroupId> + 'a {
        self.iter()
            .filter(move |(_, group)| {
                let open = group.namespace.is_empty() || group.namespace == namespace;
                !group.frozen() && open && group.replicas == replicas
            })
            .map(|(id, _)| id)
    }

    /// Whether some group keeps this many copies.
    #[must_use]
    pub fn keeps(&self, replicas: Replicas) -> bool {
        self.kept(replicas) > 0
    }

    /// How many groups keep this many copies.
    #[must_use]
    pub fn kept(&self, replicas: Replicas) -> usize {
        self.groups.values().filter(|group| group.replicas == replicas).count()
    }

    /// A device of `node` is mounted under `incarnation` and may hold a replica.
    pub(crate) fn serves(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.device(node, incarnation).is_some()
    }

    /// `node` serves nothing under `incarnation` any more and never will without being asked: the device failed, which
    /// its host said after it had stopped serving it, or the host has started without it or with an older image of it.
    pub(crate) fn is_over(&self, node: NodeId, incarnation: Incarnation) -> bool {
        !self.serves(node, incarnation) && !self.astray.contains(&(node, incarnation))
    }

    /// Nothing more is to be decided about this mount: it is in the state; or the device failed, under this start or an
    /// earlier one; or it was taken out of service while this mount lasts. Then it is never answered.
    #[must_use]
    pub fn has_judged(&self, mount: &Mount) -> bool {
        let known = mount.device_id().and_then(|id| self.devices.get(&id));
        let mounted = DeviceState::Mounted { boot: BootId(mount.boot) };
        known.is_some_and(|known| {
            let same = known.is_newest_of(mount) && known.node == NodeId(mount.node);
            let closed = known.state == DeviceState::Absent && known.is_closed_in(mount);
            known.state == DeviceState::Failed || closed || known.state == mounted && same
        })
    }

    /// Keeps a device, under its host.
    pub(crate) fn put_device(&mut self, id: DeviceId, device: Device) {
        let node = device.node;
        if self.devices.get(&id).is_some_and(|known| known.node != node) {
            self.remove_device(id);
        }
        self.devices.insert(id, device);
        self.devices_of.entry(node).or_default().insert(id);
    }

    /// Forgets a device, also under its host.
    pub(crate) fn remove_device(&mut self, id: DeviceId) {
        let Some(known) = self.devices.remove(&id) else { return };
        let left = self.devices_of.entry(known.node).or_default();
        left.remove(&id);
        if left.is_empty() {
            self.devices_of.remove(&known.node);
        }
    }

    /// How many groups have their primary on `node`.
    pub(crate) fn primaries(&self, node: NodeId) -> usize {
        self.groups.values().filter(|group| group.primary == node).count()
    }
}

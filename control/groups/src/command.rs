//! What may be asked. Commands are entries of the Raft log: fields are only ever added. Each change of a group
//! names the epoch it was decided on, and is refused as stale on any other.

use nova_units::{DeviceId, Epoch, GroupId, Incarnation, MountNonce, MountTrail, NodeId};

/// A change, and when the leader decided it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The leader's wall clock; the state never lets it go back.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What is asked.
    #[prost(oneof = "Op", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub op: Option<Op>,
}

/// The kinds of [`Command`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Makes groups.
    #[prost(message, tag = "10")]
    CreateGroups(CreateGroups),
    /// Takes members out.
    #[prost(message, tag = "11")]
    Drop(Drop),
    /// Begins to fill new members.
    #[prost(message, tag = "12")]
    AddJoining(AddJoining),
    /// Makes filled members count.
    #[prost(message, tag = "13")]
    Admit(Admit),
    /// Replaces a lost lone survivor.
    #[prost(message, tag = "14")]
    Reinstate(Reinstate),
    /// Takes devices that their hosts mounted.
    #[prost(message, tag = "15")]
    Restart(Restart),
    /// Gives a device up.
    #[prost(message, tag = "16")]
    FailDevice(FailDevice),
    /// Lets other members order writes.
    #[prost(message, tag = "17")]
    MovePrimary(MovePrimary),
    /// Forgets a device that will not come back.
    #[prost(message, tag = "18")]
    ForgetDevice(ForgetDevice),
    /// Takes a device out of service, for its host to close it.
    #[prost(message, tag = "19")]
    CloseDevice(CloseDevice),
    /// A device became far slower than the others, or keeps up again.
    #[prost(message, tag = "20")]
    PaceDevice(PaceDevice),
}

/// Lets other members order writes, in many groups at once. The members stay.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MovePrimary {
    /// One for each group: the member in sync that becomes its primary.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<Joining>,
}

/// Makes groups over devices that serve.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateGroups {
    /// Namespace whose blocks they take; empty: all.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Their members.
    #[prost(message, repeated, tag = "2")]
    pub groups: Vec<NewGroup>,
}

/// A group to make; ids are given in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NewGroup {
    /// Hosts, each with a device that serves: as many as the group keeps replicas, two to five. The replica goes to the
    /// host's lightest device.
    #[prost(uint64, repeated, tag = "1")]
    pub nodes: Vec<u64>,
    /// One of them.
    #[prost(uint64, tag = "2")]
    pub primary: u64,
}

/// Takes members out, of many groups at once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Drop {
    /// One for each group.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<DropMembers>,
    /// Their hosts are well, and the replicas are built anew, each on the lightest device of its host.
    #[prost(bool, tag = "2")]
    pub rebuilt: bool,
}

/// Takes members out of one group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DropMembers {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The epoch on which it was decided.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who.
    #[prost(uint64, repeated, tag = "3")]
    pub nodes: Vec<u64>,
}

/// Begins to fill new members, in many groups at once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddJoining {
    /// One for each group.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<Joining>,
}

/// Makes filled members count, in many groups at once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Admit {
    /// One for each group.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<Joining>,
}

/// A member of one group that joins, or is to change its part.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Joining {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The epoch on which it was decided.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who.
    #[prost(uint64, tag = "3")]
    pub node: u64,
    /// Of one that joins a full group: the member that leaves when the new one is in sync; 0: none.
    #[prost(uint64, tag = "4")]
    pub replaces: u64,
}

/// Replaces lone survivors that are lost, by members of the last writable epoch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reinstate {
    /// One for each group.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<ReinstateGroup>,
}

/// The new in-sync members of a frozen group. The leader has waited until the survivor's node lease ran out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReinstateGroup {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The epoch on which it was decided.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who.
    #[prost(uint64, repeated, tag = "3")]
    pub nodes: Vec<u64>,
}

/// Takes devices that their hosts mounted: of each host named here all that it mounted at this start, so that any other
/// device of it is absent. A restarted member leaves its groups (it joins again), unless it is the lone survivor or
/// named in `confirm`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restart {
    /// The devices.
    #[prost(message, repeated, tag = "1")]
    pub mounts: Vec<Mount>,
    /// Groups of which no in-sync member was left running: a cold start.
    #[prost(message, repeated, tag = "2")]
    pub confirm: Vec<ConfirmGroup>,
}

/// A device as its host mounted it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    /// The host.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Its start.
    #[prost(uint64, tag = "2")]
    pub boot: u64,
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "3")]
    pub device: Vec<u8>,
    /// Raised by the device at every mount.
    #[prost(uint64, tag = "4")]
    pub mount_counter: u64,
    /// The life it believes to be in; 0: none yet.
    #[prost(uint64, tag = "5")]
    pub incarnation: u64,
    /// Its size.
    #[prost(uint64, tag = "6")]
    pub bytes_total: u64,
    /// Nonces of the device's mounts since the last that was taken and that it was told of, this one last. Of a data plane
    /// without trails: none.
    #[prost(fixed64, repeated, tag = "7")]
    pub trail: Vec<u64>,
}

impl Mount {
    /// The nonces; `None` when there are too many.
    #[must_use]
    pub fn mount_trail(&self) -> Option<MountTrail> {
        if self.trail.is_empty() {
            return Some(MountTrail::default());
        }
        let mounts: Vec<MountNonce> = self.trail.iter().copied().map(MountNonce).collect();
        MountTrail::new(&mounts)
    }

    /// The device's id, when it has 16 bytes.
    #[must_use]
    pub fn device_id(&self) -> Option<DeviceId> {
        Some(DeviceId(u128::from_be_bytes(self.device.as_slice().try_into().ok()?)))
    }
}

/// The members of a group that are in sync again after all of them were down. All are among the mounts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfirmGroup {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The epoch in which they were in sync.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who.
    #[prost(uint64, repeated, tag = "3")]
    pub nodes: Vec<u64>,
}

/// Gives a device up: it answered with an error.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FailDevice {
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub device: Vec<u8>,
    /// For people.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// Forgets a device that failed or is absent, once nothing is to be had of it any more. Should it turn up again, it is a new
/// device, and starts empty.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ForgetDevice {
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub device: Vec<u8>,
}

/// Takes a device out of service while its host runs on: it is absent from then on. Refused while a group would be left with
/// fewer than two copies. One that does not serve stays as it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CloseDevice {
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub device: Vec<u8>,
}

/// A device became far slower than the others of the region, or keeps up again. The same again changes nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PaceDevice {
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub device: Vec<u8>,
    /// Whether it is slow from now on.
    #[prost(bool, tag = "2")]
    pub slow: bool,
}

/// What became of the change of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the group has this epoch now.
    Changed(Epoch),
    /// The group has another epoch: look again.
    Stale,
    /// It would break a rule; the text says which.
    Refused(&'static str),
}

/// The life under which a device may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnated {
    /// Its host.
    pub node: NodeId,
    /// The device.
    pub device: DeviceId,
    /// Its life.
    pub incarnation: Incarnation,
    /// It starts empty.
    pub wipe: bool,
}

/// The answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Of each group named in the command, and of those that a restart changed.
    pub groups: Vec<(GroupId, Outcome)>,
    /// Of each device that was mounted.
    pub incarnated: Vec<Incarnated>,
    /// The whole command was refused.
    pub refused: Option<&'static str>,
}

impl Answer {
    /// Nothing was stale or refused.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.refused.is_none()
            && self.groups.iter().all(|(_, outcome)| matches!(outcome, Outcome::Changed(_)))
    }
}

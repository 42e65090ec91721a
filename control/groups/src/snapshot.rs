//! The slice as one message; the composed state wraps it.

use core::time::Duration;

use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, MountNonce, NodeId, Replicas, Timestamp};
use prost::Message;

use crate::model::{Device, DeviceState, Flaps, Group, Groups, Member, Role};

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of the groups is damaged: {0}; fetch it again")]
pub struct SnapshotError(&'static str);

#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    groups: Vec<GroupRow>,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<DeviceRow>,
    #[prost(message, repeated, tag = "3")]
    flaps: Vec<FlapsRow>,
    #[prost(uint32, tag = "4")]
    last_group: u32,
    #[prost(uint64, tag = "5")]
    last_incarnation: u64,
    #[prost(uint64, tag = "6")]
    clock_ms: u64,
    #[prost(message, repeated, tag = "7")]
    astray: Vec<MemberRow>,
}

#[derive(Clone, PartialEq, Message)]
struct GroupRow {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    primary: u64,
    #[prost(message, repeated, tag = "5")]
    members: Vec<MemberRow>,
    #[prost(message, repeated, tag = "6")]
    last_writable: Vec<MemberRow>,
    #[prost(uint64, optional, tag = "8")]
    short_since_ms: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    homes: Vec<MemberRow>,
    /// 0 in a snapshot of a release in which every group had three.
    #[prost(uint32, tag = "10")]
    replicas: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct MemberRow {
    #[prost(uint64, tag = "1")]
    node: u64,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(bool, tag = "3")]
    joining: bool,
}

#[derive(Clone, PartialEq, Message)]
struct DeviceRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    mount_counter: u64,
    #[prost(uint64, tag = "4")]
    incarnation: u64,
    #[prost(uint64, tag = "5")]
    bytes_total: u64,
    #[prost(uint64, optional, tag = "6")]
    boot: Option<u64>,
    #[prost(bool, tag = "7")]
    failed: bool,
    #[prost(fixed64, tag = "8")]
    mount: u64,
    #[prost(uint64, optional, tag = "9")]
    slow_since_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct FlapsRow {
    #[prost(uint64, tag = "1")]
    node: u64,
    #[prost(uint64, tag = "2")]
    last_ms: u64,
    #[prost(uint64, tag = "3")]
    wait_ms: u64,
    #[prost(uint64, tag = "4")]
    began_ms: u64,
}

impl Groups {
    /// The slice as bytes; equal slices give equal bytes.
    #[must_use]
    pub fn encode_to_vec(&self) -> Vec<u8> {
        let member = |node: NodeId, incarnation: Incarnation, joining| MemberRow {
            node: node.0,
            incarnation: incarnation.0,
            joining,
        };
        Rows {
            groups: self
                .iter()
                .map(|(id, group)| GroupRow {
                    id: id.0,
                    namespace: group.namespace.clone(),
                    epoch: group.epoch.0,
                    primary: group.primary.0,
                    members: group
                        .members
                        .iter()
                        .map(|it| member(it.node, it.incarnation, it.role == Role::Joining))
                        .collect(),
                    last_writable: group
                        .last_writable
                        .iter()
                        .map(|(node, inc)| member(*node, *inc, false))
                        .collect(),
                    homes: group.homes.iter().map(|(node, inc)| member(*node, *inc, false)).collect(),
                    short_since_ms: group.short_since.map(|since| since.0),
                    replicas: group.replicas.get(),
                })
                .collect(),
            devices: self
                .devices()
                .map(|(id, device)| DeviceRow {
                    id: id.0.to_be_bytes().to_vec(),
                    node: device.node.0,
                    mount_counter: device.mount_counter,
                    incarnation: device.incarnation.0,
                    bytes_total: device.bytes_total,
                    boot: match device.state {
                        DeviceState::Mounted { boot } => Some(boot.0),
                        DeviceState::Absent | DeviceState::Failed => None,
                    },
                    failed: device.state == DeviceState::Failed,
                    mount: device.mount.0,
                    slow_since_ms: device.slow.map(|since| since.0),
                })
                .collect(),
            flaps: self
                .flaps
                .iter()
                .map(|(node, flaps)| FlapsRow {
                    node: node.0,
                    last_ms: flaps.last.0,
                    began_ms: flaps.began.0,
                    wait_ms: u64::try_from(flaps.wait.as_millis()).unwrap_or(u64::MAX),
                })
                .collect(),
            last_group: self.last_group,
            last_incarnation: self.last_incarnation,
            clock_ms: self.clock.0,
            astray: self.astray.iter().map(|(node, inc)| member(*node, *inc, false)).collect(),
        }
        .encode_to_vec()
    }

    /// Reads what [`Groups::encode_to_vec`] wrote.
    ///
    /// # Errors
    /// Bytes that are something else, or groups that break a rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rows = Rows::decode(bytes).map_err(|_| SnapshotError("no message"))?;
        let mut groups = Self {
            last_group: rows.last_group,
            last_incarnation: rows.last_incarnation,
            clock: Timestamp(rows.clock_ms),
            ..Self::default()
        };
        for row in rows.groups {
            let (id, group) = group_of(row)?;
            groups.groups.insert(id, group);
        }
        for row in rows.devices {
            let id = row.id.as_slice().try_into().map_err(|_| SnapshotError("a device id"))?;
            let state = match (row.boot, row.failed) {
                (Some(boot), false) => DeviceState::Mounted { boot: BootId(boot) },
                (None, false) => DeviceState::Absent,
                (None, true) => DeviceState::Failed,
                (Some(_), true) => return Err(SnapshotError("a device")),
            };
            let device = Device {
                node: NodeId(row.node),
                mount_counter: row.mount_counter,
                mount: MountNonce(row.mount),
                incarnation: Incarnation(row.incarnation),
                bytes_total: row.bytes_total,
                state,
                slow: row.slow_since_ms.map(Timestamp),
            };
            groups.put_device(DeviceId(u128::from_be_bytes(id)), device);
        }
        for row in rows.flaps {
            let flaps = Flaps {
                last: Timestamp(row.last_ms),
                began: Timestamp(row.began_ms),
                wait: Duration::from_millis(row.wait_ms),
            };
            groups.flaps.insert(NodeId(row.node), flaps);
        }
        groups.astray = rows.astray.iter().map(|it| (NodeId(it.node), Incarnation(it.incarnation))).collect();
        Ok(groups)
    }
}

fn group_of(row: GroupRow) -> Result<(GroupId, Group), SnapshotError> {
    let role = |joining| if joining { Role::Joining } else { Role::InSync };
    let replicas = match row.replicas {
        0 => Replicas::DEFAULT,
        count => Replicas::new(count).ok_or(SnapshotError("how many replicas a group has"))?,
    };
    let group = Group {
        namespace: row.namespace,
        replicas,
        epoch: Epoch(row.epoch),
        primary: NodeId(row.primary),
        members: row
            .members
            .iter()
            .map(|it| Member {
                node: NodeId(it.node),
                incarnation: Incarnation(it.incarnation),
                role: role(it.joining),
            })
            .collect(),
        last_writable: row
            .last_writable
            .iter()
            .map(|it| (NodeId(it.node), Incarnation(it.incarnation)))
            .collect(),
        homes: row.homes.iter().map(|it| (NodeId(it.node), Incarnation(it.incarnation))).collect(),
        short_since: row.short_since_ms.map(Timestamp),
    };
    if group.members.len() > group.replicas.count() + 1 || !group.in_sync().any(|it| it.node == group.primary)
    {
        return Err(SnapshotError("a group"));
    }
    Ok((GroupId(row.id), group))
}

//! How many replicas every device has, in proportion to its size.

use core::cmp::Ordering;
use std::collections::BTreeMap;

use nova_units::{Incarnation, NodeId};

use crate::model::{DeviceState, Group, Groups};

/// Sizes are compared in this many steps of the largest: devices that differ by less count as equal, so that replicas
/// are spread over them by other rules.
const SIZE_STEPS: u64 = 64;

/// Replicas for each step of size; compared exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    replicas: u64,
    steps: u64,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.replicas * other.steps).cmp(&(other.replicas * self.steps))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

/// The devices that serve, with the replicas whose home they are: those on their way to a device count, those on their
/// way off it do not.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    devices: BTreeMap<Incarnation, Share>,
}

impl Load {
    pub(crate) fn of(groups: &Groups) -> Self {
        let serving = || groups.devices.values().filter(|it| matches!(it.state, DeviceState::Mounted { .. }));
        let largest = serving().map(|device| device.bytes_total).max().unwrap_or(0).max(1);
        let steps = |bytes: u64| {
            let rounded =
                (u128::from(bytes) * u128::from(SIZE_STEPS) + u128::from(largest) / 2) / u128::from(largest);
            u64::try_from(rounded).unwrap_or(SIZE_STEPS).max(1)
        };
        let devices = serving()
            .map(|device| (device.incarnation, Share { replicas: 0, steps: steps(device.bytes_total) }));
        let mut load = Self { devices: devices.collect() };
        for (_, group) in groups.iter() {
            for (_, incarnation) in &group.homes {
                load.add(*incarnation);
            }
        }
        load
    }

    /// One replica more.
    pub(crate) fn add(&mut self, incarnation: Incarnation) {
        if let Some(share) = self.devices.get_mut(&incarnation) {
            share.replicas += 1;
        }
    }

    /// One replica less.
    pub(crate) fn remove(&mut self, incarnation: Incarnation) {
        if let Some(share) = self.devices.get_mut(&incarnation) {
            share.replicas = share.replicas.saturating_sub(1);
        }
    }

    /// What a device has now; nothing of one that does not serve.
    pub(crate) fn now(&self, incarnation: Incarnation) -> Share {
        self.devices.get(&incarnation).copied().unwrap_or(Share { replicas: 0, steps: 1 })
    }

    /// What a device would have with one replica more.
    pub(crate) fn with_one_more(&self, incarnation: Incarnation) -> Share {
        let now = self.now(incarnation);
        Share { replicas: now.replicas + 1, ..now }
    }

    /// The device of `node` that would have the smallest share with one replica more; a slow one only when all are.
    pub(crate) fn lightest(&self, groups: &Groups, node: NodeId) -> Option<Incarnation> {
        let serving = groups.devices_of(node).map(|(_, device)| (device.slow.is_some(), device.incarnation));
        let lightest = serving.min_by_key(|(slow, life)| (*slow, self.with_one_more(*life), *life));
        lightest.map(|(_, life)| life)
    }

    /// Where a replica of `group` goes on `node`: to the device that held it last, because it may lack little, or else
    /// to the lightest one. A slow device gets it back only when the host has no other, or when the group takes no writes
    /// without it. Plan and `apply` both ask here.
    pub(crate) fn device_for(&self, groups: &Groups, group: &Group, node: NodeId) -> Option<Incarnation> {
        let held = group.last_writable.iter().chain(&group.homes);
        held.filter(|(host, _)| *host == node)
            .map(|(_, incarnation)| *incarnation)
            .find(|life| {
                groups.serves(node, *life) && (group.frozen() || groups.slow_since(node, *life).is_none())
            })
            .or_else(|| self.lightest(groups, node))
    }
}

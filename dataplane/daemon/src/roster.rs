//! The devices of the host: dealt to its shards, looked at by each, and judged together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nova_ring::abi::AgentEvent;
use nova_units::{DeviceId, Incarnation, MountTrail};

/// A device that a shard has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Its place in the configuration.
    pub(crate) place: u8,
    pub(crate) id: DeviceId,
    pub(crate) mount_counter: u64,
    /// The life in which it was mounted.
    pub(crate) incarnation: Incarnation,
    pub(crate) bytes_total: u64,
    /// Its mounts since the last that the controllers confirmed.
    pub(crate) trail: MountTrail,
}

/// What a shard found of its devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) mounted: Vec<Mounted>,
    /// Places of those that do not serve, and why.
    pub(crate) broken: Vec<(u8, String)>,
    /// The shard did not even come up.
    pub(crate) failed: bool,
}

/// Gathers what the shards found.
#[derive(Debug)]
pub(crate) struct Muster {
    found: Vec<Option<Found>>,
    roster: Option<Arc<Roster>>,
}

/// All devices of a start of this host.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Those that serve, each with its shard, in the order of the configuration.
    pub(crate) serving: Vec<(usize, Mounted)>,
    /// Places of those that do not.
    pub(crate) broken: Vec<u8>,
    /// A shard did not come up and says why; this host does not start.
    pub(crate) failed: bool,
    /// Why this host does not start though all shards came up.
    pub(crate) refusal: Option<String>,
    shards: BTreeMap<DeviceId, usize>,
}

/// The shard of the device at `place`, when the configuration does not say another: one after the other.
pub(crate) fn dealt(place: usize, shards: u16) -> u16 {
    let place = u16::try_from(place).expect("a host has at most 24 devices");
    place % shards
}

impl Muster {
    pub(crate) fn new(shards: usize) -> Self {
        Self { found: vec![None; shards], roster: None }
    }

    /// What one shard found. The last one makes the roster; what a shard says twice is not heard.
    pub(crate) fn take(&mut self, shard: usize, found: Found) {
        self.found[shard].get_or_insert(found);
        if self.roster.is_none() && self.found.iter().all(Option::is_some) {
            self.roster = Some(Arc::new(Roster::of(self.found.iter().flatten())));
        }
    }

    /// Known when every shard has looked.
    pub(crate) fn roster(&self) -> Option<Arc<Roster>> {
        self.roster.clone()
    }
}

impl Roster {
    fn of<'a>(found: impl Iterator<Item = &'a Found>) -> Self {
        let mut roster = Self::default();
        let (mut mounted, mut broken) = (Vec::new(), BTreeMap::new());
        for (shard, found) in found.enumerate() {
            mounted.extend(found.mounted.iter().map(|device| (shard, *device)));
            broken.extend(found.broken.iter().cloned());
            roster.failed |= found.failed;
        }
        mounted.sort_by_key(|(_, device)| device.place);
        let mut places: BTreeSet<u8> = broken.keys().copied().collect();
        for (shard, device) in mounted {
            // Of a device and its copies the first place serves, whichever shard was quicker.
            match roster.shards.entry(device.id) {
                Entry::Occupied(_) => {
                    places.insert(device.place);
                }
                Entry::Vacant(first) => {
                    first.insert(shard);
                    roster.serving.push((shard, device));
                }
            }
        }
        roster.refusal = broken.into_values().next().filter(|_| roster.serving.is_empty());
        roster.broken = places.into_iter().collect();
        roster
    }

    /// Whether the device at this place serves.
    pub(crate) fn serves(&self, place: u8) -> bool {
        self.serving.iter().any(|(_, device)| device.place == place)
    }

    /// The shard of a device that serves.
    pub(crate) fn shard_of(&self, device: DeviceId) -> Option<usize> {
        self.shards.get(&device).copied()
    }

    /// What an agent that has just attached has to know of the devices.
    pub(crate) fn report(&self) -> Vec<AgentEvent> {
        let mounted = self.serving.iter().map(|(_, device)| AgentEvent::Mounted {
            device: device.id,
            mount_counter: device.mount_counter,
            incarnation: device.incarnation,
            bytes_total: device.bytes_total,
            place: device.place,
            trail: device.trail,
        });
        let broken = self.broken.iter().map(|place| AgentEvent::DeviceBroken { place: *place });
        let count = |count: usize| u8::try_from(count).expect("a host has at most 24 devices");
        let told =
            AgentEvent::DevicesTold { mounted: count(self.serving.len()), broken: count(self.broken.len()) };
        mounted.chain(broken).chain([told]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(place: u8, id: u128) -> Mounted {
        let (mount_counter, incarnation, bytes_total) = (1, Incarnation(0), 1 << 30);
        Mounted {
            place,
            id: DeviceId(id),
            mount_counter,
            incarnation,
            bytes_total,
            trail: MountTrail::default(),
        }
    }

    fn found(mounted: &[Mounted], broken: &[u8]) -> Found {
        let broken = broken.iter().map(|place| (*place, format!("device {place} is gone"))).collect();
        Found { mounted: mounted.to_vec(), broken, failed: false }
    }

    fn roster(all: &[Found]) -> Arc<Roster> {
        let mut muster = Muster::new(all.len());
        for (shard, found) in all.iter().enumerate().rev() {
            assert!(muster.roster().is_none(), "a shard has not looked yet");
            muster.take(shard, found.clone());
        }
        muster.roster().expect("all have looked")
    }

    #[test]
    fn devices_are_dealt_one_after_the_other() {
        let shards: Vec<_> = (0..5).map(|place| dealt(place, 2)).collect();
        assert_eq!(shards, [0, 1, 0, 1, 0]);
        assert_eq!(dealt(23, 24), 23);
    }

    #[test]
    fn the_roster_lists_the_devices_of_all_shards_in_the_order_of_the_configuration() {
        let roster = roster(&[
            found(&[device(0, 10), device(2, 12)], &[]),
            found(&[device(1, 11)], &[3]),
            found(&[], &[]),
        ]);
        let places: Vec<_> = roster.serving.iter().map(|(shard, device)| (*shard, device.place)).collect();
        assert_eq!((places, roster.broken.clone()), (vec![(0, 0), (1, 1), (0, 2)], vec![3]));
        assert_eq!((roster.shard_of(DeviceId(11)), roster.shard_of(DeviceId(9))), (Some(1), None));
        assert!(roster.serves(2) && !roster.serves(3) && roster.refusal.is_none());
        assert_eq!(roster.report().last(), Some(&AgentEvent::DevicesTold { mounted: 3, broken: 1 }));
    }

    #[test]
    fn of_a_device_and_its_copy_on_another_shard_the_first_place_serves() {
        let roster = roster(&[found(&[device(2, 7)], &[]), found(&[device(1, 7)], &[])]);
        assert_eq!((roster.shard_of(DeviceId(7)), roster.broken.as_slice()), (Some(1), &[2][..]));
    }

    #[test]
    fn a_host_whose_devices_all_fail_does_not_start_and_says_why_of_the_first() {
        assert_eq!(
            roster(&[found(&[], &[2]), found(&[], &[1])]).refusal.as_deref(),
            Some("device 1 is gone")
        );
        assert_eq!(roster(&[found(&[], &[2]), found(&[device(1, 7)], &[])]).refusal, None);
        assert_eq!(roster(&[found(&[], &[]), found(&[], &[])]).refusal, None, "it has none to lose");
        let failed = Found { failed: true, ..Found::default() };
        assert!(roster(&[found(&[device(1, 7)], &[]), failed]).failed);
    }
}

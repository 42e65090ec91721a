//! The devices of the host: dealt to its shards, looked at by each, and judged together; and what became of them since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use nova_ring::abi::{AgentEvent, Words};
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

/// Why a device does not serve beside another one with its id.
pub(crate) const COPY: &str =
    "it is a copy of another device of this host, which serves: erase it to use it as a new one";

/// Stands in the place of a device for what is wrong with the configuration itself.
pub(crate) const CONFIGURATION: u8 = u8::MAX;
/// Bytes of a reason that are told.
const WHY_BYTES_MAX: usize = 480;

/// All devices of this host that are open or should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// Those that serve, each with its shard, in the order of the configuration.
    pub(crate) serving: Vec<(usize, Mounted)>,
    /// Places of those that do not, and why; [`CONFIGURATION`] is none of them.
    pub(crate) troubles: BTreeMap<u8, String>,
    /// The last order to open or close devices that was carried out; 0: none since the start.
    pub(crate) order: u64,
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
        let why = broken.values().next().cloned();
        for (shard, device) in mounted {
            // Of a device and its copies the first place serves, whichever shard was quicker.
            match roster.shards.entry(device.id) {
                Entry::Occupied(_) => {
                    broken.insert(device.place, COPY.to_owned());
                }
                Entry::Vacant(first) => {
                    first.insert(shard);
                    roster.serving.push((shard, device));
                }
            }
        }
        roster.refusal = why.filter(|_| roster.serving.is_empty());
        roster.troubles = broken;
        roster
    }

    /// A shard has opened one more.
    pub(crate) fn open(&mut self, shard: usize, device: Mounted) {
        self.troubles.remove(&device.place);
        self.shards.insert(device.id, shard);
        self.serving.push((shard, device));
        self.serving.sort_by_key(|(_, device)| device.place);
    }

    /// A device is closed. Answers its place.
    pub(crate) fn close(&mut self, device: DeviceId) -> Option<u8> {
        self.shards.remove(&device)?;
        let found = self.serving.iter().position(|(_, known)| known.id == device)?;
        Some(self.serving.remove(found).1.place)
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
        let broken = self.troubles.iter().flat_map(|(place, why)| {
            let place = *place;
            let why = &why[..why.floor_char_boundary(WHY_BYTES_MAX)];
            let words = Words::of(why).map(move |words| AgentEvent::DeviceTrouble { place, words });
            let broken = (place != CONFIGURATION).then_some(AgentEvent::DeviceBroken { place });
            words.chain(broken)
        });
        let ordered = (self.order != 0).then_some(AgentEvent::DevicesOrdered { order: self.order });
        let count = |count: usize| u8::try_from(count).expect("a host has at most 24 devices");
        let broken_count = self.troubles.keys().filter(|place| **place != CONFIGURATION).count();
        let told =
            AgentEvent::DevicesTold { mounted: count(self.serving.len()), broken: count(broken_count) };
        mounted.chain(broken).chain(ordered).chain([told]).collect()
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

    fn broken(roster: &Roster) -> Vec<u8> {
        roster.troubles.keys().copied().collect()
    }

    #[test]
    fn what_was_opened_and_closed_since_the_start_is_told_with_why_the_rest_is_not_open() {
        let mut roster = Roster::clone(&roster(&[found(&[device(0, 10)], &[1]), found(&[], &[])]));
        roster.open(1, device(1, 11));
        assert_eq!((roster.shard_of(DeviceId(11)), broken(&roster)), (Some(1), vec![]));
        assert_eq!((roster.close(DeviceId(10)), roster.close(DeviceId(10))), (Some(0), None));
        assert!(!roster.serves(0) && roster.serves(1) && roster.shard_of(DeviceId(10)).is_none());
        roster.order = 9;
        let why = "no drive ".repeat(30);
        roster.troubles.extend([(4, why.clone()), (CONFIGURATION, "cannot be read".into())]);
        let told = roster.report();
        let words = |of: u8| {
            told.iter().filter_map(move |event| match event {
                AgentEvent::DeviceTrouble { place, words } if *place == of => Some(words.as_str()),
                _ => None,
            })
        };
        assert_eq!(words(4).collect::<String>(), why);
        assert_eq!(words(CONFIGURATION).collect::<String>(), "cannot be read");
        let ends =
            [AgentEvent::DevicesOrdered { order: 9 }, AgentEvent::DevicesTold { mounted: 1, broken: 1 }];
        assert_eq!(told[told.len() - 2..], ends);
        assert!(told.contains(&AgentEvent::DeviceBroken { place: 4 }));
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
        assert_eq!((places, broken(&roster)), (vec![(0, 0), (1, 1), (0, 2)], vec![3]));
        assert_eq!((roster.shard_of(DeviceId(11)), roster.shard_of(DeviceId(9))), (Some(1), None));
        assert!(roster.serves(2) && !roster.serves(3) && roster.refusal.is_none());
        assert_eq!(roster.report().last(), Some(&AgentEvent::DevicesTold { mounted: 3, broken: 1 }));
    }

    #[test]
    fn of_a_device_and_its_copy_on_another_shard_the_first_place_serves() {
        let roster = roster(&[found(&[device(2, 7)], &[]), found(&[device(1, 7)], &[])]);
        assert_eq!((roster.shard_of(DeviceId(7)), broken(&roster)), (Some(1), vec![2]));
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

//! Devices that fail slowly, beside the others of their host and of the region.

use nova_groups::{Op, Paces, RECOVERED_WINDOWS, SLOW_WINDOWS, plan_paces};
use nova_units::DeviceId;

use crate::kit::{Region, device, secs};

/// Two hosts with two devices each, and one with one.
struct Measured {
    region: Region,
    paces: Paces,
    window: u64,
}

const DEVICES: [u128; 5] = [device(1, 0), device(1, 1), device(2, 0), device(2, 1), device(3, 0)];

impl Measured {
    fn new() -> Self {
        let region = Region::with_devices(&[&[4, 4], &[4, 4], &[4]], 6);
        Self { region, paces: Paces::default(), window: 0 }
    }

    /// Each device ends a window with this median, where it has one; answers which are slow then.
    fn measure(&mut self, medians_ms: [Option<u64>; 5]) -> Vec<u128> {
        self.window += 1;
        let now = secs(100 + 10 * self.window);
        for (device, median_ms) in DEVICES.iter().zip(medians_ms) {
            if let Some(median_ms) = median_ms {
                self.paces.hear(DeviceId(*device), self.window, median_ms * 1000, now);
            }
        }
        // The same window is judged once, however often it is looked at.
        for _ in 0..5 {
            for op in plan_paces(&self.region.groups, &mut self.paces, now) {
                assert!(matches!(op, Op::PaceDevice(_)) && self.region.apply(op).accepted());
            }
        }
        let slow = self.region.groups.devices().filter(|(_, device)| device.slow.is_some());
        slow.map(|(id, _)| id.0).collect()
    }

    fn all(&mut self, medians_ms: [u64; 5]) -> Vec<u128> {
        self.measure(medians_ms.map(Some))
    }
}

#[test]
fn one_slow_device_of_a_host_is_marked_after_a_while_and_cleared_later() {
    let mut it = Measured::new();
    for _ in 0..SLOW_WINDOWS - 1 {
        assert_eq!(it.all([2, 90, 3, 2, 3]), []);
    }
    assert_eq!(it.all([2, 4, 3, 2, 3]), [], "one good window, and it counts anew");
    for _ in 0..SLOW_WINDOWS - 1 {
        it.all([2, 90, 3, 2, 3]);
    }
    assert_eq!(it.all([2, 90, 3, 2, 3]), [device(1, 1)], "and neither its sibling nor its host");
    for _ in 0..RECOVERED_WINDOWS - 1 {
        assert_eq!(it.all([2, 4, 3, 2, 3]), [device(1, 1)]);
    }
    assert_eq!(it.all([20, 80, 20, 20, 20]), [device(1, 1)], "better, and not well");
    for _ in 0..RECOVERED_WINDOWS - 1 {
        it.all([2, 4, 3, 2, 3]);
    }
    assert_eq!(it.all([2, 4, 3, 2, 3]), []);
}

#[test]
fn load_on_all_of_them_and_what_is_fast_enough_mark_nobody() {
    let mut it = Measured::new();
    for _ in 0..2 * SLOW_WINDOWS {
        assert_eq!(it.all([80, 90, 90, 85, 80]), [], "all are slow: that is the load");
        assert_eq!(it.all([1, 20, 1, 1, 1]), [], "fast enough is not slow");
    }
}

#[test]
fn a_host_that_is_slow_as_a_whole_has_slow_devices() {
    let mut it = Measured::new();
    for _ in 0..SLOW_WINDOWS {
        it.all([90, 95, 2, 3, 2]);
    }
    assert!(it.region.groups.is_slow(nova_units::NodeId(1)));
    assert!(!it.region.groups.is_slow(nova_units::NodeId(2)));
}

#[test]
fn a_device_is_not_judged_by_one_other_nor_by_what_is_long_ago() {
    let mut it = Measured::new();
    for _ in 0..2 * SLOW_WINDOWS {
        assert_eq!(it.measure([Some(900), None, Some(2), None, None]), [], "one other is none");
    }
    it.all([2, 2, 2, 2, 2]);
    // The others end no window any more: after half a minute they tell nothing.
    for _ in 0..3 {
        it.measure([Some(2), None, None, None, None]);
    }
    for _ in 0..2 * SLOW_WINDOWS {
        assert_eq!(it.measure([Some(900), None, None, None, None]), []);
    }
}

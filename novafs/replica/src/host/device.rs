//! Whether the device still answers what it was asked.

use std::time::Duration;

use crate::options::STALL;

/// What a device was asked and has not answered.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// Changes of the log and of records: they end in the order of the log.
    changes: Waiting,
    /// Looks at what it holds.
    looks: Waiting,
}

#[derive(Debug, Default)]
struct Waiting {
    under_way: usize,
    /// Since when something is under way and nothing ended.
    since: Option<Duration>,
}

impl Waiting {
    fn begin(&mut self, now: Duration) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Duration) {
        self.under_way -= 1;
        self.since = (self.under_way > 0).then_some(now);
    }

    fn is_stalled(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| now >= since + STALL)
    }
}

impl Device {
    pub(super) fn begin(&mut self, changes: bool, now: Duration) {
        self.kind(changes).begin(now);
    }

    pub(super) fn end(&mut self, changes: bool, now: Duration) {
        self.kind(changes).end(now);
    }

    fn kind(&mut self, changes: bool) -> &mut Waiting {
        if changes { &mut self.changes } else { &mut self.looks }
    }

    /// Whether it has answered nothing for too long although something is under way.
    pub(super) fn hangs(&self, now: Duration) -> bool {
        self.changes.is_stalled(now) || self.looks.is_stalled(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_device_hangs_when_nothing_ends_although_something_is_under_way() {
        let mut device = Device::default();
        assert!(!device.hangs(100 * SECOND), "it was asked nothing");
        device.begin(true, SECOND);
        device.begin(true, 2 * SECOND);
        assert!(!device.hangs(SECOND + STALL - Duration::from_millis(1)));
        assert!(device.hangs(SECOND + STALL));
        device.end(true, 5 * SECOND);
        assert!(!device.hangs(5 * SECOND), "it goes on, if slowly");
        assert!(device.hangs(5 * SECOND + STALL));
        device.end(true, 10 * SECOND);
        assert!(!device.hangs(100 * SECOND), "everything was answered");
    }

    #[test]
    fn what_is_answered_from_memory_does_not_hide_that_nothing_is_written() {
        let mut device = Device::default();
        device.begin(true, SECOND);
        for second in 2..10 {
            device.begin(false, second * SECOND);
            device.end(false, second * SECOND);
        }
        assert!(device.hangs(9 * SECOND));
    }
}

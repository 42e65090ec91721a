//! When a full pass is due, and how pressing collection is.

use std::time::Duration;

use nova_units::{Replicas, Timestamp};
use serde::Deserialize;

/// Spec E.2: from here on space is short: removed files are collected at once, and a full pass does not wait.
pub(crate) const PRESSING_PERCENT: u64 = 80;
/// Spec E.2: from here on an operator must act.
pub(crate) const CRITICAL_PERCENT: u64 = 90;
/// While space is short a full pass begins this long after the last one ended.
const PASS_EVERY_WHEN_PRESSING: Duration = Duration::from_secs(3600);
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A time of the day in UTC, `HH:MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    /// Spec C.4.
    pub(crate) const COLLECTION: Self = Self { minutes: 4 * 60 };

    /// The last time before `now`, or now, that a clock showed it.
    fn last_before(self, now: Timestamp) -> Timestamp {
        let of_day = u64::from(self.minutes) * 60_000;
        let today = now.0 - now.0 % DAY_MS + of_day;
        Timestamp(if today <= now.0 { today } else { today.saturating_sub(DAY_MS) })
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time of the day like \"04:00\"");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |digits: &str, end: u16| {
            let known = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|number| known && *number < end).ok_or_else(wrong)
        };
        Ok(Self { minutes: number(hours, 24)? * 60 + number(minutes, 60)? })
    }
}

/// How full the fullest device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Up to 80 %.
    None,
    /// Above 80 %.
    Pressing,
    /// Above 90 %.
    Critical,
}

impl Pressure {
    /// Of a device with `free` of `total` bytes left. Unknown sizes are no pressure.
    pub(crate) fn of(total: u64, free: u64) -> Self {
        match used_percent(total, free) {
            Some(percent) if percent > CRITICAL_PERCENT => Self::Critical,
            Some(percent) if percent > PRESSING_PERCENT => Self::Pressing,
            _ => Self::None,
        }
    }
}

/// How full a device is, rounded up; `None` when its size is not known.
pub(crate) fn used_percent(total: u64, free: u64) -> Option<u64> {
    let used = total.saturating_sub(free);
    u64::try_from((u128::from(used) * 100).div_ceil(u128::from(total.max(1)))).ok().filter(|_| total > 0)
}

/// Stored bytes of the trash that go early so that no device is critically full. What a device is too full by is a part
/// of what goes only: every byte is on as many devices of all as it has copies, which are `replicas` at least.
pub(super) fn purge_bytes(devices: &[(u64, u64)], replicas: Replicas) -> u64 {
    let excess = |(total, free): &(u64, u64)| {
        let allowed = u128::from(*total) * u128::from(CRITICAL_PERCENT) / 100;
        u128::from(total.saturating_sub(*free)).saturating_sub(allowed)
    };
    let worst = devices.iter().map(excess).max().unwrap_or(0);
    let share = u128::try_from(devices.len().max(replicas.count())).unwrap_or(u128::MAX);
    u64::try_from((worst * share).div_ceil(replicas.get().into())).unwrap_or(u64::MAX)
}

/// Whether a full pass is due: the hour has come since the last one, there never was one, or space is short.
pub(super) fn pass_is_due(at: TimeOfDay, last: Timestamp, now: Timestamp, pressure: Pressure) -> bool {
    let since_last = Duration::from_millis(now.0.saturating_sub(last.0));
    last.0 == 0
        || last < at.last_before(now)
        || (pressure >= Pressure::Pressing && since_last >= PASS_EVERY_WHEN_PRESSING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_full_pass_is_due_once_after_each_four_in_the_morning() {
        let four = TimeOfDay::COLLECTION;
        let day = |days: u64, hour: u64| Timestamp(days * DAY_MS + hour * HOUR);
        let due = |last, now| pass_is_due(four, last, now, Pressure::None);
        assert!(due(Timestamp(0), day(100, 1)), "there never was one");
        assert!(!due(day(99, 5), day(100, 3)));
        assert!(due(day(99, 5), day(100, 4)));
        assert!(!due(Timestamp(day(100, 4).0 + 1), day(100, 23)));
        assert!(due(day(99, 3), day(100, 3)), "the one of yesterday was missed");
        let midnight = TimeOfDay::try_from("00:00".to_owned()).unwrap();
        assert!(pass_is_due(midnight, day(99, 23), day(100, 0), Pressure::None));
    }

    #[test]
    fn above_eighty_percent_it_is_due_at_once_and_then_every_hour() {
        assert_eq!(Pressure::of(100, 20), Pressure::None);
        assert_eq!(Pressure::of(1000, 199), Pressure::Pressing);
        assert_eq!(Pressure::of(100, 10), Pressure::Pressing);
        assert_eq!(Pressure::of(1000, 99), Pressure::Critical);
        assert_eq!(Pressure::of(0, 0), Pressure::None);
        let (four, last) = (TimeOfDay::COLLECTION, Timestamp(100 * DAY_MS + 5 * HOUR));
        let due = |after, pressure| pass_is_due(four, last, Timestamp(last.0 + after), pressure);
        assert!(!due(HOUR, Pressure::None));
        assert!(!due(HOUR - 1, Pressure::Critical));
        assert!(due(HOUR, Pressure::Pressing));
    }

    #[test]
    fn trash_goes_early_for_what_the_fullest_device_is_above_ninety_percent() {
        let purge = |devices: &[(u64, u64)]| purge_bytes(devices, Replicas::DEFAULT);
        assert_eq!(purge(&[]), 0);
        assert_eq!(purge(&[(1000, 100), (1000, 500), (1000, 1000)]), 0);
        assert_eq!(purge(&[(1000, 60), (1000, 500), (1000, 1000)]), 40);
        // A sixth host: half of what goes is on the full one, and a third of it in groups of two.
        let six = [(1000, 60), (1000, 90), (0, 0), (10, 10), (10, 10), (10, 10)];
        assert_eq!((purge(&six), purge_bytes(&six, Replicas::MIN)), (80, 120));
    }

    #[test]
    fn a_time_of_the_day_has_two_digits_twice() {
        let read = |text: &str| TimeOfDay::try_from(text.to_owned());
        assert_eq!(read("04:00"), Ok(TimeOfDay::COLLECTION));
        assert_eq!(read("23:59"), Ok(TimeOfDay { minutes: 1439 }));
        for wrong in ["4:00", "24:00", "04:60", "0400", "+4:00", "", "04:00:00"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

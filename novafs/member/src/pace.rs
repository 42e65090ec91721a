//! How long this device takes to make entries durable, so that one that fails slowly is noticed.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Entries are measured in windows of this length...
const WINDOW: Duration = Duration::from_secs(10);
/// ...but one with fewer entries goes on: the slower a device, the fewer entries end on it...
const SAMPLES_MIN: u64 = 20;
/// ...until it is this long. Then it says nothing: who writes that little does not notice.
const WINDOW_MAX: Duration = Duration::from_secs(30);
/// Longest time that is told apart, in microseconds: a member that takes longer is reported as silent.
const MICROS_MAX: u64 = 60_000_000;
/// Significant digits of what is measured.
const DIGITS: u8 = 2;

/// What the last full window with enough entries showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Counts the windows; 0 before the first.
    pub window: u64,
    /// Entries in it.
    pub entries: u64,
    /// Half of them were durable within this time, in microseconds.
    pub median_us: u64,
    /// All but one in a hundred were, in microseconds.
    pub p99_us: u64,
}

/// The window under way, and the last one.
#[derive(Debug)]
pub(crate) struct Windows {
    times: Histogram<u64>,
    begun: Duration,
    last: Pace,
}

impl Windows {
    pub(crate) fn new(now: Duration) -> Self {
        let times = Histogram::new_with_max(MICROS_MAX, DIGITS).expect("the bounds are valid");
        Self { times, begun: now, last: Pace::default() }
    }

    /// An entry was durable at `now`, `took` after it was given to the store.
    pub(crate) fn record(&mut self, now: Duration, took: Duration) {
        self.turn(now);
        let micros = u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX);
        self.times.saturating_record(micros.clamp(1, MICROS_MAX));
    }

    /// The last full window with enough entries.
    pub(crate) fn pace(&mut self, now: Duration) -> Pace {
        self.turn(now);
        self.last
    }

    fn turn(&mut self, now: Duration) {
        let enough = self.times.len() >= SAMPLES_MIN;
        if now < self.begun + if enough { WINDOW } else { WINDOW_MAX } {
            return;
        }
        if enough {
            self.last = Pace {
                window: self.last.window + 1,
                entries: self.times.len(),
                median_us: self.times.value_at_quantile(0.5),
                p99_us: self.times.value_at_quantile(0.99),
            };
        }
        self.times.reset();
        self.begun = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_shows_its_quantiles_when_it_is_over() {
        let mut windows = Windows::new(Duration::ZERO);
        for index in 0..100 {
            let took = if index < 98 { Duration::from_millis(2) } else { Duration::from_millis(900) };
            windows.record(5 * SECOND, took);
        }
        assert_eq!(windows.pace(9 * SECOND), Pace::default(), "it is not over");
        let pace = windows.pace(10 * SECOND);
        assert_eq!((pace.window, pace.entries), (1, 100));
        assert!((1_980..=2_020).contains(&pace.median_us) && pace.p99_us > 800_000, "{pace:?}");
    }

    #[test]
    fn a_thin_window_goes_on_until_it_has_enough() {
        let mut windows = Windows::new(Duration::ZERO);
        for _ in 0..SAMPLES_MIN - 1 {
            windows.record(SECOND, 3 * SECOND);
        }
        assert_eq!(windows.pace(11 * SECOND), Pace::default(), "too few to say anything");
        windows.record(12 * SECOND, 3 * SECOND);
        let pace = windows.pace(12 * SECOND);
        assert_eq!((pace.window, pace.entries), (1, SAMPLES_MIN));
        assert!(pace.median_us > 2_900_000, "{pace:?}");
        windows.record(13 * SECOND, SECOND);
        assert_eq!(windows.pace(23 * SECOND), pace, "the next one began when this one ended");
    }

    #[test]
    fn a_window_that_stays_thin_says_nothing() {
        let mut windows = Windows::new(Duration::ZERO);
        for _ in 0..SAMPLES_MIN - 1 {
            windows.record(SECOND, 3 * SECOND);
        }
        windows.record(WINDOW_MAX, 3 * SECOND);
        assert_eq!(windows.pace(WINDOW_MAX + WINDOW), Pace::default());
    }
}

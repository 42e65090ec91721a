//! How long this device takes to make entries durable, so that one that fails slowly is noticed.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Entries are measured in windows of this length.
const WINDOW: Duration = Duration::from_secs(10);
/// A window with fewer entries says nothing.
const SAMPLES_MIN: u64 = 20;
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
    ends: Duration,
    last: Pace,
}

impl Windows {
    pub(crate) fn new(now: Duration) -> Self {
        let times = Histogram::new_with_max(MICROS_MAX, DIGITS).expect("the bounds are valid");
        Self { times, ends: now + WINDOW, last: Pace::default() }
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
        if now < self.ends {
            return;
        }
        if self.times.len() >= SAMPLES_MIN {
            self.last = Pace {
                window: self.last.window + 1,
                entries: self.times.len(),
                median_us: self.times.value_at_quantile(0.5),
                p99_us: self.times.value_at_quantile(0.99),
            };
        }
        self.times.reset();
        self.ends = now + WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shows_its_quantiles_and_a_thin_one_nothing() {
        let second = Duration::from_secs;
        let mut windows = Windows::new(second(0));
        for index in 0..100 {
            let took = if index < 98 { Duration::from_millis(2) } else { Duration::from_millis(900) };
            windows.record(second(5), took);
        }
        assert_eq!(windows.pace(second(9)), Pace::default(), "it is not over");
        let pace = windows.pace(second(10));
        assert_eq!((pace.window, pace.entries), (1, 100));
        assert!((1_980..=2_020).contains(&pace.median_us) && pace.p99_us > 800_000, "{pace:?}");
        for _ in 0..SAMPLES_MIN - 1 {
            windows.record(second(11), second(3));
        }
        assert_eq!(windows.pace(second(20)), pace, "too few to say anything");
        for _ in 0..SAMPLES_MIN {
            windows.record(second(21), second(3));
        }
        assert_eq!(windows.pace(second(30)).window, 2);
    }
}

//! A rate that is not passed.

use core::time::Duration;

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Says how long to wait before bytes may go. Time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// When all that was let through will have gone at the rate.
    gone_at: Duration,
}

impl Bucket {
    /// Lets `bytes_per_second` through; everything at once when that is 0.
    #[must_use]
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, gone_at: Duration::ZERO }
    }

    /// `bytes` are to go at `now`: how long they have to wait.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let begin = self.gone_at.max(now.saturating_sub(BURST));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.gone_at = begin.saturating_add(lasts);
        begin.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_time_and_a_pause_saves_a_burst_only() {
        let mut bucket = Bucket::new(1000);
        let mut now = Duration::from_secs(50);
        let begun = now;
        for _ in 0..100 {
            now += bucket.take(now, 100);
        }
        let lasted = now - begun;
        assert!((Duration::from_millis(9700)..=Duration::from_millis(9900)).contains(&lasted), "{lasted:?}");
        now += Duration::from_secs(1000);
        assert_eq!([bucket.take(now, 100), bucket.take(now, 100)], [Duration::ZERO; 2]);
        assert_eq!(bucket.take(now, 100), Duration::from_millis(100));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Bucket::new(0).take(Duration::ZERO, u64::MAX), Duration::ZERO);
    }
}

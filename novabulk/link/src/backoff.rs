//! How long to leave a peer alone after a dial failed.

use core::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(50);
/// After many.
const LAST: Duration = Duration::from_secs(5);

/// Doubles with every failure; half of the wait is drawn by lot, so that hosts do not dial in step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Duration>,
}

impl Backoff {
    /// A dial failed at `now`; `random` is any number.
    pub(crate) fn fail(&mut self, now: Duration, random: u64) {
        let full = FIRST.saturating_mul(1 << self.failures.min(7)).min(LAST);
        let half = full / 2;
        let lot = half.as_micros().max(1);
        let drawn = u64::try_from(u128::from(random) % lot).expect("below a few seconds of microseconds");
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + half + Duration::from_micros(drawn));
    }

    /// A dial succeeded, or the peer moved.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// What is left to wait, if anything.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        self.until.and_then(|until| until.checked_sub(now)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_and_differ() {
        let now = Duration::from_secs(9);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(now), None);
        let mut full = FIRST;
        for random in [0, u64::MAX, 12_345, 7, 99, 3, 1, 0, 5] {
            backoff.fail(now, random);
            let wait = backoff.wait(now).unwrap();
            assert!(full / 2 <= wait && wait <= full, "{wait:?} of {full:?}");
            full = (full * 2).min(LAST);
        }
        assert_eq!(backoff.wait(now + LAST), None);
        backoff.reset();
        assert_eq!(backoff.wait(now), None);
    }
}

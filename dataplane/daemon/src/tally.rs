//! What shards and devices count, and how the counts of many become those of the host.

use std::collections::BTreeMap;

use nova_ring::{Counter, Counters};

/// Values by counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<Counter, u64>);

/// How two values of one counter become one.
enum Joining {
    Sum,
    /// The slowest of all paces, the longest of all waits.
    Greatest,
    /// The one that runs longest, if any runs; 0 is none.
    OldestRunning,
    /// Since when all is done; 0 when something never was.
    Oldest,
}

const fn joining(counter: Counter) -> Joining {
    match counter {
        Counter::PaceWindow
        | Counter::PaceEntries
        | Counter::PaceMedianUs
        | Counter::PaceP99Us
        | Counter::GroupStallMsMax => Joining::Greatest,
        Counter::ScrubBeganMs => Joining::OldestRunning,
        Counter::ScrubLastBeganMs | Counter::ScrubLastEndedMs => Joining::Oldest,
        _ => Joining::Sum,
    }
}

impl Tally {
    /// Adds one value to what is known of its counter.
    pub(crate) fn add(&mut self, counter: Counter, value: u64) {
        let known = self.0.get(&counter).copied();
        let joined = known.map_or(value, |known| match joining(counter) {
            Joining::Sum => known.saturating_add(value),
            Joining::Greatest => known.max(value),
            Joining::OldestRunning => [known, value].into_iter().filter(|ms| *ms != 0).min().unwrap_or(0),
            Joining::Oldest => known.min(value),
        });
        self.0.insert(counter, joined);
    }

    /// Adds all of `other`.
    pub(crate) fn join(&mut self, other: &Self) {
        for (counter, value) in &other.0 {
            self.add(*counter, *value);
        }
    }

    /// Adds of `other` what is summed: what a device did that is no longer here was done all the same.
    pub(crate) fn join_sums(&mut self, other: &Self) {
        for (counter, value) in &other.0 {
            if matches!(joining(*counter), Joining::Sum) {
                self.add(*counter, *value);
            }
        }
    }

    /// Writes what is known to where the agent reads it.
    pub(crate) fn write(&self, counters: &Counters) {
        for (counter, value) in &self.0 {
            counters.set(*counter, *value);
        }
    }

    #[cfg(test)]
    fn of(values: &[(Counter, u64)]) -> Self {
        Self(values.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_paces_are_the_slowest_and_times_the_oldest() {
        let mut all = Tally::default();
        for shard in [
            Tally::of(&[
                (Counter::Commits, 3),
                (Counter::PaceP99Us, 900),
                (Counter::ScrubBeganMs, 0),
                (Counter::ScrubLastEndedMs, 70),
            ]),
            Tally::of(&[
                (Counter::Commits, 4),
                (Counter::PaceP99Us, 200),
                (Counter::ScrubBeganMs, 50),
                (Counter::ScrubLastEndedMs, 60),
            ]),
            // A shard without devices knows nothing of scrubs, and so takes nothing from those that do.
            Tally::of(&[(Counter::FramesSent, 1)]),
        ] {
            all.join(&shard);
        }
        let wanted = [
            (Counter::FramesSent, 1),
            (Counter::Commits, 7),
            (Counter::ScrubBeganMs, 50),
            (Counter::ScrubLastEndedMs, 60),
            (Counter::PaceP99Us, 900),
        ];
        assert_eq!(all, Tally::of(&wanted));
        all.join(&Tally::of(&[(Counter::ScrubLastEndedMs, 0)]));
        assert_eq!(all.0[&Counter::ScrubLastEndedMs], 0, "one that was never verified");
        let mut left = Tally::default();
        left.join_sums(&all);
        assert_eq!(left, Tally::of(&[(Counter::FramesSent, 1), (Counter::Commits, 7)]));
    }
}

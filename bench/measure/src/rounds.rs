//! What is made of the same work in several rounds.

use std::time::Duration;

/// The middle of the rounds; of an even number, the upper one of both. Not a number when there are none.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A count of one run as a number to compute with.
#[expect(clippy::cast_precision_loss, reason = "counts of one run, for people")]
#[must_use]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// `count` a second of `time`.
#[must_use]
pub fn per(count: u64, time: Duration) -> f64 {
    real(count) / time.as_secs_f64().max(1e-9)
}

/// Which part of `whole` `part` is.
#[must_use]
pub fn share_of(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}

/// Whose turn it is in a round of `count`, first to last: each begins a round in its turn, so that what is left over of the
/// one before hits all alike.
pub fn turns(round: u32, count: usize) -> impl Iterator<Item = usize> {
    let first = usize::try_from(round).unwrap_or_default();
    (0..count).map(move |turn| (turn + first) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_round() {
        assert!((median([9.0, 1.0, 5.0].into_iter()) - 5.0).abs() < 1e-9);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn each_begins_a_round_in_its_turn_and_none_is_left_out() {
        assert_eq!(turns(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(turns(4, 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(turns(1, 0).count(), 0);
    }
}

//! A long line that loses packets, in user space: what goes into one end comes out of the other later, or not at all.
//!
//! Pure: the time is an argument, and losses come from a seed. [`tun`] moves the packets.

pub(crate) mod tun;

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

/// A router before the line holds what the line carries in this time, and drops what comes beyond.
const QUEUE_TIME: Duration = Duration::from_millis(50);
/// Packets under way, whatever their size.
const PACKETS_MAX: usize = 1 << 18;

/// What a line is like in each direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) bits_per_second: u64,
    /// From one end to the other.
    pub(crate) delay: Duration,
    /// Which part of the packets is lost, from 0 to 1.
    pub(crate) loss: f64,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    /// Lost on the line, as asked for.
    pub(crate) lost: u64,
    /// Dropped before the line, which was full.
    pub(crate) overflowed: u64,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Way {
    shape: Shape,
    rng: Rng,
    /// When the last packet is on the line as a whole.
    free_at: Duration,
    /// In the order in which they come out.
    under_way: VecDeque<(Duration, Vec<u8>)>,
    counts: Counts,
}

impl Way {
    /// An empty one.
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            rng: Rng::with_seed(seed),
            free_at: Duration::ZERO,
            under_way: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Puts a packet in. One that finds the queue full is dropped; one that is lost has taken its time on the line.
    pub(crate) fn push(&mut self, now: Duration, packet: Vec<u8>) {
        let begin = self.free_at.max(now);
        if begin - now > QUEUE_TIME || self.under_way.len() == PACKETS_MAX {
            self.counts.overflowed += 1;
            return;
        }
        let nanos =
            u128::from(packet.len() as u64) * 8_000_000_000 / u128::from(self.shape.bits_per_second.max(1));
        self.free_at = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if self.rng.f64() < self.shape.loss {
            self.counts.lost += 1;
            return;
        }
        self.under_way.push_back((self.free_at + self.shape.delay, packet));
    }

    /// The next packet that has arrived by `now`.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_at()? > now {
            return None;
        }
        self.counts.delivered += 1;
        self.under_way.pop_front().map(|(_, packet)| packet)
    }

    /// When the next packet arrives.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.under_way.front().map(|&(at, _)| at)
    }

    /// What became of all that was put in.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn way(bits_per_second: u64, loss: f64) -> Way {
        Way::new(Shape { bits_per_second, delay: MILLI * 40, loss }, 7)
    }

    #[test]
    fn a_packet_comes_out_after_its_time_on_the_line_and_the_delay_and_not_before() {
        // 1,250 bytes are 1 ms at 10 Mbit/s.
        let mut way = way(10_000_000, 0.0);
        way.push(MILLI * 5, vec![1; 1250]);
        way.push(MILLI * 5, vec![2; 2500]);
        assert_eq!(way.next_at(), Some(MILLI * 46));
        assert_eq!(way.pop(MILLI * 46 - Duration::from_nanos(1)), None);
        assert_eq!(way.pop(MILLI * 46), Some(vec![1; 1250]));
        assert_eq!(way.next_at(), Some(MILLI * 48));
        assert_eq!(way.pop(MILLI * 100), Some(vec![2; 2500]));
        // It has been idle since.
        way.push(MILLI * 200, vec![3; 1250]);
        assert_eq!(way.next_at(), Some(MILLI * 241));
        assert_eq!((way.pop(MILLI * 240), way.counts().delivered), (None, 2));
    }

    #[test]
    fn as_many_packets_are_lost_as_was_asked_for() {
        for loss in [0.0, 0.000_1, 0.001, 0.01] {
            let (mut way, count) = (way(1_000_000_000_000, loss), 1_000_000_u32);
            for number in 0..count {
                let now = Duration::from_micros(number.into());
                way.push(now, vec![0; 1500]);
                while way.pop(now).is_some() {}
            }
            while way.pop(Duration::MAX).is_some() {}
            let counts = way.counts();
            assert_eq!((counts.overflowed, counts.delivered + counts.lost), (0, count.into()));
            let (lost, asked) = (counts.lost as f64, loss * f64::from(count));
            // Four deviations of a binomial distribution.
            assert!((lost - asked).abs() <= 4.0 * asked.sqrt(), "{lost} of {count} at {loss}");
        }
    }

    #[test]
    fn a_sender_that_does_not_slow_down_fills_the_queue_and_no_more() {
        let (mut way, rate) = (way(100_000_000, 0.0), 100_000_000);
        // Ten times what the line carries, for a second.
        for step in 0..1000 {
            let now = MILLI * step;
            (0..83).for_each(|_| way.push(now, vec![0; 1506]));
            while way.pop(now).is_some() {}
            let bytes = way.under_way.iter().map(|(_, packet)| packet.len() as u64).sum::<u64>();
            let most = rate / 8 * (50 + 40) / 1000 + 2 * 1506;
            assert!(bytes <= most, "{bytes} bytes under way, {most} at most");
        }
        let counts = way.counts();
        let carried = counts.delivered * 1506 * 8;
        assert!((90_000_000..=100_000_000).contains(&carried), "{carried} bits came out");
        assert!(counts.overflowed > 70_000, "{counts:?}");
    }

    #[test]
    fn the_number_of_packets_has_a_limit_of_its_own() {
        let mut way = way(u64::MAX, 0.0);
        (0..PACKETS_MAX + 10).for_each(|_| way.push(MILLI, vec![0]));
        assert_eq!((way.under_way.len(), way.counts().overflowed), (PACKETS_MAX, 10));
    }
}

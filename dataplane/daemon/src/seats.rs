//! Which shard is home to a program that attaches: the one that serves programs and has the fewest.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The programs of every shard.
#[derive(Debug)]
pub(crate) struct Seats(Vec<Seat>);

#[derive(Debug, Default)]
struct Seat {
    /// True while the shard can serve programs.
    open: AtomicBool,
    taken: AtomicUsize,
}

impl Seats {
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Seat::default()).collect())
    }

    /// A shard serves programs from now on, or no more.
    pub(crate) fn set_open(&self, shard: usize, open: bool) {
        self.0[shard].open.store(open, Ordering::Release);
    }

    /// Whether a shard serves programs.
    pub(crate) fn are_open(&self) -> bool {
        self.0.iter().any(Seat::is_open)
    }

    /// The shard that a program goes to. Two that come at the same moment may get the same one.
    pub(crate) fn take(&self) -> Option<usize> {
        let open = self.0.iter().enumerate().filter(|(_, seat)| seat.is_open());
        let (shard, seat) = open.min_by_key(|(_, seat)| seat.taken.load(Ordering::Acquire))?;
        seat.taken.fetch_add(1, Ordering::AcqRel);
        Some(shard)
    }

    /// A program left its shard.
    pub(crate) fn give_back(&self, shard: usize) {
        self.0[shard].taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seat {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_to_the_open_shard_with_the_fewest() {
        let seats = Seats::new(3);
        assert!(!seats.are_open());
        assert_eq!(seats.take(), None);
        seats.set_open(0, true);
        seats.set_open(2, true);
        assert!(seats.are_open());
        assert_eq!([seats.take(), seats.take(), seats.take()], [Some(0), Some(2), Some(0)]);
        seats.give_back(0);
        seats.give_back(0);
        assert_eq!(seats.take(), Some(0));
        seats.set_open(0, false);
        assert_eq!(seats.take(), Some(2));
    }
}

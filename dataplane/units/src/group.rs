//! The counters of replication: what orders writes, members and devices.

use core::fmt;

/// Declares a counter that only grows.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The counter one higher.
            ///
            /// # Panics
            /// At the end of its range, which no cluster reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(next) => Self(next),
                    None => panic!("counter exhausted"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

counter! {
    /// A configuration of a replica group; raised by every change of members. 0 is none.
    Epoch(u64), "e"
}
counter! {
    /// A place in a group's log, dense from 1; it goes on counting over epochs. 0 is before the first entry.
    Seq(u64), "#"
}
counter! {
    /// A writer session's turn on a block; a lower one is refused once a higher one was fenced in.
    Generation(u32), "gen"
}
counter! {
    /// A device's life as a member; a lost, replaced or rolled-back device comes back as a new one, empty.
    Incarnation(u64), "inc"
}

/// Where an entry stands in its group's log: the epoch that ordered it, and its number.
///
/// Ordered by epoch, then number: of two tails the one with the higher last point is the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitPoint {
    /// Epoch of the primary that gave the number.
    pub epoch: Epoch,
    /// Number in the group's log.
    pub seq: Seq,
}

impl fmt::Display for CommitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.epoch, self.seq)
    }
}

//! Who goes first.

use core::fmt;

/// Priority of jobs, transfers and requests (Spec 1.3, B.3): P0 is highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Critical production; not limited in bandwidth.
    P0 = 0,
    /// 40 % of available bandwidth.
    P1 = 1,
    /// 25 %.
    P2 = 2,
    /// 15 %.
    P3 = 3,
    /// 10 %.
    P4 = 4,
}

impl Priority {
    /// Every priority, highest first.
    pub const ALL: [Self; 5] = [Self::P0, Self::P1, Self::P2, Self::P3, Self::P4];

    /// The priority with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::P0),
            1 => Some(Self::P1),
            2 => Some(Self::P2),
            3 => Some(Self::P3),
            4 => Some(Self::P4),
            _ => None,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", *self as u8)
    }
}

/// What a disk request is for; a shard keeps one queue for each ahead of the submission queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IoClass {
    /// The log: someone waits for its durability. Slots are reserved for it.
    Wal = 0,
    /// Reads and cell writes of clients.
    Client = 1,
    /// Copies that restore redundancy.
    Repair = 2,
    /// Checkpoints, compaction, tiering.
    Background = 3,
    /// Scrub.
    Scrub = 4,
}

/// What a task of a shard is for; each has its own task queue with a share of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TaskClass {
    /// The ring driver, pings, commands of the control plane: short and urgent.
    Control = 0,
    /// Group commit of the log.
    Wal = 1,
    /// Connections and requests of clients.
    Client = 2,
    /// Back-fill and read repair.
    Repair = 3,
    /// Checkpoints, scrub, collection.
    Background = 4,
}

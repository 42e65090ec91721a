//! Names of things: small, `Copy`, ordered, and never mixed up.

use core::fmt;
use core::net::SocketAddr;

/// Declares an id that is a plain number with a prefix in its text form.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id! {
    /// A host of the cluster, for as long as the cluster lives; never used again for another host.
    NodeId(u64), "n"
}
id! {
    /// One start of a process on a host: 64 random bits made when it starts.
    BootId(u64), "boot-"
}
id! {
    /// A replica group (design: NovaFS protocol, section 3).
    GroupId(u32), "g"
}
id! {
    /// A file, directory or link in the namespace. 0 is no inode, 1 is the root.
    InodeId(u64), "i"
}
id! {
    /// A writer session: what may write a file, and is fenced when it ends.
    SessionId(u64), "s"
}
id! {
    /// Which of a shard's disks, counted from 0.
    DiskIndex(u16), "disk"
}
id! {
    /// Which unit of a block, counted from 0; at most 32,768 units of 4 KiB fit a block.
    UnitIndex(u16), "u"
}

/// A block: a logical range of one file of at most 128 MiB (Spec C.1).
///
/// The upper 16 bits are the era, raised when metadata is restored from a backup or a region is promoted, so that
/// block numbers given out twice still differ. The lower 48 bits count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

impl BlockId {
    /// Largest counter within one era.
    pub const COUNTER_MAX: u64 = (1 << 48) - 1;

    /// Joins era and counter.
    ///
    /// # Panics
    /// When `counter` is over [`BlockId::COUNTER_MAX`].
    #[must_use]
    pub const fn new(era: u16, counter: u64) -> Self {
        assert!(counter <= Self::COUNTER_MAX, "block counter past 48 bits");
        Self(((era as u64) << 48) | counter)
    }

    /// The era in which the block was made.
    #[must_use]
    pub const fn era(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The block's number within its era.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{}", self.era(), self.counter())
    }
}

/// A device: 128 random bits written into its superblock when it is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u128);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{:032x}", self.0)
    }
}

/// Where a peer's shard listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_id_keeps_era_and_counter_apart() {
        let id = BlockId::new(7, BlockId::COUNTER_MAX);
        assert_eq!((id.era(), id.counter()), (7, BlockId::COUNTER_MAX));
        assert_eq!(id.to_string(), "b7.281474976710655");
        assert!(
            BlockId::new(1, 0) > BlockId::new(0, BlockId::COUNTER_MAX),
            "a later era sorts after an earlier one"
        );
    }
}

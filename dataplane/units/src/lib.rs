//! Ids, byte counts, priorities and the constants of the specification.
//!
//! Every other crate speaks in these types, so that a group is never taken for a block, nor an offset (in a
//! block) for a position (on a device). The crate depends on nothing and does nothing.
#![forbid(unsafe_code)]

mod class;
mod group;
mod id;
mod mount_trail;
mod page_sum;
mod replicas;
mod size;
mod time;

pub use class::{IoClass, Priority, TaskClass};
pub use group::{CommitPoint, Epoch, Generation, Incarnation, Seq};
pub use id::{
    BlockId, BootId, DeviceId, DiskIndex, GroupId, InodeId, NodeId, PeerAddr, SessionId, UnitIndex,
};
pub use mount_trail::{MOUNT_TRAIL_MAX, MountNonce, MountTrail};
pub use page_sum::PageSum;
pub use replicas::Replicas;
pub use size::{
    BLOCK_BYTES_MAX, CREDIT_BYTES, FRAME_PAYLOAD_BYTES_MAX, GIB, KIB, MIB, PAGE_BYTES, SEGMENT_BYTES,
    UNIT_LOG2_DEFAULT, UNIT_LOG2_MAX, UNIT_LOG2_MIN,
};
pub use time::Timestamp;

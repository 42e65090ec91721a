//! One device's blocks: WAL, cells, tree, checkpoints, recovery.
//!
//! Bodies of units go straight to **cells**, once, and the **log** refers to them; small ones ride in the log and are moved
//! later. Committed changes wait in memory, over the copy-on-write **tree** on the device, until a checkpoint merges them
//! into it. The layout is in
//! docs/novafs-format.md. Everything is generic over the seams of `nova_device`, and runs on one shard.
#![forbid(unsafe_code)]

mod checkpoint;
mod commit;
mod compact;
mod core;
mod discard;
mod error;
mod held;
mod inline;
mod options;
mod overlay;
mod pages;
mod pins;
mod read;
mod recover;
mod ring;
mod scrub;
mod slots;
mod state;
mod store;
mod tree;

pub use crate::core::Counters;
pub use compact::Compacted;
pub use error::{ReadError, StoreError};
pub use held::{Held, HeldPage};
pub use options::{
    DEVICE_BYTES_MIN, FormatOptions, INLINE_UNIT_BYTES_MAX, OpenOptions, SLOT_LOG2_MAX, WAL_BYTES_MIN,
};
pub use read::{Found, Run};
pub use recover::Suspect;
pub use scrub::{Listing, Verified};
pub use slots::Reservation;
pub use store::{GroupState, Looked, Opened, Store, Usage};

//! Buffers that a disk or a NIC may fill: an arena per shard, lent in classes.
//!
//! A shard takes all of its payload memory when it starts ([`Pool::new`]) and lends it in four sizes. A lent
//! [`DmaBuf`] has one owner at a time; while a device works on it, that owner is the operation in flight, never
//! a future, so that a dropped future cannot free memory the kernel still writes to. [`SharedBuf`] is the frozen
//! form, for one payload that goes to a disk and to two replicas at once.
#![allow(unsafe_code, reason = "this crate owns the mapped arena and hands out disjoint slices of it")]

mod arena;
mod dma_buf;
mod layout;
mod pool;
mod shared_buf;

pub use arena::{Backing, HugePages, Region};
pub use dma_buf::DmaBuf;
pub use layout::{ARENA_STEP_BYTES, CLASS_BYTES, CLASS_COUNT, TAKE_BYTES_MAX, class_counts};
pub use pool::{BufError, ClassCounters, Exhausted, Pool, PoolOptions};
pub use shared_buf::SharedBuf;

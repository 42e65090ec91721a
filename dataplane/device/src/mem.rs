//! Hosts in memory: a seeded single-threaded executor with virtual time, disks that lose power, networks that part.
//!
//! One [`World`] hosts any number of simulated hosts. Everything that could differ between two runs (which ready task
//! runs next, latencies, faults, what survives a power cut) comes from the seed of the world, so a failure is
//! reproduced by its seed. Nothing here depends on a feature: crates test with it, and the simulator builds a
//! cluster out of it.
//!
//! ```
//! use nova_device::{Clock, Disk, Durability, Position, Shard, mem::{HostOptions, MemDisk, World}};
//! use nova_units::{DiskIndex, IoClass};
//!
//! let world = World::new(7);
//! let disk = MemDisk::new(&world, 1 << 20);
//! let host = world.add_host(HostOptions { disks: vec![disk], ..HostOptions::default() });
//! let shard = host.clone();
//! world.run(&host, async move {
//!     let page = shard.pool().take(4096).await.freeze();
//!     shard.disk(DiskIndex(0)).write(IoClass::Wal, Position(0), page, Durability::Synced).await.unwrap();
//!     assert!(shard.clock().now() > core::time::Duration::ZERO);
//! });
//! ```

mod chance;
mod disk;
mod faults;
mod image;
mod lane;
mod network;
mod shard;
mod world;

pub use chance::Chance;
pub use disk::{DiskCounters, MemDisk};
pub use faults::{DiskFaults, Latency, NetFaults};
pub use image::{DiskImage, Trace, TraceEvent};
pub use lane::{MemLane, MemListener};
pub use shard::{HostOptions, KillMode, MemClock, MemShard};
pub use world::World;

#[cfg(test)]
mod tests;

//! The shard that a command runs on.

use nova_buf::{HugePages, PoolOptions};
use nova_shard::{RealShard, ShardOptions};

/// Memory for blocks under way of a host: what all connections may hold, what is read, and what is written.
pub(crate) const HOST_BYTES: u64 = 256 << 20;
/// The same of a copy, for each of its streams and for itself. All of it is taken at the start, which a short copy
/// would feel: a GB of it costs 0.4 s.
const STREAM_BYTES: u64 = 16 << 20;
const COPY_BYTES: u64 = 32 << 20;

/// What a copy with so many streams takes.
pub(crate) fn copy_bytes(streams: u8) -> u64 {
    COPY_BYTES + STREAM_BYTES * u64::from(streams)
}

/// Runs `main` on a shard of this process: one thread, not pinned, asleep when there is nothing to do. Takes `bytes` of
/// memory for blocks.
pub(crate) fn run<T>(
    name: &str,
    bytes: u64,
    main: impl AsyncFnOnce(RealShard) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let options = ShardOptions {
        name: name.to_owned(),
        pool: PoolOptions { bytes, huge: HugePages::Never },
        ..ShardOptions::default()
    };
    nova_shard::run(options, main)?
}

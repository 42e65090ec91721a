//! The shard that a command runs on.

use nova_buf::{HugePages, PoolOptions};
use nova_shard::{RealShard, ShardOptions};

/// Memory for blocks under way: what connections may hold, what is read, and what is written.
const ARENA_BYTES: u64 = 256 << 20;

/// Runs `main` on a shard of this process: one thread, not pinned, asleep when there is nothing to do.
pub(crate) fn run<T>(
    name: &str,
    main: impl AsyncFnOnce(RealShard) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let options = ShardOptions {
        name: name.to_owned(),
        pool: PoolOptions { bytes: ARENA_BYTES, huge: HugePages::Never },
        ..ShardOptions::default()
    };
    nova_shard::run(options, main)?
}

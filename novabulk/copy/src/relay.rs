//! A copy between two other hosts: one of them drives it, this one asks how far it is.

use core::net::SocketAddr;
use core::time::Duration;

use nova_device::{Clock as _, Shard as _};
use nova_shard::RealShard;
use novabulk_files::{Fault, Relayed, Reply, Request};

use crate::driver::Job;
use crate::end::End;
use crate::tally::Tally;
use crate::trouble::{CopyError, Trouble};

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Has `source` copy to the host at `address`, and waits until it is done.
///
/// # Errors
/// When the source does not answer, or does not do it. What failed of single entries is in `tally`.
///
/// # Cancel safety
/// Dropped, the source notices after a minute that nobody asks, and ends the copy.
pub async fn relay(
    shard: &RealShard,
    source: &End,
    address: SocketAddr,
    job: &Job,
    tally: &Tally,
) -> Result<(), CopyError> {
    let id = shard.random();
    let sources = job.sources.iter().map(|source| (source.name.clone(), source.content)).collect();
    let begin = Request::Relay {
        id,
        sources,
        address: address.to_string(),
        target: job.target.clone(),
        into: job.into,
        orders: job.orders.clone(),
    };
    let mut answered = source.ask(begin, None).await?;
    loop {
        let Reply::Relayed(relayed) = answered.reply else {
            return Err(source.wrong("it tells nothing of a copy that it drives"));
        };
        take_over(&relayed, tally);
        if relayed.ended {
            return end_of(relayed, tally);
        }
        shard.clock().sleep_until(shard.clock().now() + ASK_EVERY).await;
        answered = source.ask(Request::Relayed { id }, None).await?;
    }
}

fn take_over(relayed: &Relayed, tally: &Tally) {
    tally.count(|counts| {
        counts.entries = relayed.entries;
        counts.files_total = relayed.files_total;
        counts.files = relayed.files;
        counts.bytes_total = relayed.bytes_total;
        counts.bytes = relayed.bytes;
        counts.same = relayed.same;
        counts.removed = relayed.removed;
        counts.skipped = relayed.skipped;
        counts.bytes_resumed = relayed.bytes_resumed;
    });
}

fn end_of(relayed: Relayed, tally: &Tally) -> Result<(), CopyError> {
    let told = relayed.failures.len() as u64;
    for text in relayed.failures {
        tally.fail(text);
    }
    tally.count(|counts| counts.failed += relayed.failed.saturating_sub(told));
    if relayed.failed > 0 && told == 0 {
        return Err(Trouble::new(Fault::Io, "the copy failed, and its driver does not say why").into());
    }
    Ok(())
}

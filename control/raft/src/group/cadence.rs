//! When snapshots are made and the log is shortened.

use std::sync::atomic::Ordering;
use std::time::Instant;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::Timing;
use crate::StateMachine;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::snapshot::SNAPSHOTS_KEPT;
use crate::types::Types;

/// Runs until it is aborted, or the group stops.
pub(super) async fn run<S: StateMachine>(
    raft: Raft<Types, Machine<S>>,
    machine: Machine<S>,
    log: LogStore,
    timing: Timing,
) {
    let mut ticks = tokio::time::interval(timing.tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut bytes_then = 0;
    loop {
        ticks.tick().await;
        log.tick().await;
        let (applied, in_snapshot) = {
            let watched = raft.metrics();
            let metrics = watched.borrow_watched();
            (metrics.last_applied.map(|id| id.index), metrics.snapshot.map(|id| id.index))
        };
        let bytes = log.counters().bytes.load(Ordering::Relaxed);
        let due =
            last.elapsed() >= timing.snapshot_interval || bytes - bytes_then >= timing.snapshot_log_bytes;
        if due && applied > in_snapshot {
            (last, bytes_then) = (Instant::now(), bytes);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let Some(upto) = purgeable(&machine).await else { continue };
        if log.purged().is_none_or(|purged| purged.index < upto)
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

/// The last entry of the oldest snapshot kept: should the newest rot, that one and the log after it serve.
async fn purgeable<S: StateMachine>(machine: &Machine<S>) -> Option<u64> {
    let machine = machine.clone();
    let listed = tokio::task::spawn_blocking(move || machine.snapshots().list()).await.ok()?.ok()?;
    (listed.len() >= SNAPSHOTS_KEPT).then(|| listed.last().map(|(index, _)| *index)).flatten()
}

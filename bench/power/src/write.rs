//! The writer: entries by seed, several at a time, each acknowledged durable and then noted.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use nova_buf::SharedBuf;
use nova_device::sync::join_all;
use nova_device::{Durability, Shard as _};
use nova_shard::RealShard;
use nova_units::{CommitPoint, DeviceId, DiskIndex, Epoch, GroupId, Seq};
use novafs_store::{FormatOptions, OpenOptions, Store};

use crate::history::{History, Step};
use crate::journal::{Journal, Note};

pub(crate) const STORE: DiskIndex = DiskIndex(0);
pub(crate) const JOURNAL: DiskIndex = DiskIndex(1);
pub(crate) const GROUP: GroupId = GroupId(1);
/// Appends on their way at once, at most.
const TOGETHER: u64 = 6;
/// One batch in so many ends with a checkpoint.
const CHECKPOINT_ONE_IN: u8 = 12;

pub(crate) fn at(seq: u64) -> CommitPoint {
    CommitPoint { epoch: Epoch(1), seq: Seq(seq) }
}

pub(crate) async fn body_of(shard: &RealShard, step: &Step) -> Option<SharedBuf> {
    let bytes = step.body.as_ref()?;
    let mut body = shard.pool().take(bytes.len()).await;
    body.copy_from_slice(bytes);
    Some(body.freeze())
}

/// Formats the store and writes `entries` entries, or until the power goes.
pub(crate) async fn run(shard: RealShard, seed: u64, entries: u64) -> anyhow::Result<()> {
    Store::format(&shard, STORE, FormatOptions::new(DeviceId(1))).await.context("format the store")?;
    let store =
        Store::open(shard.clone(), STORE, OpenOptions::default()).await.context("open the store")?.store;
    let mut journal = Journal::new(shard.disk(JOURNAL), shard.pool());
    let mut history = History::new(seed);
    // Not the generator of the history: the check repeats that one alone.
    let mut rng = fastrand::Rng::with_seed(!seed);
    let mut note = Note::default();
    while note.acknowledged.0 < entries {
        if journal.is_full() {
            bail!(
                "the journal is full after {} entries: make it larger, or ask for fewer",
                note.acknowledged.0
            );
        }
        let first = note.acknowledged.0 + 1;
        let last = entries.min(first + rng.u64(..TOGETHER));
        let mut appends = Vec::new();
        for seq in first..=last {
            let step = history.step();
            let (body, store) = (body_of(&shard, &step).await, store.clone());
            appends.push(
                async move { store.append(GROUP, at(seq), &step.entry, body, Durability::Synced).await },
            );
        }
        for outcome in join_all(appends).await {
            outcome.with_context(|| format!("append one of the entries {first} to {last}"))?;
        }
        note.acknowledged = Seq(last);
        store.commit(GROUP, note.acknowledged);
        if rng.u8(..CHECKPOINT_ONE_IN) == 0 {
            store.checkpoint().await.context("checkpoint")?;
            note.committed = note.acknowledged;
        }
        journal.note(note).await.context("note what was acknowledged")?;
        writeln!(std::io::stdout(), "acknowledged {last}")?;
    }
    store.close().await.context("close the store")
}

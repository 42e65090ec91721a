//! What a drive that lost power must still hold, and that it can be worked with.

use anyhow::{Context as _, bail, ensure};
use nova_device::{Durability, Shard as _};
use nova_shard::RealShard;
use nova_units::{IoClass, Seq};
use novafs_store::{OpenOptions, Store, Suspect};

use crate::history::{History, version};
use crate::journal::{Journal, Note};
use crate::write::{GROUP, JOURNAL, STORE, at, body_of};

/// Entries appended to the recovered store.
const APPENDED: u64 = 20;

/// What was found.
pub(crate) struct Found {
    pub(crate) note: Note,
    /// Newest entry of the store.
    pub(crate) newest: Seq,
    /// Units compared byte for byte.
    pub(crate) units: usize,
}

/// Opens the store of a crash image, compares all of it with the history, and goes on writing.
///
/// # Errors
/// When something acknowledged is missing, when anything is there that the history does not have, or when the store
/// cannot be used. `None` when the power went before the format was acknowledged by a first note.
pub(crate) async fn run(shard: RealShard, seed: u64) -> anyhow::Result<Option<Found>> {
    let note = Journal::new(shard.disk(JOURNAL), shard.pool()).last().await.context("read the journal")?;
    if note == Note::default() {
        return Ok(None);
    }
    let opened = Store::open(shard.clone(), STORE, OpenOptions::default()).await.context("open the store")?;
    let store = opened.store;
    for suspect in &opened.suspects {
        match suspect {
            // The write that the power cut short; that nobody was told of it is checked below.
            Suspect::DamagedTail { .. } => {}
            Suspect::DroppedEntry { at, .. } if at.seq > note.acknowledged => {}
            other => bail!("{other:?}: not what a loss of power leaves behind"),
        }
    }
    let group = store.group(GROUP).context("the group is gone")?;
    let newest = group.last.seq;
    ensure!(
        newest >= note.acknowledged,
        "entries up to {} were acknowledged, and the store ends with {newest}",
        note.acknowledged
    );
    ensure!(
        group.commit_seq >= note.committed,
        "a checkpoint had {} committed, and the store says {}",
        note.committed,
        group.commit_seq
    );
    store.commit(GROUP, newest);
    let mut history = History::new(seed);
    for _ in 0..newest.0 {
        history.step();
    }
    compare(&store, &history, seed).await?;
    for seq in newest.0 + 1..=newest.0 + APPENDED {
        let step = history.step();
        let body = body_of(&shard, &step).await;
        store
            .append(GROUP, at(seq), &step.entry, body, Durability::Synced)
            .await
            .with_context(|| format!("append entry {seq} to the recovered store"))?;
        store.commit(GROUP, Seq(seq));
    }
    compare(&store, &history, seed).await.context("after going on")?;
    store.close().await.context("close the store")?;
    let again = Store::open(shard, STORE, OpenOptions::default()).await.context("open the store again")?;
    ensure!(again.suspects.is_empty(), "a store that was closed in order has {:?}", again.suspects);
    compare(&again.store, &history, seed).await.context("after a close and an open")?;
    again.store.close().await.context("close the store again")?;
    Ok(Some(Found { note, newest, units: history.units().len() }))
}

/// Every unit that is or could be there, byte for byte; every deleted block.
async fn compare(store: &Store<RealShard>, history: &History, seed: u64) -> anyhow::Result<()> {
    for (block, unit) in history.names() {
        let found = store
            .read(GROUP, block, unit, IoClass::Client)
            .await
            .with_context(|| format!("read unit {unit} of block {block}"))?;
        match (history.units().get(&(block, unit)), found) {
            (None, None) => {}
            (None, Some(found)) => bail!(
                "unit {unit} of block {block} is there with counter {}, and it was cut off, deleted or never written",
                found.record.sealed.counter
            ),
            (Some((counter, _)), None) => bail!("unit {unit} of block {block}, version {counter}, is lost"),
            (Some((counter, bytes)), Some(found)) => {
                let (sealed, stored) = version(seed, block, unit, *counter, *bytes);
                ensure!(
                    found.record.sealed == sealed && *found.body == *stored,
                    "unit {unit} of block {block} is version {}, and {counter} was the last, or its bytes differ",
                    found.record.sealed.counter
                );
            }
        }
    }
    for block in history.deleted() {
        let deleted = store.block_of(GROUP, *block).is_some_and(|record| record.deleted);
        ensure!(deleted, "block {block} was deleted, and the store does not know");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nova_device::uring::{CreateOptions, create_disk};
    use nova_shard::ShardOptions;

    use super::*;
    use crate::write;

    const SEED: u64 = 7;
    const ENTRIES: u64 = 60;

    fn on_shard<T>(
        folder: &Path,
        work: impl AsyncFnOnce(RealShard) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let disks = vec![folder.join("store"), folder.join("journal")];
        nova_shard::run(ShardOptions { disks, ..ShardOptions::default() }, work).unwrap()
    }

    fn written() -> tempfile::TempDir {
        // Beside the program: there are file systems for temporary files that take no direct I/O.
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        for (name, mib) in [("store", 96), ("journal", 1)] {
            create_disk(&folder.path().join(name), CreateOptions { bytes: mib << 20 }, |_| {}).unwrap();
        }
        on_shard(folder.path(), async |shard| write::run(shard, SEED, ENTRIES).await).unwrap();
        folder
    }

    #[test]
    fn what_was_written_is_found_right_and_goes_on() {
        let folder = written();
        let found = on_shard(folder.path(), async |shard| run(shard, SEED).await).unwrap().unwrap();
        assert_eq!((found.note.acknowledged, found.newest), (Seq(ENTRIES), Seq(ENTRIES)));
        assert!(found.units > 20, "{}", found.units);
    }

    #[test]
    fn an_acknowledged_entry_that_is_missing_and_another_history_are_wrong() {
        let folder = written();
        // A journal of its own in the place of the one that was written.
        create_disk(&folder.path().join("claims"), CreateOptions { bytes: 1 << 20 }, |_| {}).unwrap();
        std::fs::rename(folder.path().join("claims"), folder.path().join("journal")).unwrap();
        let said = on_shard(folder.path(), async |shard| {
            let mut journal = Journal::new(shard.disk(JOURNAL), shard.pool());
            journal.note(Note { acknowledged: Seq(ENTRIES + 1), committed: Seq(0) }).await?;
            run(shard, SEED).await
        });
        let said = said.map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("61 were acknowledged, and the store ends with"), "{said}");
        let folder = written();
        let said = on_shard(folder.path(), async |shard| run(shard, SEED + 1).await);
        assert!(said.is_err(), "the bytes of another seed are not those that were written");
    }
}

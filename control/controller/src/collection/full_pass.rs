//! Spec C.4: the scan for blocks with no live references.
//!
//! Every primary lists what it holds, page by page, and each block is looked up in a census of the metadata. What was
//! given out and is in nothing is a stray: a write that was on its way when its session ended, or a block whose
//! deletion was lost with a device. Strays of an earlier era are left alone and shown by `nova fs fsck`: metadata
//! that were restored know nothing of files made after the backup.

use std::sync::Arc;
use std::time::Duration;

use nova_raft::Group;
use nova_units::{BlockId, GroupId};
use novafs_namespace::{BlockUse, Census, Namespace};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::attendance::Attendance;
use crate::machine::Cluster;

/// Blocks of one page; the ring has the same bound.
pub(crate) const PAGE_BLOCKS: u32 = 4096;
/// Strays that wait to be ordered; the pass then waits.
const STRAYS_WAITING_MAX: usize = 4096;
/// Pause before a primary that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A group that does not answer so often in a row is left out until the next pass.
const ASKED_MAX: usize = 60;

/// A pass under way; dropped, it ends.
#[derive(Debug)]
pub(super) struct FullPass {
    task: JoinHandle<()>,
    strays: mpsc::Receiver<(GroupId, BlockId)>,
    found: u64,
}

impl Drop for FullPass {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FullPass {
    /// Compares what the primaries hold with this state of the metadata.
    pub(super) fn begin(namespace: Namespace, cluster: Group<Cluster>, attendance: Arc<Attendance>) -> Self {
        let (found, strays) = mpsc::channel(STRAYS_WAITING_MAX);
        let task = tokio::spawn(async move {
            if let Err(error) = scan(namespace, cluster, attendance, found).await {
                tracing::error!(%error, "the census of the blocks failed; the next pass tries again");
            }
        });
        Self { task, strays, found: 0 }
    }

    /// A block that nothing refers to.
    pub(super) fn next_stray(&mut self) -> Option<(GroupId, BlockId)> {
        let stray = self.strays.try_recv().ok()?;
        self.found += 1;
        Some(stray)
    }

    /// Every group was compared and every stray was taken.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished() && self.strays.is_empty()
    }

    /// Strays so far.
    pub(super) fn strays(&self) -> u64 {
        self.found
    }
}

async fn scan(
    namespace: Namespace,
    cluster: Group<Cluster>,
    attendance: Arc<Attendance>,
    found: mpsc::Sender<(GroupId, BlockId)>,
) -> Result<(), JoinError> {
    let census = spawn_blocking(move || Census::of(&namespace)).await?;
    let groups: Vec<GroupId> = cluster.local().0.groups.iter().map(|(id, _)| id).collect();
    for group in groups {
        let (mut from, mut asked) = (BlockId(0), 0);
        loop {
            let primary = cluster.local().0.groups.group(group).map(|found| found.primary);
            let page = match primary {
                Some(primary) => attendance.list_blocks(primary, group, from, PAGE_BLOCKS).await,
                None => None,
            };
            let Some(page) = page else {
                asked += 1;
                if asked == ASKED_MAX {
                    tracing::warn!(%group, "its primary lists no blocks: the pass leaves the group out");
                    break;
                }
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            asked = 0;
            for block in page.blocks.iter().map(|block| BlockId(*block)) {
                let stray = census.use_of(block) == BlockUse::Gone && block.era() == census.era();
                if stray && found.send((group, block)).await.is_err() {
                    return Ok(());
                }
            }
            match page.blocks.last().filter(|_| page.more).and_then(|last| last.checked_add(1)) {
                Some(next) => from = BlockId(next),
                None => break,
            }
        }
    }
    Ok(())
}

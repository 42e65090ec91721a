//! What the controllers ask about blocks: delete these, and which are here?
//!
//! Both run as background work with few tasks at once, so that clients do not wait for them. What cannot be done now
//! is not answered: the controllers ask again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use nova_device::sync::Semaphore;
use nova_device::{Peers, Shard};
use nova_ring::abi::{AgentEvent, BlockRun, BlockRuns, HELD_MAX, HeldBlocks};
use nova_units::{BlockId, GroupId};
use novafs_member::{Collected, Member};

use crate::switchboard::Switchboard;

/// Commands to delete that are worked at together; each has a few entries under way.
const COMMANDS_AT_ONCE: usize = 16;
/// Lists that are made together.
const LISTS_AT_ONCE: usize = 2;
/// Commands of each kind that wait; more are dropped.
const WAITING_MAX: usize = 1024;

/// Work on whole blocks, within its limits.
#[derive(Debug)]
pub(crate) struct Collection {
    deletes: Semaphore,
    lists: Semaphore,
    /// Runs that are being deleted, by their first id: the same order again does not begin them again.
    under_way: RefCell<BTreeSet<(GroupId, BlockId)>>,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            deletes: Semaphore::new(COMMANDS_AT_ONCE, WAITING_MAX),
            lists: Semaphore::new(LISTS_AT_ONCE, WAITING_MAX),
            under_way: RefCell::default(),
        }
    }
}

impl Collection {
    /// Deletes the blocks of `runs` in their group, and tells which runs it holds nothing of any more.
    pub(crate) async fn delete<S: Shard, P: Peers>(
        &self,
        member: &Rc<Member<S, P>>,
        group: GroupId,
        runs: BlockRuns,
        switchboard: &Switchboard,
    ) {
        let Ok(_permit) = self.deletes.acquire(1).await else { return };
        let mut gone: Vec<BlockRun> = Vec::new();
        let mut sum = Collected::default();
        for run in runs.as_slice() {
            let last = BlockId(run.first.0 + u64::from(run.count - 1));
            if !self.under_way.borrow_mut().insert((group, run.first)) {
                continue;
            }
            let collected = member.collect(group, run.first..=last).await;
            self.under_way.borrow_mut().remove(&(group, run.first));
            match collected {
                Ok(collected) => {
                    sum.blocks += collected.blocks;
                    sum.bytes += collected.bytes;
                    gone.push(*run);
                }
                Err(refusal) => {
                    tracing::debug!(%group, ?refusal, "blocks are not collected now; the controllers order it again");
                    break;
                }
            }
        }
        if !gone.is_empty() {
            let runs = BlockRuns::new(&gone);
            switchboard.tell(AgentEvent::BlocksDeleted {
                group,
                deleted: sum.blocks,
                bytes: sum.bytes,
                runs,
            });
        }
    }

    /// Tells which blocks of a group the device holds, from an id on.
    pub(crate) async fn list<S: Shard, P: Peers>(
        &self,
        member: &Rc<Member<S, P>>,
        request: u64,
        group: GroupId,
        from: BlockId,
        limit: u16,
        switchboard: &Switchboard,
    ) {
        let Ok(_permit) = self.lists.acquire(1).await else { return };
        let range = from..=BlockId(u64::MAX);
        let page = match member.store().held_blocks(group, range, usize::from(limit)).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%group, %error, "cannot list the blocks of a group");
                return;
            }
        };
        let parts: Vec<&[BlockId]> = page.blocks.chunks(HELD_MAX).collect();
        let count = parts.len().max(1);
        for (part, index) in (0..=u16::MAX).zip(0..count) {
            switchboard.tell(AgentEvent::BlocksHeld {
                request,
                part,
                last: index + 1 == count,
                more: page.more,
                blocks: HeldBlocks::new(parts.get(index).copied().unwrap_or_default()),
            });
        }
    }
}

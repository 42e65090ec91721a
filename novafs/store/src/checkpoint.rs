//! Checkpoints: bodies that ride in the log are moved to their cells, the changes since the last one go into the tree,
//! the superblock flips, the log behind it is free.
//!
//! Reads and appends go on meanwhile: the freeze is one turn between two log batches, the rest happens beside them.

use crate::commit::Frozen;
use crate::core::Core;
use crate::error::StoreError;
use crate::pins::Freed;
use crate::state::State;
use crate::tree::merge::Merge;
use nova_device::sync::oneshot;
use nova_device::{Clock as _, Shard};
use nova_units::TaskClass;
use novafs_format::Superblock;
use std::cell::Cell;
use std::rc::Rc;

/// The checkpoint that gives back what deletes have freed.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// One will be asked for.
    asked: Cell<bool>,
}

impl<S: Shard> Core<S> {
    /// The task that makes checkpoints.
    pub(crate) async fn run_checkpoints(self: Rc<Self>) {
        loop {
            let notified = self.checkpoints.wake.notified();
            if self.has_failed() || (self.closed.get() && self.checkpoints.asked == self.checkpoints.done) {
                self.checkpoints.finished.notify_all();
                return;
            }
            let asked = self.checkpoints.asked.get();
            if asked == self.checkpoints.done.get() {
                notified.await;
                continue;
            }
            if let Err(error) = self.make_checkpoint(|_| {}).await {
                // Changes that cannot be written to the tree leave the log to fill up: better to say so now.
                self.checkpoints.last_error.replace(Some(error));
                self.fail_now();
                return;
            }
            self.checkpoints.done.set(asked);
            self.checkpoints.finished.notify_all();
            self.queue.work.notify_all();
            self.discard_empty_slots().await;
        }
    }

    /// Asks for a checkpoint in a while when blocks were cut or deleted since the last one began. Changes in between
    /// share it.
    pub(crate) fn reclaim_later(self: &Rc<Self>) {
        if self.reclaim.asked.get() || !self.state.borrow().active.hides() {
            return;
        }
        self.reclaim.asked.set(true);
        let core = Rc::clone(self);
        self.shard.spawn(TaskClass::Background, async move {
            let clock = core.shard.clock();
            clock.sleep_until(clock.now() + core.options.reclaim_after).await;
            core.reclaim.asked.set(false);
            if core.check_usable().is_ok() && core.state.borrow().active.hides() {
                core.ask_checkpoint_if_none();
            }
        });
    }

    pub(crate) fn checkpoint_is_due(&self, state: &State) -> bool {
        let log_full = state.ring.used() * 100 >= state.ring.pages() * self.options.checkpoint_wal_percent;
        let starved = state.slots.bytes_free() < state.slots.bytes_total() / 16;
        let reclaims = !state.retired.is_empty() || state.active.hides();
        log_full
            || state.inlined.fills_log()
            || state.active.len() >= self.options.checkpoint_changes
            || (starved && reclaims)
    }

    pub(crate) fn ask_checkpoint_if_none(&self) {
        if self.checkpoints.asked == self.checkpoints.done {
            self.checkpoints.asked.set(self.checkpoints.asked.get() + 1);
            self.checkpoints.wake.notify_all();
        }
    }

    /// Asks for a checkpoint that covers everything until now, and waits for it.
    pub(crate) async fn checkpoint_now(&self) -> Result<(), StoreError> {
        let target = self.checkpoints.asked.get() + 1;
        self.checkpoints.asked.set(target);
        self.checkpoints.wake.notify_all();
        loop {
            let finished = self.checkpoints.finished.notified();
            if self.checkpoints.done.get() >= target {
                return Ok(());
            }
            if self.has_failed() {
                return Err(self.checkpoints.last_error.borrow().clone().unwrap_or(StoreError::DeviceFailed));
            }
            finished.await;
        }
    }

    /// One checkpoint; `change` may alter the superblock that completes it.
    pub(crate) async fn make_checkpoint(
        &self,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StoreError> {
        let (asked, frozen) = oneshot::channel();
        self.queue.freeze.replace(Some(asked));
        self.queue.work.notify_all();
        let Frozen { overlay, retired, bodies, carried } =
            frozen.await.map_err(|_| StoreError::DeviceFailed)?;
        // Their cells stay in use until the next checkpoint at least: the tree that is written here may name them.
        self.move_to_cells(bodies).await?;
        let old_root = self.state.borrow().root;
        let mut merge = Merge::new(self, &overlay);
        let root = merge.run(old_root).await?;
        let Merge { freed_cells, freed_pages, new_pages, .. } = merge;
        carried.await.map_err(|_| StoreError::DeviceFailed)?;
        self.flush().await?;
        let turn = self.superblock_turn.acquire(1).await.map_err(|_| StoreError::Busy)?;
        let superblock = {
            let state = self.state.borrow();
            let head = self.queue.head();
            let (position, batch) = head.unwrap_or((state.ring.tail_position(), state.next_batch));
            let mut superblock = state.superblock;
            superblock.number += 1;
            superblock.checkpoint += 1;
            superblock.root = root;
            superblock.wal_head_position = position;
            superblock.wal_head_batch = batch;
            superblock.scrub = self.scrub.get();
            change(&mut superblock);
            superblock
        };
        self.write_superblock(&superblock).await?;
        {
            let mut state = self.state.borrow_mut();
            state.superblock = superblock;
            state.root = root;
            state.tree_pages = state.tree_pages + new_pages.len() - freed_pages.len();
            state.frozen = None;
            state.inlined.release_log();
            // A batch may have been placed while the superblock was written; then it is the one at the head.
            let empty = self.queue.head().is_none();
            state.ring.release(superblock.wal_head_position, empty);
        }
        drop(turn);
        let mut cells = retired;
        cells.extend(freed_cells);
        self.pins.retire(Freed { cells, pages: freed_pages, bodies: Vec::new() });
        self.release_freed();
        self.count(|counters| {
            counters.checkpoints += 1;
            counters.tree_pages += new_pages.len() as u64;
        });
        Ok(())
    }

    /// Writes a superblock that differs from the current one by `change` and nothing else.
    pub(crate) async fn change_superblock(
        &self,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StoreError> {
        let _turn = self.superblock_turn.acquire(1).await.map_err(|_| StoreError::Busy)?;
        let mut superblock = self.state.borrow().superblock;
        superblock.number += 1;
        superblock.scrub = self.scrub.get();
        change(&mut superblock);
        self.write_superblock(&superblock).await?;
        self.state.borrow_mut().superblock = superblock;
        Ok(())
    }
}

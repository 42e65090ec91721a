//! What the parts of a store share.

use crate::checkpoint::Reclaim;
use crate::commit::Queue;
use crate::discard::Discards;
use crate::error::StoreError;
use crate::options::OpenOptions;
use crate::pins::{Freed, Pin, Pins};
use crate::state::State;
use crate::tree::PageCache;
use nova_buf::SharedBuf;
use nova_device::sync::{Notify, Semaphore};
use nova_device::{Disk as _, DiskError, Durability, Position, Shard};
use nova_units::{DiskIndex, IoClass};
use novafs_format::{PAGE, SUPERBLOCK_COPIES, ScrubMark, Superblock, superblock_positions};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll;

/// Checkpoints and new incarnations that wait to write a superblock.
const SUPERBLOCK_WRITERS_MAX: usize = 64;

/// What happened so far, for monitoring; all count since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries appended.
    pub appends: u64,
    /// Bytes of bodies appended, padding included.
    pub body_bytes: u64,
    /// Bytes of those that rode in the log.
    pub inline_bytes: u64,
    /// Bytes of bodies that were moved from the log to their cells; the rest was gone before.
    pub moved_bytes: u64,
    /// Log batches made durable, one flush each.
    pub batches: u64,
    /// Bytes of log written.
    pub log_bytes: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Tree pages written.
    pub tree_pages: u64,
    /// Units read.
    pub units_read: u64,
    /// Units whose stored bytes were bad or could not be read.
    pub units_corrupt: u64,
    /// Units that repair or back-fill put in place.
    pub units_installed: u64,
    /// Slots that compaction emptied.
    pub slots_emptied: u64,
    /// Bytes of units that it moved for that, padding included.
    pub bytes_compacted: u64,
    /// Bytes of empty slots that the device was told of.
    pub bytes_discarded: u64,
    /// Units that scrub read and compared with their checksums and digests.
    pub units_verified: u64,
    /// Bytes of those, padding included.
    pub bytes_verified: u64,
    /// Metadata pages and superblocks that scrub found bad and wrote again from memory.
    pub pages_rewritten: u64,
}

/// Who checkpoints, and for whom.
#[derive(Debug, Default)]
pub(crate) struct CheckpointTurns {
    pub(crate) asked: Cell<u64>,
    pub(crate) done: Cell<u64>,
    pub(crate) wake: Notify,
    pub(crate) finished: Notify,
    pub(crate) last_error: RefCell<Option<StoreError>>,
}

#[derive(Debug)]
pub(crate) struct Core<S: Shard> {
    pub(crate) shard: S,
    pub(crate) index: DiskIndex,
    pub(crate) options: OpenOptions,
    pub(crate) salt: u64,
    pub(crate) state: RefCell<State>,
    pub(crate) cache: RefCell<PageCache>,
    pub(crate) pins: Pins,
    pub(crate) counters: Cell<Counters>,
    pub(crate) queue: Queue,
    pub(crate) checkpoints: CheckpointTurns,
    pub(crate) reclaim: Reclaim,
    pub(crate) discards: Discards,
    /// Bodies are being moved to their cells because there are many.
    pub(crate) sweeping: Cell<bool>,
    /// One writer of superblocks at a time.
    pub(crate) superblock_turn: Semaphore,
    /// How far the scrub is; it goes to the device with the next superblock, whatever that is written for.
    pub(crate) scrub: Cell<ScrubMark>,
    failed: Cell<bool>,
    pub(crate) closed: Cell<bool>,
}

impl<S: Shard> Core<S> {
    pub(crate) fn new(shard: S, index: DiskIndex, options: OpenOptions, state: State) -> Self {
        Self {
            shard,
            index,
            options,
            salt: state.superblock.salt,
            scrub: Cell::new(state.superblock.scrub),
            state: RefCell::new(state),
            cache: RefCell::new(PageCache::new(options.cache_pages)),
            pins: Pins::default(),
            counters: Cell::default(),
            queue: Queue::default(),
            checkpoints: CheckpointTurns::default(),
            reclaim: Reclaim::default(),
            discards: Discards::default(),
            sweeping: Cell::new(false),
            superblock_turn: Semaphore::new(1, SUPERBLOCK_WRITERS_MAX),
            failed: Cell::new(false),
            closed: Cell::new(false),
        }
    }

    pub(crate) fn disk(&self) -> &S::Disk {
        self.shard.disk(self.index)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// A write or a flush failed: the device is not used again.
    pub(crate) fn fail(&self, _cause: DiskError) -> StoreError {
        self.fail_now();
        StoreError::DeviceFailed
    }

    pub(crate) fn fail_now(&self) {
        self.failed.set(true);
        self.queue.work.notify_all();
        self.checkpoints.wake.notify_all();
        self.checkpoints.finished.notify_all();
    }

    pub(crate) fn check_usable(&self) -> Result<(), StoreError> {
        if self.has_failed() {
            Err(StoreError::DeviceFailed)
        } else if self.closed.get() {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    pub(crate) fn pin(&self) -> Pin {
        self.pins.pin()
    }

    /// Gives back what no reader looks at any more.
    pub(crate) fn release_freed(&self) {
        for Freed { cells, pages, bodies } in self.pins.drain() {
            let mut state = self.state.borrow_mut();
            for body in bodies {
                state.inlined.forget(&body);
            }
            for cell in cells {
                if let Some(slot) = state.slots.free(cell) {
                    self.discards.queue(slot);
                }
            }
            for page in pages {
                state.pages.free(page);
            }
        }
    }

    pub(crate) async fn write(&self, class: IoClass, at: u64, from: SharedBuf) -> Result<(), StoreError> {
        let written = self.disk().write(class, Position(at), from, Durability::Cached).await;
        written.map_err(|error| self.fail(error))
    }

    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.disk().flush().await.map_err(|error| self.fail(error))
    }

    /// Makes a new superblock count: two copies, flush, the other two, flush. At every moment two copies of the old
    /// or the new one agree.
    pub(crate) async fn write_superblock(&self, superblock: &Superblock) -> Result<(), StoreError> {
        let positions = superblock_positions(superblock.geometry.device_bytes);
        for pair in positions.chunks(SUPERBLOCK_COPIES / 2) {
            for position in pair {
                let mut page = self.shard.pool().take(PAGE).await;
                page.copy_from_slice(&superblock.encode(*position));
                self.write(IoClass::Wal, *position, page.freeze()).await?;
            }
            self.flush().await?;
        }
        Ok(())
    }
}

/// Lets the shard's other tasks run once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

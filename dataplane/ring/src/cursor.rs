//! The algorithm of one ring: two indices, a sleeping flag, and who may read what when.
//!
//! Generic over the atomic word, so that the very code that runs on shared memory is also explored by loom.

use core::sync::atomic::Ordering;

use crate::error::PeerBroken;

/// One 64-bit atomic in shared memory.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// A sequentially consistent fence of the same memory model.
    fn fence();
}

impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }
    fn fence() {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// A word alone on its 128 bytes: two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Line<W>(pub(crate) W);

/// The words both sides share. `head` and `sleeping` guard each other: see [`PushCursor::wants_doorbell`].
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Indices<W> {
    /// Slots ever sent; written by the sender.
    pub(crate) head: Line<W>,
    /// Slots ever taken; written by the receiver.
    pub(crate) tail: Line<W>,
    /// Not 0 while the receiver sleeps or is about to.
    pub(crate) sleeping: Line<W>,
}

/// The sender's side. Its own index is kept here and never read back from shared memory.
#[derive(Debug)]
pub(crate) struct PushCursor {
    next: u64,
    tail_seen: u64,
    capacity: u64,
}

impl PushCursor {
    pub(crate) fn new(capacity: u64) -> Self {
        assert!(capacity.is_power_of_two(), "ring of {capacity} slots: must be a power of two");
        Self { next: 0, tail_seen: 0, capacity }
    }

    /// The slot to fill next, or `None` when the ring is full.
    pub(crate) fn claim<W: Word>(&mut self, shared: &Indices<W>) -> Result<Option<u64>, PeerBroken> {
        if self.next.wrapping_sub(self.tail_seen) == self.capacity {
            let tail = shared.tail.0.load(Ordering::Acquire);
            let distance = self.next.wrapping_sub(tail);
            if distance > self.capacity {
                return Err(PeerBroken::Index { distance, capacity: self.capacity });
            }
            self.tail_seen = tail;
            if distance == self.capacity {
                return Ok(None);
            }
        }
        Ok(Some(self.next & (self.capacity - 1)))
    }

    /// Hands the claimed slot to the receiver.
    pub(crate) fn publish<W: Word>(&mut self, shared: &Indices<W>) {
        self.next = self.next.wrapping_add(1);
        shared.head.0.store(self.next, Ordering::Release);
    }

    /// Whether the receiver sleeps and must be woken; true at most once for each of its sleeps.
    ///
    /// Both sides write one word, fence, then read the other's: one of them sees the other's write, so a receiver
    /// never sleeps over a slot whose sender did not ring.
    pub(crate) fn wants_doorbell<W: Word>(&self, shared: &Indices<W>) -> bool {
        W::fence();
        shared.sleeping.0.load(Ordering::Relaxed) != 0 && shared.sleeping.0.swap(0, Ordering::AcqRel) != 0
    }
}

/// The receiver's side.
#[derive(Debug)]
pub(crate) struct PopCursor {
    next: u64,
    head_seen: u64,
    capacity: u64,
}

impl PopCursor {
    pub(crate) fn new(capacity: u64) -> Self {
        assert!(capacity.is_power_of_two(), "ring of {capacity} slots: must be a power of two");
        Self { next: 0, head_seen: 0, capacity }
    }

    fn refresh<W: Word>(&mut self, shared: &Indices<W>) -> Result<bool, PeerBroken> {
        let head = shared.head.0.load(Ordering::Acquire);
        let distance = head.wrapping_sub(self.next);
        if distance > self.capacity {
            return Err(PeerBroken::Index { distance, capacity: self.capacity });
        }
        self.head_seen = head;
        Ok(distance != 0)
    }

    /// The slot to read next, or `None` when nothing was sent.
    pub(crate) fn peek<W: Word>(&mut self, shared: &Indices<W>) -> Result<Option<u64>, PeerBroken> {
        if self.next == self.head_seen && !self.refresh(shared)? {
            return Ok(None);
        }
        Ok(Some(self.next & (self.capacity - 1)))
    }

    /// Gives the slot that was read back to the sender.
    pub(crate) fn release<W: Word>(&mut self, shared: &Indices<W>) {
        self.next = self.next.wrapping_add(1);
        shared.tail.0.store(self.next, Ordering::Release);
    }

    /// Announces sleep. True: nothing was there after the announcement, the sender's next slot will ring.
    pub(crate) fn prepare_sleep<W: Word>(&mut self, shared: &Indices<W>) -> Result<bool, PeerBroken> {
        if self.next != self.head_seen {
            return Ok(false);
        }
        shared.sleeping.0.store(1, Ordering::Relaxed);
        W::fence();
        let something = self.refresh(shared)?;
        if something {
            shared.sleeping.0.store(0, Ordering::Relaxed);
        }
        Ok(!something)
    }

    /// Takes the announcement back after a wake-up or a time-out.
    pub(crate) fn awake<W: Word>(&self, shared: &Indices<W>) {
        shared.sleeping.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

//! One direction of an attachment: slots from a sender to a receiver.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::abi::{SLOT_BYTES, Slot};
use crate::cursor::{Indices, PopCursor, PushCursor};
use crate::doorbell::Doorbell;
use crate::error::{PeerBroken, PushError};
use crate::layout::{SLOTS_OFFSET, ring_bytes};
use crate::memory::Mapping;

/// A parked receiver looks again after this long whatever its doorbell says: a peer may forget to ring.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

const WORDS: usize = SLOT_BYTES / 8;

/// A ring's place in the mapping.
#[derive(Debug)]
struct Place {
    base: NonNull<u8>,
    capacity: u64,
    _mapping: Arc<Mapping>,
}

// SAFETY: all access through `base` is by atomics, and the mapping lives as long as the Arc beside it.
unsafe impl Send for Place {}

impl Place {
    fn new(mapping: &Arc<Mapping>, offset: usize, capacity: u32) -> Self {
        assert!(offset.is_multiple_of(128), "a ring begins on a line");
        let base = mapping.at(offset, ring_bytes(capacity));
        Self { base, capacity: u64::from(capacity), _mapping: Arc::clone(mapping) }
    }

    fn indices(&self) -> &Indices<AtomicU64> {
        // SAFETY: `new` checked size and alignment, the mapping is alive, and atomics may change under a shared
        // reference, by another process too.
        unsafe { self.base.cast::<Indices<AtomicU64>>().as_ref() }
    }

    fn slot(&self, index: u64) -> &[AtomicU64; WORDS] {
        assert!(index < self.capacity, "slot {index} of {}", self.capacity);
        let index = usize::try_from(index).expect("an index under the capacity");
        // SAFETY: `index < capacity`, so the slot lies within the bytes that `new` checked.
        let at = unsafe { self.base.add(SLOTS_OFFSET + index * SLOT_BYTES) };
        // SAFETY: in bounds and 128-aligned by the line above; atomics may change under a shared reference.
        unsafe { at.cast::<[AtomicU64; WORDS]>().as_ref() }
    }
}

/// The sending end of a ring.
#[derive(Debug)]
pub struct Sender {
    place: Place,
    cursor: PushCursor,
    doorbell: Doorbell,
}

impl Sender {
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize, capacity: u32, doorbell: Doorbell) -> Self {
        Self {
            place: Place::new(mapping, offset, capacity),
            cursor: PushCursor::new(u64::from(capacity)),
            doorbell,
        }
    }

    /// Puts one slot into the ring. Ring afterwards: [`Sender::ring`], once for a batch.
    ///
    /// # Errors
    /// [`PushError::Full`] gives the slot back; [`PushError::Broken`] ends the attachment.
    #[expect(clippy::result_large_err, reason = "the slot comes back without an allocation")]
    pub fn push(&mut self, slot: Slot) -> Result<(), PushError> {
        let Some(index) = self.cursor.claim(self.place.indices())? else { return Err(PushError::Full(slot)) };
        for (word, bytes) in self.place.slot(index).iter().zip(slot.0.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        self.cursor.publish(self.place.indices());
        Ok(())
    }

    /// Wakes the receiver when it sleeps. A service never waits here, whatever its peer does to its end.
    pub fn ring(&self) {
        if self.cursor.wants_doorbell(self.place.indices()) {
            self.doorbell.ring();
        }
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.place.capacity).expect("made from a u32")
    }
}

/// The receiving end of a ring.
#[derive(Debug)]
pub struct Receiver {
    place: Place,
    cursor: PopCursor,
    doorbell: Doorbell,
}

impl Receiver {
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize, capacity: u32, doorbell: Doorbell) -> Self {
        Self {
            place: Place::new(mapping, offset, capacity),
            cursor: PopCursor::new(u64::from(capacity)),
            doorbell,
        }
    }

    /// Takes the next slot: a copy that the peer can no longer change. Decode it before believing it.
    ///
    /// # Errors
    /// [`PeerBroken`] ends the attachment.
    pub fn pop(&mut self) -> Result<Option<Slot>, PeerBroken> {
        let Some(index) = self.cursor.peek(self.place.indices())? else { return Ok(None) };
        let mut slot = Slot([0; SLOT_BYTES]);
        for (word, bytes) in self.place.slot(index).iter().zip(slot.0.as_chunks_mut::<8>().0) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        self.cursor.release(self.place.indices());
        Ok(Some(slot))
    }

    /// Announces sleep. True: wait for [`Receiver::doorbell`] to be readable, at most [`LOOK_AGAIN`], then call
    /// [`Receiver::awake`]. False: something arrived meanwhile, take it.
    ///
    /// # Errors
    /// [`PeerBroken`] ends the attachment.
    pub fn prepare_sleep(&mut self) -> Result<bool, PeerBroken> {
        self.cursor.prepare_sleep(self.place.indices())
    }

    /// Ends a sleep: takes the announcement back. The doorbell is emptied apart: [`Receiver::drain_doorbell`], or by
    /// the read that waited on it.
    pub fn awake(&mut self) {
        self.cursor.awake(self.place.indices());
    }

    /// Becomes readable when this receiver is woken; at a peer also when the service is gone. Read nothing from it.
    #[must_use]
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Empties the doorbell. Never waits, whatever the other side does to its end.
    pub fn drain_doorbell(&self) {
        self.doorbell.silence();
    }

    /// Waits on a std thread until something may have arrived, or for `timeout` (at most [`LOOK_AGAIN`]).
    ///
    /// # Errors
    /// [`PeerBroken`] ends the attachment.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), PeerBroken> {
        if !self.prepare_sleep()? {
            return Ok(());
        }
        self.doorbell.wait(timeout);
        self.awake();
        Ok(())
    }
}

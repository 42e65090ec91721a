//! Tells the device of slots that have become empty.
//!
//! A slot is out of use while the device is told, so that nothing written later can be lost to it. The checkpoint
//! that forgot its cells is durable by then: neither the tree nor the log names one of them.

use crate::core::Core;
use nova_device::sync::Notify;
use nova_device::{Disk as _, Position, Shard};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// Empty slots that the device does not know of yet.
#[derive(Debug, Default)]
pub(crate) struct Discards {
    empty: RefCell<BTreeSet<usize>>,
    busy: Cell<bool>,
    done: Notify,
}

impl Discards {
    /// A slot has become empty.
    pub(crate) fn queue(&self, slot: usize) {
        self.empty.borrow_mut().insert(slot);
    }

    /// Waits until the device is told nothing.
    pub(crate) async fn finished(&self) {
        while self.busy.get() {
            self.done.notified().await;
        }
    }
}

impl<S: Shard> Core<S> {
    /// Discards the slots that are still empty, one after the other.
    pub(crate) async fn discard_empty_slots(&self) {
        let mut empty = core::mem::take(&mut *self.discards.empty.borrow_mut());
        if !self.options.discard {
            return;
        }
        while let Some(slot) = empty.pop_first() {
            // A checkpoint goes first: somebody may wait for the room that it gives back.
            if self.check_usable().is_err() || self.checkpoints.asked != self.checkpoints.done {
                self.discards.empty.borrow_mut().append(&mut empty);
                self.discards.queue(slot);
                return;
            }
            let Some((position, bytes)) = self.state.borrow_mut().slots.begin_discard(slot) else { continue };
            self.discards.busy.set(true);
            let told = self.disk().discard(Position(position), bytes).await;
            self.state.borrow_mut().slots.end_discard(slot);
            self.discards.busy.set(false);
            self.discards.done.notify_all();
            // It is a hint: a device that failed is noticed by the next write.
            if told.is_ok() {
                self.count(|counters| counters.bytes_discarded += bytes);
            }
        }
    }
}

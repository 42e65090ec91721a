//! The table of operations in flight.
//!
//! A slot owns what the kernel may touch until the last completion. Its number and generation travel as user data,
//! so that a late completion never lands on a slot that was given to another operation meanwhile.

use core::task::Waker;
use std::{
    os::fd::{FromRawFd, OwnedFd},
    rc::Rc,
};

use nova_buf::{DmaBuf, SharedBuf};

use super::{classes::Admission, file::File, operation::Message};
use crate::sync::Permit;

/// What an operation keeps alive while the kernel works on it.
#[derive(Debug)]
pub(super) enum Payload {
    /// Nothing in memory.
    None,
    /// A buffer the kernel fills.
    Fill(DmaBuf),
    /// A buffer the kernel reads.
    Drain(SharedBuf),
    /// A gather list and what it points to.
    Message(Box<Message>),
    /// The address of a peer.
    #[expect(dead_code, reason = "held for the kernel to read")]
    Address(Box<socket2::SockAddr>),
    /// The result is a new file descriptor.
    Accepted,
}

/// Which operation, of all that ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_user_data(data: u64) -> Self {
        let [index, generation] =
            [data & u64::from(u32::MAX), data >> 32].map(|half| u32::try_from(half).expect("32 bits"));
        Self { index, generation }
    }
}

/// Everything an operation holds.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) payload: Payload,
    /// Keeps the descriptor from being closed, and its number from being given to another file.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) file: Option<Rc<File>>,
    /// Its place in the queue of its disk.
    pub(super) admission: Option<Admission>,
    /// Its share of the table.
    pub(super) permit: Option<Permit>,
    /// Whether a cancel can end it early: sockets and polls, not disks.
    pub(super) cancellable: bool,
}

#[derive(Debug)]
enum State {
    Flying(Option<Waker>),
    /// Its future is gone.
    Orphaned,
    Landed(i32),
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    operation: Option<(Operation, State)>,
}

#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
}

/// What a completion set free, to be used outside the borrow of the table.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) waker: Option<Waker>,
    pub(super) orphan: Option<Operation>,
    pub(super) admission: Option<Admission>,
    pub(super) permit: Option<Permit>,
}

/// What dropping a future asks for.
#[derive(Debug)]
pub(super) enum Abandoned {
    /// It had landed already: drop this outside the borrow.
    Landed(Operation),
    /// It flies on without its future; ask the kernel to end it early.
    Cancel(u64),
    /// It flies on without its future until it ends by itself.
    Flying,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        let slots = (0..count).map(|_| Slot::default()).collect();
        Self { slots, free: (0..count).rev().collect(), in_flight: 0 }
    }

    /// Operations submitted and not completed, orphans included.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// # Panics
    /// When the table is full: permits were handed out beyond its size.
    pub(super) fn insert(&mut self, operation: Operation) -> Key {
        let index = self.free.pop().expect("permits keep the table from overflowing");
        let slot = &mut self.slots[index as usize];
        slot.operation = Some((operation, State::Flying(None)));
        self.in_flight += 1;
        Key { index, generation: slot.generation }
    }

    /// Takes the result if there is one, else keeps `waker` for it.
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Option<(i32, Payload)> {
        let slot = self.slot(key);
        match &mut slot.operation.as_mut().expect("a live key has an operation").1 {
            State::Flying(kept) => {
                if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                    *kept = Some(waker.clone());
                }
                None
            }
            State::Orphaned => unreachable!("an orphan has no future"),
            &mut State::Landed(result) => {
                let operation = self.free(key);
                Some((result, operation.payload))
            }
        }
    }

    /// Records a completion.
    pub(super) fn complete(&mut self, user_data: u64, result: i32) -> Released {
        let key = Key::from_user_data(user_data);
        let slot = self.slot(key);
        let (operation, state) = slot.operation.as_mut().expect("one completion for each operation");
        let mut released = Released::default();
        match core::mem::replace(state, State::Landed(result)) {
            State::Flying(waker) => {
                released.waker = waker;
                released.admission = operation.admission.take();
                released.permit = operation.permit.take();
                // The descriptor stays until the future takes the result: it may go on with the same one.
            }
            State::Orphaned => {
                close_accepted(&operation.payload, result);
                released.orphan = Some(self.free(key));
            }
            State::Landed(_) => unreachable!("one completion for each operation"),
        }
        self.in_flight -= 1;
        released
    }

    /// Notes that nobody waits for this operation any more.
    pub(super) fn abandon(&mut self, key: Key) -> Abandoned {
        let slot = self.slot(key);
        let (operation, state) = slot.operation.as_mut().expect("a live key has an operation");
        match state {
            &mut State::Landed(result) => {
                close_accepted(&operation.payload, result);
                Abandoned::Landed(self.free(key))
            }
            _ => {
                *state = State::Orphaned;
                if operation.cancellable { Abandoned::Cancel(key.user_data()) } else { Abandoned::Flying }
            }
        }
    }

    /// User data of every cancellable operation in flight.
    pub(super) fn cancellable(&self) -> Vec<u64> {
        let flying = |(index, slot): (usize, &Slot)| {
            let (operation, state) = slot.operation.as_ref()?;
            let index = u32::try_from(index).expect("the table has at most 2^32 slots");
            (operation.cancellable && !matches!(state, State::Landed(_)))
                .then(|| Key { index, generation: slot.generation }.user_data())
        };
        self.slots.iter().enumerate().filter_map(flying).collect()
    }

    fn slot(&mut self, key: Key) -> &mut Slot {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "a completion or a future of an earlier operation");
        slot
    }

    fn free(&mut self, key: Key) -> Operation {
        let slot = self.slot(key);
        slot.generation = slot.generation.wrapping_add(1);
        let (operation, _) = slot.operation.take().expect("a slot is freed once");
        self.free.push(key.index);
        operation
    }
}

/// A connection accepted for nobody is closed.
fn close_accepted(payload: &Payload, result: i32) {
    if matches!(payload, Payload::Accepted) && result >= 0 {
        // SAFETY: a successful accept returns a new descriptor that nothing else owns yet.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(cancellable: bool) -> Operation {
        Operation { payload: Payload::None, file: None, admission: None, permit: None, cancellable }
    }

    #[test]
    fn a_slot_is_used_again_with_a_new_generation() {
        let mut slots = Slots::new(1);
        let first = slots.insert(nothing(false));
        slots.complete(first.user_data(), 7);
        assert_eq!(slots.in_flight(), 0);
        assert!(matches!(slots.poll(first, Waker::noop()), Some((7, Payload::None))));
        let second = slots.insert(nothing(false));
        assert_eq!(first.index, second.index);
        assert_ne!(first.user_data(), second.user_data());
    }

    #[test]
    #[should_panic(expected = "earlier operation")]
    fn a_late_completion_of_an_earlier_operation_is_found() {
        let mut slots = Slots::new(1);
        let first = slots.insert(nothing(false));
        slots.abandon(first);
        slots.complete(first.user_data(), 0);
        slots.insert(nothing(false));
        slots.complete(first.user_data(), 0);
    }

    #[test]
    fn an_orphan_keeps_its_slot_until_it_completes() {
        let mut slots = Slots::new(2);
        let socket = slots.insert(nothing(true));
        let disk = slots.insert(nothing(false));
        assert_eq!(slots.cancellable(), [socket.user_data()]);
        assert!(matches!(slots.abandon(socket), Abandoned::Cancel(data) if data == socket.user_data()));
        assert!(matches!(slots.abandon(disk), Abandoned::Flying));
        assert_eq!(slots.in_flight(), 2);
        assert!(slots.complete(socket.user_data(), -125).orphan.is_some());
        assert!(slots.complete(disk.user_data(), 4096).orphan.is_some());
        assert_eq!((slots.in_flight(), slots.free.len()), (0, 2));
    }

    #[test]
    fn user_data_keeps_index_and_generation() {
        let key = Key { index: 77, generation: u32::MAX };
        assert_eq!(Key::from_user_data(key.user_data()), key);
    }
}

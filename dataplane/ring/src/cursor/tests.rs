use core::sync::atomic::{AtomicU64, Ordering};

use loom::sync::{Arc, Condvar, Mutex};

use super::{Indices, PopCursor, PushCursor, Word};
use crate::error::PeerBroken;

impl Word for loom::sync::atomic::AtomicU64 {
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
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// A ring of two slots under loom, with an eventfd made of a counter and a condition.
struct Model {
    shared: Indices<loom::sync::atomic::AtomicU64>,
    slots: [loom::cell::UnsafeCell<u64>; 2],
    doorbell: Mutex<bool>,
    rung: Condvar,
}

// SAFETY: the cells are only touched between claim and publish, or peek and release, which is what loom checks here.
unsafe impl Sync for Model {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Model {}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            shared: Indices::default(),
            slots: [loom::cell::UnsafeCell::new(0), loom::cell::UnsafeCell::new(0)],
            doorbell: Mutex::new(false),
            rung: Condvar::new(),
        })
    }

    fn send(&self, cursor: &mut PushCursor, value: u64) -> bool {
        let Some(index) = cursor.claim(&self.shared).unwrap() else { return false };
        self.slots[usize::try_from(index).unwrap()].with_mut(|cell| {
            // SAFETY: claimed and not yet published, so only this thread has it; loom reports it when not.
            unsafe { *cell = value }
        });
        cursor.publish(&self.shared);
        if cursor.wants_doorbell(&self.shared) {
            *self.doorbell.lock().unwrap() = true;
            self.rung.notify_one();
        }
        true
    }

    fn take(&self, cursor: &mut PopCursor) -> Option<u64> {
        let index = cursor.peek(&self.shared).unwrap()?;
        let value = self.slots[usize::try_from(index).unwrap()].with(|cell| {
            // SAFETY: published and not yet released; loom reports it when the sender writes meanwhile.
            unsafe { *cell }
        });
        cursor.release(&self.shared);
        Some(value)
    }

    /// Sleeps without any time-out: a lost wake-up is a deadlock, which loom reports.
    fn receive(&self, cursor: &mut PopCursor) -> u64 {
        loop {
            if let Some(value) = self.take(cursor) {
                return value;
            }
            if cursor.prepare_sleep(&self.shared).unwrap() {
                let mut rung = self.doorbell.lock().unwrap();
                while !*rung {
                    rung = self.rung.wait(rung).unwrap();
                }
                *rung = false;
                drop(rung);
                cursor.awake(&self.shared);
            }
        }
    }
}

#[test]
fn no_order_of_two_threads_loses_a_slot_or_a_wake_up() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let model = Model::new();
        let sender = {
            let model = Arc::clone(&model);
            loom::thread::spawn(move || {
                let mut cursor = PushCursor::new(2);
                for value in 1..=2 {
                    assert!(model.send(&mut cursor, value), "two slots hold two values");
                }
            })
        };
        let mut cursor = PopCursor::new(2);
        assert_eq!(model.receive(&mut cursor), 1);
        assert_eq!(model.receive(&mut cursor), 2);
        assert_eq!(model.take(&mut cursor), None);
        sender.join().unwrap();
    });
}

#[test]
fn no_order_of_two_threads_overwrites_an_unread_slot() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let model = Model::new();
        let sender = {
            let model = Arc::clone(&model);
            loom::thread::spawn(move || {
                let mut cursor = PushCursor::new(2);
                let mut sent = 0;
                for value in 1..=3 {
                    if model.send(&mut cursor, value) {
                        sent += 1;
                    } else {
                        break;
                    }
                }
                sent
            })
        };
        let mut cursor = PopCursor::new(2);
        let mut expected = 1;
        for _ in 0..2 {
            if let Some(value) = model.take(&mut cursor) {
                assert_eq!(value, expected);
                expected += 1;
            }
        }
        let sent = sender.join().unwrap();
        while let Some(value) = model.take(&mut cursor) {
            assert_eq!(value, expected);
            expected += 1;
        }
        assert_eq!(expected - 1, sent);
    });
}

#[test]
fn an_index_further_away_than_the_ring_is_long_breaks_the_peer() {
    let shared = Indices::<AtomicU64>::default();
    let mut pop = PopCursor::new(8);
    for lie in [9, 1 << 40, u64::MAX] {
        shared.head.0.store(lie, Ordering::Relaxed);
        assert_eq!(pop.peek(&shared), Err(PeerBroken::Index { distance: lie, capacity: 8 }));
        assert!(pop.prepare_sleep(&shared).is_err());
    }
    let mut push = PushCursor::new(8);
    for _ in 0..8 {
        assert!(push.claim(&shared).unwrap().is_some());
        push.publish(&shared);
    }
    assert_eq!(push.claim(&shared), Ok(None));
    shared.tail.0.store(9, Ordering::Relaxed);
    assert!(push.claim(&shared).is_err(), "a receiver ahead of its sender");
}

//! Who uses which part of an arena.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Slabs of one size.
#[derive(Debug)]
struct Class {
    slab_bytes: u64,
    free: Vec<u64>,
}

/// An arena cut into slabs of a few sizes; whoever finds none waits.
#[derive(Debug)]
pub(crate) struct Space {
    classes: Mutex<Vec<Class>>,
    freed: Condvar,
}

/// A slab in use; back in its class when dropped.
#[derive(Debug)]
pub(crate) struct Piece<'s> {
    space: &'s Space,
    class: usize,
    pub(crate) offset: u64,
}

impl Space {
    /// Cuts slabs of (`bytes`, `count`) one behind the other; sizes must grow.
    pub(crate) fn new(cut: &[(u64, u64)]) -> Self {
        assert!(cut.is_sorted_by_key(|(bytes, _)| *bytes), "slab sizes grow");
        let mut begin = 0;
        let mut classes = Vec::new();
        for &(slab_bytes, count) in cut {
            // Taken from the end, so the first slabs are used most and stay in the processor's cache.
            let free = (0..count).rev().map(|index| begin + index * slab_bytes).collect();
            begin += slab_bytes * count;
            classes.push(Class { slab_bytes, free });
        }
        Self { classes: Mutex::new(classes), freed: Condvar::new() }
    }

    /// A slab of at least `bytes`, of the smallest class that holds so many.
    ///
    /// # Panics
    /// When no class holds so many.
    pub(crate) fn take(&self, bytes: u64, patience: Duration) -> Option<Piece<'_>> {
        let until = Instant::now() + patience;
        let mut classes = self.classes.lock().expect("no holder of this lock panics");
        loop {
            let class =
                classes.iter().position(|class| class.slab_bytes >= bytes).expect("a slab is large enough");
            if let Some(offset) = classes[class].free.pop() {
                return Some(Piece { space: self, class, offset });
            }
            let left = until.checked_duration_since(Instant::now())?;
            classes = self.freed.wait_timeout(classes, left).expect("no holder of this lock panics").0;
        }
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        let mut classes = self.space.classes.lock().expect("no holder of this lock panics");
        classes[self.class].free.push(self.offset);
        drop(classes);
        self.space.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_never_overlap_and_come_back() {
        let space = Space::new(&[(64, 2), (256, 1)]);
        let none = Duration::ZERO;
        let (a, b) = (space.take(1, none).unwrap(), space.take(64, none).unwrap());
        let large = space.take(65, none).unwrap();
        assert_eq!((a.offset, b.offset, large.offset), (0, 64, 128));
        assert!(space.take(10, none).is_none(), "small requests do not eat the large slabs");
        drop(a);
        assert_eq!(space.take(10, none).unwrap().offset, 0);
    }

    #[test]
    fn a_waiter_gets_the_slab_that_is_given_back() {
        let space = Space::new(&[(64, 1)]);
        let first = space.take(64, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| space.take(64, Duration::from_secs(5)).map(|piece| piece.offset));
            drop(first);
            assert_eq!(waiter.join().unwrap(), Some(0));
        });
    }
}

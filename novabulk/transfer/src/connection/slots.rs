//! A fixed number of places, found by key without touching what they hold.

use core::ops::Index;

/// Marks a free place.
const FREE: u64 = u64::MAX;

/// Places for messages. Keys stand side by side, so that a search reads one kilobyte and not every message.
#[derive(Debug)]
pub(super) struct Slots<T> {
    keys: Vec<u64>,
    entries: Vec<Option<T>>,
    count: usize,
}

impl<T> Slots<T> {
    pub(super) fn new(places: usize) -> Self {
        Self { keys: vec![FREE; places], entries: (0..places).map(|_| None).collect(), count: 0 }
    }

    /// How many are taken.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// How many there are.
    pub(super) const fn places(&self) -> usize {
        self.keys.len()
    }

    /// The place of a key; keys come from peers, so the mark of free places is a key like any other that is not there.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|other| *other == key).filter(|_| key != FREE)
    }

    /// The place it got, or the entry when all are taken.
    ///
    /// # Panics
    /// When the key is taken, or is the mark of a free place.
    pub(super) fn insert(&mut self, key: u64, entry: T) -> Result<usize, T> {
        assert!(key != FREE && self.find(key).is_none(), "key {key} twice");
        let Some(slot) = self.keys.iter().position(|other| *other == FREE) else { return Err(entry) };
        self.keys[slot] = key;
        self.entries[slot] = Some(entry);
        self.count += 1;
        Ok(slot)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.entries[slot].as_mut()
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<T> {
        let entry = self.entries[slot].take()?;
        self.keys[slot] = FREE;
        self.count -= 1;
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = Option<T>;

    fn index(&self, slot: usize) -> &Option<T> {
        &self.entries[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_found_and_free_again() {
        let mut slots = Slots::new(2);
        let first = slots.insert(7, "seven").unwrap();
        let second = slots.insert(0, "zero").unwrap();
        assert_eq!(slots.insert(9, "nine"), Err("nine"));
        assert_eq!((slots.count(), slots.find(7), slots.find(0)), (2, Some(first), Some(second)));
        assert_eq!(slots.remove(first), Some("seven"));
        assert_eq!((slots.remove(first), slots.find(7)), (None, None));
        assert_eq!(slots.find(u64::MAX), None, "a free place is nobody's");
        assert_eq!(slots.insert(9, "nine"), Ok(first));
        assert_eq!(slots[first], Some("nine"));
    }
}

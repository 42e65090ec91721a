//! The log's ring: where the next batch goes.

use novafs_format::{Geometry, PAGE};

/// Places of batches in the ring, in pages. A batch lies in one piece: one that does not fit before the end goes to
/// the start, and replay looks for the next number at both places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    position: u64,
    pages: u64,
    /// First page that replay needs.
    head: u64,
    /// First page behind the newest batch.
    tail: u64,
    empty: bool,
}

impl Ring {
    /// A ring with nothing in it, whose next batch goes to `head_position`.
    pub(crate) fn new(geometry: &Geometry, head_position: u64) -> Self {
        let head = (head_position - geometry.wal_position) / PAGE as u64;
        let pages = geometry.wal_bytes / PAGE as u64;
        Self { position: geometry.wal_position, pages, head, tail: head, empty: true }
    }

    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) const fn used(&self) -> u64 {
        if self.empty {
            0
        } else if self.tail > self.head {
            self.tail - self.head
        } else {
            self.pages - (self.head - self.tail)
        }
    }

    /// Where a batch of `pages` would go; `None` when it does not fit.
    fn place(&self, pages: u64) -> Option<u64> {
        let before_end = if self.empty || self.tail > self.head { self.pages } else { self.head };
        if self.tail + pages <= before_end && (self.tail < before_end || self.empty) {
            return Some(self.tail);
        }
        let from_start = self.empty || (self.tail > self.head && pages <= self.head);
        (from_start && pages <= self.pages).then_some(0)
    }

    /// Takes room for a batch and returns its position on the device.
    pub(crate) fn push(&mut self, pages: u64) -> Option<u64> {
        let at = self.place(pages)?;
        if self.empty {
            self.head = at;
        }
        self.empty = false;
        self.tail = at + pages;
        Some(self.position + at * PAGE as u64)
    }

    /// Position behind the newest batch; the ring's start when that is its end.
    pub(crate) const fn tail_position(&self) -> u64 {
        let tail = if self.tail == self.pages { 0 } else { self.tail };
        self.position + tail * PAGE as u64
    }

    /// Lets go of everything before `head_position`.
    pub(crate) fn release(&mut self, head_position: u64, empty: bool) {
        self.head = (head_position - self.position) / PAGE as u64;
        if empty {
            self.tail = self.head;
        }
        self.empty = empty;
    }

    /// Takes in a batch that replay found.
    pub(crate) fn follow(&mut self, position: u64, pages: u64) {
        let at = (position - self.position) / PAGE as u64;
        if self.empty {
            self.head = at;
        }
        self.empty = false;
        self.tail = at + pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        device_bytes: 0,
        wal_position: 65_536,
        wal_bytes: 16 * 4096,
        meta_position: 0,
        meta_bytes: 0,
        slots_position: 0,
        slot_count: 0,
        slot_log2: 0,
    };

    #[test]
    fn batches_never_overlap_what_replay_needs() {
        let mut ring = Ring::new(&GEOMETRY, 65_536);
        assert_eq!(ring.push(10), Some(65_536));
        assert_eq!(ring.push(7), None, "neither behind nor before");
        assert_eq!(ring.push(6), Some(65_536 + 10 * 4096));
        assert_eq!((ring.used(), ring.push(1)), (16, None));
        ring.release(65_536 + 10 * 4096, false);
        assert_eq!(ring.used(), 6);
        assert_eq!(ring.push(11), None);
        assert_eq!(ring.push(10), Some(65_536));
        assert_eq!(ring.push(1), None);
        ring.release(65_536, false);
        assert_eq!((ring.used(), ring.push(7)), (10, None));
        assert_eq!(ring.push(6), Some(65_536 + 10 * 4096));
    }
}

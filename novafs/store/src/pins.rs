//! What readers still look at is not given away.

use crate::inline::InlineBody;
use novafs_format::Cell;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Space that nothing refers to any more, but that a reader which started earlier may still be reading.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    pub(crate) cells: Vec<Cell>,
    pub(crate) pages: Vec<u64>,
    /// Bodies that rode in the log.
    pub(crate) bodies: Vec<Rc<InlineBody>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    readers: BTreeMap<u64, ()>,
    limbo: VecDeque<(u64, Freed)>,
}

/// Readers in the order they started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    inner: Rc<RefCell<Inner>>,
}

/// A reader: what is freed while it lives stays untouched until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    inner: Rc<RefCell<Inner>>,
    ticket: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.inner.borrow_mut().readers.remove(&self.ticket);
    }
}

impl Pins {
    pub(crate) fn pin(&self) -> Pin {
        let mut inner = self.inner.borrow_mut();
        let ticket = inner.next;
        inner.next += 1;
        inner.readers.insert(ticket, ());
        Pin { inner: Rc::clone(&self.inner), ticket }
    }

    /// Puts freed space behind the readers of now.
    pub(crate) fn retire(&self, freed: Freed) {
        let mut inner = self.inner.borrow_mut();
        let bound = inner.next;
        inner.limbo.push_back((bound, freed));
    }

    /// Whether readers keep freed space from being used again.
    pub(crate) fn hold_space(&self) -> bool {
        !self.inner.borrow().limbo.is_empty()
    }

    /// Space that no reader looks at any more.
    pub(crate) fn drain(&self) -> Vec<Freed> {
        let mut inner = self.inner.borrow_mut();
        let oldest = inner.readers.first_key_value().map_or(u64::MAX, |(ticket, ())| *ticket);
        let count = inner.limbo.iter().take_while(|(bound, _)| *bound <= oldest).count();
        inner.limbo.drain(..count).map(|(_, freed)| freed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_space_waits_for_the_readers_that_were_there() {
        let pins = Pins::default();
        let early = pins.pin();
        pins.retire(Freed { pages: vec![1], ..Freed::default() });
        let late = pins.pin();
        pins.retire(Freed { pages: vec![2], ..Freed::default() });
        assert!(pins.drain().is_empty());
        drop(early);
        let pages = |freed: Vec<Freed>| freed.into_iter().flat_map(|freed| freed.pages).collect::<Vec<_>>();
        assert_eq!(pages(pins.drain()), [1]);
        drop(late);
        assert_eq!(pages(pins.drain()), [2]);
    }
}

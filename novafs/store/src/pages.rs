//! The metadata area: which pages of 4 KiB hold tree pages.

use novafs_format::{Geometry, PAGE};

/// Free pages of the metadata area; like the map of slots it is built again at every open.
#[derive(Debug)]
pub(crate) struct Pages {
    position: u64,
    used: Vec<bool>,
    used_count: usize,
    hint: usize,
}

impl Pages {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let count = usize::try_from(geometry.meta_bytes / PAGE as u64).expect("a metadata area fits memory");
        Self { position: geometry.meta_position, used: vec![false; count], used_count: 0, hint: 0 }
    }

    pub(crate) const fn used(&self) -> usize {
        self.used_count
    }

    pub(crate) fn total(&self) -> usize {
        self.used.len()
    }

    /// A free page, behind the last one taken if possible, so that pages of one checkpoint lie together.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let count = self.used.len();
        let index = (self.hint..count).chain(0..self.hint.min(count)).find(|index| !self.used[*index])?;
        self.used[index] = true;
        self.used_count += 1;
        self.hint = index + 1;
        Some(self.position + (index * PAGE) as u64)
    }

    fn index(&self, position: u64) -> Option<usize> {
        let offset =
            position.checked_sub(self.position).filter(|offset| offset.is_multiple_of(PAGE as u64))?;
        usize::try_from(offset / PAGE as u64).ok().filter(|index| *index < self.used.len())
    }

    /// Marks a page of the tree. `false` when it cannot be one or is in use.
    pub(crate) fn mark(&mut self, position: u64) -> bool {
        match self.index(position) {
            Some(index) if !self.used[index] => {
                self.used[index] = true;
                self.used_count += 1;
                true
            }
            _ => false,
        }
    }

    /// Gives a page back.
    ///
    /// # Panics
    /// When it is not in use.
    pub(crate) fn free(&mut self, position: u64) {
        let index = self.index(position).expect("only pages of the metadata area are freed");
        assert!(self.used[index], "a metadata page was freed twice");
        self.used[index] = false;
        self.used_count -= 1;
    }
}

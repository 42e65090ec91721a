//! The free-space map: slots of cells of one class each.
//!
//! It lives in memory only; a store that opens builds it again from the tree and the log.

use novafs_format::{Cell, CellClass, Geometry};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Slots with free cells that one allocation looks through before it takes a fresh slot or scattered cells.
const SLOTS_SEARCHED_MAX: usize = 8;
/// Empty slots that are never taken out of use to be discarded, besides the share kept for repair.
const EMPTY_SLOTS_KEPT: usize = 2;
const CLASSES: usize = CellClass::ALL.len();

/// Cells wanted or held, by class.
pub(crate) type Counts = [u64; CLASSES];

/// Room that is kept for one entry; given back when dropped. Drop it right before the append it was made for: the
/// append takes its room itself.
#[derive(Debug)]
#[must_use = "room dropped at once is not kept"]
pub struct Reservation {
    held: Rc<RefCell<Counts>>,
    counts: Counts,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.held.borrow_mut();
        for (held, count) in held.iter_mut().zip(self.counts) {
            *held -= count;
        }
    }
}

/// Whether an allocation may use the space kept back for repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Client,
    Repair,
}

#[derive(Debug)]
struct Slot {
    class: Option<CellClass>,
    used: Vec<u64>,
    used_count: u64,
    /// Where the next search begins.
    hint: u64,
}

#[derive(Debug)]
pub(crate) struct Slots {
    position: u64,
    slot_log2: u8,
    slots: Vec<Slot>,
    fresh: BTreeSet<usize>,
    /// Slots of a class that have free cells.
    open: [BTreeSet<usize>; CLASSES],
    /// Slot of a class that was used last.
    current: [usize; CLASSES],
    free_cells: Counts,
    /// Fresh slots that clients leave for repair: 2 % of the device, at least one.
    floor: usize,
    held: Rc<RefCell<Counts>>,
}

/// Counts cells by class.
pub(crate) fn count(classes: impl IntoIterator<Item = CellClass>) -> Counts {
    let mut counts = [0; CLASSES];
    for class in classes {
        counts[class as usize] += 1;
    }
    counts
}

pub(crate) fn bytes_of(counts: &Counts) -> u64 {
    CellClass::ALL.iter().map(|class| counts[*class as usize] * class.bytes()).sum()
}

impl Slots {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let count = usize::try_from(geometry.slot_count).expect("a count of slots fits memory");
        let slot = || Slot { class: None, used: Vec::new(), used_count: 0, hint: 0 };
        Self {
            position: geometry.slots_position,
            slot_log2: geometry.slot_log2,
            slots: core::iter::repeat_with(slot).take(count).collect(),
            fresh: (0..count).collect(),
            open: Default::default(),
            current: [usize::MAX; CLASSES],
            free_cells: [0; CLASSES],
            floor: count.div_ceil(50),
            held: Rc::default(),
        }
    }

    const fn cells_per_slot(&self, class: CellClass) -> u64 {
        (1 << self.slot_log2) / class.bytes()
    }

    pub(crate) fn bytes_total(&self) -> u64 {
        (self.slots.len() as u64) << self.slot_log2
    }

    /// Bytes a client can still write at best.
    pub(crate) fn bytes_free(&self) -> u64 {
        let fresh = self.fresh.len().saturating_sub(self.floor) as u64;
        (fresh << self.slot_log2) + bytes_of(&self.free_cells)
    }

    /// Whether `counts` fit beside all that is reserved.
    pub(crate) fn has_room_for(&self, counts: &Counts, purpose: Purpose) -> bool {
        let held = self.held.borrow();
        let mut slots = 0;
        for class in CellClass::ALL {
            let index = class as usize;
            let wanted = counts[index] + if purpose == Purpose::Client { held[index] } else { 0 };
            slots += wanted.saturating_sub(self.free_cells[index]).div_ceil(self.cells_per_slot(class));
        }
        let floor = if purpose == Purpose::Client { self.floor } else { 0 };
        slots <= self.fresh.len().saturating_sub(floor) as u64
    }

    pub(crate) fn reserve(&self, counts: Counts) -> Option<Reservation> {
        if !self.has_room_for(&counts, Purpose::Client) {
            return None;
        }
        for (held, count) in self.held.borrow_mut().iter_mut().zip(counts) {
            *held += count;
        }
        Some(Reservation { held: Rc::clone(&self.held), counts })
    }

    /// A cell for each class in order, neighbours of one class adjacent where there is room for that.
    pub(crate) fn take(&mut self, classes: &[CellClass], purpose: Purpose) -> Option<Vec<Cell>> {
        if !self.has_room_for(&count(classes.iter().copied()), purpose) {
            return None;
        }
        let mut cells = Vec::with_capacity(classes.len());
        for run in classes.chunk_by(|a, b| a == b) {
            let (class, mut left) = (run[0], run.len() as u64);
            while left > 0 {
                let (slot, first, length) = self.find(class, left);
                for cell in first..first + length {
                    self.set_used(slot, cell);
                    cells.push(self.cell(slot, class, cell));
                }
                left -= length;
            }
        }
        Some(cells)
    }

    /// Some free cells of a class: `wanted` adjacent ones if they are easy to find, else as many as there are.
    fn find(&mut self, class: CellClass, wanted: u64) -> (usize, u64, u64) {
        let index = class as usize;
        let mut best = None;
        let current = self.open[index].get(&self.current[index]).copied();
        let others = self.open[index].iter().copied().take(SLOTS_SEARCHED_MAX);
        for slot in current.into_iter().chain(others) {
            let (first, length) = self.slots[slot].longest_run(self.cells_per_slot(class), wanted);
            if length == wanted {
                self.current[index] = slot;
                return (slot, first, length);
            }
            if best.is_none_or(|(_, _, longest)| length > longest) {
                best = Some((slot, first, length));
            }
        }
        if let Some(slot) = self.fresh.pop_first() {
            let cells = self.cells_per_slot(class);
            self.slots[slot].open(class, cells);
            self.free_cells[index] += cells;
            self.open[index].insert(slot);
            self.current[index] = slot;
            return (slot, 0, wanted.min(cells));
        }
        best.expect("room was checked before")
    }

    fn cell(&self, slot: usize, class: CellClass, index: u64) -> Cell {
        let position = self.position + ((slot as u64) << self.slot_log2) + index * class.bytes();
        Cell { position, class }
    }

    fn locate(&self, cell: Cell) -> Option<(usize, u64)> {
        let offset = cell.position.checked_sub(self.position)?;
        let slot = usize::try_from(offset >> self.slot_log2).ok().filter(|slot| *slot < self.slots.len())?;
        let within = offset & ((1 << self.slot_log2) - 1);
        within.is_multiple_of(cell.class.bytes()).then_some((slot, within / cell.class.bytes()))
    }

    fn set_used(&mut self, slot: usize, index: u64) {
        let class = self.slots[slot].class.expect("only cells of open slots are used");
        let cells = self.cells_per_slot(class);
        self.slots[slot].set(index);
        self.free_cells[class as usize] -= 1;
        if self.slots[slot].used_count == cells {
            self.open[class as usize].remove(&slot);
        }
    }

    /// Marks a cell that the tree or the log names. `false` when it cannot be one or is in use.
    pub(crate) fn mark(&mut self, cell: Cell) -> bool {
        let Some((slot, index)) = self.locate(cell) else { return false };
        match self.slots[slot].class {
            None => {
                self.fresh.remove(&slot);
                let cells = self.cells_per_slot(cell.class);
                self.slots[slot].open(cell.class, cells);
                self.free_cells[cell.class as usize] += cells;
                self.open[cell.class as usize].insert(slot);
            }
            Some(class) if class != cell.class || self.slots[slot].is_used(index) => return false,
            Some(_) => {}
        }
        self.set_used(slot, index);
        true
    }

    /// Gives a cell back; answers the slot when it is empty now. An empty slot may take another class.
    ///
    /// # Panics
    /// When the cell is not in use: something was freed twice.
    pub(crate) fn free(&mut self, cell: Cell) -> Option<usize> {
        let (slot, index) = self.locate(cell).expect("only cells of this device are freed");
        let class = cell.class as usize;
        assert!(
            self.slots[slot].class == Some(cell.class) && self.slots[slot].is_used(index),
            "a cell was freed twice: {cell:?}"
        );
        self.slots[slot].clear(index);
        self.free_cells[class] += 1;
        self.open[class].insert(slot);
        if self.slots[slot].used_count == 0 {
            self.free_cells[class] -= self.cells_per_slot(cell.class);
            self.open[class].remove(&slot);
            self.slots[slot].class = None;
            self.fresh.insert(slot);
            return Some(slot);
        }
        None
    }

    /// Takes an empty slot out of use, and answers where it lies and how long it is. `None` when it is in use again,
    /// or one of the last that are empty: room comes first.
    pub(crate) fn begin_discard(&mut self, slot: usize) -> Option<(u64, u64)> {
        if self.fresh.len() <= self.floor + EMPTY_SLOTS_KEPT || !self.fresh.remove(&slot) {
            return None;
        }
        Some((self.position + ((slot as u64) << self.slot_log2), 1 << self.slot_log2))
    }

    /// A slot that [`Slots::begin_discard`] took out of use is empty again.
    pub(crate) fn end_discard(&mut self, slot: usize) {
        self.fresh.insert(slot);
    }
}

impl Slot {
    fn open(&mut self, class: CellClass, cells: u64) {
        let words = usize::try_from(cells.div_ceil(64)).expect("a slot has at most 32,768 cells");
        self.class = Some(class);
        self.used.clear();
        self.used.resize(words, 0);
        self.used_count = 0;
        self.hint = 0;
    }

    fn word(index: u64) -> (usize, u64) {
        (usize::try_from(index / 64).expect("a slot has at most 32,768 cells"), 1 << (index % 64))
    }

    fn is_used(&self, index: u64) -> bool {
        let (word, bit) = Self::word(index);
        self.used[word] & bit != 0
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = Self::word(index);
        assert!(self.used[word] & bit == 0, "a cell was given twice");
        self.used[word] |= bit;
        self.used_count += 1;
        self.hint = index + 1;
    }

    fn clear(&mut self, index: u64) {
        let (word, bit) = Self::word(index);
        self.used[word] &= !bit;
        self.used_count -= 1;
    }

    /// First run of `wanted` free cells from the hint on, around the end; else the longest there is.
    fn longest_run(&self, cells: u64, wanted: u64) -> (u64, u64) {
        let mut best = (0, 0);
        for (from, to) in [(self.hint, cells), (0, self.hint.min(cells))] {
            let mut length = 0;
            let mut index = from;
            while index < to {
                // Whole words that are full are the common case in a slot that fills up.
                if index % 64 == 0 && self.used[Self::word(index).0] == u64::MAX {
                    length = 0;
                    index += 64;
                    continue;
                }
                length = if self.is_used(index) { 0 } else { length + 1 };
                index += 1;
                if length > best.1 {
                    best = (index - length, length);
                }
                if length == wanted {
                    return best;
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: u32) -> Slots {
        let geometry =
            Geometry { slots_position: 1 << 20, slot_count: count, slot_log2: 20, ..Geometry::default() };
        Slots::new(&geometry)
    }

    #[test]
    fn units_of_one_append_get_adjacent_cells() {
        let mut slots = slots(4);
        let cells = slots.take(&[CellClass::K64; 16], Purpose::Client).unwrap();
        assert!(cells.windows(2).all(|pair| pair[0].position + 65_536 == pair[1].position));
        let small = slots.take(&[CellClass::K4, CellClass::K4, CellClass::K16], Purpose::Client).unwrap();
        assert_eq!(small[0].position + 4096, small[1].position);
        assert_ne!(small[2].position >> 20, small[0].position >> 20, "a slot has cells of one class");
    }

    #[test]
    fn clients_leave_the_floor_and_reservations_count() {
        let mut slots = slots(3);
        assert!(slots.has_room_for(&count([CellClass::K64; 32]), Purpose::Client));
        assert!(!slots.has_room_for(&count([CellClass::K64; 33]), Purpose::Client));
        assert!(slots.has_room_for(&count([CellClass::K64; 48]), Purpose::Repair));
        let kept = slots.reserve(count([CellClass::K64; 20])).unwrap();
        assert!(slots.take(&[CellClass::K64; 13], Purpose::Client).is_none());
        assert!(
            slots.reserve(count([CellClass::K4])).is_none(),
            "the second slot is promised to 64 KiB cells"
        );
        drop(kept);
        assert!(slots.take(&[CellClass::K64; 13], Purpose::Client).is_some());
    }

    #[test]
    fn an_emptied_slot_takes_another_class_and_scattered_cells_are_used() {
        let mut slots = slots(2);
        let cells = slots.take(&[CellClass::K64; 16], Purpose::Client).unwrap();
        for cell in cells.iter().step_by(2) {
            slots.free(*cell);
        }
        let again = slots.take(&[CellClass::K64; 8], Purpose::Client).unwrap();
        assert_eq!(again.len(), 8);
        for cell in cells.iter().skip(1).step_by(2).chain(&again) {
            slots.free(*cell);
        }
        assert_eq!(slots.bytes_free(), 1 << 20);
        assert!(slots.take(&[CellClass::K4; 256], Purpose::Client).is_some());
    }

    #[test]
    fn an_empty_slot_is_out_of_use_while_it_is_discarded_unless_room_is_short() {
        let mut slots = slots(5);
        let cells = slots.take(&[CellClass::K64; 16], Purpose::Client).unwrap();
        let emptied: Vec<_> = cells.iter().filter_map(|cell| slots.free(*cell)).collect();
        assert_eq!(emptied, [0], "the last cell empties the slot");
        assert_eq!(slots.begin_discard(0), Some((1 << 20, 1 << 20)));
        assert_eq!(slots.begin_discard(0), None, "it is being discarded");
        let next = slots.take(&[CellClass::K64], Purpose::Client).unwrap();
        assert_eq!(next[0].position, 2 << 20, "not the slot that is being discarded");
        slots.end_discard(0);
        assert_eq!(slots.begin_discard(1), None, "it is in use again");
        let more = slots.take(&[CellClass::K4], Purpose::Client).unwrap();
        assert_eq!(more[0].position, 1 << 20);
        assert_eq!(
            slots.begin_discard(2),
            None,
            "three empty slots are left: one for repair, two to write to"
        );
    }

    #[test]
    fn a_cell_named_twice_or_of_the_wrong_class_is_not_marked() {
        let mut slots = slots(2);
        let cell = Cell { position: (1 << 20) + 65_536, class: CellClass::K64 };
        assert!(slots.mark(cell));
        assert!(!slots.mark(cell));
        assert!(!slots.mark(Cell { class: CellClass::K4, ..cell }));
        assert!(!slots.mark(Cell { position: 0, ..cell }));
        assert!(!slots.mark(Cell { position: 1 << 40, ..cell }));
        assert!(!slots.mark(Cell { position: (1 << 20) + 4096, ..cell }));
    }
}

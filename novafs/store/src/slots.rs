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
/// Slots of which at most one in so many cells is in use may be emptied: each cell that is written gives one free.
const SPARSE_ONE_IN: u64 = 2;
/// With more than one in so many slots empty none has to be emptied.
const EMPTY_ONE_IN: usize = 16;
/// Slots that are emptied at once.
const CLOSED_MAX: usize = 64;
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

/// What an allocation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// All but the space kept back for repair.
    Client,
    /// Everything.
    Repair,
    /// Cells of slots that have the class already, and that nobody has reserved: it is to make empty slots, not to take them.
    Compaction,
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
    /// Slots that are being emptied: their free cells are given to nobody.
    closed: BTreeSet<usize>,
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
            closed: BTreeSet::new(),
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
            let wanted = counts[index] + if purpose == Purpose::Repair { 0 } else { held[index] };
            slots += wanted.saturating_sub(self.free_cells[index]).div_ceil(self.cells_per_slot(class));
        }
        let most = match purpose {
            Purpose::Client => self.fresh.len().saturating_sub(self.floor),
            Purpose::Repair => self.fresh.len(),
            Purpose::Compaction => 0,
        };
        slots <= most as u64
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
        let is_closed = self.closed.contains(&slot);
        if !is_closed {
            self.free_cells[class] += 1;
            self.open[class].insert(slot);
        }
        if self.slots[slot].used_count > 0 {
            return None;
        }
        if is_closed {
            self.closed.remove(&slot);
        } else {
            self.free_cells[class] -= self.cells_per_slot(cell.class);
            self.open[class].remove(&slot);
        }
        self.slots[slot].class = None;
        self.fresh.insert(slot);
        Some(slot)
    }

    /// Slots that should be emptied because few are empty, and could be: hardly used ones of each class, as many as the
    /// free cells of the others can take in.
    fn sparse(&self) -> Vec<usize> {
        let mut sparse = Vec::new();
        if self.fresh.len() > self.floor + EMPTY_SLOTS_KEPT + self.slots.len() / EMPTY_ONE_IN {
            return sparse;
        }
        let held = self.held.borrow();
        for class in CellClass::ALL {
            let cells = self.cells_per_slot(class);
            let index = class as usize;
            let mut candidates: Vec<_> = self.open[index]
                .iter()
                .map(|slot| (self.slots[*slot].used_count, *slot))
                .filter(|(used, _)| used * SPARSE_ONE_IN <= cells)
                .collect();
            candidates.sort_unstable();
            let mut room = self.free_cells[index].saturating_sub(held[index]);
            for (_, slot) in candidates {
                // What is free in it is lost, and what is used takes as much of the others: together a whole slot.
                match room.checked_sub(cells) {
                    Some(rest) if sparse.len() < CLOSED_MAX => room = rest,
                    _ => break,
                }
                sparse.push(slot);
            }
        }
        sparse
    }

    /// Whether there are slots to be emptied.
    pub(crate) fn are_sparse(&self) -> bool {
        !self.sparse().is_empty()
    }

    /// Takes the free cells of slots that are to be emptied out of use.
    pub(crate) fn close_sparse(&mut self) -> Vec<usize> {
        let sparse = self.sparse();
        for slot in &sparse {
            let class = self.slots[*slot].class.expect("an open slot has a class");
            self.free_cells[class as usize] -= self.cells_per_slot(class) - self.slots[*slot].used_count;
            self.open[class as usize].remove(slot);
            self.closed.insert(*slot);
        }
        sparse
    }

    /// Whether a cell lies in a slot that is being emptied.
    pub(crate) fn is_closed(&self, cell: Cell) -> bool {
        self.locate(cell).is_some_and(|(slot, _)| self.closed.contains(&slot))
    }

    /// Ends the emptying of a slot; false when it is empty, or another, by now.
    pub(crate) fn reopen(&mut self, slot: usize) -> bool {
        if !self.closed.remove(&slot) {
            return false;
        }
        let class = self.slots[slot].class.expect("a closed slot has a class");
        self.free_cells[class as usize] += self.cells_per_slot(class) - self.slots[slot].used_count;
        self.open[class as usize].insert(slot);
        true
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

    /// Six slots of 16 cells, of which three have this many in use and the others are empty.
    fn partly_used(used: [usize; 3]) -> (Slots, Vec<Vec<Cell>>) {
        let mut slots = slots(6);
        let taken = slots.take(&[CellClass::K64; 48], Purpose::Client).unwrap();
        let kept = taken.chunks(16).zip(used).map(|(cells, used)| {
            for cell in &cells[used..] {
                assert_eq!(slots.free(*cell), None);
            }
            cells[..used].to_vec()
        });
        let kept = kept.collect();
        (slots, kept)
    }

    #[test]
    fn the_slot_least_in_use_is_emptied_into_the_others() {
        let (mut slots, kept) = partly_used([9, 3, 8]);
        let free = slots.bytes_free();
        assert_eq!(slots.close_sparse(), [1], "28 cells are free: that is one slot, and not two");
        assert!(!slots.are_sparse());
        assert!(kept[1].iter().all(|cell| slots.is_closed(*cell)) && !slots.is_closed(kept[0][0]));
        let moved = slots.take(&[CellClass::K64; 3], Purpose::Compaction).unwrap();
        assert!(moved.iter().all(|cell| !slots.is_closed(*cell)));
        let emptied: Vec<_> = kept[1].iter().filter_map(|cell| slots.free(*cell)).collect();
        assert_eq!((emptied, slots.bytes_free()), (vec![1], free));
        assert!(!slots.reopen(1), "it is empty");
        assert!(
            slots.take(&[CellClass::K64; 13], Purpose::Compaction).is_none(),
            "12 are left beside empty slots"
        );
    }

    #[test]
    fn a_slot_that_could_not_be_emptied_is_used_again() {
        let (mut slots, kept) = partly_used([16, 3, 8]);
        let free = slots.bytes_free();
        assert_eq!(slots.close_sparse(), [1]);
        assert_eq!(slots.free(kept[1][0]), None);
        assert!(slots.bytes_free() < free);
        assert!(slots.reopen(1) && !slots.reopen(1));
        assert_eq!(slots.bytes_free(), free + 65_536);
        assert!(slots.take(&[CellClass::K64; 22], Purpose::Compaction).is_some());
    }

    #[test]
    fn nothing_is_emptied_while_enough_slots_are_or_for_cells_that_are_promised() {
        let (slots, _) = partly_used([9, 3, 8]);
        let kept = slots.reserve(count([CellClass::K64; 13])).unwrap();
        assert!(!slots.are_sparse());
        drop(kept);
        assert!(slots.are_sparse());
        let mut many = self::slots(40);
        let cells = many.take(&[CellClass::K64; 48], Purpose::Client).unwrap();
        cells.iter().skip(3).step_by(2).for_each(|cell| assert_eq!(many.free(*cell), None));
        assert!(!many.are_sparse(), "37 of 40 are empty");
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

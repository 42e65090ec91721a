//! Cells: where on a device a unit's stored bytes lie.

use crate::cursor::{Put, Reader};
use crate::error::{FormatError, bad_field};
use crate::unit::{PAGE, SealedUnit};
use nova_units::{CommitPoint, Epoch, Seq};

/// Size of the cells of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CellClass {
    /// 4 KiB.
    K4 = 0,
    /// 8 KiB.
    K8 = 1,
    /// 16 KiB.
    K16 = 2,
    /// 32 KiB.
    K32 = 3,
    /// 64 KiB.
    K64 = 4,
}

impl CellClass {
    /// Every class, smallest first.
    pub const ALL: [Self; 5] = [Self::K4, Self::K8, Self::K16, Self::K32, Self::K64];

    /// Size of a cell.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        4096 << self as u8
    }

    /// The smallest class that holds this many pages.
    ///
    /// # Panics
    /// When `pages` is 0 or over 16: no unit is.
    #[must_use]
    pub const fn for_pages(pages: usize) -> Self {
        match pages {
            1 => Self::K4,
            2 => Self::K8,
            3..=4 => Self::K16,
            5..=8 => Self::K32,
            9..=16 => Self::K64,
            _ => panic!("a unit fills 1 to 16 pages"),
        }
    }

    /// The class with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::K4),
            1 => Some(Self::K8),
            2 => Some(Self::K16),
            3 => Some(Self::K32),
            4 => Some(Self::K64),
            _ => None,
        }
    }
}

/// A piece of a slot that holds one unit. Encoded in 8 bytes: position, a multiple of 4 KiB, plus class number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// First byte on the device, a multiple of 4 KiB.
    pub position: u64,
    /// Size of the cell.
    pub class: CellClass,
}

impl Cell {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        debug_assert!(self.position.is_multiple_of(PAGE as u64), "cells lie on pages");
        out.put_u64(self.position | self.class as u64);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let word = reader.u64()?;
        let low = u16::try_from(word % PAGE as u64).expect("below 4096");
        let class = u8::try_from(low)
            .ok()
            .and_then(CellClass::from_number)
            .ok_or_else(|| bad_field("cell class", low))?;
        Ok(Self { position: word - u64::from(low), class })
    }
}

/// A unit on a device: what it is, which place of the group's log made it, where its stored bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitRecord {
    /// The sealed unit.
    pub sealed: SealedUnit,
    /// Entry of the group's log that wrote this version.
    pub commit: CommitPoint,
    /// Where the stored bytes lie.
    pub cell: Cell,
}

impl UnitRecord {
    /// Length in a tree page: 124 bytes for a unit of one page to 184 for one of sixteen.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        SealedUnit::FIXED_BYTES + 4 * self.sealed.stored_pages() + 24
    }

    /// Appends the form that tree pages hold: the sealed unit without the checksums of pages there are not, commit
    /// epoch u64, commit number u64, cell u64.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.sealed.put_compact(out);
        put_point(self.commit, out);
        self.cell.put(out);
    }

    /// Takes a record, and nothing else, from untrusted bytes.
    ///
    /// # Errors
    /// Any [`FormatError`] about lengths and fields.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader)?;
        crate::error::expect_end(reader.rest())?;
        Ok(record)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let sealed = SealedUnit::read_compact(reader)?;
        let commit = read_point(reader)?;
        let cell = Cell::read(reader)?;
        if cell.class != CellClass::for_pages(sealed.stored_pages()) {
            return Err(bad_field("cell class", cell.class as u8));
        }
        Ok(Self { sealed, commit, cell })
    }
}

pub(crate) fn put_point(point: CommitPoint, out: &mut Vec<u8>) {
    out.put_u64(point.epoch.0);
    out.put_u64(point.seq.0);
}

pub(crate) fn read_point(reader: &mut Reader<'_>) -> Result<CommitPoint, FormatError> {
    Ok(CommitPoint { epoch: Epoch(reader.u64()?), seq: Seq(reader.u64()?) })
}

//! Entries of a group's log, as disk and wire carry them.

use crate::cursor::{Put, Reader};
use crate::error::{FormatError, bad_field, expect_end};
use crate::unit::SealedUnit;
use nova_units::{BlockId, Generation, UnitIndex};

/// Most units in one entry.
pub const ENTRY_UNITS_MAX: usize = 256;
/// Most bytes of bodies that one entry has, padding included: one message, one frame's worth.
pub const ENTRY_BODY_BYTES_MAX: usize = 1 << 20;

/// A moment in the life of a block: who cut it, and after which of that writer's seals.
///
/// A unit that is gone leaves no version behind to judge a late copy by. The cut is that version: whatever the writer
/// sealed before it, of any unit of the block, is settled or void by now, and a cut that comes late is void beside
/// a later one (docs/adr/0013).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Generation of the writer session; 0 for a block that was never cut.
    pub generation: Generation,
    /// Taken from the same count as the counters of the session's seals: higher than all before.
    pub counter: u64,
    /// Salt of the session.
    pub salt: [u8; 16],
}

impl Cut {
    pub(crate) const ENCODED_BYTES: usize = 28;

    /// Whether this one comes later than `other`.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.generation, self.counter) > (other.generation, other.counter)
    }
}

/// What one place in a group's log says. Bodies travel beside it: those of all units in order, each padded with
/// zeros to 4 KiB.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 1 | kind: 1 units, 2 trim, 3 fence, 4 delete |
/// | 1 | 1 | zero |
/// | 2 | 2 | units: how many; trim: from which unit; else zero |
/// | 4 | 4 | fence, trim: generation; else zero |
/// | 8 | 8 | trim, fence, delete: block; units: zero |
/// | 16 | 160 each | units: the sealed units |
/// | 16 | 24 | trim: counter u64, salt of the writer session |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// New versions of 1 to 256 units of any blocks of the group, no unit twice, at most 1 MiB of bodies.
    Units(Vec<SealedUnit>),
    /// The block ends before this unit: it and all behind it are gone.
    Trim {
        /// Block that is cut.
        block: BlockId,
        /// First unit that goes.
        from_unit: UnitIndex,
        /// When, in the count of the writer that cuts.
        cut: Cut,
    },
    /// Writers of a lower generation are refused from here on.
    Fence {
        /// Block that is fenced.
        block: BlockId,
        /// Lowest generation that may still write.
        generation: Generation,
    },
    /// The block is gone, and nothing is written to it again.
    Delete {
        /// Block that goes.
        block: BlockId,
    },
}

const KIND_UNITS: u8 = 1;
const KIND_TRIM: u8 = 2;
const KIND_FENCE: u8 = 3;
const KIND_DELETE: u8 = 4;

impl LogEntry {
    const HEAD_BYTES: usize = 16;
    /// What a trim has behind the head: counter and salt.
    const CUT_BYTES: usize = 8 + 16;

    /// Sealed units of the entry; empty for other kinds.
    #[must_use]
    pub fn units(&self) -> &[SealedUnit] {
        match self {
            Self::Units(units) => units,
            Self::Trim { .. } | Self::Fence { .. } | Self::Delete { .. } => &[],
        }
    }

    /// Bytes of the bodies that go with the entry, padding included; 0 when it has none.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.units().iter().map(SealedUnit::padded_bytes).sum()
    }

    /// Length of the encoded form.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let cut = if matches!(self, Self::Trim { .. }) { Self::CUT_BYTES } else { 0 };
        Self::HEAD_BYTES + cut + self.units().len() * SealedUnit::ENCODED_BYTES
    }

    /// Whether the entry can be one: counts, sizes, every unit's fields, no unit twice.
    ///
    /// # Errors
    /// [`FormatError::Field`] names what cannot be.
    pub fn check(&self) -> Result<(), FormatError> {
        let Self::Units(units) = self else { return Ok(()) };
        if units.is_empty() || units.len() > ENTRY_UNITS_MAX {
            return Err(bad_field("unit count", units.len() as u64));
        }
        for unit in units {
            unit.check()?;
        }
        if self.body_bytes() > ENTRY_BODY_BYTES_MAX {
            return Err(bad_field("body bytes", self.body_bytes() as u64));
        }
        let ascending = units.is_sorted_by(|a, b| (a.block, a.unit) < (b.block, b.unit));
        if !ascending {
            let mut places: Vec<_> = units.iter().map(|unit| (unit.block, unit.unit)).collect();
            places.sort_unstable();
            if let Some(twice) = places.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(bad_field("unit (twice in one entry)", twice[0].1.0));
            }
        }
        Ok(())
    }

    /// Appends the encoded form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_bytes());
        let (kind, small, generation, block) = match self {
            Self::Units(units) => {
                let count = u16::try_from(units.len()).expect("an entry has at most 256 units");
                (KIND_UNITS, count, 0, 0)
            }
            Self::Trim { block, from_unit, cut } => (KIND_TRIM, from_unit.0, cut.generation.0, block.0),
            Self::Fence { block, generation } => (KIND_FENCE, 0, generation.0, block.0),
            Self::Delete { block } => (KIND_DELETE, 0, 0, block.0),
        };
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u16(small);
        out.put_u32(generation);
        out.put_u64(block);
        for unit in self.units() {
            out.put(&unit.encode());
        }
        if let Self::Trim { cut, .. } = self {
            out.put_u64(cut.counter);
            out.put(&cut.salt);
        }
    }

    /// Takes an entry, and nothing else, from untrusted bytes.
    ///
    /// # Errors
    /// Any [`FormatError`] about lengths and fields; only the canonical form is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (entry, rest) = Self::decode_first(bytes)?;
        expect_end(rest)?;
        Ok(entry)
    }

    /// Takes an entry from the front of untrusted bytes and returns what follows it.
    ///
    /// # Errors
    /// As [`LogEntry::decode`].
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let reserved = reader.u8()?;
        let small = reader.u16()?;
        let generation = reader.u32()?;
        let block = reader.u64()?;
        let zero = |field, value: u64| if value == 0 { Ok(()) } else { Err(bad_field(field, value)) };
        zero("entry reserved", reserved.into())?;
        if kind != KIND_FENCE && kind != KIND_TRIM {
            zero("entry generation", generation.into())?;
        }
        let block_id = BlockId(block);
        let entry = match kind {
            KIND_UNITS => {
                zero("entry block", block)?;
                if small == 0 || usize::from(small) > ENTRY_UNITS_MAX {
                    return Err(bad_field("unit count", small));
                }
                let units =
                    (0..small).map(|_| SealedUnit::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
                Self::Units(units)
            }
            KIND_TRIM => {
                let (counter, salt) = (reader.u64()?, reader.array()?);
                let cut = Cut { generation: Generation(generation), counter, salt };
                Self::Trim { block: block_id, from_unit: UnitIndex(small), cut }
            }
            KIND_FENCE => {
                zero("entry units", small.into())?;
                Self::Fence { block: block_id, generation: Generation(generation) }
            }
            KIND_DELETE => {
                zero("entry units", small.into())?;
                Self::Delete { block: block_id }
            }
            other => return Err(bad_field("entry kind", other)),
        };
        entry.check()?;
        Ok((entry, reader.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::tests::sample;

    fn round_trip(entry: &LogEntry) -> Result<LogEntry, FormatError> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes.len(), entry.encoded_bytes());
        LogEntry::decode(&bytes)
    }

    #[test]
    fn entries_of_every_kind_come_back() {
        let block = BlockId::new(3, 4);
        let cut = Cut { generation: Generation(6), counter: 70, salt: [8; 16] };
        let (unit, _) = sample(5000);
        for entry in [
            LogEntry::Units(vec![unit, SealedUnit { unit: UnitIndex(0), ..unit }]),
            LogEntry::Trim { block, from_unit: UnitIndex(9), cut },
            LogEntry::Fence { block, generation: Generation(7) },
            LogEntry::Delete { block },
        ] {
            assert_eq!(round_trip(&entry), Ok(entry));
        }
    }

    #[test]
    fn a_unit_twice_too_many_units_and_too_much_body_are_refused() {
        let (unit, _) = sample(65_536);
        let at = |index: u16| SealedUnit { unit: UnitIndex(index), ..unit };
        assert!(round_trip(&LogEntry::Units(vec![at(2), at(1), at(2)])).is_err());
        assert!(round_trip(&LogEntry::Units((0..16).map(at).collect())).is_ok());
        assert!(round_trip(&LogEntry::Units((0..17).map(at).collect())).is_err());
        assert!(round_trip(&LogEntry::Units(vec![])).is_err());
        let (small, _) = sample(1);
        let small = |index: u16| SealedUnit { unit: UnitIndex(index), ..small };
        assert!(round_trip(&LogEntry::Units((0..256).map(small).collect())).is_ok());
        assert!(round_trip(&LogEntry::Units((0..257).map(small).collect())).is_err());
    }

    #[test]
    fn reserved_fields_must_be_zero() {
        let mut bytes = Vec::new();
        LogEntry::Delete { block: BlockId(1) }.encode(&mut bytes);
        for at in [1, 2, 4] {
            let mut changed = bytes.clone();
            changed[at] = 1;
            assert!(LogEntry::decode(&changed).is_err(), "byte {at}");
        }
        bytes.push(0);
        assert_eq!(LogEntry::decode(&bytes), Err(FormatError::Trailing { bytes: 1 }));
    }
}

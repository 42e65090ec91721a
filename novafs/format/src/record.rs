//! Records of groups and blocks, and the keys under which a device's tree keeps them and the units.

use crate::cell::{UnitRecord, put_point, read_point};
use crate::cursor::{Put, Reader};
use crate::entry::Cut;
use crate::error::{FormatError, bad_field};
use nova_units::{BlockId, CommitPoint, Epoch, Generation, GroupId, Seq, UnitIndex};

/// What a member must remember of a group besides its log. Zero is "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// Epoch the member works in.
    pub epoch: Epoch,
    /// Highest epoch it promised to answer.
    pub promised: Epoch,
    /// Committed up to here.
    pub commit: Seq,
    /// Role bits, defined by the member; stored as they are.
    pub role: u32,
}

impl GroupRecord {
    pub(crate) const ENCODED_BYTES: usize = 28;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.epoch.0);
        out.put_u64(self.promised.0);
        out.put_u64(self.commit.0);
        out.put_u32(self.role);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            epoch: Epoch(reader.u64()?),
            promised: Epoch(reader.u64()?),
            commit: Seq(reader.u64()?),
            role: reader.u32()?,
        })
    }
}

/// A group as the tree keeps it: its record, and the epoch of the entry it is committed up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredGroup {
    /// The member's record.
    pub record: GroupRecord,
    /// Epoch of the entry with number `record.commit`.
    pub commit_epoch: Epoch,
}

/// What is known of a block besides its units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockRecord {
    /// Lowest generation that may still write.
    pub fence: Generation,
    /// The block was deleted: nothing is written to it again.
    pub deleted: bool,
    /// Its latest cut; [`Cut::default`] when it was never cut.
    pub cut: Cut,
    /// Entry that changed this record last.
    pub at: CommitPoint,
}

impl BlockRecord {
    const ENCODED_BYTES: usize = 24 + Cut::ENCODED_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.fence.0);
        out.put_u32(self.deleted.into());
        put_point(self.at, out);
        out.put_u32(self.cut.generation.0);
        out.put_u64(self.cut.counter);
        out.put(&self.cut.salt);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let fence = Generation(reader.u32()?);
        let deleted = match reader.u32()? {
            0 => false,
            1 => true,
            other => return Err(bad_field("block flags", other)),
        };
        let at = read_point(reader)?;
        let cut =
            Cut { generation: Generation(reader.u32()?), counter: reader.u64()?, salt: reader.array()? };
        Ok(Self { fence, deleted, cut, at })
    }
}

/// What of a group a key names. Of one group the group's own record comes first, then the blocks, then the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The group itself.
    Group,
    /// A block.
    Block(BlockId),
    /// A unit of a block.
    Unit(BlockId, UnitIndex),
}

/// A key of the tree, ordered by group, then place.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 4 | group |
/// | 4 | 1 | place: 0 group, 1 block, 2 unit |
/// | 5 | 8 | block, zero for a group |
/// | 13 | 2 | unit, zero for group and block |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The group.
    pub group: GroupId,
    /// What of it.
    pub place: Place,
}

impl Key {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 15;

    /// Key of a group's record.
    #[must_use]
    pub const fn group(group: GroupId) -> Self {
        Self { group, place: Place::Group }
    }

    /// Key of a block's record.
    #[must_use]
    pub const fn block(group: GroupId, block: BlockId) -> Self {
        Self { group, place: Place::Block(block) }
    }

    /// Key of a unit's record.
    #[must_use]
    pub const fn unit(group: GroupId, block: BlockId, unit: UnitIndex) -> Self {
        Self { group, place: Place::Unit(block, unit) }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let (kind, block, unit) = match self.place {
            Place::Group => (0, 0, 0),
            Place::Block(block) => (1, block.0, 0),
            Place::Unit(block, unit) => (2, block.0, unit.0),
        };
        out.put_u32(self.group.0);
        out.put_u8(kind);
        out.put_u64(block);
        out.put_u16(unit);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let group = GroupId(reader.u32()?);
        let kind = reader.u8()?;
        let block = reader.u64()?;
        let unit = reader.u16()?;
        let place = match (kind, block, unit) {
            (0, 0, 0) => Place::Group,
            (1, block, 0) => Place::Block(BlockId(block)),
            (2, block, unit) => Place::Unit(BlockId(block), UnitIndex(unit)),
            (kind, ..) => return Err(bad_field("key place", kind)),
        };
        Ok(Self { group, place })
    }
}

/// What stands under a key; its kind is the key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Under a group.
    Group(StoredGroup),
    /// Under a block.
    Block(BlockRecord),
    /// Under a unit.
    Unit(UnitRecord),
}

impl Value {
    /// Length in a tree page.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        match self {
            Self::Group(_) => GroupRecord::ENCODED_BYTES + 8,
            Self::Block(_) => BlockRecord::ENCODED_BYTES,
            Self::Unit(record) => record.encoded_bytes(),
        }
    }

    /// Whether this value may stand under `key`.
    #[must_use]
    pub fn fits(&self, key: &Key) -> bool {
        match (self, key.place) {
            (Self::Group(_), Place::Group) | (Self::Block(_), Place::Block(_)) => true,
            (Self::Unit(record), Place::Unit(block, unit)) => {
                (record.sealed.block, record.sealed.unit) == (block, unit)
            }
            _ => false,
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Group(group) => {
                group.record.put(out);
                out.put_u64(group.commit_epoch.0);
            }
            Self::Block(record) => record.put(out),
            Self::Unit(record) => record.encode(out),
        }
    }

    pub(crate) fn read(place: Place, reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(match place {
            Place::Group => {
                let record = GroupRecord::read(reader)?;
                Self::Group(StoredGroup { record, commit_epoch: Epoch(reader.u64()?) })
            }
            Place::Block(_) => Self::Block(BlockRecord::read(reader)?),
            Place::Unit(..) => Self::Unit(UnitRecord::read(reader)?),
        })
    }
}

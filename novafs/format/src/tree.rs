//! Pages of the tree: 4 KiB, each with its own place in it and the checksums of its children.

use crate::cursor::{Put, Reader};
use crate::error::{FormatError, bad_field, expect_end};
use crate::record::{Key, Value};
use crate::unit::PAGE;

/// Length of a page's header.
pub const TREE_HEADER_BYTES: usize = 32;
/// Bytes of a page that entries can fill.
pub const TREE_ENTRY_BYTES: usize = PAGE - TREE_HEADER_BYTES;
/// Most children of a branch.
pub const TREE_CHILDREN_MAX: usize = TREE_ENTRY_BYTES / Child::ENCODED_BYTES;
/// No tree is higher: 150 children a branch reach every unit of the largest device long before.
pub const TREE_LEVEL_MAX: u8 = 16;

const MAGIC: u16 = u16::from_le_bytes(*b"NT");

/// A child as its parent knows it: lowest key, position, checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// No key of the child's subtree is lower.
    pub first: Key,
    /// Position of the child's page.
    pub position: u64,
    /// The page's checksum, so that a lost or misdirected write of the child is found.
    pub crc: u32,
}

impl Child {
    /// Length in a branch: key, position u64, checksum u32.
    pub const ENCODED_BYTES: usize = Key::ENCODED_BYTES + 12;
}

/// Where a page belongs: one read from elsewhere, or left by an earlier life of the device, does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreePlace {
    /// Salt of the device's superblock.
    pub salt: u64,
    /// Position on the device.
    pub position: u64,
    /// 0 for a leaf, one more than its children for a branch.
    pub level: u8,
}

/// A page of the tree.
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 4 | CRC-32 of all that follows |
/// | 4 | 2 | `"NT"` |
/// | 6 | 1 | level |
/// | 7 | 1 | zero |
/// | 8 | 8 | salt of the superblock |
/// | 16 | 8 | position |
/// | 24 | 2 | entries |
/// | 26 | 2 | bytes of entries |
/// | 28 | 4 | zero |
/// | 32 |  | leaf: key and value of each entry; branch: each child; then zeros |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreePage {
    /// Keys in ascending order with their values.
    Leaf(Vec<(Key, Value)>),
    /// Children in ascending order of their lowest keys.
    Branch(Vec<Child>),
}

impl TreePage {
    /// Bytes that an entry takes in a leaf.
    #[must_use]
    pub const fn leaf_entry_bytes(value: &Value) -> usize {
        Key::ENCODED_BYTES + value.encoded_bytes()
    }

    /// The page and its checksum.
    ///
    /// # Panics
    /// When the page is empty or its entries are more than [`TREE_ENTRY_BYTES`].
    #[must_use]
    pub fn encode(&self, place: TreePlace) -> ([u8; PAGE], u32) {
        let mut entries = Vec::with_capacity(TREE_ENTRY_BYTES);
        let count = match self {
            Self::Leaf(items) => {
                for (key, value) in items {
                    key.put(&mut entries);
                    value.put(&mut entries);
                }
                items.len()
            }
            Self::Branch(children) => {
                for child in children {
                    child.first.put(&mut entries);
                    entries.put_u64(child.position);
                    entries.put_u32(child.crc);
                }
                children.len()
            }
        };
        assert!(
            count > 0 && entries.len() <= TREE_ENTRY_BYTES,
            "a page holds 1 entry to {TREE_ENTRY_BYTES} bytes"
        );
        assert!(matches!(self, Self::Leaf(_)) == (place.level == 0), "leaves, and only they, are at level 0");
        let mut out = Vec::with_capacity(PAGE);
        out.put_u32(0);
        out.put_u16(MAGIC);
        out.put_u8(place.level);
        out.put_u8(0);
        out.put_u64(place.salt);
        out.put_u64(place.position);
        out.put_u16(u16::try_from(count).expect("a page holds less than 4096 entries"));
        out.put_u16(u16::try_from(entries.len()).expect("a page holds less than 4096 bytes"));
        out.put_u32(0);
        out.put(&entries);
        out.resize(PAGE, 0);
        let crc = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        (out.try_into().expect("resized to a page"), crc)
    }

    /// Takes the page that belongs at `place` and whose parent knows it by `crc`.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] when it is not the page its parent knows, [`FormatError::Misplaced`], or an entry
    /// that cannot be or is out of order.
    pub fn decode(bytes: &[u8], place: TreePlace, crc: u32) -> Result<Self, FormatError> {
        if bytes.len() != PAGE {
            return Err(FormatError::Short);
        }
        let stated = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        if stated != crc || crc32fast::hash(&bytes[4..]) != crc {
            return Err(FormatError::Checksum { what: "tree page" });
        }
        let mut reader = Reader::new(&bytes[4..]);
        if reader.u16()? != MAGIC {
            return Err(FormatError::Magic { what: "tree page" });
        }
        let level = reader.u8()?;
        let reserved = reader.u8()?;
        if (reader.u64()?, reader.u64()?, level) != (place.salt, place.position, place.level) {
            return Err(FormatError::Misplaced { what: "tree page" });
        }
        let count = reader.u16()?;
        let used = reader.u16()?;
        if reserved != 0 || reader.u32()? != 0 || level > TREE_LEVEL_MAX {
            return Err(bad_field("tree page header", level));
        }
        let entries =
            reader.rest().get(..usize::from(used)).ok_or_else(|| bad_field("tree entry bytes", used))?;
        if reader.rest()[usize::from(used)..].iter().any(|byte| *byte != 0) || count == 0 {
            return Err(bad_field("tree entries", count));
        }
        let mut reader = Reader::new(entries);
        let page = if level == 0 {
            let mut items: Vec<(Key, Value)> =
                Vec::with_capacity(usize::from(count).min(TREE_ENTRY_BYTES / 32));
            for _ in 0..count {
                let key = Key::read(&mut reader)?;
                let value = Value::read(key.place, &mut reader)?;
                if !value.fits(&key) || items.last().is_some_and(|(last, _)| *last >= key) {
                    return Err(bad_field("tree key", key.group.0));
                }
                items.push((key, value));
            }
            Self::Leaf(items)
        } else {
            let mut children: Vec<Child> = Vec::with_capacity(usize::from(count).min(TREE_CHILDREN_MAX));
            for _ in 0..count {
                let first = Key::read(&mut reader)?;
                let child = Child { first, position: reader.u64()?, crc: reader.u32()? };
                if children.last().is_some_and(|last| last.first >= first) {
                    return Err(bad_field("tree key", first.group.0));
                }
                children.push(child);
            }
            Self::Branch(children)
        };
        expect_end(reader.rest())?;
        Ok(page)
    }
}

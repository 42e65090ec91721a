//! The superblock: what a device is, and where its newest complete state begins.

use crate::cursor::{Put, Reader};
use crate::error::{FormatError, bad_field};
use crate::unit::PAGE;
use nova_units::{
    BlockId, DeviceId, GroupId, Incarnation, MOUNT_TRAIL_MAX, MountNonce, MountTrail, Timestamp, UnitIndex,
};

/// Version of everything on the device.
pub const FORMAT_VERSION: u32 = 4;
/// Oldest version that is read: 3 only adds to the log what 2 does not have, and 4 the trail of mounts. Others are refused.
pub const FORMAT_VERSION_OLDEST: u32 = 2;
/// Copies on a device.
pub const SUPERBLOCK_COPIES: usize = 4;
/// Copies of one number that must agree before it counts.
pub const SUPERBLOCK_QUORUM: usize = 2;
/// Space kept for superblocks at each end of the device.
pub const SUPERBLOCK_AREA_BYTES: u64 = 64 << 10;

const MAGIC: &[u8; 8] = b"NOVAFSSB";
/// Fields and checksum lie within one sector, so that a power cut leaves the old or the new one.
const SECTOR: usize = 512;
const NO_ROOT: u32 = u32::MAX;
/// The first version with a trail of mounts.
const TRAIL_VERSION: u32 = 4;

/// Where the copies lie on a device of this size: two at either end.
///
/// # Panics
/// When the device is smaller than the two areas.
#[must_use]
pub const fn superblock_positions(device_bytes: u64) -> [u64; SUPERBLOCK_COPIES] {
    assert!(device_bytes >= 2 * SUPERBLOCK_AREA_BYTES, "the device is too small for its superblocks");
    let half = SUPERBLOCK_AREA_BYTES / 2;
    let end = device_bytes - device_bytes % PAGE as u64;
    [0, end - SUPERBLOCK_AREA_BYTES, half, end - half]
}

/// Where the areas of a device lie, in bytes; fixed when it is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the device when it was formatted.
    pub device_bytes: u64,
    /// First byte of the log's ring.
    pub wal_position: u64,
    /// Size of the ring.
    pub wal_bytes: u64,
    /// First byte of the metadata pages.
    pub meta_position: u64,
    /// Size of the metadata area.
    pub meta_bytes: u64,
    /// First byte of the slots.
    pub slots_position: u64,
    /// How many slots.
    pub slot_count: u32,
    /// log2 of a slot's size: 27, or less on small devices.
    pub slot_log2: u8,
}

impl Geometry {
    /// Whether the areas lie behind each other on the device, between its superblocks.
    ///
    /// # Errors
    /// [`FormatError::Field`] names the first that does not.
    pub fn check(&self) -> Result<(), FormatError> {
        let aligned = |value: u64| value.is_multiple_of(PAGE as u64);
        let area = |field, position: u64, bytes: u64, from: u64| match position.checked_add(bytes) {
            Some(end) if aligned(position) && aligned(bytes) && position >= from => Ok(end),
            _ => Err(bad_field(field, position)),
        };
        let end = area("wal_position", self.wal_position, self.wal_bytes, SUPERBLOCK_AREA_BYTES)?;
        let end = area("meta_position", self.meta_position, self.meta_bytes, end)?;
        if !(16..=27).contains(&self.slot_log2) {
            return Err(bad_field("slot_log2", self.slot_log2));
        }
        let slots = u64::from(self.slot_count) << self.slot_log2;
        let end = area("slots_position", self.slots_position, slots, end)?;
        if end.checked_add(SUPERBLOCK_AREA_BYTES).is_none_or(|end| end > self.device_bytes) {
            return Err(bad_field("device_bytes", self.device_bytes));
        }
        Ok(())
    }
}

/// Root of the tree: where it lies, what its checksum is, how high it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Position of the root page.
    pub position: u64,
    /// Its checksum.
    pub crc: u32,
    /// Its level; 0 is a leaf.
    pub level: u8,
}

/// What a device is, and where its newest complete state begins.
///
/// Fields and checksum are in the first 512 bytes of a page of zeros:
///
/// | at | bytes | field |
/// | --- | --- | --- |
/// | 0 | 8 | `"NOVAFSSB"` |
/// | 8 | 4 | format version |
/// | 12 | 4 | zero |
/// | 16 | 8 | position of this copy |
/// | 24 | 8 | number, raised with every superblock written |
/// | 32 | 16 | device id |
/// | 48 | 8 | incarnation |
/// | 56 | 8 | mount counter |
/// | 64 | 8 | salt of log and tree pages, drawn when the device is formatted |
/// | 72 | 8 | device bytes |
/// | 80 | 8 | WAL position |
/// | 88 | 8 | WAL bytes |
/// | 96 | 8 | metadata position |
/// | 104 | 8 | metadata bytes |
/// | 112 | 8 | slots position |
/// | 120 | 4 | slot count |
/// | 124 | 4 | log2 of a slot's size |
/// | 128 | 8 | checkpoint number |
/// | 136 | 8 | WAL head: position of the first batch to replay |
/// | 144 | 8 | WAL head: its number |
/// | 152 | 8 | tree root: position |
/// | 160 | 4 | tree root: checksum |
/// | 164 | 4 | tree root: level; all ones when the tree is empty |
/// | 168 | 8 | scrub: when the pass under way began, ms since 1970; 0 when none is |
/// | 176 | 4 | scrub: group of the next unit to verify |
/// | 180 | 2 | scrub: its index in its block |
/// | 182 | 2 | zero |
/// | 184 | 8 | scrub: its block |
/// | 192 | 8 | scrub: when the last complete pass began; 0 when there was none |
/// | 200 | 8 | scrub: when it ended |
/// | 208 | 8 | mounts since the last that was confirmed, that one included: 1 to 8 |
/// | 216 | 64 | their nonces, oldest first; zero behind the last |
/// | 280 | 228 | zero |
/// | 508 | 4 | CRC-32 of bytes 0 to 508 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Superblock {
    /// Raised with every superblock written; the highest with a quorum counts.
    pub number: u64,
    /// The device.
    pub device: DeviceId,
    /// Its life as a member; 0 until the control plane gave one.
    pub incarnation: Incarnation,
    /// How often it was opened.
    pub mount_counter: u64,
    /// Drawn at format; log batches and tree pages carry it, so that those of an earlier life do not count.
    pub salt: u64,
    /// Where everything lies.
    pub geometry: Geometry,
    /// Checkpoints made.
    pub checkpoint: u64,
    /// Position of the first log batch to replay.
    pub wal_head_position: u64,
    /// Its number.
    pub wal_head_batch: u64,
    /// Root of the tree, `None` while it is empty.
    pub root: Option<Root>,
    /// How far the scrub is.
    pub scrub: ScrubMark,
    /// Its mounts since the last that the controllers confirmed.
    pub trail: MountTrail,
}

/// How far the scrub of a device is. It goes over all units in the order of their keys, pass after pass, and goes on
/// here after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubMark {
    /// When the pass under way began, by the host's calendar; zero when none is.
    pub started: Timestamp,
    /// Everything before this unit was verified in this pass.
    pub next: (GroupId, BlockId, UnitIndex),
    /// When the last complete pass began; zero when there was none.
    pub last_started: Timestamp,
    /// When it ended.
    pub last_ended: Timestamp,
}

impl ScrubMark {
    fn put(&self, out: &mut Vec<u8>) {
        let (group, block, unit) = self.next;
        out.put_u64(self.started.0);
        out.put_u32(group.0);
        out.put_u16(unit.0);
        out.put_u16(0);
        out.put_u64(block.0);
        out.put_u64(self.last_started.0);
        out.put_u64(self.last_ended.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let started = Timestamp(reader.u64()?);
        let group = GroupId(reader.u32()?);
        let unit = UnitIndex(reader.u16()?);
        let zero = reader.u16()?;
        if zero != 0 {
            return Err(bad_field("scrub reserved", zero));
        }
        let next = (group, BlockId(reader.u64()?), unit);
        let (last_started, last_ended) = (Timestamp(reader.u64()?), Timestamp(reader.u64()?));
        Ok(Self { started, next, last_started, last_ended })
    }
}

fn put_trail(trail: &MountTrail, out: &mut Vec<u8>) {
    let mounts = trail.as_slice();
    out.put_u64(mounts.len() as u64);
    for place in 0..MOUNT_TRAIL_MAX {
        out.put_u64(mounts.get(place).map_or(0, |mount| mount.0));
    }
}

fn read_trail(reader: &mut Reader<'_>) -> Result<MountTrail, FormatError> {
    let count = reader.u64()?;
    let mut nonces = [MountNonce(0); MOUNT_TRAIL_MAX];
    for nonce in &mut nonces {
        *nonce = MountNonce(reader.u64()?);
    }
    let known = usize::try_from(count).ok().and_then(|count| nonces.split_at_checked(count));
    let trail = known.and_then(|(mounts, behind)| {
        MountTrail::new(mounts).filter(|_| behind.iter().all(|nonce| *nonce == MountNonce(0)))
    });
    trail.ok_or_else(|| bad_field("mount trail", count))
}

impl Superblock {
    /// The copy that belongs at `position`.
    #[must_use]
    pub fn encode(&self, position: u64) -> [u8; PAGE] {
        let mut out = Vec::with_capacity(PAGE);
        out.put(MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(0);
        out.put_u64(position);
        out.put_u64(self.number);
        out.put_u128(self.device.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.mount_counter);
        out.put_u64(self.salt);
        let Geometry {
            device_bytes, wal_position, wal_bytes, meta_position, meta_bytes, slots_position, ..
        } = self.geometry;
        for value in [device_bytes, wal_position, wal_bytes, meta_position, meta_bytes, slots_position] {
            out.put_u64(value);
        }
        out.put_u32(self.geometry.slot_count);
        out.put_u32(self.geometry.slot_log2.into());
        out.put_u64(self.checkpoint);
        out.put_u64(self.wal_head_position);
        out.put_u64(self.wal_head_batch);
        out.put_u64(self.root.map_or(0, |root| root.position));
        out.put_u32(self.root.map_or(0, |root| root.crc));
        out.put_u32(self.root.map_or(NO_ROOT, |root| root.level.into()));
        self.scrub.put(&mut out);
        put_trail(&self.trail, &mut out);
        out.resize(SECTOR - 4, 0);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.resize(PAGE, 0);
        out.try_into().expect("resized to a page")
    }

    /// Takes the copy read from `position`.
    ///
    /// # Errors
    /// [`FormatError::Magic`] on a device without a superblock there, [`FormatError::Version`] on one written by a
    /// later build or a much earlier one, [`FormatError::Checksum`], [`FormatError::Misplaced`], or a field that cannot be.
    pub fn decode(bytes: &[u8], position: u64) -> Result<Self, FormatError> {
        let sector = bytes.get(..SECTOR).ok_or(FormatError::Short)?;
        if !sector.starts_with(MAGIC) {
            return Err(FormatError::Magic { what: "superblock" });
        }
        let (fields, crc) = sector.split_at(SECTOR - 4);
        if crc32fast::hash(fields).to_le_bytes() != crc {
            return Err(FormatError::Checksum { what: "superblock" });
        }
        let mut reader = Reader::new(&fields[MAGIC.len()..]);
        let version = reader.u32()?;
        if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version) {
            return Err(FormatError::Version { found: version, known: FORMAT_VERSION });
        }
        let reserved = reader.u32()?;
        if reserved != 0 {
            return Err(bad_field("superblock reserved", reserved));
        }
        if reader.u64()? != position {
            return Err(FormatError::Misplaced { what: "superblock" });
        }
        let number = reader.u64()?;
        let device = DeviceId(reader.u128()?);
        let incarnation = Incarnation(reader.u64()?);
        let mount_counter = reader.u64()?;
        let salt = reader.u64()?;
        let geometry = Geometry {
            device_bytes: reader.u64()?,
            wal_position: reader.u64()?,
            wal_bytes: reader.u64()?,
            meta_position: reader.u64()?,
            meta_bytes: reader.u64()?,
            slots_position: reader.u64()?,
            slot_count: reader.u32()?,
            slot_log2: {
                let log2 = reader.u32()?;
                u8::try_from(log2).map_err(|_| bad_field("slot_log2", log2))?
            },
        };
        geometry.check()?;
        let checkpoint = reader.u64()?;
        let wal_head_position = reader.u64()?;
        let wal_head_batch = reader.u64()?;
        let wal = geometry.wal_position..geometry.wal_position + geometry.wal_bytes;
        if !wal.contains(&wal_head_position) || !wal_head_position.is_multiple_of(PAGE as u64) {
            return Err(bad_field("wal_head_position", wal_head_position));
        }
        let root = match (reader.u64()?, reader.u32()?, reader.u32()?) {
            (0, 0, NO_ROOT) => None,
            (position, crc, level) => {
                let meta = geometry.meta_position..geometry.meta_position + geometry.meta_bytes;
                if !meta.contains(&position) || !position.is_multiple_of(PAGE as u64) {
                    return Err(bad_field("root position", position));
                }
                let level = u8::try_from(level).map_err(|_| bad_field("root level", level))?;
                Some(Root { position, crc, level })
            }
        };
        let scrub = ScrubMark::read(&mut reader)?;
        let trail = if version < TRAIL_VERSION { MountTrail::default() } else { read_trail(&mut reader)? };
        if let Some(byte) = reader.rest().iter().find(|byte| **byte != 0) {
            return Err(bad_field("superblock reserved", *byte));
        }
        Ok(Self {
            number,
            device,
            incarnation,
            mount_counter,
            salt,
            geometry,
            checkpoint,
            wal_head_position,
            wal_head_batch,
            root,
            scrub,
            trail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Superblock {
        let geometry = Geometry {
            device_bytes: 64 << 20,
            wal_position: 64 << 10,
            wal_bytes: 1 << 20,
            meta_position: (1 << 20) + (64 << 10),
            meta_bytes: 1 << 20,
            slots_position: 4 << 20,
            slot_count: 14,
            slot_log2: 22,
        };
        Superblock { geometry, wal_head_position: 64 << 10, ..Superblock::default() }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let superblock = small();
        let mut page = superblock.encode(0);
        assert_eq!(Superblock::decode(&page, 0), Ok(superblock));
        assert_eq!(Superblock::decode(&page, 4096), Err(FormatError::Misplaced { what: "superblock" }));
        for found in [1, 5] {
            page[8] = found;
            let crc = crc32fast::hash(&page[..508]);
            page[508..512].copy_from_slice(&crc.to_le_bytes());
            let refused = FormatError::Version { found: found.into(), known: FORMAT_VERSION };
            assert_eq!(Superblock::decode(&page, 0), Err(refused));
        }
        // What later versions added is not there.
        page[208..508].fill(0);
        for found in [2, 3] {
            page[8] = found;
            let crc = crc32fast::hash(&page[..508]);
            page[508..512].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(
                Superblock::decode(&page, 0),
                Ok(superblock),
                "a device of version {found} is taken over"
            );
        }
    }

    #[test]
    fn a_trail_of_mounts_that_cannot_be_is_refused() {
        let mounts: Vec<MountNonce> = (1..=8).map(MountNonce).collect();
        let superblock = Superblock { trail: MountTrail::new(&mounts).unwrap(), ..small() };
        let page = superblock.encode(0);
        assert_eq!(Superblock::decode(&page, 0), Ok(superblock));
        for count in [0, 7, 9, u64::MAX] {
            let mut page = page;
            page[208..216].copy_from_slice(&count.to_le_bytes());
            let crc = crc32fast::hash(&page[..508]);
            page[508..512].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Superblock::decode(&page, 0), Err(bad_field("mount trail", count)));
        }
    }

    #[test]
    fn areas_that_overlap_or_leave_the_device_are_refused() {
        let good = Geometry {
            device_bytes: 64 << 20,
            wal_position: 64 << 10,
            wal_bytes: 1 << 20,
            meta_position: 2 << 20,
            meta_bytes: 1 << 20,
            slots_position: 4 << 20,
            slot_count: 14,
            slot_log2: 22,
        };
        assert_eq!(good.check(), Ok(()));
        for bad in [
            Geometry { wal_position: 0, ..good },
            Geometry { wal_bytes: 2 << 20, ..good },
            Geometry { meta_bytes: u64::MAX - 4095, ..good },
            Geometry { slots_position: 2 << 20, ..good },
            Geometry { slot_count: 15, ..good },
            Geometry { slot_log2: 28, ..good },
            Geometry { slots_position: (4 << 20) + 512, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert_eq!(Geometry { device_bytes: u64::MAX, ..good }.check(), Ok(()), "no sum overflows");
    }
}

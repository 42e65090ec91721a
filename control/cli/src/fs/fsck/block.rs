//! One block as its members tell of it, against what the file metadata keep of it.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, GroupId, UnitIndex};
use novafs_client::{Block, Places, UnitPlace};
use novafs_format::digest::{BlockDigest, BlockHeader};
use novafs_format::seal::SUITE_AES256GCM_SHA256_CRC32;
use serde::Serialize;

/// In what a member, or all of them, and the metadata differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A member did not tell.
    Silent,
    /// A member lacks a unit that the file or another member has.
    MissingUnit,
    /// A member has an older version of a unit than another.
    OldUnit,
    /// Members have other bytes under the same version of a unit.
    DifferentUnit,
    /// A unit is not as long as the file's length says.
    Length,
    /// A unit lies behind the end of the block.
    ExcessUnit,
    /// The digests of the units do not make the root that the file's metadata keep.
    Root,
    /// The blocks of the file overlap, or reach past its end.
    Map,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::MissingUnit => "missing unit",
            Self::OldUnit => "old unit",
            Self::DifferentUnit => "different unit",
            Self::Length => "length",
            Self::ExcessUnit => "excess unit",
            Self::Root => "root",
            Self::Map => "map",
        }
    }
}

/// One difference within a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) kind: Kind,
    /// `None` where it is not about one unit.
    pub(super) unit: Option<u32>,
    /// `None` where all members agree.
    pub(super) node: Option<u64>,
    /// What is wrong, in words.
    pub(super) detail: String,
}

/// What differs between a block's members in sync, and between them and the metadata.
///
/// A sparse block may lack any unit and keeps no root; there members are compared with each other only. What a writer left
/// behind the end of such a block, or is writing there now, is nobody's mistake.
pub(super) fn differences(block: &Block, in_sync: &BTreeSet<u64>, places: &Places) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut telling = in_sync.clone();
    for (node, reason) in &places.untold {
        if telling.remove(node) {
            found.push(Difference {
                kind: Kind::Silent,
                unit: None,
                node: Some(*node),
                detail: reason.clone(),
            });
        }
    }
    if telling.is_empty() {
        return found;
    }
    let size = 1_u64 << block.unit_log2.clamp(12, 16);
    let mut units: BTreeMap<u32, BTreeMap<u64, &UnitPlace>> = BTreeMap::new();
    if !block.sparse {
        let count = u32::try_from(block.bytes.div_ceil(size)).unwrap_or(u32::MAX).min(1 << 15);
        units.extend((0..count).map(|unit| (unit, BTreeMap::new())));
    }
    for place in places.units.iter().filter(|place| telling.contains(&place.node)) {
        units.entry(place.unit).or_default().insert(place.node, place);
    }
    let mut digest = root_of(block);
    for (unit, held) in &units {
        let start = u64::from(*unit) * size;
        if start >= block.bytes {
            if !block.sparse && !block.trim_pending {
                found.extend(held.keys().map(|node| Difference {
                    kind: Kind::ExcessUnit,
                    unit: Some(*unit),
                    node: Some(*node),
                    detail: format!("the block ends at {}", block.bytes),
                }));
            }
            continue;
        }
        let newest = agreed(held);
        found
            .extend(telling.iter().filter_map(|node| compare(*unit, *node, held.get(node).copied(), newest)));
        let Some(newest) = newest else {
            digest = None;
            continue;
        };
        let wanted = (block.bytes - start).min(size);
        if !block.sparse && u64::from(newest.plain_bytes) != wanted {
            found.push(Difference {
                kind: Kind::Length,
                unit: Some(*unit),
                node: None,
                detail: format!("it has {} bytes, the file's length says {wanted}", newest.plain_bytes),
            });
        }
        if let (Some(digest), Ok(unit)) = (&mut digest, u16::try_from(*unit)) {
            digest.set(UnitIndex(unit), newest.digest);
        }
    }
    if digest.is_some_and(|digest| digest.root()[..] != block.root[..]) {
        found.push(Difference {
            kind: Kind::Root,
            unit: None,
            node: None,
            detail: "the sums of its units do not make the sum that the file has of it".into(),
        });
    }
    found
}

/// Where the root of a block is made from its units; `None` where the metadata keep none.
fn root_of(block: &Block) -> Option<BlockDigest> {
    let unit_log2 = u8::try_from(block.unit_log2).ok().filter(|log2| (12..=16).contains(log2))?;
    (!block.sparse && !block.root.is_empty()).then(|| {
        BlockDigest::new(BlockHeader {
            block: BlockId(block.block),
            group: GroupId(block.group),
            domain: block.key_domain,
            version: block.key_version,
            unit_log2,
            suite: SUITE_AES256GCM_SHA256_CRC32,
        })
    })
}

/// What most members have of the newest version that one of them has.
fn agreed<'p>(held: &BTreeMap<u64, &'p UnitPlace>) -> Option<&'p UnitPlace> {
    let newest = held.values().map(|place| place.version).max()?;
    let of_it = || held.values().filter(|place| place.version == newest);
    of_it().max_by_key(|place| of_it().filter(|other| is_same(other, place)).count()).copied()
}

fn is_same(one: &UnitPlace, other: &UnitPlace) -> bool {
    let of = |place: &UnitPlace| (place.version, place.digest, place.plain_bytes, place.stored_bytes);
    of(one) == of(other)
}

/// What is wrong with what one member has of a unit.
fn compare(unit: u32, node: u64, held: Option<&UnitPlace>, newest: Option<&UnitPlace>) -> Option<Difference> {
    let version = |(generation, counter): (u32, u64)| format!("generation {generation}, number {counter}");
    let (kind, detail) = match (held, newest) {
        (None, None) => (Kind::MissingUnit, "no member has it".into()),
        (None, Some(newest)) => {
            let detail = format!("node {} has {}", newest.node, version(newest.version));
            (Kind::MissingUnit, detail)
        }
        (Some(held), Some(newest)) if held.version < newest.version => {
            let detail = format!(
                "it has {}, node {} has {}",
                version(held.version),
                newest.node,
                version(newest.version)
            );
            (Kind::OldUnit, detail)
        }
        (Some(held), Some(newest)) if !is_same(held, newest) => {
            (Kind::DifferentUnit, format!("its sum is not that of node {}", newest.node))
        }
        _ => return None,
    };
    Some(Difference { kind, unit: Some(unit), node: Some(node), detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [u64; 3] = [4, 5, 6];

    fn place(unit: u32, node: u64, plain_bytes: u32) -> UnitPlace {
        UnitPlace {
            block: BlockId(9),
            group: GroupId(2),
            unit,
            node,
            device: 0,
            position: u64::from(unit) << 16,
            stored_bytes: plain_bytes,
            plain_bytes,
            version: (1, 10),
            digest: [u8::try_from(unit).unwrap() + 1; 32],
        }
    }

    /// Two full units and one of 1000 bytes, on three members, with the right root.
    fn whole() -> (Block, Places) {
        let mut block =
            Block { block: 9, group: 2, bytes: (2 << 16) + 1000, unit_log2: 16, ..Block::default() };
        let mut units = Vec::new();
        let mut digest = root_of(&Block { root: vec![1].into(), ..block.clone() }).unwrap();
        for (unit, bytes) in [(0, 1 << 16), (1, 1 << 16), (2, 1000)] {
            digest.set(UnitIndex(u16::try_from(unit).unwrap()), place(unit, 4, bytes).digest);
            units.extend(MEMBERS.map(|node| place(unit, node, bytes)));
        }
        block.root = digest.root().to_vec().into();
        (block, Places { units, ..Places::default() })
    }

    fn judged(block: &Block, places: &Places) -> Vec<(Kind, Option<u32>, Option<u64>)> {
        let found = differences(block, &MEMBERS.into(), places);
        found.into_iter().map(|found| (found.kind, found.unit, found.node)).collect()
    }

    #[test]
    fn a_block_that_all_members_have_as_the_file_says_has_no_difference() {
        let (block, places) = whole();
        assert_eq!(judged(&block, &places), []);
        let (sparse, mut holes) = (Block { sparse: true, root: vec![].into(), ..block }, places);
        holes.units.retain(|place| place.unit != 1);
        assert_eq!(judged(&sparse, &holes), [], "a hole is nobody's loss");
        holes.units.extend(MEMBERS.map(|node| place(5, node, 3)));
        assert_eq!(judged(&sparse, &holes), [], "what lies behind its end may be on its way");
    }

    #[test]
    fn a_member_that_lacks_a_unit_or_has_another_is_named() {
        let (block, places) = whole();
        let change = |change: fn(&mut UnitPlace)| {
            let mut changed = places.clone();
            changed.units.iter_mut().filter(|place| (place.unit, place.node) == (1, 5)).for_each(change);
            judged(&block, &changed)
        };
        assert_eq!(change(|place| place.digest = [99; 32]), [(Kind::DifferentUnit, Some(1), Some(5))]);
        assert_eq!(change(|place| place.version = (1, 9)), [(Kind::OldUnit, Some(1), Some(5))]);
        let newer = change(|place| place.version = (2, 1));
        assert_eq!(newer, [(Kind::OldUnit, Some(1), Some(4)), (Kind::OldUnit, Some(1), Some(6))]);
        let mut lost = places.clone();
        lost.units.retain(|place| (place.unit, place.node) != (1, 5));
        assert_eq!(judged(&block, &lost), [(Kind::MissingUnit, Some(1), Some(5))]);
        let sparse = Block { sparse: true, root: vec![].into(), ..block.clone() };
        assert_eq!(judged(&sparse, &lost), [(Kind::MissingUnit, Some(1), Some(5))], "others have it");
        lost.units.retain(|place| place.unit != 1);
        let by_all = MEMBERS.map(|node| (Kind::MissingUnit, Some(1), Some(node)));
        assert_eq!(judged(&block, &lost), by_all, "and no root is made of what is not there");
    }

    #[test]
    fn lengths_ends_and_roots_are_compared_with_the_file() {
        let (block, places) = whole();
        let longer = Block { bytes: block.bytes + 1, ..block.clone() };
        assert_eq!(judged(&longer, &places), [(Kind::Length, Some(2), None)]);
        let shorter = Block { bytes: 2 << 16, ..block.clone() };
        let excess = MEMBERS.map(|node| (Kind::ExcessUnit, Some(2), Some(node)));
        assert_eq!(judged(&shorter, &places), [&excess[..], &[(Kind::Root, None, None)]].concat());
        let other_key = Block { key_version: 3, ..block.clone() };
        assert_eq!(judged(&other_key, &places), [(Kind::Root, None, None)]);
        let rootless = Block { root: vec![].into(), ..other_key };
        assert_eq!(judged(&rootless, &places), []);
    }

    #[test]
    fn who_does_not_tell_is_silent_and_who_is_being_filled_is_not_asked() {
        let (block, mut places) = whole();
        places.units.retain(|place| place.node != 5);
        places.untold = [(5, "the host is not reachable".to_owned()), (7, "not now".to_owned())].into();
        assert_eq!(judged(&block, &places), [(Kind::Silent, None, Some(5))]);
        places.units.extend([place(0, 7, 12)]);
        assert_eq!(judged(&block, &places), [(Kind::Silent, None, Some(5))], "7 is no member in sync");
    }
}

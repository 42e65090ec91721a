//! What members of a group hold of a range of units, compared.
//!
//! A local checksum cannot see a record that is missing or old. Peers can: everything committed up to a number is on
//! every member that is in sync. A member lists its range at a commit number of its own, peers list theirs at the same
//! or a later one, and [`judge`] says what this member lacks. It never judges a peer: each does that for itself. Of two
//! versions the one with the higher place in the group's log counts; what peers hold beyond the member's own number
//! is newer than its list, and says nothing.

use std::collections::BTreeMap;

use nova_units::{BlockId, CommitPoint, Generation, Seq, UnitIndex};
use sha2::{Digest as _, Sha256};

/// A unit's place in the order of keys.
pub type UnitPlace = (BlockId, UnitIndex);

/// The version of a unit that a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitMark {
    /// Its block and index.
    pub place: UnitPlace,
    /// Generation that sealed it.
    pub generation: Generation,
    /// Its counter.
    pub counter: u64,
    /// Place of its entry in the group's log.
    pub commit: CommitPoint,
    /// Digest of its sealed bytes.
    pub digest: [u8; 32],
}

/// What a member holds of a block besides its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceMark {
    /// The block.
    pub block: BlockId,
    /// Lowest generation that may write; the highest there is when the block was deleted.
    pub fence: Generation,
    /// The block was deleted.
    pub deleted: bool,
    /// Number of the entry that changed this last; 0 when it came with a fill.
    pub at: Seq,
}

/// What one member holds of a range, as of `commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What the group was committed up to on that member.
    pub commit: Seq,
    /// Its units, in order.
    pub units: Vec<UnitMark>,
    /// Fences and deletions of their blocks, in order.
    pub fences: Vec<FenceMark>,
}

/// Something this member lacks, or holds otherwise than its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Every peer that was asked has this version, and this member has none.
    Missing(UnitMark),
    /// A peer has this version, which is newer than the one here, and the log up to it is here.
    Stale(UnitMark),
    /// A peer knows of a higher fence, or of a deletion.
    Fence(FenceMark),
    /// Members disagree, and the log does not say who is right: a person has to look.
    Disputed(UnitPlace),
}

impl Held {
    /// A sum over what was committed up to `through`; members that agree have the same.
    #[must_use]
    pub fn digest(&self, through: Seq) -> [u8; 32] {
        let mut sum = Sha256::new();
        for unit in self.units.iter().filter(|unit| unit.commit.seq <= through) {
            sum.update(unit.place.0.0.to_le_bytes());
            sum.update(unit.place.1.0.to_le_bytes());
            sum.update(unit.generation.0.to_le_bytes());
            sum.update(unit.counter.to_le_bytes());
            sum.update(unit.commit.epoch.0.to_le_bytes());
            sum.update(unit.commit.seq.0.to_le_bytes());
            sum.update(unit.digest);
        }
        sum.update([0xff]);
        // Not where a fence came from: a fill does not tell.
        for fence in self.fences.iter().filter(|fence| fence.at <= through) {
            sum.update(fence.block.0.to_le_bytes());
            sum.update(fence.fence.0.to_le_bytes());
            sum.update([u8::from(fence.deleted)]);
        }
        sum.finalize().into()
    }
}

/// What `mine` lacks, by the word of `peers`, whose commit is not below that of `mine`; in order of places.
///
/// # Panics
/// When a peer listed its range before it had everything that `mine` counts.
#[must_use]
pub fn judge(mine: &Held, peers: &[Held]) -> Vec<Difference> {
    assert!(peers.iter().all(|peer| peer.commit >= mine.commit), "a peer that lags cannot judge");
    let known = |commit: Seq| commit <= mine.commit;
    let mut found = Vec::new();
    let mut fences: BTreeMap<BlockId, FenceMark> = BTreeMap::new();
    for fence in peers.iter().flat_map(|peer| &peer.fences).filter(|fence| known(fence.at)) {
        let highest = fences.entry(fence.block).or_insert(*fence);
        if (fence.deleted, fence.fence) > (highest.deleted, highest.fence) {
            *highest = *fence;
        }
    }
    for fence in fences.values() {
        let here = mine.fences.iter().find(|here| here.block == fence.block);
        let same = here.is_some_and(|here| here.deleted || (here.fence >= fence.fence && !fence.deleted));
        if !same {
            found.push(Difference::Fence(*fence));
        }
    }
    let deleted = |block: BlockId| {
        let here = mine.fences.iter().any(|fence| fence.block == block && fence.deleted);
        here || fences.get(&block).is_some_and(|fence| fence.deleted)
    };
    let here: BTreeMap<UnitPlace, &UnitMark> = mine.units.iter().map(|unit| (unit.place, unit)).collect();
    let mut best: BTreeMap<UnitPlace, (UnitMark, usize)> = BTreeMap::new();
    for unit in peers.iter().flat_map(|peer| &peer.units).filter(|unit| !deleted(unit.place.0)) {
        // A version beyond the list here still shows that the unit is there.
        let (newest, holders) = best.entry(unit.place).or_insert((*unit, 0));
        *holders += 1;
        let counts = |unit: &UnitMark| (known(unit.commit.seq), unit.commit);
        if counts(unit) > counts(newest) {
            *newest = *unit;
        }
    }
    for (place, (newest, holders)) in &best {
        if !known(newest.commit.seq) {
            continue;
        }
        match here.get(place) {
            None if *holders == peers.len() => found.push(Difference::Missing(*newest)),
            None => found.push(Difference::Disputed(*place)),
            Some(unit) if unit.commit < newest.commit => found.push(Difference::Stale(*newest)),
            Some(unit) if unit.commit == newest.commit && **unit != *newest => {
                found.push(Difference::Disputed(*place));
            }
            Some(_) => {}
        }
    }
    // At the very same commit nobody can have cut what all others lack.
    let at_rest = peers.len() > 1 && peers.iter().all(|peer| peer.commit == mine.commit);
    let lacked = |unit: &&UnitMark| !deleted(unit.place.0) && !best.contains_key(&unit.place);
    if at_rest {
        found.extend(mine.units.iter().filter(lacked).map(|unit| Difference::Disputed(unit.place)));
    }
    found
}

#[cfg(test)]
mod tests {
    use nova_units::Epoch;

    use super::*;

    fn unit(index: u16, seq: u64) -> UnitMark {
        UnitMark {
            place: (BlockId(7), UnitIndex(index)),
            generation: Generation(1),
            counter: seq,
            commit: CommitPoint { epoch: Epoch(1), seq: Seq(seq) },
            digest: [u8::try_from(seq).unwrap(); 32],
        }
    }

    fn held(commit: u64, units: &[UnitMark]) -> Held {
        Held { commit: Seq(commit), units: units.to_vec(), fences: Vec::new() }
    }

    #[test]
    fn a_unit_that_all_peers_have_is_missing_and_an_older_one_is_stale() {
        let mine = held(9, &[unit(1, 4)]);
        let peer = held(9, &[unit(1, 6), unit(2, 3)]);
        assert_eq!(
            judge(&mine, &[peer.clone(), peer]),
            [Difference::Stale(unit(1, 6)), Difference::Missing(unit(2, 3))]
        );
    }

    #[test]
    fn what_came_after_the_list_was_made_says_nothing() {
        let mine = held(9, &[unit(1, 4)]);
        assert_eq!(judge(&mine, &[held(12, &[unit(1, 11), unit(2, 12)])]), []);
        // Cut on the peer since.
        assert_eq!(judge(&mine, &[held(12, &[]), held(12, &[])]), []);
        assert_eq!(mine.digest(Seq(9)), held(12, &[unit(1, 4), unit(2, 12)]).digest(Seq(9)));
    }

    #[test]
    fn members_that_disagree_without_a_newest_are_disputed() {
        let mine = held(9, &[]);
        // Two of three have none: the third may have missed a cut.
        let found = judge(&mine, &[held(9, &[unit(1, 4)]), held(9, &[])]);
        assert_eq!(found, [Difference::Disputed((BlockId(7), UnitIndex(1)))]);
        let mine = held(9, &[unit(1, 4)]);
        assert_eq!(judge(&mine, &[held(9, &[]), held(9, &[])]).len(), 1);
        let other = UnitMark { digest: [0; 32], ..unit(1, 4) };
        assert_eq!(judge(&mine, &[held(9, &[other])]).len(), 1);
        assert_ne!(mine.digest(Seq(9)), held(9, &[other]).digest(Seq(9)));
    }

    #[test]
    fn a_fence_or_a_deletion_that_is_not_here_is_found() {
        let fence = |number, deleted, at| FenceMark {
            block: BlockId(7),
            fence: Generation(number),
            deleted,
            at: Seq(at),
        };
        let with = |fences: &[FenceMark], units: &[UnitMark]| Held {
            commit: Seq(9),
            units: units.to_vec(),
            fences: fences.to_vec(),
        };
        let higher = fence(5, false, 8);
        assert_eq!(
            judge(&with(&[fence(3, false, 2)], &[]), &[with(&[higher], &[])]),
            [Difference::Fence(higher)]
        );
        assert_eq!(judge(&with(&[fence(6, false, 9)], &[]), &[with(&[higher], &[])]), []);
        assert_eq!(judge(&with(&[], &[]), &[with(&[fence(5, false, 10)], &[])]), [], "it came later");
        let deleted = fence(u32::MAX, true, 8);
        // The units of a deleted block are nobody's loss.
        assert_eq!(judge(&with(&[], &[unit(1, 4)]), &[with(&[deleted], &[])]), [Difference::Fence(deleted)]);
        assert_eq!(judge(&with(&[deleted], &[]), &[with(&[], &[unit(1, 4)])]), []);
    }
}

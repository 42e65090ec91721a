//! The newest versions and fences a primary has ordered, so that a retry is known and a late write does no harm.

use std::collections::{BTreeMap, VecDeque};

use nova_units::{BlockId, Generation, Seq, UnitIndex};
use novafs_format::{Cut, LogEntry, SealedUnit};

use crate::effect::{KnownUnit, Version};

/// Nothing may be written to a deleted block again.
pub(crate) const DELETED: Generation = Generation(u32::MAX);

/// What one unit of a write is against what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Newer than everything known.
    New,
    /// Known, or replaced by something newer of the same generation; settled once this number is committed.
    Known(Seq),
    /// A higher generation is in force.
    Fenced(Generation),
    /// The same counter with other bytes.
    Conflict,
}

/// Entries that are prepared, and those committed since the oldest lookup began.
///
/// A lookup of the store may be overtaken by entries that commit while it runs; the index keeps those until every
/// lookup that began before their commit has ended.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    units: BTreeMap<(BlockId, UnitIndex), Version>,
    fences: BTreeMap<BlockId, (Generation, Seq)>,
    cuts: BTreeMap<BlockId, (Cut, Seq)>,
    /// Entries committed and still in the index, with the commit event that made them so.
    settled: VecDeque<(u64, Seq, LogEntry)>,
    events: u64,
    /// Lookups under way, by the event at their beginning.
    lookups: BTreeMap<u64, usize>,
}

impl Versions {
    /// How many lookups are under way.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.values().sum()
    }

    /// A lookup begins; the mark ends it.
    pub(crate) fn begin_lookup(&mut self) -> u64 {
        *self.lookups.entry(self.events).or_default() += 1;
        self.events
    }

    pub(crate) fn end_lookup(&mut self, mark: u64) {
        if let Some(count) = self.lookups.get_mut(&mark) {
            *count -= 1;
            if *count == 0 {
                self.lookups.remove(&mark);
            }
        }
        self.forget_settled();
    }

    pub(crate) fn insert(&mut self, seq: Seq, entry: &LogEntry) {
        match entry {
            LogEntry::Units(units) => {
                for unit in units {
                    let version = Version {
                        generation: unit.generation,
                        counter: unit.counter,
                        salt: unit.salt,
                        digest: unit.digest,
                        seq,
                    };
                    self.units.insert((unit.block, unit.unit), version);
                }
            }
            LogEntry::Fence { block, generation } => {
                self.fences.insert(*block, (*generation, seq));
            }
            LogEntry::Delete { block } => {
                self.fences.insert(*block, (DELETED, seq));
            }
            LogEntry::Trim { block, cut, .. } => {
                self.cuts.insert(*block, (*cut, seq));
            }
        }
    }

    /// Forgets what was ordered and taken back: what is left is what was settled, and `tail`.
    pub(crate) fn restore<'a>(&mut self, tail: impl Iterator<Item = (Seq, &'a LogEntry)>) {
        self.units.clear();
        self.fences.clear();
        self.cuts.clear();
        let settled: Vec<_> = self.settled.iter().map(|(_, seq, entry)| (*seq, entry.clone())).collect();
        for (seq, entry) in &settled {
            self.insert(*seq, entry);
        }
        for (seq, entry) in tail {
            self.insert(seq, entry);
        }
    }

    /// An entry was committed.
    pub(crate) fn settle(&mut self, seq: Seq, entry: LogEntry) {
        self.events += 1;
        self.settled.push_back((self.events, seq, entry));
        self.forget_settled();
    }

    fn forget_settled(&mut self) {
        let oldest = self.lookups.first_key_value().map(|(mark, _)| *mark);
        while let Some((event, seq, entry)) = self.settled.front() {
            if oldest.is_some_and(|oldest| oldest < *event) {
                break;
            }
            for unit in entry.units() {
                let key = (unit.block, unit.unit);
                if self.units.get(&key).is_some_and(|version| version.seq == *seq) {
                    self.units.remove(&key);
                }
            }
            if let LogEntry::Fence { block, .. } | LogEntry::Delete { block } = entry
                && self.fences.get(block).is_some_and(|(_, at)| at == seq)
            {
                self.fences.remove(block);
            }
            if let LogEntry::Trim { block, .. } = entry
                && self.cuts.get(block).is_some_and(|(_, at)| at == seq)
            {
                self.cuts.remove(block);
            }
            self.settled.pop_front();
        }
    }

    /// The fence in force and the entry that set it, if that is in the index.
    pub(crate) fn fence(
        &self,
        block: BlockId,
        known: Option<Generation>,
    ) -> Option<(Generation, Option<Seq>)> {
        let stored = known.map(|generation| (generation, None));
        let ordered = self.fences.get(&block).map(|(generation, seq)| (*generation, Some(*seq)));
        match (stored, ordered) {
            (Some(stored), Some(ordered)) => Some(if ordered.0 >= stored.0 { ordered } else { stored }),
            (stored, ordered) => stored.or(ordered),
        }
    }

    /// The latest cut of the block, and the entry that made it if that is in the index.
    fn cut(&self, block: BlockId, known: Cut) -> (Cut, Option<Seq>) {
        match self.cuts.get(&block) {
            Some((ordered, seq)) if !known.is_later_than(ordered) => (*ordered, Some(*seq)),
            _ => (known, None),
        }
    }

    /// What `late`, a seal or a cut of the block, is against the block's fence and its latest cut; `committed` is a
    /// number that is.
    ///
    /// One generation has one writer session. A session that comes back with another salt has forgotten its count, and
    /// nobody could tell which of two versions is newer: it is refused as one that has ended.
    fn judge_late(&self, block: BlockId, late: &Cut, known: &KnownUnit, committed: Seq) -> Judgement {
        if let Some((fence, _)) = self.fence(block, known.fence)
            && late.generation < fence
        {
            return Judgement::Fenced(fence);
        }
        let (cut, seq) = self.cut(block, known.cut);
        if late.generation > cut.generation || cut == Cut::default() {
            Judgement::New
        } else if late.generation < cut.generation || late.salt != cut.salt {
            Judgement::Fenced(cut.generation)
        } else if late.counter > cut.counter {
            Judgement::New
        } else {
            Judgement::Known(seq.unwrap_or(committed))
        }
    }

    /// What to make of a cut that someone wants to make; `committed` is a number that is.
    pub(crate) fn judge_cut(
        &self,
        block: BlockId,
        cut: &Cut,
        known: &KnownUnit,
        committed: Seq,
    ) -> Judgement {
        self.judge_late(block, cut, known, committed)
    }

    /// What to make of a unit that someone wants to write; `committed` is a number that is.
    pub(crate) fn judge(&self, unit: &SealedUnit, known: &KnownUnit, committed: Seq) -> Judgement {
        let seal = Cut { generation: unit.generation, counter: unit.counter, salt: unit.salt };
        let late = self.judge_late(unit.block, &seal, known, committed);
        if late != Judgement::New {
            return late;
        }
        let ordered = self.units.get(&(unit.block, unit.unit)).copied();
        let newest = [known.version, ordered]
            .into_iter()
            .flatten()
            .max_by_key(|version| (version.generation, version.counter, version.seq));
        let Some(newest) = newest else { return Judgement::New };
        if newest.generation == unit.generation && newest.salt != unit.salt {
            return Judgement::Fenced(newest.generation);
        }
        let mine = (unit.generation, unit.counter);
        match (newest.generation, newest.counter).cmp(&mine) {
            core::cmp::Ordering::Less => Judgement::New,
            core::cmp::Ordering::Equal if newest.digest == unit.digest => Judgement::Known(newest.seq),
            core::cmp::Ordering::Equal => Judgement::Conflict,
            core::cmp::Ordering::Greater if newest.generation > unit.generation => {
                Judgement::Fenced(newest.generation)
            }
            core::cmp::Ordering::Greater => Judgement::Known(newest.seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::{BLOCK, unit};

    const NONE: Seq = Seq(0);

    fn known(counter: u64) -> KnownUnit {
        let SealedUnit { generation, salt, digest, .. } = unit(0, counter);
        let version = Version { generation, counter, salt, digest, seq: Seq(counter) };
        KnownUnit { version: Some(version), ..KnownUnit::default() }
    }

    fn cut(counter: u64) -> Cut {
        let sealed = unit(0, counter);
        Cut { generation: sealed.generation, counter, salt: sealed.salt }
    }

    #[test]
    fn a_retry_is_known_a_lower_counter_superseded_and_other_bytes_a_conflict() {
        let versions = Versions::default();
        assert_eq!(versions.judge(&unit(0, 5), &KnownUnit::default(), NONE), Judgement::New);
        assert_eq!(versions.judge(&unit(0, 6), &known(5), NONE), Judgement::New);
        assert_eq!(versions.judge(&unit(0, 5), &known(5), NONE), Judgement::Known(Seq(5)));
        assert_eq!(versions.judge(&unit(0, 4), &known(5), NONE), Judgement::Known(Seq(5)));
        let forged = SealedUnit { digest: [9; 32], ..unit(0, 5) };
        assert_eq!(versions.judge(&forged, &known(5), NONE), Judgement::Conflict);
    }

    #[test]
    fn a_version_committed_during_a_lookup_is_not_missed() {
        let mut versions = Versions::default();
        let mark = versions.begin_lookup();
        let entry = LogEntry::Units(vec![unit(0, 5)]);
        versions.insert(Seq(1), &entry);
        versions.settle(Seq(1), entry);
        // The store was asked before the commit and knows nothing of it.
        assert_eq!(versions.judge(&unit(0, 4), &KnownUnit::default(), NONE), Judgement::Known(Seq(1)));
        versions.end_lookup(mark);
        assert_eq!(versions.judge(&unit(0, 4), &KnownUnit::default(), NONE), Judgement::New);
    }

    #[test]
    fn a_prepared_fence_refuses_lower_generations_at_once() {
        let mut versions = Versions::default();
        let sealed = unit(0, 1);
        let fence = sealed.generation.next();
        versions.insert(Seq(3), &LogEntry::Fence { block: sealed.block, generation: fence });
        assert_eq!(versions.judge(&sealed, &KnownUnit::default(), NONE), Judgement::Fenced(fence));
        let late = versions.judge_cut(BLOCK, &cut(9), &KnownUnit::default(), NONE);
        assert_eq!(late, Judgement::Fenced(fence), "nor may the old writer cut");
    }

    #[test]
    fn what_was_sealed_before_a_cut_does_not_come_back_after_it() {
        let mut versions = Versions::default();
        let entry = LogEntry::Trim { block: BLOCK, from_unit: UnitIndex(0), cut: cut(7) };
        versions.insert(Seq(3), &entry);
        for known in [KnownUnit::default(), known(5)] {
            assert_eq!(versions.judge(&unit(0, 5), &known, NONE), Judgement::Known(Seq(3)), "prepared");
        }
        assert_eq!(versions.judge(&unit(0, 8), &KnownUnit::default(), NONE), Judgement::New);
        versions.settle(Seq(3), entry);
        // From now on the store knows of it.
        let stored = KnownUnit { cut: cut(7), ..KnownUnit::default() };
        assert_eq!(versions.judge(&unit(0, 5), &stored, Seq(4)), Judgement::Known(Seq(4)));
        assert_eq!(versions.judge(&unit(0, 8), &stored, Seq(4)), Judgement::New);
    }

    #[test]
    fn a_cut_that_comes_late_is_void_beside_a_later_one() {
        let versions = Versions::default();
        let stored = KnownUnit { cut: cut(7), ..KnownUnit::default() };
        for counter in [6, 7] {
            let late = versions.judge_cut(BLOCK, &cut(counter), &stored, Seq(4));
            assert_eq!(late, Judgement::Known(Seq(4)));
        }
        assert_eq!(versions.judge_cut(BLOCK, &cut(8), &stored, Seq(4)), Judgement::New);
    }

    #[test]
    fn a_session_that_comes_back_with_another_salt_is_refused() {
        let versions = Versions::default();
        let other = SealedUnit { salt: [9; 16], ..unit(0, 50) };
        let ended = Judgement::Fenced(other.generation);
        assert_eq!(versions.judge(&other, &known(5), NONE), ended);
        let stored = KnownUnit { cut: cut(7), ..KnownUnit::default() };
        assert_eq!(versions.judge(&other, &stored, NONE), ended);
        assert_eq!(versions.judge_cut(BLOCK, &Cut { salt: [9; 16], ..cut(60) }, &stored, NONE), ended);
    }
}

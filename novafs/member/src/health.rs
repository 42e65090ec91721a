//! What is known of the copies on this host: what was verified when, which are bad, which are disputed.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_device::{Peers, Shard};
use nova_units::{BlockId, GroupId, Timestamp, UnitIndex};
use novafs_format::{ScrubMark, UnitRecord};

use crate::Member;

/// Bad copies that are remembered until they are repaired; what is found beyond them is found again.
pub(crate) const BAD_MAX: usize = 4_096;
/// Disputed units that are remembered.
const DISPUTED_MAX: usize = 4_096;

/// A unit of a group.
pub(crate) type UnitOf = (GroupId, BlockId, UnitIndex);

/// What a host knows of its copy of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupHealth {
    /// The group.
    pub group: GroupId,
    /// Units in it, as counted when the whole group was last gone over; 0 before.
    pub units: u64,
    /// Blocks in it that have units, counted likewise.
    pub blocks: u64,
    /// Stored bytes read and checked by scrub since the member started.
    pub bytes_verified: u64,
    /// Everything that is older has been verified since then; zero: never in full.
    pub verified_since: Timestamp,
    /// Units whose copy here is known to be bad and is not repaired yet.
    pub bad_units: u32,
    /// Blocks of those, and of disputed units.
    pub risky_blocks: u32,
    /// Units that members hold differently, without the log saying who is right.
    pub disputed_units: u32,
    /// Copies that were bad, missing or old here and were written anew since the member started.
    pub repaired: u64,
    /// Units stored since this host last began to be filled with the group.
    pub filled_units: u64,
    /// Metadata of the group on this device is damaged: parts of it cannot be looked up.
    pub damaged: bool,
}

/// One group, as the scrub goes over it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    units: u64,
    blocks: u64,
    bytes_verified: u64,
    repaired: u64,
    filled_units: u64,
    damaged: bool,
    /// Begin of the last time the group was gone over as a whole, in this life of the member.
    verified_since: Option<Timestamp>,
    /// The round under way: since when, what was counted, the last block.
    round: Option<(Timestamp, u64, u64, Option<BlockId>)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    tallies: BTreeMap<GroupId, Tally>,
    /// Bad copies, and when their repair is tried again.
    bad: BTreeMap<UnitOf, Duration>,
    /// Disputed units, and the pass that last found them so.
    disputed: BTreeMap<UnitOf, Timestamp>,
}

impl Health {
    fn tally(&mut self, group: GroupId) -> &mut Tally {
        self.tallies.entry(group).or_default()
    }

    /// The scrub begins to go over a group.
    pub(crate) fn begin(&mut self, group: GroupId, at: Timestamp) {
        let tally = self.tally(group);
        tally.round = Some((at, 0, 0, None));
    }

    /// The scrub went over these units of it.
    pub(crate) fn verified(&mut self, group: GroupId, records: &[UnitRecord], bytes: u64) {
        let tally = self.tally(group);
        tally.bytes_verified += bytes;
        if let Some((_, units, blocks, last)) = &mut tally.round {
            for record in records {
                *units += 1;
                *blocks += u64::from(*last != Some(record.sealed.block));
                *last = Some(record.sealed.block);
            }
        }
    }

    /// The scrub is through with it.
    pub(crate) fn complete(&mut self, group: GroupId) {
        let tally = self.tally(group);
        // After a restart in the middle the first part was counted by nobody.
        if let Some((since, units, blocks, _)) = tally.round.take() {
            (tally.verified_since, tally.units, tally.blocks) = (Some(since), units, blocks);
            tally.damaged = false;
        }
    }

    /// Its metadata cannot be read.
    pub(crate) fn damaged(&mut self, group: GroupId) {
        let tally = self.tally(group);
        (tally.round, tally.damaged) = (None, true);
    }

    /// A pass that began at `started` is over: disputes it did not find again are settled, groups that left are
    /// forgotten.
    pub(crate) fn end_pass(&mut self, started: Timestamp, held: impl Fn(GroupId) -> bool) {
        self.disputed.retain(|(group, ..), found| *found >= started && held(*group));
        self.bad.retain(|(group, ..), _| held(*group));
        self.tallies.retain(|group, _| held(*group));
    }

    /// A copy is bad; its repair is tried at `at` if nothing else repairs it first.
    pub(crate) fn note_bad(&mut self, unit: UnitOf, at: Duration) {
        if self.bad.len() < BAD_MAX {
            self.bad.entry(unit).or_insert(at);
        }
    }

    /// It is bad no more.
    pub(crate) fn note_good(&mut self, unit: UnitOf) {
        self.bad.remove(&unit);
    }

    /// A copy was written anew.
    pub(crate) fn note_repaired(&mut self, unit: UnitOf) {
        self.bad.remove(&unit);
        self.tally(unit.0).repaired += 1;
    }

    pub(crate) fn note_disputed(&mut self, unit: UnitOf, pass: Timestamp) {
        if self.disputed.len() < DISPUTED_MAX || self.disputed.contains_key(&unit) {
            self.disputed.insert(unit, pass);
        }
    }

    /// Bad copies whose repair is due, at most `limit`; each is due again at `again`.
    pub(crate) fn due(&mut self, now: Duration, again: Duration, limit: usize) -> Vec<UnitOf> {
        let due = self.bad.iter_mut().filter(|(_, at)| **at <= now).take(limit);
        due.map(|(unit, at)| {
            *at = again;
            *unit
        })
        .collect()
    }

    /// The group is filled from the beginning.
    pub(crate) fn fill_begins(&mut self, group: GroupId) {
        self.bad.retain(|(of, ..), _| *of != group);
        self.disputed.retain(|(of, ..), _| *of != group);
        let repaired = self.tally(group).repaired;
        *self.tally(group) = Tally { repaired, ..Tally::default() };
    }

    pub(crate) fn filled(&mut self, group: GroupId, units: u64) {
        self.tally(group).filled_units += units;
    }

    fn of(&self, group: GroupId, mark: &ScrubMark) -> GroupHealth {
        let tally = self.tallies.get(&group).copied().unwrap_or_default();
        let mine = |(of, ..): &&UnitOf| *of == group;
        let mut risky: Vec<BlockId> =
            self.bad.keys().chain(self.disputed.keys()).filter(mine).map(|unit| unit.1).collect();
        risky.sort_unstable();
        risky.dedup();
        // The pass under way has been through the groups before its mark.
        let passed = mark.started.0 != 0 && group < mark.next.0;
        let known = if passed { mark.started } else { mark.last_started };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        GroupHealth {
            group,
            units: tally.units,
            blocks: tally.blocks,
            bytes_verified: tally.bytes_verified,
            verified_since: tally.verified_since.unwrap_or(known),
            bad_units: count(self.bad.keys().filter(mine).count()),
            risky_blocks: count(risky.len()),
            disputed_units: count(self.disputed.keys().filter(mine).count()),
            repaired: tally.repaired,
            filled_units: tally.filled_units,
            damaged: tally.damaged,
        }
    }
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// What is known of the copy of every group on this host, by group.
    #[must_use]
    pub fn health(&self) -> Vec<GroupHealth> {
        let mark = self.store.scrub_mark();
        let health = self.health.borrow();
        self.store.group_ids().into_iter().map(|group| health.of(group, &mark)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_verified_since_the_pass_that_went_over_all_of_it() {
        let mut health = Health::default();
        let mark = ScrubMark {
            started: Timestamp(50),
            next: (GroupId(2), BlockId(0), UnitIndex(0)),
            last_started: Timestamp(20),
            last_ended: Timestamp(30),
        };
        assert_eq!(
            health.of(GroupId(1), &mark).verified_since,
            Timestamp(50),
            "this pass was through with it"
        );
        assert_eq!(health.of(GroupId(2), &mark).verified_since, Timestamp(20), "the last one was");
        assert_eq!(health.of(GroupId(2), &ScrubMark::default()).verified_since, Timestamp(0), "none was");
        health.begin(GroupId(2), Timestamp(60));
        assert_eq!(health.of(GroupId(2), &mark).verified_since, Timestamp(20));
        health.complete(GroupId(2));
        assert_eq!(health.of(GroupId(2), &mark).verified_since, Timestamp(60));
        health.complete(GroupId(3));
        assert_eq!(
            health.of(GroupId(3), &mark).verified_since,
            Timestamp(20),
            "it was begun before the start"
        );
    }

    #[test]
    fn bad_and_disputed_units_put_their_blocks_at_risk_until_they_are_settled() {
        let mut health = Health::default();
        let unit = |block, unit| (GroupId(1), BlockId(block), UnitIndex(unit));
        health.note_bad(unit(1, 1), Duration::ZERO);
        health.note_bad(unit(1, 2), Duration::ZERO);
        health.note_disputed(unit(1, 1), Timestamp(5));
        health.note_disputed(unit(9, 1), Timestamp(5));
        let of = |health: &Health| {
            let found = health.of(GroupId(1), &ScrubMark::default());
            (found.bad_units, found.disputed_units, found.risky_blocks, found.repaired)
        };
        assert_eq!(of(&health), (2, 2, 2, 0));
        assert_eq!(health.due(Duration::ZERO, Duration::from_secs(5), 1), [unit(1, 1)]);
        assert_eq!(health.due(Duration::ZERO, Duration::from_secs(5), 9), [unit(1, 2)]);
        health.note_repaired(unit(1, 1));
        health.note_good(unit(1, 2));
        assert_eq!(of(&health), (0, 2, 2, 1));
        health.end_pass(Timestamp(6), |_| true);
        assert_eq!(of(&health), (0, 0, 0, 1));
    }
}

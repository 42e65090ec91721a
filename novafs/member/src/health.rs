//! What is known of the copies on this host: what was verified when, which are bad, which are disputed.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, GroupId, Timestamp, UnitIndex};
use novafs_format::{ScrubMark, UnitRecord};

use crate::Member;

/// Bad copies that are remembered until they are repaired; what is found beyond them is found again.
pub(crate) const BAD_MAX: usize = 4_096;
/// Disputed units that are remembered.
const DISPUTED_MAX: usize = 4_096;

/// A repair that found no good copy so often is not merely a matter of time.
const LOST_TRIES: u32 = 2;
/// A unit of which every host that may hold it says that it lacks it is lost after this: each was asked twice.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// While a host that may hold it is silent, a unit is lost only after this: by then the controllers have given the
/// place of that host to another.
const LOST_ANYWAY_AFTER: Duration = Duration::from_secs(600);
/// Lost units that are named of a group.
pub const LOST_NAMED_MAX: usize = 8;

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
    /// The last of them, in the order in which they come.
    pub filled_to: (BlockId, UnitIndex),
    /// It is being filled with pages now.
    pub filling: bool,
    /// Of a joiner: the last entry of the group's log that it holds; 0 of a member in sync.
    pub followed: u64,
    /// Of the bad units, those of which no host that could be asked has a good copy.
    pub lost_units: u32,
    /// Some of them, for people.
    pub lost: [Option<(BlockId, UnitIndex)>; LOST_NAMED_MAX],
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
    filled_to: (BlockId, UnitIndex),
    filling: bool,
    damaged: bool,
    /// Begin of the last time the group was gone over as a whole, in this life of the member.
    verified_since: Option<Timestamp>,
    /// The round under way: since when, what was counted, the last block.
    round: Option<(Timestamp, u64, u64, Option<BlockId>)>,
}

/// A copy that is bad here.
#[derive(Clone, Copy, Debug, Default)]
struct Bad {
    /// When its repair is tried again.
    due: Duration,
    /// Since when, and how often, a good copy was looked for in vain.
    tried: Option<(Duration, u32)>,
    /// Every host that may hold one said the last time that it does not.
    all_lack: bool,
}

impl Bad {
    fn is_lost(self, now: Duration) -> bool {
        let wait = if self.all_lack { LOST_AFTER } else { LOST_ANYWAY_AFTER };
        self.tried.is_some_and(|(since, tries)| tries >= LOST_TRIES && now.saturating_sub(since) >= wait)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    tallies: BTreeMap<GroupId, Tally>,
    /// Bad copies.
    bad: BTreeMap<UnitOf, Bad>,
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
            self.bad.entry(unit).or_insert(Bad { due: at, ..Bad::default() });
        }
    }

    /// No good copy of it was found; `all_lack`: because nobody who may hold one has it.
    pub(crate) fn note_tried(&mut self, unit: UnitOf, now: Duration, all_lack: bool) {
        if let Some(bad) = self.bad.get_mut(&unit) {
            let (since, tries) = bad.tried.unwrap_or((now, 0));
            bad.tried = Some((since, tries.saturating_add(1)));
            bad.all_lack = all_lack;
        }
    }

    /// Nobody has it: neither waiting nor asking helps.
    pub(crate) fn is_lost(&self, unit: UnitOf, now: Duration) -> bool {
        self.bad.get(&unit).is_some_and(|bad| bad.is_lost(now))
    }

    /// Bad copies of a group, at most `limit`.
    pub(crate) fn bad_of(&self, group: GroupId, limit: usize) -> Vec<UnitOf> {
        self.bad.keys().filter(|(of, ..)| *of == group).take(limit).copied().collect()
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
        let due = self.bad.iter_mut().filter(|(_, bad)| bad.due <= now).take(limit);
        due.map(|(unit, bad)| {
            bad.due = again;
            *unit
        })
        .collect()
    }

    /// The group is filled from the beginning.
    pub(crate) fn fill_begins(&mut self, group: GroupId) {
        self.bad.retain(|(of, ..), _| *of != group);
        self.disputed.retain(|(of, ..), _| *of != group);
        let repaired = self.tally(group).repaired;
        *self.tally(group) = Tally { repaired, filling: true, ..Tally::default() };
    }

    /// Units of a page were stored, the last one at `last`.
    pub(crate) fn filled(&mut self, group: GroupId, units: u64, last: Option<(BlockId, UnitIndex)>) {
        let tally = self.tally(group);
        tally.filled_units += units;
        tally.filled_to = last.unwrap_or(tally.filled_to);
    }

    /// The last page was stored, or the group is no longer filled.
    pub(crate) fn fill_ends(&mut self, group: GroupId) {
        self.tally(group).filling = false;
    }

    fn of(&self, group: GroupId, mark: &ScrubMark, now: Duration) -> GroupHealth {
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
        let is_lost = |(unit, bad): &(&UnitOf, &Bad)| unit.0 == group && bad.is_lost(now);
        let mut lost = self.bad.iter().filter(is_lost).map(|(unit, _)| (unit.1, unit.2));
        let lost_units = count(lost.clone().count());
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
            filled_to: tally.filled_to,
            filling: tally.filling,
            followed: 0,
            lost_units,
            lost: std::array::from_fn(|_| lost.next()),
            damaged: tally.damaged,
        }
    }
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// What is known of the copy of every group on this host, by group.
    #[must_use]
    pub fn health(&self) -> Vec<GroupHealth> {
        let mark = self.store.scrub_mark();
        let (health, now) = (self.health.borrow(), self.shard.clock().now());
        let mut all: Vec<GroupHealth> =
            self.store.group_ids().into_iter().map(|group| health.of(group, &mark, now)).collect();
        let drive = self.drive.borrow();
        let me = drive.host.identity().node;
        for of in &mut all {
            let joins =
                drive.configuration.group(of.group).is_some_and(|view| view.joining().any(|node| node == me));
            let position = drive.host.position(of.group).filter(|_| joins);
            of.followed = position.map_or(0, |(_, seq)| seq.0);
        }
        all
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
            health.of(GroupId(1), &mark, Duration::ZERO).verified_since,
            Timestamp(50),
            "this pass was through with it"
        );
        assert_eq!(
            health.of(GroupId(2), &mark, Duration::ZERO).verified_since,
            Timestamp(20),
            "the last one was"
        );
        assert_eq!(
            health.of(GroupId(2), &ScrubMark::default(), Duration::ZERO).verified_since,
            Timestamp(0),
            "none was"
        );
        health.begin(GroupId(2), Timestamp(60));
        assert_eq!(health.of(GroupId(2), &mark, Duration::ZERO).verified_since, Timestamp(20));
        health.complete(GroupId(2));
        assert_eq!(health.of(GroupId(2), &mark, Duration::ZERO).verified_since, Timestamp(60));
        health.complete(GroupId(3));
        assert_eq!(
            health.of(GroupId(3), &mark, Duration::ZERO).verified_since,
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
            let found = health.of(GroupId(1), &ScrubMark::default(), Duration::ZERO);
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

    #[test]
    fn a_unit_is_lost_when_all_who_may_hold_it_lack_it_and_later_when_one_is_silent() {
        let mut health = Health::default();
        let secs = Duration::from_secs;
        let unit = (GroupId(1), BlockId(3), UnitIndex(4));
        health.note_bad(unit, Duration::ZERO);
        assert!(!health.is_lost(unit, secs(9_999)), "nobody was asked");
        health.note_tried(unit, secs(10), true);
        assert!(!health.is_lost(unit, secs(60)), "once is not enough");
        health.note_tried(unit, secs(15), true);
        assert!(health.is_lost(unit, secs(15)));
        health.note_tried(unit, secs(20), false);
        assert!(!health.is_lost(unit, secs(20)), "one that is silent may have it");
        assert!(health.is_lost(unit, secs(610)));
        let found = health.of(GroupId(1), &ScrubMark::default(), secs(610));
        assert_eq!((found.bad_units, found.lost_units), (1, 1));
        assert_eq!(found.lost[0], Some((BlockId(3), UnitIndex(4))));
        health.note_repaired(unit);
        assert!(!health.is_lost(unit, secs(9_999)));
    }
}

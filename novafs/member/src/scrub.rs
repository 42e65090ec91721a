//! Scrub: goes over everything on the device, pass after pass, at a pace (Spec 3.7). Whatever is bad is repaired from a
//! peer at once, and what members hold of each range is compared.

use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, GroupId, Timestamp, UnitIndex};
use novafs_format::ScrubMark;
use novafs_store::StoreError;

use crate::Member;

/// How often the scrub looks whether it may go on.
const TURN: Duration = Duration::from_millis(100);
/// What a step costs at least, in bytes of the budget: looking up is not free.
const STEP_COST_MIN: u64 = 4 << 10;
/// Repairs that are tried again in one turn.
const RETRIES_A_TURN: usize = 8;
/// A repair that nobody could help with is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// When no superblock was written for other reasons, the place of the scrub is made durable this often.
const SAVE_EVERY: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_hours(24);

/// The pace of the scrub of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// What is verified a day whatever else goes on, in percent of the bytes in use.
    pub percent_a_day: u32,
    /// Bytes a second while no client asks for anything; 0: never faster.
    pub idle_bytes_a_second: u64,
    /// No client asked for anything this long: the device is idle.
    pub idle_after: Duration,
    /// A pass begins no sooner than this after the one before.
    pub pass_every: Duration,
}

impl Default for ScrubOptions {
    /// 2 % a day (Spec 3.7), 16 MiB a second after two idle seconds, one pass a day at most.
    fn default() -> Self {
        Self {
            percent_a_day: 2,
            idle_bytes_a_second: 16 << 20,
            idle_after: Duration::from_secs(2),
            pass_every: DAY,
        }
    }
}

impl ScrubOptions {
    /// What may be read in `time`, of a device with `used` bytes.
    fn budget(&self, used: u64, idle: bool, time: Duration) -> u64 {
        let (time, day) = (time.as_nanos(), DAY.as_nanos());
        let steady = u128::from(used) * u128::from(self.percent_a_day) * time / (100 * day);
        let fast = u128::from(self.idle_bytes_a_second) * time / Duration::from_secs(1).as_nanos();
        let budget = if idle { steady.max(fast) } else { steady };
        // On a device that is all but empty a byte is better than none.
        u64::try_from(budget).unwrap_or(u64::MAX).max(1)
    }
}

/// Whether clients leave the device alone.
#[derive(Debug)]
struct Idle {
    seen: u64,
    since: Duration,
}

impl Idle {
    fn look(&mut self, activity: u64, now: Duration, after: Duration) -> bool {
        if activity != self.seen {
            (self.seen, self.since) = (activity, now);
        }
        now.saturating_sub(self.since) >= after
    }
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// Scrubs until the member stops or its device fails.
    pub(crate) async fn run_scrub(self: Rc<Self>, options: ScrubOptions) {
        let mut last = self.shard.clock().now();
        let mut saved = (last, self.store.scrub_mark());
        let mut idle = Idle { seen: 0, since: last };
        // What may still be read; below zero after a step that read more.
        let mut budget: i64 = 0;
        loop {
            self.shard.clock().sleep_until(last + TURN).await;
            if self.stopped.get() || self.store.has_failed() {
                return;
            }
            let now = self.shard.clock().now();
            let usage = self.store.usage();
            let is_idle = idle.look(self.activity(), now, options.idle_after);
            let used = usage.bytes_total.saturating_sub(usage.bytes_free);
            let more = options.budget(used, is_idle, now.saturating_sub(last));
            // A turn that came late earns no burst.
            let more_max = options.budget(used, is_idle, 2 * TURN);
            budget = budget.min(0).saturating_add(i64::try_from(more.min(more_max)).unwrap_or(i64::MAX));
            last = now;
            self.repair_due().await;
            self.drop_left().await;
            while budget > 0 && !self.stopped.get() {
                match self.scrub_step(&options).await {
                    Some(bytes) => {
                        let cost = i64::try_from(bytes.max(STEP_COST_MIN)).unwrap_or(i64::MAX);
                        budget = budget.saturating_sub(cost);
                    }
                    None => budget = 0,
                }
            }
            let mark = self.store.scrub_mark();
            if mark != saved.1 && now.saturating_sub(saved.0) >= SAVE_EVERY {
                saved = (now, mark);
                // A device that fails here is noticed by its next write as well.
                let _ = self.store.save_scrub_mark().await;
            }
        }
    }

    /// Grows with whatever clients ask for.
    fn activity(&self) -> u64 {
        let counters = self.counters.get();
        counters.reads + counters.appends
    }

    /// Tries repairs again that nobody could help with.
    async fn repair_due(self: &Rc<Self>) {
        let now = self.shard.clock().now();
        let due = self.health.borrow_mut().due(now, now + RETRY_AFTER, RETRIES_A_TURN);
        for (group, block, unit) in due {
            self.repair_now(group, block, unit).await;
        }
    }

    /// Verifies one part; answers how many bytes it read, `None` when nothing is due.
    async fn scrub_step(self: &Rc<Self>, options: &ScrubOptions) -> Option<u64> {
        let mut mark = self.store.scrub_mark();
        let calendar = self.shard.clock().calendar();
        if mark.started == Timestamp(0) {
            // A calendar that was set back does not put the scrub off.
            let early = mark.last_started <= calendar
                && calendar.since(mark.last_started) < options.pass_every
                && mark.last_started != Timestamp(0);
            if early {
                return None;
            }
            self.store.verify_superblocks().await.ok()?;
            mark.started = calendar;
            mark.next = (GroupId(0), BlockId(0), UnitIndex(0));
            self.store.set_scrub_mark(mark);
        }
        let (group, block, unit) = mark.next;
        let Some(found) = self.store.next_group(group) else {
            self.end_pass(mark, calendar).await;
            return Some(0);
        };
        let from = if found == group { (block, unit) } else { (BlockId(0), UnitIndex(0)) };
        if from == (BlockId(0), UnitIndex(0)) {
            self.health.borrow_mut().begin(found, calendar);
        }
        let (bytes, next) = match self.store.verify(found, from).await {
            Ok(verified) => {
                self.health.borrow_mut().verified(found, &verified.records, verified.bytes);
                for record in &verified.bad {
                    let unit = (found, record.sealed.block, record.sealed.unit);
                    self.count(|counters| counters.corrupt_found += 1);
                    let again = self.shard.clock().now() + RETRY_AFTER;
                    self.health.borrow_mut().note_bad(unit, again);
                    self.repair_now(unit.0, unit.1, unit.2).await;
                }
                let to = match verified.next {
                    Some(_) => {
                        verified.records.last().map(|record| (record.sealed.block, record.sealed.unit))
                    }
                    None => Some((BlockId(u64::MAX), UnitIndex(u16::MAX))),
                };
                if let Some(to) = to {
                    self.compare(found, from, to, mark.started).await;
                }
                (verified.bytes, verified.next)
            }
            Err(StoreError::Metadata { .. }) => {
                // What lies behind the damage cannot be named: the rest of the group is left out, and said.
                self.count(|counters| counters.metadata_damaged += 1);
                self.health.borrow_mut().damaged(found);
                (0, None)
            }
            Err(_) => return None,
        };
        mark = self.store.scrub_mark();
        mark.next = match next {
            Some((block, unit)) => (found, block, unit),
            None => {
                self.health.borrow_mut().complete(found);
                (GroupId(found.0.saturating_add(1)), BlockId(0), UnitIndex(0))
            }
        };
        self.store.set_scrub_mark(mark);
        Some(bytes)
    }

    async fn end_pass(&self, mark: ScrubMark, calendar: Timestamp) {
        let held = self.store.group_ids();
        self.health.borrow_mut().end_pass(mark.started, |group| held.contains(&group));
        self.count(|counters| counters.scrub_passes += 1);
        self.store.set_scrub_mark(ScrubMark {
            started: Timestamp(0),
            last_started: mark.started,
            last_ended: calendar,
            ..ScrubMark::default()
        });
        // A pass more, should this not reach the device.
        let _ = self.store.save_scrub_mark().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_a_day_are_kept_under_load_and_idle_is_faster() {
        let options = ScrubOptions::default();
        let used = 1_000_000_000_000;
        assert_eq!(options.budget(used, false, DAY), used / 50);
        assert_eq!(options.budget(used, true, Duration::from_secs(1)), 16 << 20);
        let slow = ScrubOptions { idle_bytes_a_second: 0, ..options };
        assert_eq!(slow.budget(used, true, DAY), used / 50);
        assert_eq!(slow.budget(0, true, TURN), 1, "a device that is empty is gone over too");
    }

    #[test]
    fn a_device_is_idle_when_nobody_asked_for_a_while() {
        let mut idle = Idle { seen: 0, since: Duration::ZERO };
        let after = Duration::from_secs(2);
        assert!(!idle.look(0, Duration::from_secs(1), after));
        assert!(idle.look(0, Duration::from_secs(2), after));
        assert!(!idle.look(1, Duration::from_secs(3), after));
        assert!(!idle.look(1, Duration::from_secs(4), after));
        assert!(idle.look(1, Duration::from_secs(5), after));
    }
}

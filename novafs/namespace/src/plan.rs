//! What should be asked of the namespace when nobody does.

use core::ops::Bound;
use core::time::Duration;
use std::collections::BTreeMap;

use nova_units::{InodeId, SessionId, Timestamp};

use crate::command::{EndSession, Expire, Op, Purge, Sweep};
use crate::limits::{EXPIRE_MAX, PURGE_MAX, SWEEP_ENTRIES_MAX};
use crate::model::{Namespace, milliseconds};

/// Sessions that one plan ends at most.
const ENDED_PER_PLAN_MAX: usize = 256;
/// Inodes that one plan looks at for their retention. At 20 plans a second a million inodes are seen in half a minute.
const SCANNED_PER_PLAN: usize = 2048;
/// One in so many inodes is kept free: the trash is purged early when fewer are (Spec E.2: 90 %).
const FREE_SHARE: u64 = 10;
/// A clock that has jumped by this holds every plan that destroys something (control design, section 1).
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(60);
/// Smaller differences between two plans are drift and slewing.
const DRIFT_MS_MAX: i128 = 1000;

/// When each session was last renewed, on the leader's monotonic clock.
///
/// Renewals never enter the log. A new leader begins with none and counts every session from when it first saw it,
/// so a change of leader only makes leases longer.
#[derive(Clone, Debug, Default)]
pub struct Renewals {
    last: BTreeMap<SessionId, Duration>,
}

impl Renewals {
    /// The client of `session` was heard at `now`.
    pub fn renew(&mut self, session: SessionId, now: Duration) {
        self.last.insert(session, now);
    }
}

/// What a leader remembers from plan to plan. A new leader begins with nothing.
#[derive(Clone, Debug, Default)]
pub struct Upkeep {
    /// Inodes up to here were looked at for their retention in this round.
    scanned: InodeId,
    /// Monotonic and wall clock of the last plan.
    last: Option<(Duration, Timestamp)>,
    /// How far the wall clock has jumped since this leader began, in ms.
    jumped_ms: i128,
    held: bool,
}

impl Upkeep {
    /// The wall clock has jumped by [`CLOCK_JUMP_MAX`] or more, or is that far behind the log: nothing is purged and
    /// nothing expires until it is right again, or another controller leads.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    fn look_at_clock(&mut self, log: Timestamp, now: Duration, wall: Timestamp) {
        if let Some((last_now, last_wall)) = self.last {
            let passed = i128::try_from(now.saturating_sub(last_now).as_millis()).unwrap_or(i128::MAX);
            let step = i128::from(wall.0) - i128::from(last_wall.0) - passed;
            if step.abs() >= DRIFT_MS_MAX {
                self.jumped_ms += step;
            }
        }
        self.last = Some((now, wall));
        let jumped = u128::try_from(self.jumped_ms.abs()).expect("it is not negative");
        self.held = jumped >= CLOCK_JUMP_MAX.as_millis() || log.since(wall) >= CLOCK_JUMP_MAX;
    }
}

/// Ends sessions that were silent for their lease, lets go what is due in the trash, takes apart trees that left it,
/// and removes files whose retention is over. `now` is the monotonic clock of the leader, `wall` its wall clock.
pub fn plan(
    namespace: &Namespace,
    renewals: &mut Renewals,
    upkeep: &mut Upkeep,
    now: Duration,
    wall: Timestamp,
) -> Vec<Op> {
    renewals.last.retain(|session, _| namespace.sessions.contains_key(session));
    let mut ops = Vec::new();
    for (id, session) in namespace.sessions() {
        let last = *renewals.last.entry(id).or_insert(now);
        if now.saturating_sub(last) > session.lease && ops.len() < ENDED_PER_PLAN_MAX {
            ops.push(Op::EndSession(EndSession { session: id.0 }));
        }
    }
    upkeep.look_at_clock(namespace.clock, now, wall);
    ops.extend(plan_purge(namespace, upkeep.held, wall));
    if namespace.has_sweep() {
        ops.push(Op::Sweep(Sweep { limit: SWEEP_ENTRIES_MAX }));
    }
    if !upkeep.held {
        ops.extend(plan_expire(namespace, upkeep, wall));
    }
    ops
}

fn plan_purge(namespace: &Namespace, held: bool, wall: Timestamp) -> Option<Op> {
    let (first, _) = namespace.trash.get_min()?;
    let asked = *first < namespace.purge_below;
    let ((due, _), ()) = namespace.trash_due.get_min()?;
    let due = !held && *due <= wall.0;
    let early = namespace.inodes.len() as u64 > namespace.inodes_max - namespace.inodes_max / FREE_SHARE;
    // A clock that is not trusted purges nothing by its time.
    let now_ms = if held { 0 } else { wall.0 };
    (asked || due || early).then_some(Op::Purge(Purge { limit: PURGE_MAX, now_ms, early }))
}

fn plan_expire(namespace: &Namespace, upkeep: &mut Upkeep, wall: Timestamp) -> Option<Op> {
    let shortest = namespace.spaces.values().filter_map(|space| space.retention).min()?;
    let mut inodes = Vec::new();
    let mut scanned = 0;
    for (id, inode) in namespace.inodes.range((Bound::Excluded(upkeep.scanned), Bound::Unbounded)) {
        if scanned == SCANNED_PER_PLAN || inodes.len() == EXPIRE_MAX {
            break;
        }
        scanned += 1;
        upkeep.scanned = *id;
        let old = milliseconds(inode.modified_ns.max(inode.created_ns)).after(shortest) <= wall;
        if old && namespace.is_expired(*id, wall) {
            inodes.push(id.0);
        }
    }
    if scanned < SCANNED_PER_PLAN && inodes.len() < EXPIRE_MAX {
        upkeep.scanned = InodeId(0);
    }
    (!inodes.is_empty()).then_some(Op::Expire(Expire { inodes, now_ms: wall.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, OpenSession};

    #[test]
    fn a_session_ends_after_its_lease_without_renewal_counted_from_when_the_leader_saw_it() {
        let mut namespace = Namespace::default();
        let open = Op::OpenSession(OpenSession { lease_ms: 5000 });
        namespace.apply(1, &Command { client: 0, sequence: 0, at_ms: 7, op: Some(open) });
        let (mut renewals, mut upkeep) = (Renewals::default(), Upkeep::default());
        let mut at = |namespace: &Namespace, renewals: &mut Renewals, seconds| {
            plan(namespace, renewals, &mut upkeep, Duration::from_secs(seconds), Timestamp(seconds * 1000))
        };
        assert!(at(&namespace, &mut renewals, 100).is_empty());
        renewals.renew(SessionId(1), Duration::from_secs(103));
        assert!(at(&namespace, &mut renewals, 108).is_empty());
        let ops = at(&namespace, &mut renewals, 109);
        assert_eq!(ops, [Op::EndSession(EndSession { session: 1 })]);
        namespace.apply(2, &Command { client: 0, sequence: 0, at_ms: 8, op: Some(ops[0].clone()) });
        assert!(at(&namespace, &mut renewals, 300).is_empty());
    }
}

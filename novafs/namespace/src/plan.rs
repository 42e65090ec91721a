//! What should be asked of the namespace when nobody does.

use core::time::Duration;
use std::collections::BTreeMap;

use nova_units::SessionId;

use crate::command::{EndSession, Op, Sweep};
use crate::limits::SWEEP_ENTRIES_MAX;
use crate::model::Namespace;

/// Sessions that one plan ends at most.
const ENDED_PER_PLAN_MAX: usize = 256;

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

/// Ends sessions that were silent for their lease, and sweeps removed trees.
pub fn plan(namespace: &Namespace, renewals: &mut Renewals, now: Duration) -> Vec<Op> {
    renewals.last.retain(|session, _| namespace.sessions.contains_key(session));
    let mut ops = Vec::new();
    for (id, session) in namespace.sessions() {
        let last = *renewals.last.entry(id).or_insert(now);
        if now.saturating_sub(last) > session.lease && ops.len() < ENDED_PER_PLAN_MAX {
            ops.push(Op::EndSession(EndSession { session: id.0 }));
        }
    }
    if namespace.has_trash() {
        ops.push(Op::Sweep(Sweep { limit: SWEEP_ENTRIES_MAX }));
    }
    ops
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
        let mut renewals = Renewals::default();
        let at = Duration::from_secs;
        assert!(plan(&namespace, &mut renewals, at(100)).is_empty());
        renewals.renew(SessionId(1), at(103));
        assert!(plan(&namespace, &mut renewals, at(108)).is_empty());
        let ops = plan(&namespace, &mut renewals, at(109));
        assert_eq!(ops, [Op::EndSession(EndSession { session: 1 })]);
        namespace.apply(2, &Command { client: 0, sequence: 0, at_ms: 8, op: Some(ops[0].clone()) });
        assert!(plan(&namespace, &mut renewals, at(300)).is_empty());
    }
}

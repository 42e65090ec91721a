//! What is being collected: orphans, and what each of their groups still has to say.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{BlockId, GroupId, NodeId};

/// An order that was not answered this long is given again.
pub(super) const ORDER_AGAIN: Duration = Duration::from_secs(5);
/// Runs that one host works at; the others wait.
pub(super) const RUNS_PER_HOST_MAX: usize = 256;

/// Neighbouring ids, as an order names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) first: BlockId,
    pub(super) count: u32,
}

/// Where the ids came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// They are an orphan of the metadata.
    Orphan,
    /// A full pass found the block, and the metadata know nothing of it.
    Stray,
}

#[derive(Debug)]
struct Whole {
    origin: Origin,
    groups_left: usize,
}

#[derive(Debug)]
struct Part {
    count: u32,
    /// Whom it was last ordered from, and when.
    ordered: Option<(NodeId, Duration)>,
}

/// Orphans under way. Nothing of this is remembered anywhere else: a new leader begins anew.
#[derive(Debug, Default)]
pub(super) struct Pending {
    wholes: BTreeMap<BlockId, Whole>,
    parts: BTreeMap<(GroupId, BlockId), Part>,
}

impl Pending {
    /// Answers that are missing.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn has(&self, first: BlockId) -> bool {
        self.wholes.contains_key(&first)
    }

    /// Whether anything of this origin is under way.
    pub(super) fn has_any(&self, origin: Origin) -> bool {
        self.wholes.values().any(|whole| whole.origin == origin)
    }

    /// Begins to collect ids that any of `groups` may hold; the groups differ. Nothing happens when the first id is
    /// under way already.
    pub(super) fn begin(&mut self, run: Run, groups: &[GroupId], origin: Origin) {
        if groups.is_empty() || self.has(run.first) {
            return;
        }
        for group in groups {
            self.parts.insert((*group, run.first), Part { count: run.count, ordered: None });
        }
        self.wholes.insert(run.first, Whole { origin, groups_left: groups.len() });
    }

    /// A group holds none of these ids any more. Answers the first id and its origin when that was the last group.
    pub(super) fn finish(&mut self, group: GroupId, run: Run) -> Option<(BlockId, Origin)> {
        let key = (group, run.first);
        // Another count is about another whole: the answer to an earlier leader.
        self.parts.get(&key).filter(|part| part.count == run.count)?;
        self.parts.remove(&key);
        let whole = self.wholes.get_mut(&run.first).expect("a part belongs to a whole");
        whole.groups_left -= 1;
        if whole.groups_left > 0 {
            return None;
        }
        let origin = whole.origin;
        self.wholes.remove(&run.first);
        Some((run.first, origin))
    }

    /// What is to be ordered now, by host and group. Counts as ordered with this call.
    pub(super) fn orders(
        &mut self,
        now: Duration,
        primary_of: impl Fn(GroupId) -> Option<NodeId>,
    ) -> BTreeMap<(NodeId, GroupId), Vec<Run>> {
        let mut working: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut due = Vec::new();
        for ((group, first), part) in &self.parts {
            let Some(primary) = primary_of(*group) else { continue };
            match part.ordered {
                Some((node, at)) if node == primary && now.saturating_sub(at) < ORDER_AGAIN => {
                    *working.entry(primary).or_default() += 1;
                }
                _ => due.push((primary, *group, *first)),
            }
        }
        let mut orders: BTreeMap<_, Vec<Run>> = BTreeMap::new();
        for (primary, group, first) in due {
            let busy = working.entry(primary).or_default();
            if *busy < RUNS_PER_HOST_MAX {
                *busy += 1;
                let part = self.parts.get_mut(&(group, first)).expect("it was found above");
                part.ordered = Some((primary, now));
                orders.entry((primary, group)).or_default().push(Run { first, count: part.count });
            }
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    fn run(first: u64, count: u32) -> Run {
        Run { first: BlockId(first), count }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ids_are_collected_when_every_group_has_said_so_in_any_order_and_any_number_of_times() {
        let mut pending = Pending::default();
        pending.begin(run(10, 100), &[A, B], Origin::Orphan);
        pending.begin(run(10, 100), &[A], Origin::Orphan);
        assert_eq!(pending.parts(), 2);
        assert_eq!(pending.finish(B, run(10, 100)), None);
        assert_eq!(pending.finish(B, run(10, 100)), None, "said again");
        assert_eq!(pending.finish(A, run(10, 99)), None, "of something else");
        assert_eq!(pending.finish(A, run(10, 100)), Some((BlockId(10), Origin::Orphan)));
        assert_eq!((pending.finish(A, run(10, 100)), pending.parts()), (None, 0), "late");
    }

    #[test]
    fn an_order_is_given_again_when_it_is_old_or_the_primary_changed() {
        let mut pending = Pending::default();
        pending.begin(run(1, 1), &[A], Origin::Orphan);
        pending.begin(run(2, 1), &[B], Origin::Stray);
        let primary = |node| move |group: GroupId| (group == A).then_some(NodeId(node));
        let first = pending.orders(at(100), primary(1));
        assert_eq!(first, [((NodeId(1), A), vec![run(1, 1)])].into(), "nobody leads group 2");
        assert!(pending.orders(at(104), primary(1)).is_empty());
        assert_eq!(pending.orders(at(105), primary(1)).len(), 1);
        assert_eq!(pending.orders(at(106), primary(2)).len(), 1, "another primary");
        assert!(pending.has_any(Origin::Stray) && pending.has(BlockId(2)));
    }

    #[test]
    fn a_host_works_at_so_many_runs_and_the_rest_wait() {
        let mut pending = Pending::default();
        for first in 0..300 {
            pending.begin(run(first, 1), &[if first % 2 == 0 { A } else { B }], Origin::Orphan);
        }
        let orders = pending.orders(at(1), |_| Some(NodeId(7)));
        let given: usize = orders.values().map(Vec::len).sum();
        assert_eq!(given, RUNS_PER_HOST_MAX);
        assert!(pending.orders(at(2), |_| Some(NodeId(7))).is_empty());
        for first in 0..100 {
            pending.finish(if first % 2 == 0 { A } else { B }, run(first, 1));
        }
        let more: usize = pending.orders(at(2), |_| Some(NodeId(7))).values().map(Vec::len).sum();
        assert_eq!(more, 300 - RUNS_PER_HOST_MAX);
    }
}

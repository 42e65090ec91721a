//! How far joining members are, and which of them get no further.
//!
//! Soft state of a leader, like its view of heartbeats: a new leader begins with none, and gives every joiner its full
//! time again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nova_units::{Epoch, GroupId, NodeId};

use crate::model::Groups;

/// A joiner that got no further for this long is stalled: it is told, and its place goes to another host if one may
/// have it.
pub const FILL_STALLED_AFTER: Duration = Duration::from_secs(60);
/// A host that stalled is not asked to join the same group again for this long, unless there is no other.
pub const FILL_SHUNNED_FOR: Duration = Duration::from_secs(600);
/// The pace of a filling is that of the last time this long.
const PACE_OVER: Duration = Duration::from_secs(20);
/// One look in this time is kept for the pace.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a joiner says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillReport {
    /// Units that it stored of pages since it last began with the first.
    pub units: u64,
    /// It is being filled with pages; else it follows the log.
    pub paging: bool,
    /// The last entry of the log that it holds.
    pub followed: u64,
}

/// How a filling stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FillState {
    /// Units stored at most so far: a filling that begins again counts from there only when it has come further.
    pub units: u64,
    /// Units a second lately.
    pub units_per_second: f64,
    /// Since when it got no further.
    pub idle: Duration,
    /// That is too long.
    pub stalled: bool,
}

#[derive(Clone, Debug)]
struct Filling {
    epoch: Epoch,
    high: FillReport,
    progressed: Duration,
    looks: VecDeque<(Duration, u64)>,
}

/// All joiners.
#[derive(Clone, Debug, Default)]
pub struct Fillings {
    joiners: BTreeMap<(GroupId, NodeId), Filling>,
    shunned: BTreeMap<(GroupId, NodeId), Duration>,
}

impl Fillings {
    /// Takes what joiners lately said; `said` knows nothing of one that was not heard yet.
    pub fn look(
        &mut self,
        groups: &Groups,
        now: Duration,
        said: impl Fn(NodeId, GroupId) -> Option<FillReport>,
    ) {
        let joining: BTreeMap<(GroupId, NodeId), Epoch> = groups
            .iter()
            .filter_map(|(id, group)| Some(((id, group.joining()?.node), group.epoch)))
            .collect();
        self.joiners.retain(|place, filling| joining.get(place) == Some(&filling.epoch));
        for ((group, node), epoch) in joining {
            let filling = self.joiners.entry((group, node)).or_insert_with(|| Filling {
                epoch,
                high: FillReport::default(),
                progressed: now,
                looks: VecDeque::new(),
            });
            filling.take(said(node, group).unwrap_or_default(), now);
            if filling.is_stalled(now) {
                self.shunned.insert((group, node), now);
            }
        }
        self.shunned.retain(|_, since| now.saturating_sub(*since) < FILL_SHUNNED_FOR);
    }

    /// How the filling of `node` with `group` stands.
    #[must_use]
    pub fn state(&self, group: GroupId, node: NodeId, now: Duration) -> Option<FillState> {
        let filling = self.joiners.get(&(group, node))?;
        Some(FillState {
            units: filling.high.units,
            units_per_second: filling.pace(),
            idle: now.saturating_sub(filling.progressed),
            stalled: filling.is_stalled(now),
        })
    }

    /// Hosts that got no further with a group, now or a while ago.
    #[must_use]
    pub fn shunned(&self) -> BTreeSet<(GroupId, NodeId)> {
        self.shunned.keys().copied().collect()
    }
}

impl Filling {
    fn take(&mut self, said: FillReport, now: Duration) {
        // The mark is the furthest so far: one that is emptied and filled again, over and over, gets no further.
        // While pages come, entries of the log are no progress: clients make them.
        let further = said.units > self.high.units
            || (!said.paging && (self.high.paging || said.followed > self.high.followed));
        if further {
            self.progressed = now;
        }
        self.high = FillReport {
            units: said.units.max(self.high.units),
            paging: said.paging,
            followed: said.followed.max(self.high.followed),
        };
        if self.looks.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= LOOK_EVERY) {
            self.looks.push_back((now, self.high.units));
        }
        while self.looks.front().is_some_and(|(at, _)| now.saturating_sub(*at) > PACE_OVER) {
            self.looks.pop_front();
        }
    }

    fn is_stalled(&self, now: Duration) -> bool {
        now.saturating_sub(self.progressed) >= FILL_STALLED_AFTER
    }

    fn pace(&self) -> f64 {
        let (Some((from, before)), Some((to, after))) = (self.looks.front(), self.looks.back()) else {
            return 0.0;
        };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a pace is for people")]
        let units = (after - before) as f64;
        if seconds > 0.0 { units / seconds } else { 0.0 }
    }
}

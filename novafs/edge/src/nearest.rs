//! Which member to ask first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use nova_units::NodeId;

/// Share of the newest sample in the smoothed latency: 1/8, as TCP smooths its round trip (RFC 6298).
const SMOOTHING: u32 = 8;
/// A failed attempt counts as this long, so that the next request goes elsewhere first.
const FAILURE_PENALTY: Duration = Duration::from_millis(200);

/// How rarely the nearest host is passed over.
const EXPLORE_ONE_IN: u64 = 16;
/// How rarely for a host that is an outlier: fewer requests than one in a hundred may suffer from it.
const EXPLORE_OUTLIER_ONE_IN: u64 = 512;
/// A host that answers so many times later than the nearest is an outlier.
const OUTLIER_FACTOR: u32 = 8;
/// One that answers sooner is none, whatever the nearest does.
const OUTLIER_MIN: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    latency: Duration,
    in_flight: u32,
}

/// Smoothed latency and load of each host, as this edge saw them (Spec C.3: reads go to the nearest replica).
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    seen: RefCell<HashMap<NodeId, Seen>>,
}

impl Nearest {
    /// Sorts `hosts` by expected wait: smoothed latency times one more than what is in flight there.
    ///
    /// One request in [`EXPLORE_ONE_IN`] begins elsewhere, by `chance`: a host that was slow once is seen to be quick
    /// again, and no replica goes unread for ever, where its rot would wait for the scrub. An outlier, such as a host
    /// whose device is about to fail, is tried one time in [`EXPLORE_OUTLIER_ONE_IN`].
    pub(crate) fn sort(&self, hosts: &mut [NodeId], chance: u64) {
        let seen = self.seen.borrow();
        let latency = |host: &NodeId| {
            let seen = seen.get(host).copied().unwrap_or_default();
            seen.latency.max(Duration::from_micros(50))
        };
        hosts.sort_by_key(|host| {
            let in_flight = seen.get(host).map_or(0, |seen| seen.in_flight);
            (latency(host) * (in_flight + 1), *host)
        });
        if hosts.len() > 1 && chance.is_multiple_of(EXPLORE_ONE_IN) {
            let others = hosts.len() as u64 - 1;
            let other = usize::try_from(chance / EXPLORE_ONE_IN % others).expect("below the count of hosts");
            let (nearest, explored) = (latency(&hosts[0]), latency(&hosts[1 + other]));
            let outlier = explored >= OUTLIER_MIN && explored >= nearest * OUTLIER_FACTOR;
            let turn = chance / EXPLORE_ONE_IN / others;
            if !outlier || turn.is_multiple_of(EXPLORE_OUTLIER_ONE_IN / EXPLORE_ONE_IN) {
                hosts.swap(0, 1 + other);
            }
        }
    }

    pub(crate) fn begin(&self, host: NodeId) {
        self.seen.borrow_mut().entry(host).or_default().in_flight += 1;
    }

    pub(crate) fn end(&self, host: NodeId, took: Duration, well: bool) {
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry(host).or_default();
        seen.in_flight = seen.in_flight.saturating_sub(1);
        let sample = if well { took } else { took.max(FAILURE_PENALTY) };
        seen.latency = (seen.latency * (SMOOTHING - 1) + sample) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_or_busy_host_is_asked_after_a_quick_one() {
        let nearest = Nearest::default();
        let (quick, slow) = (NodeId(1), NodeId(2));
        for (host, took, well) in [(quick, 1, true), (slow, 1, false)] {
            nearest.begin(host);
            nearest.end(host, Duration::from_millis(took), well);
        }
        let mut hosts = [slow, quick];
        nearest.sort(&mut hosts, 1);
        assert_eq!(hosts, [quick, slow]);

        for _ in 0..2000 {
            nearest.begin(quick);
        }
        nearest.sort(&mut hosts, 1);
        assert_eq!(hosts, [slow, quick], "a long queue at the quick host makes the other one nearer");
    }

    #[test]
    fn an_outlier_is_tried_far_more_rarely_than_others_and_not_never() {
        let nearest = Nearest::default();
        for (host, millis) in [(1, 1), (2, 3), (3, 200)] {
            for _ in 0..40 {
                nearest.begin(NodeId(host));
                nearest.end(NodeId(host), Duration::from_millis(millis), true);
            }
        }
        let firsts = |of: u64| {
            let first = |chance: &u64| {
                let mut hosts = [NodeId(1), NodeId(2), NodeId(3)];
                nearest.sort(&mut hosts, *chance);
                hosts[0] == NodeId(of)
            };
            (0..16_384).filter(first).count()
        };
        assert_eq!(firsts(2), 512, "one in 32: it is not far behind");
        assert_eq!(firsts(3), 16);
    }

    #[test]
    fn now_and_then_every_other_host_is_asked_first() {
        let nearest = Nearest::default();
        let firsts: std::collections::BTreeSet<NodeId> = (0..64)
            .map(|chance| {
                let mut hosts = [NodeId(1), NodeId(2), NodeId(3)];
                nearest.sort(&mut hosts, chance);
                hosts[0]
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }
}

//! Which member of a group is nearest: measured, not configured. And how long it mostly takes, so that a read that takes
//! longer is asked of another one too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use nova_units::NodeId;

/// Share of the newest sample in the smoothed latency: 1/8, as TCP smooths its round trip (RFC 6298).
const SMOOTHING: u32 = 8;
/// A failed attempt counts as this long, so that the next request goes elsewhere first.
const FAILURE_PENALTY: Duration = Duration::from_millis(200);

/// An attempt that was given up would have taken longer, nobody knows how much; it counts as so many times the wait. Else a
/// slow host, whose answers are never waited for, would look like a quick one.
const GIVEN_UP_FACTOR: u32 = 8;

/// How rarely the nearest host is passed over.
const EXPLORE_ONE_IN: u64 = 16;
/// How rarely for the host that the edge is on.
const EXPLORE_OWN_ONE_IN: u64 = 128;
/// A read of the edge's own host passes no socket, and costs half the processor time or less. So another host is nearer
/// only when it would answer in less than this part of the time.
const OWN_ADVANTAGE: u32 = 8;
/// A drive works on so many reads at a time as on one: fewer on their way to the own host are no queue there.
const OWN_DEPTH: u32 = 16;
/// How rarely for a host that is an outlier: fewer requests than one in a hundred may suffer from it.
const EXPLORE_OUTLIER_ONE_IN: u64 = 512;
/// A host that answers so many times later than the nearest is an outlier.
const OUTLIER_FACTOR: u32 = 8;
/// One that answers sooner is none, whatever the nearest does.
const OUTLIER_MIN: Duration = Duration::from_millis(2);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an answer.
    Answered,
    /// Nobody waits for it any longer: another member answered, or who asked is gone.
    GivenUp,
    /// With an error.
    Failed,
}

/// Answers of which a [`Recent`] keeps the time.
const SAMPLES: usize = 64;
/// So many of them are longer than what is taken as the longest usual time: 5 %.
const SLOWEST: usize = SAMPLES / 20;
/// The usual time is worked out anew after so many answers.
const REFRESH_EVERY: usize = 8;
/// A host of which less is known is given this long.
const UNKNOWN_USUAL: Duration = Duration::from_millis(50);
/// A second member is asked no sooner, or every hiccup of a scheduler would ask one, and no later than this.
const HEDGE_AFTER: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(500));
/// Answers up to this length are short: how long they take says nothing of longer ones.
const SHORT_BYTES_MAX: u32 = 64 << 10;

/// Of so many reads one may be asked twice.
const HEDGE_ONE_IN: u32 = 20;
/// Reads that may be asked twice one after the other, when long none was.
const HEDGE_BURST: u32 = 16;

/// The times that the last answers of one kind took.
#[derive(Debug)]
struct Recent {
    micros: [u32; SAMPLES],
    count: usize,
    usual: Option<Duration>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { micros: [0; SAMPLES], count: 0, usual: None }
    }
}

impl Recent {
    fn note(&mut self, took: Duration) {
        self.micros[self.count % SAMPLES] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
        if self.count >= SAMPLES && self.count.is_multiple_of(REFRESH_EVERY) {
            let mut sorted = self.micros;
            let (_, usual, _) = sorted.select_nth_unstable(SAMPLES - 1 - SLOWEST);
            self.usual = Some(Duration::from_micros(u64::from(*usual)));
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    latency: Duration,
    in_flight: u32,
    short: Recent,
    long: Recent,
}

impl Seen {
    fn recent(&mut self, bytes: u32) -> &mut Recent {
        if bytes <= SHORT_BYTES_MAX { &mut self.short } else { &mut self.long }
    }

    /// The time in which 95 of 100 answers of this length come.
    fn usual(&self, bytes: u32) -> Duration {
        let recent = if bytes <= SHORT_BYTES_MAX { &self.short } else { &self.long };
        recent.usual.unwrap_or(UNKNOWN_USUAL)
    }
}

/// Smoothed latency and load of each host, as this edge saw them (Spec C.3: reads go to the nearest replica).
#[derive(Debug)]
pub(crate) struct Nearest {
    seen: RefCell<HashMap<NodeId, Seen>>,
    /// What may be asked twice, in parts of [`HEDGE_ONE_IN`].
    hedges: Cell<u32>,
}

impl Default for Nearest {
    fn default() -> Self {
        Self { seen: RefCell::default(), hedges: Cell::new(HEDGE_BURST * HEDGE_ONE_IN) }
    }
}

impl Nearest {
    /// Sorts `hosts` by expected wait: smoothed latency times one more than what is in flight there. The edge's `own` host
    /// comes first unless another would be far quicker ([`OWN_ADVANTAGE`]).
    ///
    /// One request in [`EXPLORE_ONE_IN`] begins elsewhere, by `chance`: a host that was slow once is seen to be quick
    /// again, and no replica goes unread for ever, where its rot would wait for the scrub. An outlier, such as a host
    /// whose device is about to fail, is tried one time in [`EXPLORE_OUTLIER_ONE_IN`].
    pub(crate) fn sort(&self, hosts: &mut [NodeId], own: NodeId, chance: u64) {
        let seen = self.seen.borrow();
        let latency = |host: &NodeId| {
            let latency = seen.get(host).map_or(Duration::ZERO, |seen| seen.latency);
            latency.max(Duration::from_micros(50))
        };
        hosts.sort_by_key(|host| {
            let in_flight = seen.get(host).map_or(0, |seen| seen.in_flight);
            let wait = match *host == own {
                true => latency(host) * (in_flight / OWN_DEPTH + 1) / OWN_ADVANTAGE,
                false => latency(host) * (in_flight + 1),
            };
            (wait, *host)
        });
        let one_in = if hosts.first() == Some(&own) { EXPLORE_OWN_ONE_IN } else { EXPLORE_ONE_IN };
        if hosts.len() > 1 && chance.is_multiple_of(one_in) {
            let others = hosts.len() as u64 - 1;
            let other = usize::try_from(chance / one_in % others).expect("below the count of hosts");
            let (nearest, explored) = (latency(&hosts[0]), latency(&hosts[1 + other]));
            let outlier = explored >= OUTLIER_MIN && explored >= nearest * OUTLIER_FACTOR;
            let turn = chance / one_in / others;
            if !outlier || turn.is_multiple_of(EXPLORE_OUTLIER_ONE_IN / one_in) {
                hosts.swap(0, 1 + other);
            }
        }
    }

    pub(crate) fn begin(&self, host: NodeId) {
        self.seen.borrow_mut().entry(host).or_default().in_flight += 1;
    }

    /// An attempt has ended after this time, or is not waited for any longer. `answer_bytes` says how long the answer
    /// may be.
    pub(crate) fn end(&self, host: NodeId, took: Duration, ended: Ended, answer_bytes: u32) {
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry(host).or_default();
        seen.in_flight = seen.in_flight.saturating_sub(1);
        let sample = match ended {
            Ended::Answered => took,
            Ended::GivenUp => took * GIVEN_UP_FACTOR,
            Ended::Failed => took.max(FAILURE_PENALTY),
        };
        seen.latency = (seen.latency * (SMOOTHING - 1) + sample) / SMOOTHING;
        seen.recent(answer_bytes).note(sample);
    }

    /// How long a read waits for `host` alone before `other` is asked too: the time in which 95 of 100 answers of `host`
    /// come, but when it is the slower of the two, not much longer than `other` would take.
    pub(crate) fn hedge_after(&self, host: NodeId, other: NodeId, answer_bytes: u32) -> Duration {
        let seen = self.seen.borrow();
        let usual = |host| seen.get(&host).map_or(UNKNOWN_USUAL, |seen| seen.usual(answer_bytes));
        usual(host).min(usual(other) * 2).clamp(HEDGE_AFTER.0, HEDGE_AFTER.1)
    }

    /// A read begins; reads pay for those that are asked twice.
    pub(crate) fn note_read(&self) {
        self.hedges.set((self.hedges.get() + 1).min(HEDGE_BURST * HEDGE_ONE_IN));
    }

    /// Whether a read may be asked twice now.
    pub(crate) fn take_hedge(&self) -> bool {
        let left = self.hedges.get().checked_sub(HEDGE_ONE_IN);
        self.hedges.set(left.unwrap_or(self.hedges.get()));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: NodeId = NodeId(1);
    const SLOW: NodeId = NodeId(2);
    /// The edge is on a host that has no replica.
    const ELSEWHERE: NodeId = NodeId(9);

    fn answer(nearest: &Nearest, host: NodeId, micros: u64, bytes: u32) {
        nearest.begin(host);
        nearest.end(host, Duration::from_micros(micros), Ended::Answered, bytes);
    }

    #[test]
    fn a_failed_or_busy_host_is_asked_after_a_quick_one() {
        let nearest = Nearest::default();
        for (host, ended) in [(QUICK, Ended::Answered), (SLOW, Ended::Failed)] {
            nearest.begin(host);
            nearest.end(host, Duration::from_millis(1), ended, 4096);
        }
        let mut hosts = [SLOW, QUICK];
        nearest.sort(&mut hosts, ELSEWHERE, 1);
        assert_eq!(hosts, [QUICK, SLOW]);

        for _ in 0..2000 {
            nearest.begin(QUICK);
        }
        nearest.sort(&mut hosts, ELSEWHERE, 1);
        assert_eq!(hosts, [SLOW, QUICK], "a long queue at the quick host makes the other one nearer");
    }

    #[test]
    fn the_own_host_is_asked_unless_another_is_far_quicker() {
        let nearest = Nearest::default();
        let first = |chance| {
            let mut hosts = [QUICK, SLOW];
            nearest.sort(&mut hosts, SLOW, chance);
            hosts[0]
        };
        for _ in 0..100 {
            answer(&nearest, QUICK, 100, 4096);
            answer(&nearest, SLOW, 700, 4096);
        }
        assert_eq!(first(1), SLOW);
        let explored = (0..16_384).filter(|chance| first(*chance) == QUICK).count();
        assert_eq!(explored, 128, "one in 128: rot elsewhere is still met");
        for _ in 0..OWN_DEPTH {
            nearest.begin(SLOW);
        }
        assert_eq!(
            first(1),
            QUICK,
            "a queue that is twice as deep as the drive: 1,400 us by 8 are longer than 100"
        );
    }

    #[test]
    fn a_host_whose_answers_are_never_waited_for_becomes_an_outlier() {
        let nearest = Nearest::default();
        for _ in 0..40 {
            for (host, micros, ended) in [(QUICK, 300, Ended::Answered), (SLOW, 1300, Ended::GivenUp)] {
                nearest.begin(host);
                nearest.end(host, Duration::from_micros(micros), ended, 4096);
            }
        }
        let first = |chance: &u64| {
            let mut hosts = [QUICK, SLOW];
            nearest.sort(&mut hosts, ELSEWHERE, *chance);
            hosts[0] == SLOW
        };
        assert_eq!((0..16_384).filter(first).count(), 32);
    }

    #[test]
    fn an_outlier_is_tried_far_more_rarely_than_others_and_not_never() {
        let nearest = Nearest::default();
        for (host, millis) in [(1, 1), (2, 3), (3, 200)] {
            for _ in 0..40 {
                nearest.begin(NodeId(host));
                nearest.end(NodeId(host), Duration::from_millis(millis), Ended::Answered, 4096);
            }
        }
        let firsts = |of: u64| {
            let first = |chance: &u64| {
                let mut hosts = [NodeId(1), NodeId(2), NodeId(3)];
                nearest.sort(&mut hosts, ELSEWHERE, *chance);
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
                nearest.sort(&mut hosts, ELSEWHERE, chance);
                hosts[0]
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn the_usual_time_is_that_of_95_in_100_answers_of_the_same_kind() {
        let nearest = Nearest::default();
        let after = |bytes| nearest.hedge_after(QUICK, SLOW, bytes);
        assert_eq!(after(4096), UNKNOWN_USUAL, "nothing is known");
        // 4, 8, .. 256 units of 500 us in another order: 3 of 64 are longer than the 61st.
        for at in 0..64 {
            answer(&nearest, QUICK, (at * 37 % 64 + 1) * 500, 4096);
        }
        assert_eq!(after(4096), Duration::from_micros(61 * 500));
        assert_eq!(after(1 << 20), UNKNOWN_USUAL, "longer answers are another matter");
        for _ in 0..64 {
            answer(&nearest, QUICK, 2000, 4096);
        }
        assert_eq!(after(4096), Duration::from_millis(2), "what was long ago does not count");
        for _ in 0..64 {
            answer(&nearest, QUICK, 10, 4096);
        }
        assert_eq!(after(4096), HEDGE_AFTER.0);
    }

    #[test]
    fn a_slow_host_is_given_no_more_than_twice_what_the_other_takes() {
        let nearest = Nearest::default();
        for _ in 0..64 {
            answer(&nearest, QUICK, 3000, 4096);
            answer(&nearest, SLOW, 900_000, 4096);
        }
        assert_eq!(nearest.hedge_after(SLOW, QUICK, 4096), Duration::from_millis(6));
        assert_eq!(nearest.hedge_after(QUICK, SLOW, 4096), Duration::from_millis(3));
        assert_eq!(nearest.hedge_after(SLOW, SLOW, 4096), HEDGE_AFTER.1);
    }

    #[test]
    fn at_most_one_read_in_twenty_is_asked_twice_and_a_few_at_first() {
        let nearest = Nearest::default();
        let hedged = (0..20_000).filter(|_| {
            nearest.note_read();
            nearest.take_hedge()
        });
        let (hedged, share) = (hedged.count(), 20_000 / HEDGE_ONE_IN as usize);
        assert!((share..=share + HEDGE_BURST as usize).contains(&hedged), "{hedged}");
    }
}

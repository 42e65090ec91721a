//! Reads do not wait for a member that became slow.

use std::time::Duration;

#[test]
fn a_slow_members_reads_are_answered_by_another_within_the_hedge_delay() {
    for seed in 1..=3 {
        let outcome = nova_sim::slow(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        // A member is given 1 ms; then another answers in well under 3 ms.
        assert!(outcome.longest < Duration::from_millis(4), "seed {seed}: {outcome:?}");
        assert!(outcome.won > 0 && outcome.won <= outcome.hedged, "seed {seed}: {outcome:?}");
        // One read in twenty, and those that were saved up at first.
        assert!(
            outcome.hedged <= (outcome.reads + outcome.reads_before) / 20 + 16,
            "seed {seed}: {outcome:?}"
        );
        let before = outcome.reads_before / 20 + 16;
        assert!(outcome.hedged_before <= before, "seed {seed}: {outcome:?}");
    }
}

//! The model within bounds that every run of the tests can afford; the program goes further.

use nova_model::{Bounds, Reconfiguration};
use stateright::{Checker, Model};

/// States of the short form.
const STATES: usize = 150_000;

#[test]
fn nothing_acknowledged_is_lost_or_missed_within_small_bounds() {
    for members in 2..=4 {
        let bounds = Bounds { members, writes: 1, crashes: 1, amnesias: 0, epochs: 3 };
        let checker = Reconfiguration { bounds }.checker().target_state_count(STATES).spawn_bfs().join();
        assert!(checker.unique_state_count() > 10_000, "{} states", checker.unique_state_count());
        checker.assert_no_discovery("nothing acknowledged is lost or missed");
        assert!(checker.discovery("a write is acknowledged after a change of members").is_some());
    }
}

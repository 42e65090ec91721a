//! The model within bounds that every run of the tests can afford; the program goes further.

use nova_model::{Bounds, Reconfiguration};
use stateright::{Checker, Model};

/// Of each number of members: how many epochs, and how many states of the short form. One of two that lost a member
/// takes no write before another was filled and admitted, so it needs an epoch more, and ends before its bound.
const FORMS: [(u8, u64, usize); 3] = [(2, 4, 10_000_000), (3, 3, 150_000), (4, 2, 2_500_000)];

#[test]
fn nothing_acknowledged_is_lost_or_missed_within_small_bounds() {
    for (members, epochs, states) in FORMS {
        let bounds = Bounds { members, writes: 1, crashes: 1, amnesias: 0, epochs };
        let checker = Reconfiguration { bounds }.checker().target_state_count(states).spawn_bfs().join();
        assert!(checker.unique_state_count() > 10_000, "{} states", checker.unique_state_count());
        checker.assert_no_discovery("nothing acknowledged is lost or missed");
        assert!(checker.discovery("a write is acknowledged after a change of members").is_some());
    }
}

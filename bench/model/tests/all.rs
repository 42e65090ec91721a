//! The model within bounds that every run of the tests can afford; the program goes further.

use nova_model::{Bounds, Broken, Found, Rare, Reconfiguration, Reductions};

fn bounds(members: u8, writes: u8, crashes: u8, amnesias: u8, epochs: u8) -> Bounds {
    Bounds { members, writes, crashes, amnesias, epochs }
}

/// To the end, or to the first violation.
fn explored(bounds: Bounds, reductions: Reductions, broken: Option<Broken>) -> Found {
    let found = Reconfiguration::new(bounds, reductions, broken).explore(usize::MAX, |_| {});
    println!("{broken:?} within {bounds:?}, {reductions:?}: {:?}", found.progress);
    found
}

fn assert_holds(bounds: Bounds, states_min: usize, wanted: &[Rare]) {
    let found = explored(bounds, Reductions::ALL, None);
    assert!(found.ended, "{bounds:?}: {:?}", found.violation);
    assert!(found.progress.worlds >= states_min, "{bounds:?}: {:?}", found.progress);
    for rare in wanted {
        assert!(found.met.contains(rare), "{bounds:?}: {rare:?} never happened");
    }
}

/// What a check must meet, or it proves nothing.
const ALL: [Rare; 5] =
    [Rare::Admitted, Rare::BroughtBack, Rare::ColdStart, Rare::NewLife, Rare::WrittenLater];

#[test]
fn nothing_acknowledged_is_lost_or_missed_within_small_bounds() {
    assert_holds(bounds(2, 2, 2, 1, 5), 10_000, &ALL);
    assert_holds(bounds(3, 2, 2, 1, 4), 400_000, &ALL);
    assert_holds(bounds(4, 1, 1, 1, 3), 10_000, &[Rare::NewLife, Rare::WrittenLater]);
}

/// Three members and a spare, two writes under way, two crashes, one of them with an old image: a drop, a join, an
/// admission, and another drop.
#[test]
fn long_nothing_acknowledged_is_lost_or_missed_by_three_members_and_a_spare() {
    assert_holds(bounds(3, 2, 2, 1, 5), 2_000_000, &ALL);
}

/// The bounds within which each broken rule does harm.
fn harm_of(broken: Broken) -> Bounds {
    match broken {
        Broken::PromiseForgotten
        | Broken::TailDiscarded
        | Broken::LeaseNotChecked
        | Broken::UnsettledTold => bounds(3, 1, 0, 0, 2),
        Broken::JoinerUncounted => bounds(3, 1, 0, 0, 4),
        Broken::OldImageBelieved => bounds(2, 1, 1, 1, 3),
        Broken::SurvivorReads | Broken::JoinerIsWritable => bounds(2, 1, 0, 0, 5),
        Broken::PrimaryNotAsked => bounds(2, 1, 0, 0, 1),
        Broken::CommitsAlone => bounds(2, 1, 0, 0, 3),
    }
}

#[test]
fn every_broken_rule_is_found_with_all_that_makes_the_model_smaller_and_without() {
    for broken in Broken::ALL {
        let bounds = harm_of(broken);
        for at_once in [true, false] {
            // Without steps at once this one takes millions of states to get there.
            if !at_once && broken == Broken::JoinerUncounted {
                continue;
            }
            for (forget, alike) in [(true, true), (true, false), (false, true), (false, false)] {
                let reductions = Reductions { at_once, forget, alike };
                let (_, way) =
                    explored(bounds, reductions, Some(broken)).violation.expect("it does harm and is found");
                assert!((5..25).contains(&way.len()), "{broken:?}: {way:?}");
            }
        }
        assert!(explored(bounds, Reductions::ALL, None).ended, "{broken:?}: unbroken it holds");
    }
}

/// While the counter alone told, it was believed: each start raises it, heard or not.
#[test]
fn an_image_of_an_earlier_mount_that_starts_twice_unheard_is_noticed() {
    assert_holds(bounds(2, 1, 3, 1, 6), 100_000, &ALL);
}

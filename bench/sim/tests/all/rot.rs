//! Rot that nobody reads is found.

#[test]
fn bytes_flipped_at_rest_in_two_of_three_copies_are_repaired_without_a_read() {
    for seed in 1..=3 {
        let outcome = nova_sim::rot(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert!(outcome.flipped >= 10 && outcome.reads == 0, "seed {seed}: {outcome:?}");
        assert_eq!(outcome.repaired, outcome.flipped as u64, "seed {seed}: {outcome:?}");
        assert!(outcome.took.as_secs() < 10, "seed {seed}: {outcome:?}");
    }
}

//! A few seeds, and that a seed is all there is to a run.

#[test]
fn a_few_seeds_pass() {
    let report = nova_sim::run_many(1_001, 6, 2, |_| {});
    for trouble in &report.troubles {
        eprintln!("{trouble}");
    }
    assert!(report.troubles.is_empty());
    let counts = report.counts;
    assert!(counts.writes_acked > 100 && counts.reads > 100, "{counts:?}");
    assert!(counts.files > 50 && counts.files_read > 50 && counts.listings > 20, "{counts:?}");
    assert!(
        counts.moved > 10 && counts.removed > 5 && counts.files_fenced > 5 && counts.trash_turned > 3,
        "{counts:?}"
    );
    assert!(counts.sessions_ended > 5 && counts.edges_killed > 0, "{counts:?}");
    assert!(counts.repeats > 10 && counts.snapshots > 5, "{counts:?}");
}

#[test]
fn a_seed_replays_exactly() {
    let once = nova_sim::run(77, false).expect("it passes");
    let again = nova_sim::run(77, true).expect("it passes");
    assert_eq!(once.fingerprint, again.fingerprint);
    assert_eq!((once.counts, once.took), (again.counts, again.took));
    let other = nova_sim::run(78, false).expect("it passes");
    assert_ne!(once.fingerprint, other.fingerprint);
}

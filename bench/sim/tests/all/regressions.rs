//! Seeds that failed once, by what they showed.

fn passes(seed: u64) {
    if let Err(trouble) = nova_sim::run(seed, false) {
        panic!("{trouble}");
    }
}

#[test]
fn a_host_that_restarted_unnoticed_is_not_taken_for_whole() {
    passes(25);
}

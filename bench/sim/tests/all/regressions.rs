//! Seeds that failed once, by what they showed. Groups had three members then.

fn passes(seed: u64) {
    if let Err(trouble) = nova_sim::run_of_three(seed) {
        panic!("{trouble}");
    }
}

#[test]
fn a_host_that_restarted_unnoticed_is_not_taken_for_whole() {
    passes(25);
}

#[test]
fn an_entry_without_room_is_taken_back_and_does_not_block_its_group() {
    passes(54);
    passes(20);
}

#[test]
fn a_primary_that_opens_again_waits_for_what_it_took_back() {
    passes(73);
}

#[test]
fn a_joiner_whose_free_cells_have_the_wrong_sizes_is_filled_anew() {
    passes(31);
    passes(80);
}

#[test]
fn a_bad_copy_on_a_full_disk_is_repaired() {
    passes(76);
}

#[test]
fn a_program_is_given_blocks_as_soon_as_a_group_is_writable_again() {
    passes(17);
    passes(42);
}

#[test]
fn bad_copies_that_nobody_read_are_repaired_too() {
    passes(112);
}

#[test]
fn a_lone_survivor_with_bad_copies_has_them_from_hosts_that_were_members() {
    passes(328);
}

#[test]
fn a_joiner_is_filled_with_small_units_although_the_primary_has_few_buffers() {
    passes(291);
}

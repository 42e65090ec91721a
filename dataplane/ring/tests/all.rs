//! Integration tests of the rings.
#[cfg(test)]
mod all {
    mod fuzz_abi;
    mod golden_abi;
    mod hostile;
    mod prop_abi;
    mod samples;
    mod two_processes;
}

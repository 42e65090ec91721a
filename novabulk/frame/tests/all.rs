//! Integration tests of the wire format.
#[cfg(test)]
mod all {
    mod fuzz_decode;
    mod golden_frame;
    mod prop_frame;
    mod samples;
}

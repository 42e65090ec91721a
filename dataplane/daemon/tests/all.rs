//! Tests of the binary, as a host's agent and its programs see it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "what stands around a test, too, says what it expects by unwrapping it"
)]

mod all {
    mod devices;
    mod hostile_program;
    mod kit;
    mod openings;
    mod shards;
}

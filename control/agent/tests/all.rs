//! Tests of the binary, as local programs see it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "what stands around a test, too, says what it expects by unwrapping it"
)]

mod all {
    mod hostile_program;
}

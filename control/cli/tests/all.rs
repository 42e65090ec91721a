//! Tests of the binary, as a person at a terminal sees it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "what stands around a test, too, says what it expects by unwrapping it"
)]

mod all {
    mod closed_pipe;
    mod dev_up;
}

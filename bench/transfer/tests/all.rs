//! The benchmark in its shortest form: it measures, compares and leaves nothing behind. No speed is asserted.
//!
//! Needs the binaries `nova` and `nova-bulk` in the folder that cargo builds into, as `scripts/test` puts them there.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "what stands around a test, too, says what it expects by unwrapping it"
)]

mod all {
    mod short;
}

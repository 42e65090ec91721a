//! The programs of this crate on a small region, whose binaries are where cargo builds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod all {
    mod long_creates;
}

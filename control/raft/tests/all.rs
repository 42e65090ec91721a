//! Real members of a group over loopback gRPC with mutual TLS, real folders, real kills.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, say what they expect by unwrapping it")]
mod all {
    mod cluster;
    mod fuzz_record;
    mod golden;
    mod support;
}

//! Integration tests of the formats: bytes that must not change, properties, mutations of saved inputs.
#![allow(clippy::unwrap_used, reason = "helpers of tests say what they expect by unwrapping it, as tests do")]

#[path = "all/fuzz_records.rs"]
mod fuzz_records;
#[path = "all/golden_records.rs"]
mod golden_records;
#[path = "all/prop_ciphers.rs"]
mod prop_ciphers;
#[path = "all/prop_records.rs"]
mod prop_records;
#[path = "all/samples.rs"]
mod samples;

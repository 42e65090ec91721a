//! The edge against hosts that keep what they are sent, on the in-memory shard.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "numbers of a test are small, and it says what it expects"
)]

#[path = "all/fake_hosts.rs"]
mod fake_hosts;
#[path = "all/hedge.rs"]
mod hedge;
#[path = "all/keys.rs"]
mod keys;
#[path = "all/prop_rewrite.rs"]
mod prop_rewrite;
#[path = "all/rewrite.rs"]
mod rewrite;
#[path = "all/round_trip.rs"]
mod round_trip;

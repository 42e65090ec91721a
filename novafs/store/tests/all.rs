//! Integration tests of the store: on the in-memory disk, through the public API only.
#![allow(clippy::unwrap_used, reason = "helpers of tests say what they expect by unwrapping it, as tests do")]

#[path = "all/compact.rs"]
mod compact;
#[path = "all/crash.rs"]
mod crash;
#[path = "all/damage.rs"]
mod damage;
#[path = "all/full.rs"]
mod full;
#[path = "all/inline.rs"]
mod inline;
#[path = "all/model.rs"]
mod model;
#[path = "all/real.rs"]
mod real;
#[path = "all/reclaim.rs"]
mod reclaim;
#[path = "all/rig.rs"]
mod rig;
#[path = "all/round_trip.rs"]
mod round_trip;
#[path = "all/scrub.rs"]
mod scrub;
#[path = "all/together.rs"]
mod together;

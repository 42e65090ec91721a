//! Integration tests of the replica groups.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "all/changes.rs"]
mod changes;
#[path = "all/detection.rs"]
mod detection;
#[path = "all/devices.rs"]
mod devices;
#[path = "all/filling.rs"]
mod filling;
#[path = "all/kit.rs"]
mod kit;
#[path = "all/moves.rs"]
mod moves;
#[path = "all/paces.rs"]
mod paces;
#[path = "all/prop_groups.rs"]
mod prop_groups;
#[path = "all/replicas.rs"]
mod replicas;
#[path = "all/restarts.rs"]
mod restarts;

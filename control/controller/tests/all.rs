//! Integration tests of nova-control: three real processes on loopback with mutual TLS, and agents that are played.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "all/cluster.rs"]
mod cluster;
#[path = "all/collection.rs"]
mod collection;
#[path = "all/drain.rs"]
mod drain;
#[path = "all/files.rs"]
mod files;
#[path = "all/kit.rs"]
mod kit;
#[path = "all/process.rs"]
mod process;

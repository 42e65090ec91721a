//! The real machine: files in a folder of the target directory, and loopback sockets.

#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "all/bench.rs"]
mod bench;
#[path = "all/disk.rs"]
mod disk;
#[path = "all/faulty.rs"]
mod faulty;
#[path = "all/lane.rs"]
mod lane;
#[path = "all/reactor.rs"]
mod reactor;

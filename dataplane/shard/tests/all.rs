//! Real shards: glommio, the ring, files in a folder of the target directory, loopback sockets.
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "all/life.rs"]
mod life;
#[path = "all/starved.rs"]
mod starved;
#[path = "all/wake.rs"]
mod wake;
#[path = "all/work.rs"]
mod work;

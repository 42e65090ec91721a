//! Process tests over a real region on this machine: real binaries, real sockets, real signals, `kill -9`.
//!
//! They need the binaries `nova`, `nova-control`, `nova-agent` and `novad` in the folder that cargo builds into:
//! `cargo build --workspace --bins`, which `scripts/test` does first. One region runs at a time.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "what stands around a test, too, says what it expects by unwrapping it"
)]

mod all {
    mod chaos_collection;
    mod chaos_devices;
    mod chaos_duties;
    mod chaos_full_device;
    mod chaos_full_drain;
    mod chaos_garbage;
    mod chaos_interrupt;
    mod chaos_keys_lost;
    mod chaos_kill;
    mod chaos_mount;
    mod chaos_netns;
    mod chaos_power;
    mod chaos_replace;
    mod chaos_shards;
    mod chaos_stop;
    mod chaos_trash;
    mod commands;
    mod end_to_end;
    mod faulty_disk;
    mod frozen_thread;
    mod fsx;
    mod keys;
    mod load;
    mod long_fio;
    mod long_fsx;
    mod long_mount;
    mod mapped_file;
    mod mounted;
    mod netns;
    mod posix;
    mod registers;
    mod replica_counts;
    mod rig;
    mod shards;
    mod skip;
    mod volatile_cache;
}

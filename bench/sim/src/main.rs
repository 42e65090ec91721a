//! The seeded simulator: real store, replica, member and edge code on simulated disks, network and clock.

fn main() {}

//! The seeded simulator of storage: the real store, replica machine and member on simulated disks, network and
//! clocks, edges that write and read, and the controllers' slices of groups and of file metadata as oracles behind
//! random delays.
//!
//! A run is made by its seed alone. It has a time of faults, then the faults stop and everything must heal; what is
//! checked is section 6 of the NovaFS protocol. See docs/testing.md.
#![forbid(unsafe_code)]

mod ask;
mod audit;
mod browse;
mod chaos;
mod cluster;
mod controller;
mod drill;
mod edge;
mod expected;
mod files;
mod files_group;
mod hedge;
mod history;
mod many;
mod metadata;
mod net;
mod put;
mod rest;
mod rewrite;
mod rot;
mod run;
mod scenario;
mod slow;
mod stage;

pub use drill::{Image, Lie, Lied, Restored, forgiven_error, lie, restore, restore_alone};
pub use hedge::{Hedged, hedge};
pub use history::Counts;
pub use many::{Report, run_many};
pub use rot::{Rot, rot};
pub use run::{Outcome, Trouble, run, run_of_three, run_with_jump};
pub use slow::{Slowed, slow_drive};

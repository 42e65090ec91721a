//! The seeded simulator of storage: the real store, replica machine and member on simulated disks, network and
//! clocks, edges that write and read, and the controllers' slice of groups as an oracle behind random delays.
//!
//! A run is made by its seed alone. It has a time of faults, then the faults stop and everything must heal; what is
//! checked is section 6 of the NovaFS protocol. See docs/testing.md.
#![forbid(unsafe_code)]

mod chaos;
mod cluster;
mod controller;
mod edge;
mod files;
mod history;
mod many;
mod net;
mod rest;
mod rot;
mod run;
mod scenario;

pub use history::Counts;
pub use many::{Report, run_many};
pub use rot::{Rot, rot};
pub use run::{Outcome, Trouble, run};

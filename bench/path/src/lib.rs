//! The whole path, driven from outside: real processes, real files, the `nova` command and nothing else of ours.
//!
//! The binary `demo` is the main job of this project from end to end. The process tests in `tests/all` use the same
//! parts: a [`region::Region`] that ends with its owner, [`nova::Nova`] that runs commands with a time limit, and
//! [`process`] that looks at what the kernel says of our processes.
#![forbid(unsafe_code)]

pub mod aligned;
pub mod answer;
pub mod compare;
pub mod demo;
pub mod flip;
pub mod input;
pub mod interrupt;
pub mod nova;
pub mod process;
pub mod raw;
pub mod region;
pub mod space;
pub mod table;

//! Copies files between hosts: serves a folder, and drives a copy between two.
//!
//! A [`Host`] answers the requests of [`novabulk_files`] for one folder. An [`End`] is a host, here or behind a
//! connection; [`copy`] drives a copy from one end to another and does not know which is where. So push, pull and a copy
//! on one machine are the same code, and a third party asks one host to drive a copy to another ([`relay`]).
//!
//! ```text
//!              copy (driver)
//!      asks ┌──────┴──────┐ asks
//!       source end     target end          an end: Here(Host), or There(Link ─► NovaBulk ─► Host)
//! ```
#![forbid(unsafe_code)]

mod door;
mod driver;
mod end;
mod filter;
mod folder;
mod host;
mod relay;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;

pub use door::{Door, STREAMS_MAX, serve};
pub use driver::{Job, Source, copy};
pub use end::End;
pub use filter::Filter;
pub use folder::Folder;
pub use host::{Host, HostOptions};
pub use novabulk_files as files;
pub use relay::relay;
pub use tally::{Counts, Limit, Tally};
pub use trouble::{CopyError, Trouble};

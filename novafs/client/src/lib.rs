//! NovaFS for programs: put, get, list, rename, remove, over the rings of the own host. Std threads only.
//!
//! A program speaks to its host's agent for names and to its host's data plane for bytes, both through shared memory.
//! [`Client::connect`] attaches to the agent; the data plane is attached when the first byte needs it, with a one-use
//! ticket of the agent. When either restarts, the client attaches again and sends again what was not acknowledged.
//!
//! What is acknowledged is durable on every replica; what is published is visible, whole or not at all.
#![forbid(unsafe_code)]

mod backoff;
mod client;
mod data;
mod error;
mod get;
mod metadata;
mod port;
mod progress;
mod publish;
mod put;
mod session;
mod space;
mod write;

pub use client::{Client, ConnectOptions, UnitPlace};
pub use error::{ClientError, Trouble};
pub use get::{GetOptions, GetReport, Tree};
pub use nova_api::files::{Entry, Resolved, UsageReport, entry::Kind as EntryKind};
pub use progress::{Counts, Progress};
pub use put::{PutOptions, PutReport, Source};

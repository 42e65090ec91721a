//! NovaFS for programs: open files, put and get trees, names and attributes, over the rings of the own host. Std
//! threads only.
//!
//! A program speaks to its host's agent for names and to its host's data plane for bytes, both through shared memory.
//! [`Client::connect`] attaches to the agent; the data plane is attached when the first byte needs it, with a one-use
//! ticket of the agent. When either restarts, the client attaches again and sends again what was not acknowledged.
//!
//! What is put is durable on every replica and appears whole or not at all ([`Client::put`]). A file that is opened
//! ([`Client::open`]) is read and written at any offset; what is written is durable and visible after a sync or close.
#![forbid(unsafe_code)]

mod at;
mod attributes;
mod backoff;
mod client;
mod content;
mod copy;
mod data;
mod error;
mod file;
mod get;
mod local;
mod metadata;
mod names;
mod policy;
mod port;
mod progress;
mod publish;
mod put;
mod session;
mod space;
mod transfer;
mod window;
mod write;
mod writers;

pub use at::At;
pub use attributes::{Attributes, XattrMode};
pub use client::{Client, ConnectOptions, Places, UnitPlace};
pub use error::{ClientError, Trouble};
pub use file::{File, OpenOptions};
pub use get::{GetOptions, GetReport, Tree};
pub use names::{After, Mapped, Owner};
pub use nova_api::files::failure::Code as RefusalCode;
pub use nova_api::files::{
    Block, Entry, Listing, Resolved, Space, StatfsReport, Trashed, UsageReport, Xattr,
    entry::Kind as EntryKind,
};
pub use nova_ring::abi::Status as DataStatus;
pub use policy::SpaceRules;
pub use progress::{Counts, Progress};
pub use put::{PutOptions, PutReport, Source};

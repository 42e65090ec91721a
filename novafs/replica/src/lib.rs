//! The replica group protocol as a pure state machine: no I/O, no clock, no randomness, no async.
//!
//! [`Host`] holds all groups of one storage host. [`Message`] and [`Answer`] are what hosts say to each other,
//! [`Configuration`] is what the controllers decided, [`Report`] what they are told.
#![forbid(unsafe_code)]

pub mod compare;
pub mod configuration;
mod effect;
mod host;
pub mod message;
pub mod options;
mod report;

pub use configuration::{Configuration, GroupView, MemberView, NodeView, Role};
pub use effect::{
    CallId, Effect, Input, KnownUnit, Loaded, OpId, RecoveredGroup, SavedGroup, ScanFrom, Standing,
    StoreFault, StoreRequest, Stored, Ticket, Trust, Version,
};
pub use host::{Host, HostCounters, HostIdentity, ReadEnd, ReadPermit};
pub use message::{
    Agreed, Answer, BlockFence, Grant, HeadError, LocatedUnit, Message, Pulse, Route, Versioned,
};
pub use report::Report;

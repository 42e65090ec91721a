//! The replica group protocol as a pure state machine: no I/O, no clock, no randomness, no async.
//!
//! [`Message`] and [`Answer`] are what hosts say to each other; [`Configuration`] is what the controllers decided.
#![forbid(unsafe_code)]

pub mod configuration;
pub mod message;

pub use configuration::{Configuration, GroupView, MemberView, NodeView, Role};
pub use message::{Answer, Grant, HeadError, LocatedUnit, Message, Pulse, Versioned};

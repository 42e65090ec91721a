//! Key domains as a pure slice: wrapped versions of their keys, rotation, crypto-erase.
//!
//! The slice never sees a key. The leader makes and wraps one under the root key, which is not in the log, and asks
//! [`Keys::apply`] to keep the wrapped bytes; [`plan()`] says what is due.
#![forbid(unsafe_code)]

mod apply;
mod command;
mod model;
mod plan;
mod snapshot;

pub use command::{Answer, Command, Create, Drop, Op, Rewrap, Rotate};
pub use model::{
    DEFAULT_DOMAIN, DEFAULT_NAME, DOMAINS_MAX, Domain, DomainState, KeyVersion, Keys, NAME_BYTES_MAX,
    VERSIONS_MAX, VersionState, WRAPPED_BYTES_MAX,
};
pub use plan::{DUE_MAX, Due, plan};
pub use snapshot::SnapshotError;

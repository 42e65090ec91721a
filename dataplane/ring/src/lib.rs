//! Shared-memory rings between processes: commands in, completions out. Knows no runtime.
//!
//! A local program, the host's agent and the data plane share sealed memory instead of a network. One attachment is a
//! pair of single-producer single-consumer rings of 128-byte slots, a page of counters, and an area: an arena of the
//! client's bytes, or two buffers for configuration snapshots. It is made by a [`handshake`] over a Unix socket, and
//! the end of that socket is the end of the attachment.
//!
//! The peer is never trusted: its indices are bounded before use, a slot is copied once and then checked, and an
//! arena is only ever copied, because the other side may change it at any time. A broken rule ends that attachment
//! ([`PeerBroken`]) and nothing else, and no call of a service waits for its peer.
#![allow(unsafe_code, reason = "maps shared memory and reads what another process writes there")]

pub mod abi;
mod accept;
mod arena;
mod counters;
mod cursor;
mod doorbell;
mod error;
pub mod handshake;
mod lane;
mod layout;
mod link;
mod memory;
pub mod snapshot;

pub use accept::{Acceptor, Admission, HANDSHAKES_MAX};
pub use arena::{ArenaView, OutOfArena};
pub use counters::{Counter, Counters};
pub use error::{AttachError, PeerBroken, PushError};
pub use lane::{LOOK_AGAIN, Receiver, Sender};
pub use layout::{CAPACITY_DEFAULT, CAPACITY_MAX, Kind, METADATA_AREA_BYTES, SNAPSHOT_BYTES, Terms};
pub use link::{Link, Socket, attach};

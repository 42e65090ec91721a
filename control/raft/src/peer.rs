//! Between the members of a group: gRPC over mutual TLS, all groups of a process behind one service.

mod client;
mod server;

pub(crate) use client::Network;
pub(crate) use server::LocalMember;
pub use server::Peers;

/// Metadata that names the group a call is for.
pub(crate) const GROUP_KEY: &str = "nova-raft-group";
/// Metadata that names the member a call is for.
pub(crate) const TARGET_KEY: &str = "nova-raft-target";
/// Largest message: one entry at its bound, with room for the envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = crate::wal::record::PAYLOAD_BYTES_MAX + (1 << 20);
/// A snapshot travels in chunks of this size.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

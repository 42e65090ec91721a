//! Calls between hosts: drives NovaBulk connections over lanes and keeps the pool of them.
//!
//! A [`Link`] belongs to one shard. It dials peers when a call needs them, carries each call as one request and one
//! reply, and serves the lanes that the daemon accepted. Bodies travel in the shard's own slabs: a sent
//! [`SharedBuf`](nova_buf::SharedBuf) goes to the lane as it is, a received body lands in the
//! [`DmaBuf`](nova_buf::DmaBuf) that the handler or the caller gets.
//!
//! Per peer there is connection 0 for control (no body, so a ping never waits behind a block) and 1 to 15 for bulk
//! (Spec B.2). On each connection one task reads, one writes, one keeps time; what they do is decided by the pure
//! [`novabulk_transfer::Connection`].
//!
//! ```text
//! call ─► Peer: pick a wire ─► Wire ─► machine ─► writer ─► lane
//!                               ▲        │
//!               reader ─────────┘        └─► handler task, or the caller's answer
//! ```
#![forbid(unsafe_code)]

mod admission;
mod backoff;
mod budget;
mod counters;
mod link;
mod options;
mod peer;
mod wire;

pub use admission::Admitted;
pub use counters::Counters;
pub use link::Link;
pub use options::{
    ACCEPTED_MAX, BODY_BYTES_MAX, BODY_WAIT, BULK_SILENCE_MAX, CONNECTIONS_MAX, CONNECTIONS_MIN,
    CONTROL_SILENCE_MAX, ESTABLISH_TIMEOUT, IDLE_TIMEOUT, LinkOptions, LocalIdentity, WAITING_MAX,
};
pub use wire::refusal;

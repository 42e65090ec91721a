//! One NovaBulk connection as a pure state machine: HELLO, messages, credit, draining.
//!
//! [`Connection::on`] takes what happened (a frame arrived, the lane can take another frame, the daemon has a
//! request, time passed) and appends what to do. The machine never sees payload: it says which bytes of which body
//! go into the next frame, and [`Connection::place`] says where the bytes of a received frame belong.
//!
//! Memory is bounded by construction. At most [`REQUESTS_MAX`] requests are outstanding in each direction, request
//! bodies are paid for with credit that the receiver backs with slabs, and every reply lands in the buffer its
//! request reserved. A peer that breaks a bound is closed with the reason.
//!
//! | what | bound |
//! | --- | --- |
//! | requests outstanding each way | [`REQUESTS_MAX`], of which [`REQUESTS_RESERVED`] for P0 and [`REQUESTS_PER_HOP`] for each further hop |
//! | request bodies held for a peer | the grants of its HELLO, per hop |
//! | heads held for a peer | [`REQUESTS_MAX`] x 64 KiB |
//! | unanswered OPENs of a peer | [`OPENS_MAX`] |
//! | time to HELLO | [`HELLO_TIMEOUT`] |
//! | time a peer may owe an answer after its deadline | [`ANSWER_GRACE`] |
//! | time to drain | [`DRAIN_TIMEOUT`] |
#![forbid(unsafe_code)]

mod connection;
mod credit;
mod effect;
mod error;
mod input;

pub use connection::{Config, Connection, Side};
pub use credit::{charge_bytes, slab_bytes};
pub use effect::{Answered, Body, Effect, Inbound, Outgoing, Payload, Place};
pub use error::{CloseReason, Failure, Violation};
pub use input::{Input, Request, Ticket};

use core::time::Duration;

/// Spec B.2: requests that may be pending on one connection, each way.
pub const REQUESTS_MAX: usize = 128;
/// Of those, kept for P0: bulk work never locks out what is critical.
pub const REQUESTS_RESERVED: usize = 8;
/// And kept for each further hop: requests that are passed on find a place when those that wait for them have taken
/// theirs, so that places lock hosts as little as credit does.
pub const REQUESTS_PER_HOP: usize = 16;
/// OPENs that may wait for their REJECT; a peer that sends more without reading is closed.
pub const OPENS_MAX: usize = 16;
/// Spec B.2: a connection stands within 5 s or not at all.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopped or late request may stay unanswered before the connection counts as stuck.
pub const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// How long a connection that takes no new work may last.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Message streams of each side: one for each request and each reply that can be under way.
pub const MESSAGE_STREAMS: u32 = 2 * 128;

const _: () = assert!(MESSAGE_STREAMS as usize == 2 * REQUESTS_MAX);
const _: () = assert!(REQUESTS_RESERVED + 2 * REQUESTS_PER_HOP < REQUESTS_MAX);

//! Blocks of files made shorter for their way over a link, and the choice whether that pays.
//!
//! A [`Coder`] makes a block shorter and opens it again; it holds the tables that codecs need, so that a block costs no
//! allocation. A [`Chooser`] says which [`Coding`] the next block travels in, from what the blocks before it told: how
//! much shorter they became, how long that took at both ends, and how quickly they arrived. A link, threads and time are
//! elsewhere.
//!
//! | what | bound |
//! | --- | --- |
//! | a block, plain | [`PLAIN_BYTES_MAX`] |
//! | the same coded | shorter by a 32nd at least, or it stays as it is |
//! | what opening a block takes | its announced length, looked at before |
#![forbid(unsafe_code)]

mod chooser;
mod coder;
mod coding;
mod policy;

pub use chooser::{Choice, Chooser, Moved, Reason};
pub use coder::{CodecError, Coder};
pub use coding::{Codecs, Coding, Level};
pub use policy::{Policy, PolicyError};

/// Longest block, in bytes: nobody codes more at once, and nobody opens one that is announced longer.
pub const PLAIN_BYTES_MAX: usize = 1 << 20;

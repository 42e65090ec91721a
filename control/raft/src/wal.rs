//! The log on disk: segments, one thread that writes them, and recovery.
//!
//! Spec A.1 asks for segments of 64 MiB or 5 minutes. One thread owns the files: it drains its queue, writes what it
//! found with one write, makes it durable with one `fdatasync`, and only then tells the callers. When a write or a
//! sync fails the process aborts: after such an error nobody knows what is on the disk, and a controller that guesses
//! may acknowledge what it has not got. Beside the segments a [`watermark`] says how far they were durable.

pub mod record;
pub(crate) mod recover;
pub mod watermark;
pub(crate) mod writer;

pub use writer::{BATCH_BYTES_MAX, PREALLOCATE_BYTES, QUEUE_MAX, SEGMENT_AGE_MAX, SEGMENT_BYTES_MAX};

#[cfg(test)]
mod tests;

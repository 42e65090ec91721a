//! The NovaBulk wire format: the 16-byte frame header and the control headers NovaBulk itself owns.
//!
//! Spec B.1 fixes the frame: magic, version, flags, stream, payload length, checksum, then at most 1 MiB of
//! payload. A frame either carries one [`Control`] header (HELLO, MESSAGE, CREDIT ...) or plain payload. Payload
//! frames hold nothing else, so that a received 1 MiB block stays aligned for direct I/O.
//!
//! Everything here is pure: bytes in, checked values out. A decoder never panics, allocates only for bytes it was
//! given, and every length is checked before anyone could allocate for it.
#![forbid(unsafe_code)]

mod control;
mod error;
mod header;
mod reader;

pub use control::{
    Accept, Blocked, Control, Credit, GoAway, HEAD_BYTES_MAX, HOPS, Hello, Hop, LinkRole,
    MESSAGE_FIELDS_BYTES, Message, MessageId, MessageKind, Open, Reject, Reset, ResetReason, Stop,
    StopReason, TOKEN_BYTES_MAX,
};
pub use error::FrameError;
pub use header::{
    CONTROL_BYTES_MAX, Codec, FrameHeader, FrameKind, HEADER_BYTES, MAGIC, PAYLOAD_BYTES_MAX, Received,
    StreamId, VERSION, decode, page_sums,
};

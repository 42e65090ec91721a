//! Slots between a program and the host's agent: where a metadata message lies in the arena.

use super::BadSlot;
use super::client::Status;
use super::fields::slots;

/// Most bytes of a request or a reply.
pub const METADATA_BYTES_MAX: u32 = 2 << 20;

slots! {
    /// Program to agent.
    MetadataRequest {
        /// A `nova.files.v1.Request` in the arena.
        1 => Request {
            /// Number of this request.
            request: u64,
            /// Where the message begins.
            offset: u64,
            /// Its bytes; at most [`METADATA_BYTES_MAX`].
            bytes: u32,
            /// Where the `nova.files.v1.Response` goes.
            reply_offset: u64,
            /// Room for it; 1..=[`METADATA_BYTES_MAX`].
            reply_bytes_max: u32,
        }
        /// Asks for a way into the data plane; the reply has a `DataRoute` (see [`crate::snapshot::DataRoute`]).
        2 => OpenData {
            /// Number of this request.
            request: u64,
            /// Where the route goes.
            reply_offset: u64,
            /// Room for it.
            reply_bytes_max: u32,
        }
    }
}

impl MetadataRequest {
    /// The number of the request.
    #[must_use]
    pub fn request(&self) -> u64 {
        match *self {
            Self::Request { request, .. } | Self::OpenData { request, .. } => request,
        }
    }

    fn check(&self) -> Result<(), BadSlot> {
        let (bytes, reply_bytes_max) = match *self {
            Self::Request { bytes, reply_bytes_max, .. } => (bytes, reply_bytes_max),
            Self::OpenData { reply_bytes_max, .. } => (0, reply_bytes_max),
        };
        if bytes > METADATA_BYTES_MAX {
            return Err(BadSlot::Range("bytes"));
        }
        if reply_bytes_max == 0 || reply_bytes_max > METADATA_BYTES_MAX {
            return Err(BadSlot::Range("reply_bytes_max"));
        }
        Ok(())
    }
}

slots! {
    /// Agent to program.
    MetadataReply {
        /// The message is in the arena, or there is none and the status says why (`Unavailable`: no controller was
        /// reached; `Full`: the reply did not fit; `Invalid`: the request could not be read; `Busy`: too many).
        64 => Reply {
            /// The program's number of the request.
            request: u64,
            /// How it ended.
            status: Status,
            /// Bytes of the reply in the arena.
            bytes: u32,
        }
    }
}

impl MetadataReply {
    fn check(&self) -> Result<(), BadSlot> {
        let Self::Reply { bytes, .. } = *self;
        if bytes > METADATA_BYTES_MAX { Err(BadSlot::Range("bytes")) } else { Ok(()) }
    }
}

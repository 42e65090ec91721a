//! What can be wrong with bytes of a peer.

use thiserror::Error;

use crate::header::{CONTROL_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Why bytes are not a NovaBulk frame. Every variant ends the connection: after one of them the place of the next
/// frame is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The peer does not speak NovaBulk, or the stream lost its place.
    #[error(
        "frame starts with {found:#06x} instead of 0x4e42: the peer does not speak NovaBulk on this port"
    )]
    Magic {
        /// The first two bytes.
        found: u16,
    },
    /// A version this build does not read.
    #[error("frame of version {found}, this build reads version 1: upgrade the older side")]
    Version {
        /// The third byte.
        found: u8,
    },
    /// Reserved bits are set, the codec is unknown, or flags contradict each other.
    #[error("frame flags {flags:#010b} are not valid in version 1")]
    Flags {
        /// The fourth byte.
        flags: u8,
    },
    /// A payload over the limit of its kind.
    #[error(
        "frame announces {bytes} bytes; at most {CONTROL_BYTES_MAX} for control and {PAYLOAD_BYTES_MAX} for data are allowed"
    )]
    Length {
        /// The announced payload length.
        bytes: u32,
    },
    /// A frame without payload; version 1 sends none.
    #[error("frame without payload")]
    Empty,
    /// The checksum over header and payload does not match.
    #[error(
        "frame checksum is {computed:#010x}, its header says {announced:#010x}: bytes changed on the way"
    )]
    Checksum {
        /// What the header says.
        announced: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A control header of a kind this version does not know.
    #[error("control header of unknown kind {kind}")]
    ControlKind {
        /// Its first byte.
        kind: u8,
    },
    /// A control header that is too short or too long for its kind.
    #[error("control header of kind {kind} has {bytes} bytes, which does not fit its fields")]
    ControlBytes {
        /// Its first byte.
        kind: u8,
        /// Its length.
        bytes: usize,
    },
    /// A field of a control header outside of its range.
    #[error("control header of kind {kind}: {field} is {value}, which is not allowed")]
    ControlField {
        /// Its first byte.
        kind: u8,
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

//! What travels in the slots: typed commands and events, little-endian, one fixed layout each.
//!
//! A slot is 128 bytes: the kind as u16, six zero bytes, then the fields in the order they are declared, packed, and
//! zeros to the end. A slot has exactly one encoding; anything else is [`BadSlot`].

mod agent;
mod client;
mod fields;
mod metadata;

pub use agent::{
    AgentCommand, AgentEvent, BOXED_KEY_BYTES, BlockRun, BlockRuns, HELD_MAX, HeldBlocks, LOST_NAMED_MAX,
    LostUnits, PAGE_BLOCKS_MAX, PEERS_MAX, PeerHeard, PeersHeard, RUN_BLOCKS_MAX, RUNS_MAX, WORDS_BYTES_MAX,
    Words,
};
pub use client::{
    Answer, ClientCommand, ClosedBlock, DETAIL_BYTES, Detail, IO_BYTES_MAX, LOCATE_BYTES_MAX,
    LOCATE_UNITS_MAX, OpenedWriter, RetryAfter, Status,
};
pub use metadata::{METADATA_BYTES_MAX, MetadataReply, MetadataRequest};

/// Bytes of a slot: two cache lines.
pub const SLOT_BYTES: usize = 128;

/// A slot as it was copied out of a ring, not yet believed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Slot(pub [u8; SLOT_BYTES]);

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Slot(kind {})", u16::from_le_bytes([self.0[0], self.0[1]]))
    }
}

/// A slot that no honest peer of this version sends: detach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSlot {
    /// A kind this direction does not have.
    #[error("a slot of unknown kind {0}")]
    Kind(u16),
    /// Bits outside the declared fields.
    #[error("a slot of kind {0} with bits where none belong")]
    NotZero(u16),
    /// A field outside its range.
    #[error("a slot whose {0} is out of range")]
    Range(&'static str),
}

//! Where things lie in the shared memory of an attachment.

use crate::abi::SLOT_BYTES;
use crate::error::AttachError;

const PAGE: usize = 4096;
/// Bytes of the indices in front of a ring's slots: three lines of 128.
const INDICES_BYTES: usize = 3 * 128;

/// Slots of a ring unless the terms say otherwise.
pub const CAPACITY_DEFAULT: u32 = 256;
/// Most slots of a ring.
pub const CAPACITY_MAX: u32 = 4096;
/// Bytes of one of the two snapshot buffers of an agent.
pub const SNAPSHOT_BYTES: u32 = 4 << 20;
/// Bytes of the arena that a program asks of its agent: a large lane and sixteen small ones (see novafs-client).
pub const METADATA_AREA_BYTES: u64 = 10 << 20;
/// Largest area: an arena of 1 GiB.
const AREA_BYTES_MAX: u64 = 1 << 30;

/// Who attaches to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The host's agent to its data plane; the area holds two snapshot buffers.
    Agent,
    /// A program to the data plane; the area is an arena of its bytes.
    Client,
    /// A program to the host's agent; the area is an arena of requests and replies.
    Metadata,
}

impl Kind {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Agent => 1,
            Self::Client => 2,
            Self::Metadata => 3,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Agent, Self::Client, Self::Metadata].into_iter().find(|kind| kind.number() == number)
    }
}

/// What the service grants an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Slots of each of the two rings: a power of two, at most [`CAPACITY_MAX`].
    pub capacity: u32,
    /// Bytes of the area; rounded up to 4 KiB. For [`Kind::Agent`] both snapshot buffers together.
    pub area_bytes: u64,
    /// The start of the service: another boot has other rings.
    pub boot: u64,
    /// Which attachment since that start.
    pub generation: u64,
}

/// Offsets of the sections, the same arithmetic on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) counters: usize,
    pub(crate) to_service: usize,
    pub(crate) to_peer: usize,
    pub(crate) area: usize,
    pub(crate) area_bytes: usize,
    pub(crate) bytes: usize,
}

impl Layout {
    /// The layout of these terms; refuses terms that no service of this version grants.
    pub(crate) fn new(terms: &Terms) -> Result<Self, AttachError> {
        if !terms.capacity.is_power_of_two() || terms.capacity > CAPACITY_MAX {
            return Err(AttachError::NotRing("its ring is no power of two up to 4096 slots"));
        }
        if terms.area_bytes > AREA_BYTES_MAX {
            return Err(AttachError::NotRing("its area is over 1 GiB"));
        }
        let ring = ring_bytes(terms.capacity).next_multiple_of(PAGE);
        let area_bytes =
            usize::try_from(terms.area_bytes).expect("1 GiB fits an address").next_multiple_of(PAGE);
        let counters = PAGE;
        let to_service = counters + PAGE;
        let to_peer = to_service + ring;
        let area = to_peer + ring;
        Ok(Self { counters, to_service, to_peer, area, area_bytes, bytes: area + area_bytes })
    }
}

/// Bytes of one ring of so many slots.
pub(crate) fn ring_bytes(capacity: u32) -> usize {
    INDICES_BYTES + usize::try_from(capacity).expect("a small ring") * SLOT_BYTES
}

/// Where the slots begin behind a ring's indices.
pub(crate) const SLOTS_OFFSET: usize = INDICES_BYTES;

const _: () = assert!(
    INDICES_BYTES == size_of::<crate::cursor::Indices<core::sync::atomic::AtomicU64>>(),
    "the indices are three lines"
);

/// What both sides must agree on, in words; its hash travels in the handshake. Change it with any layout.
const DESCRIPTION: &str = "page0 magic abi kind boot generation; page1 counters u64; ring head@0 tail@128 sleeping@256 \
                           slots@384 of 128; to service, to peer, area; slot kind u16 le, zero to 8, packed fields le; v1";

/// FNV-1a of the layout's description: enough to tell builds apart that are no version of each other.
pub(crate) const LAYOUT_HASH: u64 = {
    let bytes = DESCRIPTION.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < bytes.len() {
        hash ^= bytes[index] as u64;
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash
};

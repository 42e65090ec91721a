//! What hosts say to each other to copy files, and what they decide about blocks.
//!
//! Files are a service over calls (docs/adr/0027): each step is one request and one reply, whose structure is in the
//! head and whose bytes are in the body. The host that has the files answers [`Request::List`], [`Request::Read`] and
//! their kin; the host that gets them answers [`Request::Offer`], [`Request::Open`], [`Request::Write`] and
//! [`Request::Publish`]. Whoever drives a copy asks both, and every request may be repeated: a lost reply, or a host
//! that started anew, costs one more call.
//!
//! | what | bound |
//! | --- | --- |
//! | a head | [`HEAD_BYTES_MAX`] |
//! | a body | [`BLOCK_BYTES`] |
//! | a name | [`NAME_BYTES_MAX`], a component of it [`COMPONENT_BYTES_MAX`] |
//! | extended attributes of an entry | [`XATTR_BYTES_MAX`] |
//! | a file | [`FILE_BYTES_MAX`] |
//! | entries of a copy | [`ENTRIES_MAX`] |
#![forbid(unsafe_code)]

mod blocks;
mod bucket;
mod digest;
mod entry;
mod error;
mod ledger;
mod name;
mod plan;
mod reply;
mod request;
mod wire;

pub use blocks::{Arrival, Blocks, HAVE_PAGE_BLOCKS, block_count, block_range};
pub use bucket::Bucket;
pub use digest::{Digest, root_of};
pub use entry::{Entry, Identity, Kind, Moment, Xattr};
pub use error::{Fault, MessageError, NameError};
pub use ledger::{LEDGER_HEADER_BYTES, LEDGER_RECORD_BYTES, LedgerError, Record, Replayed, header, replay};
pub use name::{Name, PART_PREFIX, part_name, part_prefix};
pub use plan::{Acked, Extent, OPEN_FILES_MAX, Plan, Reopened, SENT_TWICE_AFTER, Work};
pub use reply::{Packed, Relayed, Reply, Verdict};
pub use request::{Orders, Pack, PackFile, Request};

/// What is read, checked, written and sent again alone: 1 MiB.
pub const BLOCK_BYTES: u32 = 1 << 20;
/// Files up to this length, exclusively, travel many in a body.
pub const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Longest head: what a call carries beside its body, with room for NovaBulk's own fields.
pub const HEAD_BYTES_MAX: usize = (64 << 10) - 256;
/// Longest name, as the kernel has it.
pub const NAME_BYTES_MAX: usize = 4096;
/// Longest component of a name.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Extended attributes of an entry, names and values together.
pub const XATTR_BYTES_MAX: usize = 16 << 10;
/// Longest file: 1 PiB.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// Files, directories and links of one copy.
pub const ENTRIES_MAX: usize = 10_000_000;

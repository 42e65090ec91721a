//! Records on disk and how a unit is sealed: encode and decode.
//!
//! Pure: no I/O, no clock, no randomness. The layout is byte by byte in docs/novafs-format.md, held in place by the
//! golden tests of this crate. Every number is little-endian. Decoders take any bytes without panicking and accept
//! the canonical form only.
#![forbid(unsafe_code)]

mod cell;
mod cursor;
pub mod digest;
mod entry;
mod error;
mod record;
pub mod seal;
mod superblock;
mod tree;
mod unit;
mod wal;

pub use cell::{Cell, CellClass, UnitRecord};
pub use entry::{Cut, ENTRY_BODY_BYTES_MAX, ENTRY_UNITS_MAX, LogEntry};
pub use error::FormatError;
pub use record::{BlockRecord, GroupRecord, Key, Place, StoredGroup, Value};
pub use superblock::{
    FORMAT_VERSION, FORMAT_VERSION_OLDEST, Geometry, Root, SUPERBLOCK_AREA_BYTES, SUPERBLOCK_COPIES,
    SUPERBLOCK_QUORUM, ScrubMark, Superblock, superblock_positions,
};
pub use tree::{
    Child, TREE_CHILDREN_MAX, TREE_ENTRY_BYTES, TREE_HEADER_BYTES, TREE_LEVEL_MAX, TreePage, TreePlace,
};
pub use unit::{BadPage, Codec, PAGE, SealedUnit, UNIT_PAGES_MAX};
pub use wal::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BatchHeader, BatchPlace, BatchWriter, WalRecord, decode_batch,
    decode_batch_header,
};

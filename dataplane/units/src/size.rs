//! Sizes that the specification fixes. MB and KB of the specification are binary (docs/spec/exceptions.md).

/// 1,024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1,048,576 bytes.
pub const MIB: u64 = 1 << 20;
/// 1,073,741,824 bytes.
pub const GIB: u64 = 1 << 30;

/// Spec C.1: metadata blocks are 4 KiB; also the atom of direct I/O.
pub const PAGE_BYTES: u64 = 4 * KIB;
/// Spec C.1: a data block covers at most 128 MiB of a file.
pub const BLOCK_BYTES_MAX: u64 = 128 * MIB;
/// A block's digests are gathered per segment of 1 MiB: 128 digests fill one 4 KiB metadata block.
pub const SEGMENT_BYTES: u64 = MIB;
/// Spec B.1: a frame carries at most 1 MiB of payload.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Spec B.1: credits are granted in units of 256 KiB.
pub const CREDIT_BYTES: u32 = 256 << 10;

/// Smallest unit: 4 KiB of plaintext.
pub const UNIT_LOG2_MIN: u8 = 12;
/// Unit of a new block, unless its namespace says otherwise: 64 KiB.
pub const UNIT_LOG2_DEFAULT: u8 = 16;
/// Largest unit: 64 KiB.
pub const UNIT_LOG2_MAX: u8 = 16;

const _: () =
    assert!(BLOCK_BYTES_MAX / SEGMENT_BYTES * 32 == PAGE_BYTES, "one page holds a block's segment digests");
const _: () = assert!(FRAME_PAYLOAD_BYTES_MAX.is_multiple_of(CREDIT_BYTES));

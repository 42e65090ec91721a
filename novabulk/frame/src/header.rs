//! The 16 bytes in front of every frame (Spec B.1).
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..2 | magic | `0x4E42`, "NB" |
//! | 2 | version | 1 |
//! | 3 | flags | bits 0-1 codec, 2 CTRL, 3 MORE, 4 END, 5-7 zero |
//! | 4..8 | stream | |
//! | 8..12 | payload length | 1 to 1,048,576 |
//! | 12..16 | checksum | CRC-32 (IEEE) over bytes 0..12 and the payload as it is on the wire |
//!
//! All numbers are in network order.

use core::fmt;
use std::rc::Rc;

use nova_units::{FRAME_PAYLOAD_BYTES_MAX, PAGE_BYTES, PageSum};

use crate::error::FrameError;

/// Length of the header.
pub const HEADER_BYTES: usize = 16;
/// First two bytes of every frame.
pub const MAGIC: u16 = 0x4E42;
/// The version this build speaks.
pub const VERSION: u8 = 1;
/// Spec B.1: a frame carries at most 1 MiB; longer payloads are fragmented.
pub const PAYLOAD_BYTES_MAX: u32 = FRAME_PAYLOAD_BYTES_MAX;
/// A control header, opaque part included, fits a 64 KiB slab, and so does every frame of a control connection.
pub const CONTROL_BYTES_MAX: u32 = 64 << 10;

const CHECKED_BYTES: usize = 12;
const PAGE: usize = 4096;
const CODEC_MASK: u8 = 0b0000_0011;
const CONTROL: u8 = 0b0000_0100;
const MORE: u8 = 0b0000_1000;
const END: u8 = 0b0001_0000;
const RESERVED: u8 = 0b1110_0000;

const _: () = assert!(CONTROL_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// A stream of one connection. 0 is the connection itself; odd ids are the dialer's, even ones the listener's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection itself: HELLO, CREDIT of hops, GOAWAY.
    pub const CONNECTION: Self = Self(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// How the payload of a data frame is coded on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    Raw = 0,
    /// One LZ4 block.
    Lz4 = 1,
    /// One ZSTD frame.
    Zstd = 2,
}

impl Codec {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// One control header, never compressed, at most [`CONTROL_BYTES_MAX`].
    Control,
    /// Payload of the message that its stream is in.
    Data(Codec),
}

/// The fields of a frame header, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Control header or payload.
    pub kind: FrameKind,
    /// Further frames of the same message follow on this stream.
    pub more: bool,
    /// The sender sends nothing more on this stream.
    pub end: bool,
    /// The stream.
    pub stream: StreamId,
    /// Bytes that follow the header: 1 to [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
}

impl FrameHeader {
    /// The header in front of `payload`, checksum included.
    ///
    /// # Panics
    /// When `payload_bytes` is not the payload's length or out of range; a sender cuts its payload before.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        self.encode_with(payload.len(), |checked| checksum(checked, payload))
    }

    /// The header in front of a payload of whole pages that have these sums; its bytes are not looked at.
    ///
    /// # Panics
    /// When `payload_bytes` is not the length of so many pages, or out of range.
    #[must_use]
    pub fn encode_summed(&self, sums: &[PageSum]) -> [u8; HEADER_BYTES] {
        self.encode_with(sums.len() * PAGE, |checked| checksum_of_pages(checked, sums))
    }

    fn encode_with(
        &self,
        payload_bytes: usize,
        checksum: impl FnOnce(&[u8; CHECKED_BYTES]) -> u32,
    ) -> [u8; HEADER_BYTES] {
        assert!(
            u32::try_from(payload_bytes) == Ok(self.payload_bytes),
            "header says {} bytes, payload has {payload_bytes}",
            self.payload_bytes,
        );
        assert!(
            (1..=self.payload_limit()).contains(&self.payload_bytes),
            "frame of {} bytes",
            self.payload_bytes
        );
        let checked = self.checked_bytes();
        let mut bytes = [0; HEADER_BYTES];
        bytes[..CHECKED_BYTES].copy_from_slice(&checked);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum(&checked).to_be_bytes());
        bytes
    }

    const fn payload_limit(&self) -> u32 {
        match self.kind {
            FrameKind::Control => CONTROL_BYTES_MAX,
            FrameKind::Data(_) => PAYLOAD_BYTES_MAX,
        }
    }

    fn checked_bytes(&self) -> [u8; CHECKED_BYTES] {
        let mut flags = match self.kind {
            FrameKind::Control => CONTROL,
            FrameKind::Data(codec) => codec as u8,
        };
        flags |= if self.more { MORE } else { 0 };
        flags |= if self.end { END } else { 0 };
        let mut bytes = [0; CHECKED_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2] = VERSION;
        bytes[3] = flags;
        bytes[4..8].copy_from_slice(&self.stream.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_be_bytes());
        bytes
    }
}

/// A header whose fields are in range, but whose bytes are not yet proven: the checksum covers the payload too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the payload must be verified before the frame is believed"]
pub struct Received {
    header: FrameHeader,
    announced: u32,
}

impl Received {
    /// The fields, good enough to decide where the payload goes.
    #[must_use]
    pub const fn unverified(&self) -> &FrameHeader {
        &self.header
    }

    /// Checks header and payload against the checksum.
    ///
    /// # Errors
    /// [`FrameError::Checksum`], also when `payload` has not the announced length.
    pub fn verify(self, payload: &[u8]) -> Result<FrameHeader, FrameError> {
        self.verify_with(payload.len(), checksum(&self.header.checked_bytes(), payload))
    }

    /// Checks the header and a payload of whole pages that have these sums, which the caller computed of what was
    /// received.
    ///
    /// # Errors
    /// [`FrameError::Checksum`], also when so many pages are not the announced length.
    pub fn verify_summed(self, sums: &[PageSum]) -> Result<FrameHeader, FrameError> {
        self.verify_with(sums.len() * PAGE, checksum_of_pages(&self.header.checked_bytes(), sums))
    }

    fn verify_with(self, payload_bytes: usize, computed: u32) -> Result<FrameHeader, FrameError> {
        if computed != self.announced || u32::try_from(payload_bytes) != Ok(self.header.payload_bytes) {
            return Err(FrameError::Checksum { announced: self.announced, computed });
        }
        Ok(self.header)
    }
}

/// Reads a header; nothing is allocated for what it announces.
///
/// # Errors
/// Any [`FrameError`] about magic, version, flags or length; the connection cannot go on.
pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Received, FrameError> {
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let magic = u16::from_be_bytes([bytes[0], bytes[1]]);
    if magic != MAGIC {
        return Err(FrameError::Magic { found: magic });
    }
    if bytes[2] != VERSION {
        return Err(FrameError::Version { found: bytes[2] });
    }
    let flags = bytes[3];
    let codec = Codec::from_bits(flags & CODEC_MASK).ok_or(FrameError::Flags { flags })?;
    let control = flags & CONTROL != 0;
    if flags & RESERVED != 0 || (control && codec != Codec::Raw) {
        return Err(FrameError::Flags { flags });
    }
    let header = FrameHeader {
        kind: if control { FrameKind::Control } else { FrameKind::Data(codec) },
        more: flags & MORE != 0,
        end: flags & END != 0,
        stream: StreamId(word(4)),
        payload_bytes: word(8),
    };
    if header.payload_bytes == 0 {
        return Err(FrameError::Empty);
    }
    if header.payload_bytes > header.payload_limit() {
        return Err(FrameError::Length { bytes: header.payload_bytes });
    }
    Ok(Received { header, announced: word(CHECKED_BYTES) })
}

/// The sums of the pages of a payload, the only pass over its bytes; `None` when it is not whole pages.
#[must_use]
pub fn page_sums(payload: &[u8]) -> Option<Rc<[PageSum]>> {
    let (pages, rest) = payload.as_chunks::<PAGE>();
    rest.is_empty().then(|| pages.iter().map(|page| PageSum(crc32fast::hash(page))).collect())
}

fn checksum_of_pages(checked: &[u8; CHECKED_BYTES], sums: &[PageSum]) -> u32 {
    sums.iter().fold(crc32fast::hash(checked), |front, sum| sum.behind(front))
}

fn checksum(checked: &[u8; CHECKED_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(checked);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(payload: &[u8]) -> [u8; HEADER_BYTES] {
        FrameHeader {
            kind: FrameKind::Data(Codec::Raw),
            more: false,
            end: false,
            stream: StreamId(3),
            payload_bytes: u32::try_from(payload.len()).unwrap(),
        }
        .encode(payload)
    }

    #[test]
    fn length_is_refused_before_anyone_allocates() {
        let mut bytes = data(b"x");
        bytes[8..12].copy_from_slice(&(PAYLOAD_BYTES_MAX + 1).to_be_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::Length { bytes: PAYLOAD_BYTES_MAX + 1 }));
        bytes[3] = CONTROL;
        bytes[8..12].copy_from_slice(&(CONTROL_BYTES_MAX + 1).to_be_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::Length { bytes: CONTROL_BYTES_MAX + 1 }));
        bytes[8..12].fill(0);
        assert_eq!(decode(&bytes), Err(FrameError::Empty));
    }

    #[test]
    fn every_wrong_fixed_byte_is_named() {
        let good = data(b"x");
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            decode(&bytes)
        };
        assert_eq!(with(0, 0), Err(FrameError::Magic { found: 0x0042 }));
        assert_eq!(with(2, 2), Err(FrameError::Version { found: 2 }));
        for flags in [0b0000_0011, 0b0010_0000, 0b0100_0000, 0b1000_0000, CONTROL | 1] {
            assert_eq!(with(3, flags), Err(FrameError::Flags { flags }));
        }
    }

    #[test]
    fn sums_of_pages_give_the_same_header_and_the_same_verdict() {
        let payload: Vec<u8> = (0..3 * PAGE).map(|at| u8::try_from(at % 249).unwrap()).collect();
        let sums = page_sums(&payload).unwrap();
        let header = *decode(&data(&payload)).unwrap().unverified();
        assert_eq!(header.encode_summed(&sums), header.encode(&payload));
        let received = decode(&data(&payload)).unwrap();
        assert_eq!(received.verify_summed(&sums), Ok(header));
        for at in [0, PAGE, 3 * PAGE - 1] {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            let sums = page_sums(&changed).unwrap();
            assert_eq!(received.verify_summed(&sums), received.verify(&changed));
            assert!(received.verify_summed(&sums).is_err(), "a flip in byte {at}");
        }
        assert!(received.verify_summed(&sums[..2]).is_err(), "a page is missing");
        assert_eq!(page_sums(&payload[1..]), None);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found() {
        let payload = *b"sixteen payload!";
        let good = data(&payload);
        for bit in 0..(HEADER_BYTES + payload.len()) * 8 {
            let (mut bytes, mut body) = (good, payload);
            match bit / 8 {
                at if at < HEADER_BYTES => bytes[at] ^= 1 << (bit % 8),
                at => body[at - HEADER_BYTES] ^= 1 << (bit % 8),
            }
            assert!(
                decode(&bytes).and_then(|received| received.verify(&body)).is_err(),
                "bit {bit} went unseen"
            );
        }
    }
}

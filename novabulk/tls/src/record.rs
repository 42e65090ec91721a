//! Records of TLS 1.3 (RFC 8446, 5): a header of five bytes, and what it seals.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Plaintext of one record at most.
pub const RECORD_PLAIN_BYTES_MAX: usize = 1 << 14;
/// Type, version, length.
pub(crate) const HEADER_BYTES: usize = 5;
/// Tag of every cipher suite that there is.
pub(crate) const TAG_BYTES: usize = 16;
/// What a sealed record has beside its plaintext: header, inner type, tag.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;
/// Longest record that is taken in: a peer may pad (RFC 8446, 5.2).
pub(crate) const RECORD_BYTES_MAX: usize = HEADER_BYTES + RECORD_PLAIN_BYTES_MAX + 256;
/// The type that every sealed record shows.
const OUTER_TYPE: u8 = 23;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    const fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Bytes that are no record of this connection. Nothing more can be believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// Sealed length of `plain_bytes` in records that are full but the last.
pub(crate) const fn sealed_bytes(plain_bytes: usize) -> usize {
    plain_bytes + plain_bytes.div_ceil(RECORD_PLAIN_BYTES_MAX) * OVERHEAD_BYTES
}

/// Length of the record that begins here, header included; `None` while the header is not whole.
///
/// A peer that may not send what it says is refused before anything is set aside for it. `change_cipher_spec` in the clear
/// is allowed in a handshake only, which is over.
pub(crate) fn record_bytes(begin: &[u8]) -> Option<Result<usize, Forged>> {
    let &[kind, major, minor, high, low] = begin.first_chunk()?;
    let bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let sound = kind == OUTER_TYPE
        && (major, minor) == (3, 3)
        && (OVERHEAD_BYTES..=RECORD_BYTES_MAX).contains(&bytes);
    Some(if sound { Ok(bytes) } else { Err(Forged) })
}

/// One direction of a connection under one traffic key.
pub(crate) struct RecordKey {
    key: LessSafeKey,
    iv: [u8; 12],
    /// Number of the next record; with it no nonce meets the key twice (RFC 8446, 5.3).
    sequence: u64,
}

impl RecordKey {
    /// The key of these secrets, at this record; `None` for a suite without an implementation here.
    pub(crate) fn new((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(Self { key, iv: iv.as_ref().try_into().ok()?, sequence: *sequence })
    }

    /// Records sealed or opened so far under this key.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        // Keys are replaced 2^40 times before this could wrap.
        self.sequence = self.sequence.checked_add(1).expect("a key is replaced long before");
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals one record to the front of `out`; answers its length.
    ///
    /// # Panics
    /// When `plain` is longer than a record's, or `out` too short.
    pub(crate) fn seal(&mut self, content: Content, plain: &[u8], out: &mut [u8]) -> usize {
        assert!(plain.len() <= RECORD_PLAIN_BYTES_MAX, "{} bytes in one record", plain.len());
        let sealed = u16::try_from(plain.len() + 1 + TAG_BYTES).expect("a record is short");
        let [high, low] = sealed.to_be_bytes();
        let header = [OUTER_TYPE, 3, 3, high, low];
        let (front, rest) = out.split_at_mut(HEADER_BYTES);
        front.copy_from_slice(&header);
        let (bytes, rest) = rest.split_at_mut(plain.len());
        let nonce = self.next_nonce();
        self.key
            .seal_out_of_place_scatter(
                nonce,
                Aad::from(header),
                plain,
                bytes,
                &[content.code()],
                &mut rest[..1 + TAG_BYTES],
            )
            .expect("lengths fit, and the cipher cannot fail otherwise");
        HEADER_BYTES + usize::from(sealed)
    }

    /// Opens one whole record out of place, to the front of `out`; answers what it carries and how long that is. `out` must
    /// have room for everything that was sealed, the inner type included ([`RecordKey::opened_bytes`]).
    pub(crate) fn open_to(&mut self, record: &[u8], out: &mut [u8]) -> Result<(Content, usize), Forged> {
        let (header, sealed) = record.split_at(HEADER_BYTES);
        let (bytes, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        let out = &mut out[..bytes.len()];
        let header: [u8; HEADER_BYTES] = header.try_into().expect("just split");
        let nonce = self.next_nonce();
        self.key.open_separate_gather(nonce, Aad::from(header), bytes, tag, out).map_err(|_| Forged)?;
        content_of(out)
    }

    /// Opens one whole record where it lies; what it carries begins [`HEADER_BYTES`] behind its start.
    pub(crate) fn open_here(&mut self, record: &mut [u8]) -> Result<(Content, usize), Forged> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let header: [u8; HEADER_BYTES] = (&*header).try_into().expect("just split");
        let nonce = self.next_nonce();
        let plain = self.key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| Forged)?;
        content_of(plain)
    }

    /// Room that [`RecordKey::open_to`] needs for a record of this length.
    pub(crate) const fn opened_bytes(record_bytes: usize) -> usize {
        record_bytes - HEADER_BYTES - TAG_BYTES
    }
}

/// What was sealed: content, its type, and zeros that hide its length.
fn content_of(inner: &[u8]) -> Result<(Content, usize), Forged> {
    let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Forged)?;
    let content = Content::of(inner[end]).ok_or(Forged)?;
    if end > RECORD_PLAIN_BYTES_MAX { Err(Forged) } else { Ok((content, end)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RecordKey {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
        RecordKey { key, iv: [9; 12], sequence: 0 }
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; sealed_bytes(plain.len().max(1))];
        let bytes = key().seal(Content::Data, plain, &mut out);
        out.truncate(bytes);
        out
    }

    #[test]
    fn a_record_opens_in_both_ways_to_what_was_sealed() {
        for bytes in [0, 1, 5, 4096, RECORD_PLAIN_BYTES_MAX] {
            let plain: Vec<u8> = (0..=255).cycle().take(bytes).collect();
            let mut record = sealed(&plain);
            assert_eq!(record_bytes(&record), Some(Ok(record.len())));
            let mut out = vec![0; RecordKey::opened_bytes(record.len())];
            assert_eq!(key().open_to(&record, &mut out), Ok((Content::Data, bytes)));
            assert_eq!(out[..bytes], plain);
            assert_eq!(key().open_here(&mut record), Ok((Content::Data, bytes)));
            assert_eq!(record[HEADER_BYTES..][..bytes], plain);
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let good = sealed(b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let whole = record_bytes(&bad) == Some(Ok(bad.len()));
            assert!(!whole || key().open_here(&mut bad) == Err(Forged), "bit {bit}");
        }
    }

    #[test]
    fn a_record_out_of_turn_is_none() {
        let (mut sealing, mut opening) = (key(), key());
        let mut first = vec![0; 64];
        let bytes = sealing.seal(Content::Data, b"one", &mut first);
        first.truncate(bytes);
        assert!(opening.open_here(&mut first.clone()).is_ok());
        assert_eq!(opening.open_here(&mut first), Err(Forged), "the same once more");
    }

    #[test]
    fn headers_that_no_peer_sends_are_refused_before_memory_is_taken() {
        assert_eq!(record_bytes(&[23, 3, 3, 0]), None);
        for bad in
            [[22, 3, 3, 0, 40], [23, 3, 1, 0, 40], [23, 3, 3, 0, 16], [23, 3, 3, 0x41, 1], [20, 3, 3, 0, 1]]
        {
            assert_eq!(record_bytes(&bad), Some(Err(Forged)), "{bad:?}");
        }
        assert_eq!(record_bytes(&[23, 3, 3, 0x41, 0]), Some(Ok(RECORD_BYTES_MAX)));
    }

    #[test]
    fn padding_is_taken_off_and_padding_alone_is_refused() {
        assert_eq!(content_of(&[1, 2, 23, 0, 0]), Ok((Content::Data, 2)));
        assert_eq!(content_of(&[0, 0]), Err(Forged));
        assert_eq!(content_of(&[]), Err(Forged));
        assert_eq!(content_of(&[1, 24]), Err(Forged));
    }
}

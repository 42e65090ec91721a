//! Makes a block shorter, and opens it again.

use core::fmt;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd::bulk::{Compressor, Decompressor};

use crate::{Coding, Level, PLAIN_BYTES_MAX};

/// Blocks of this length and longer are looked at in samples first.
const SAMPLED_BYTES: usize = 256 << 10;
/// Samples of a block, and the length of each.
const SAMPLES: usize = 4;
const SAMPLE_BYTES: usize = 16 << 10;
/// What does not become shorter by this part of itself stays as it is.
const GAIN_PART: usize = 32;

/// Why bytes are not the block that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// It is announced longer than any block; nothing was opened.
    #[error("a block of {bytes} bytes, and none is longer than {PLAIN_BYTES_MAX}")]
    TooLong {
        /// The length that was announced.
        bytes: usize,
    },
    /// The bytes are no stream of that codec, or of more than was announced.
    #[error("no {coding} stream of at most {bytes} bytes")]
    Stream {
        /// The codec that was announced.
        coding: Coding,
        /// The length that was announced.
        bytes: usize,
    },
    /// The stream ends before the length that was announced.
    #[error("{found} bytes where {bytes} were announced")]
    Length {
        /// The length that was announced.
        bytes: usize,
        /// How many there are.
        found: usize,
    },
}

/// The tables of the codecs, kept from block to block: some MB once each codec was used.
pub struct Coder {
    table: CompressTable,
    deflater: Compressor<'static>,
    level: Option<Level>,
    inflater: Decompressor<'static>,
}

impl Default for Coder {
    fn default() -> Self {
        Self {
            table: CompressTable::large(),
            deflater: Compressor::default(),
            level: None,
            inflater: Decompressor::default(),
        }
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coder").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Coder {
    /// Puts `plain` into `into`, coded. False when it does not become shorter by a 32nd, or some samples of it do not:
    /// then it is to travel as it is, and `into` holds nothing of use.
    ///
    /// # Panics
    /// When `plain` is longer than [`PLAIN_BYTES_MAX`].
    pub fn encode(&mut self, plain: &[u8], coding: Coding, into: &mut Vec<u8>) -> bool {
        assert!(plain.len() <= PLAIN_BYTES_MAX, "a block of {} bytes", plain.len());
        if coding == Coding::Raw
            || (plain.len() >= SAMPLED_BYTES && !self.samples_shrink(plain, coding, into))
        {
            return false;
        }
        let most = wanted_bytes(plain.len());
        let made = self.encode_all(plain, coding, most, into);
        if let Some(bytes) = made {
            into.truncate(bytes);
        }
        made.is_some()
    }

    /// Puts into `into` the `plain_bytes` bytes that `coded` stands for; never more memory than these.
    ///
    /// # Errors
    /// [`CodecError`] when `coded` is no stream of exactly so many bytes; `into` holds nothing of use then.
    pub fn decode(
        &mut self,
        coded: &[u8],
        coding: Coding,
        plain_bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        if plain_bytes > PLAIN_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: plain_bytes });
        }
        into.reserve_exact(plain_bytes.saturating_sub(into.len()));
        into.resize(plain_bytes, 0);
        let opened = match coding {
            Coding::Raw => {
                let same = coded.len() == plain_bytes;
                if same {
                    into.copy_from_slice(coded);
                }
                same.then_some(plain_bytes)
            }
            Coding::Lz4 => decompress_into(coded, into.as_mut_slice()).ok(),
            Coding::Zstd(_) => self.inflater.decompress_to_buffer(coded, into.as_mut_slice()).ok(),
        };
        match opened {
            None => Err(CodecError::Stream { coding, bytes: plain_bytes }),
            Some(found) if found != plain_bytes => Err(CodecError::Length { bytes: plain_bytes, found }),
            Some(_) => Ok(()),
        }
    }

    /// Whether short pieces from all over a block become shorter, by the quickest form of the codec.
    fn samples_shrink(&mut self, plain: &[u8], coding: Coding, into: &mut Vec<u8>) -> bool {
        let quick = match coding {
            Coding::Zstd(_) => Coding::Zstd(Level::FIRST),
            other => other,
        };
        let step = (plain.len() - SAMPLE_BYTES) / (SAMPLES - 1);
        let coded = (0..SAMPLES).map(|sample| {
            let piece = &plain[sample * step..sample * step + SAMPLE_BYTES];
            self.encode_all(piece, quick, SAMPLE_BYTES, into).unwrap_or(SAMPLE_BYTES)
        });
        coded.sum::<usize>() <= wanted_bytes(SAMPLES * SAMPLE_BYTES)
    }

    /// How many bytes of `into` the coded ones are, when they are at most `most`.
    fn encode_all(&mut self, plain: &[u8], coding: Coding, most: usize, into: &mut Vec<u8>) -> Option<usize> {
        let made = match coding {
            Coding::Raw => None,
            Coding::Lz4 => {
                // It refuses less room than its worst case, however short the result is.
                into.resize(get_maximum_output_size(plain.len()), 0);
                compress_into_with_table(plain, into.as_mut_slice(), &mut self.table).ok()
            }
            Coding::Zstd(level) => {
                if self.level != Some(level) {
                    self.level = None;
                    self.deflater.set_compression_level(level.number().into()).ok()?;
                    self.level = Some(level);
                }
                into.resize(most, 0);
                self.deflater.compress_to_buffer(plain, into.as_mut_slice()).ok()
            }
        };
        made.filter(|&bytes| bytes <= most)
    }
}

/// What a block of `bytes` may have at most to be worth opening.
const fn wanted_bytes(bytes: usize) -> usize {
    bytes - bytes.div_ceil(GAIN_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codings() -> Vec<Coding> {
        let levels = [1, 3, 9, 19].map(|number| Coding::Zstd(Level::new(number).unwrap()));
        [Coding::Lz4].into_iter().chain(levels).collect()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut all = vec![0; bytes];
        fastrand::Rng::with_seed(7).fill(&mut all);
        all
    }

    #[test]
    fn noise_stays_as_it_is_and_what_repeats_becomes_shorter() {
        let mut coder = Coder::default();
        let mut coded = Vec::new();
        let text = b"one line of a log, and another one\n".repeat(30_000);
        for coding in codings() {
            for bytes in [1, 100, SAMPLED_BYTES, PLAIN_BYTES_MAX] {
                assert!(!coder.encode(&noise(bytes), coding, &mut coded), "{coding} {bytes}");
            }
            assert!(coder.encode(&text[..PLAIN_BYTES_MAX], coding, &mut coded), "{coding}");
            assert!(coded.len() < 20_000, "{coding}: {}", coded.len());
        }
        assert!(!coder.encode(&text[..PLAIN_BYTES_MAX], Coding::Raw, &mut coded));
        assert!(!coder.encode(&[], Coding::Lz4, &mut coded), "nothing cannot become shorter");
    }

    #[test]
    fn noise_is_noticed_by_samples_without_coding_all_of_it() {
        let mut block = noise(PLAIN_BYTES_MAX);
        // Half of it would shrink, but none of what is looked at.
        block[20_000..200_000].fill(0);
        block[400_000..600_000].fill(0);
        let mut coded = Vec::new();
        assert!(!Coder::default().encode(&block, Coding::Zstd(Level::FIRST), &mut coded));
        assert!(Coder::default().encode(
            &block[20_000..SAMPLED_BYTES],
            Coding::Zstd(Level::FIRST),
            &mut coded
        ));
    }

    #[test]
    fn a_bomb_opens_to_no_more_than_was_announced() {
        let mut coder = Coder::default();
        let (mut coded, mut opened) = (Vec::new(), Vec::new());
        for coding in codings() {
            assert!(coder.encode(&vec![0; PLAIN_BYTES_MAX], coding, &mut coded));
            assert!(coded.len() < 5000);
            let refused = coder.decode(&coded, coding, 4096, &mut opened);
            assert_eq!(refused, Err(CodecError::Stream { coding, bytes: 4096 }));
            assert_eq!(opened.len(), 4096);
            let refused = coder.decode(&coded, coding, PLAIN_BYTES_MAX + 1, &mut opened);
            assert_eq!(refused, Err(CodecError::TooLong { bytes: PLAIN_BYTES_MAX + 1 }));
            assert_eq!(
                coder.decode(&coded, coding, PLAIN_BYTES_MAX, &mut opened),
                Ok(()),
                "and it goes on after"
            );
            assert!(opened.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn streams_that_end_early_or_have_another_length_are_refused() {
        let mut coder = Coder::default();
        let (mut coded, mut opened) = (Vec::new(), Vec::new());
        let plain = b"abcdefgh".repeat(1000);
        for coding in codings() {
            assert!(coder.encode(&plain, coding, &mut coded));
            for cut in 0..coded.len() {
                assert!(
                    coder.decode(&coded[..cut], coding, plain.len(), &mut opened).is_err(),
                    "{coding} {cut}"
                );
            }
            let longer = coder.decode(&coded, coding, plain.len() + 1, &mut opened);
            assert_eq!(longer, Err(CodecError::Length { bytes: 8001, found: 8000 }), "{coding}");
        }
        assert!(coder.decode(b"abc", Coding::Raw, 4, &mut opened).is_err());
        assert_eq!(coder.decode(b"abc", Coding::Raw, 3, &mut opened), Ok(()));
        assert_eq!(opened, b"abc");
    }
}

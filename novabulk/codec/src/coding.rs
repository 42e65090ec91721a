//! In which form the bytes of a block travel.

use core::fmt;

/// How hard ZSTD tries: from 1, which is quick, to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// The lowest and quickest.
    pub const FIRST: Self = Self(1);
    /// The highest.
    pub const LAST: Self = Self(19);

    /// The level with this number, when there is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::FIRST.0 && number <= Self::LAST.0 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The form of a block's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coding {
    /// As they are.
    #[default]
    Raw,
    /// One block of LZ4.
    Lz4,
    /// One or several frames of ZSTD.
    Zstd(Level),
}

impl Coding {
    /// How messages carry it: the codec, with the numbers that frames have, and the level.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Raw => [0, 0],
            Self::Lz4 => [1, 0],
            Self::Zstd(level) => [2, level.0],
        }
    }

    /// Reads that; nothing when it is none.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [0, 0] => Some(Self::Raw),
            [1, 0] => Some(Self::Lz4),
            [2, level] => Level::new(level).map(Self::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{}", level.number()),
        }
    }
}

/// Which codecs an end of a copy knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codecs {
    /// LZ4.
    pub lz4: bool,
    /// ZSTD.
    pub zstd: bool,
}

impl Codecs {
    /// None: everything travels as it is.
    pub const NONE: Self = Self { lz4: false, zstd: false };
    /// What this build knows.
    pub const ALL: Self = Self { lz4: true, zstd: true };

    /// What both know.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self { lz4: self.lz4 && other.lz4, zstd: self.zstd && other.zstd }
    }

    /// Whether a block may travel so.
    #[must_use]
    pub const fn know(self, coding: Coding) -> bool {
        match coding {
            Coding::Raw => true,
            Coding::Lz4 => self.lz4,
            Coding::Zstd(_) => self.zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_comes_back_from_its_bytes_and_no_other_bytes_are_one() {
        let mut known = 0;
        for bytes in (0..=u16::MAX).map(u16::to_be_bytes) {
            if let Some(coding) = Coding::from_bytes(bytes) {
                assert_eq!(coding.to_bytes(), bytes);
                known += 1;
            }
        }
        assert_eq!(known, 2 + 19);
    }

    #[test]
    fn what_one_end_does_not_know_is_known_to_neither() {
        let only_lz4 = Codecs { lz4: true, zstd: false };
        let both = Codecs::ALL.both(only_lz4);
        assert_eq!([both, Codecs::NONE.both(only_lz4)], [only_lz4, Codecs::NONE]);
        assert!(both.know(Coding::Raw) && both.know(Coding::Lz4) && !both.know(Coding::Zstd(Level::FIRST)));
    }
}

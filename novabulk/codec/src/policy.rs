//! What whoever starts a copy wishes of its codecs.

use core::fmt;
use core::str::FromStr;

use crate::{Coding, Level};

/// The level of `zstd` without one.
const LEVEL_DEFAULT: Level = Level::FIRST;

/// Whether blocks are made shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// When that makes the copy quicker, by the codec that does so most.
    #[default]
    Auto,
    /// Always by this one, blocks that do not become shorter excepted; by none with [`Coding::Raw`].
    Always(Coding),
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is no codec: give auto, off, lz4, zstd, or zstd:1 to zstd:19")]
pub struct PolicyError {
    text: String,
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError { text: text.to_owned() };
        Ok(match text.split_once(':') {
            None => match text {
                "auto" => Self::Auto,
                "off" => Self::Always(Coding::Raw),
                "lz4" => Self::Always(Coding::Lz4),
                "zstd" => Self::Always(Coding::Zstd(LEVEL_DEFAULT)),
                _ => return Err(wrong()),
            },
            Some(("zstd", level)) => {
                let level = level.parse().ok().and_then(Level::new).ok_or_else(wrong)?;
                Self::Always(Coding::Zstd(level))
            }
            Some(_) => return Err(wrong()),
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Always(Coding::Raw) => f.write_str("off"),
            Self::Always(coding) => coding.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_what_it_says_and_nothing_else_is_one() {
        for text in ["auto", "off", "lz4", "zstd:1", "zstd:19"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert_eq!("zstd".parse(), Ok(Policy::Always(Coding::Zstd(Level::FIRST))));
        for text in
            ["", "Auto", "lz4:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:1:1", "gzip", "off:1"]
        {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains("zstd:19"), "{error}");
        }
    }
}

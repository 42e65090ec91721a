//! A path taken apart, with every name checked.

use nova_units::InodeId;

use crate::answer::{Code, Failure};
use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX};
use crate::model::ROOT;

/// A path whose names passed every check, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    base: InodeId,
    text: &'a str,
    names: Vec<&'a str>,
}

impl<'a> Path<'a> {
    /// Takes an absolute path apart. Repeated and closing slashes count as one.
    ///
    /// # Errors
    /// A path that does not begin with `/`, is deeper than [`DEPTH_MAX`], or has a name that is `.`, `..`, longer
    /// than [`NAME_BYTES_MAX`] or holds a NUL byte.
    pub fn parse(text: &'a str) -> Result<Self, Failure> {
        Self::parse_at(0, text)
    }

    /// Takes a path apart that begins at the inode `base`; 0: an absolute one.
    ///
    /// # Errors
    /// As [`Path::parse`]; with a base a path that begins with `/`.
    pub fn parse_at(base: u64, text: &'a str) -> Result<Self, Failure> {
        if (base == 0) != text.starts_with('/') {
            let message =
                if base == 0 { "a path begins with /" } else { "a path below an inode has no leading /" };
            return Err(Failure::new(Code::Invalid, text, message));
        }
        let base = if base == 0 { ROOT } else { InodeId(base) };
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        if names.len() > DEPTH_MAX {
            return Err(Failure::new(Code::Invalid, text, "the path is deeper than 128 names"));
        }
        for name in &names {
            if *name == "." || *name == ".." {
                return Err(Failure::new(
                    Code::InvalidName,
                    text,
                    "'.' and '..' are not names here; resolve them first",
                ));
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Failure::new(Code::InvalidName, text, "a name is longer than 255 bytes"));
            }
            if name.contains('\0') {
                return Err(Failure::new(Code::InvalidName, text, "a name holds a NUL byte"));
            }
        }
        Ok(Self { base, text, names })
    }

    /// The inode it begins at: the root for an absolute path.
    #[must_use]
    pub fn base(&self) -> InodeId {
        self.base
    }

    /// The path as it was given.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Its names, from its base down; none for the base itself.
    #[must_use]
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The names of the folder it lies in, and its own; `None` for its base.
    #[must_use]
    pub fn split_last(&self) -> Option<(&[&'a str], &'a str)> {
        self.names.split_last().map(|(last, parents)| (parents, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_one_by_one() {
        assert_eq!(Path::parse("//hot//a/").unwrap().names(), ["hot", "a"]);
        assert!(Path::parse("/").unwrap().split_last().is_none());
        let code = |text: &str| Path::parse(text).unwrap_err().code();
        assert_eq!(code("hot/a"), Code::Invalid);
        assert_eq!(code("/hot/../a"), Code::InvalidName);
        assert_eq!(code(&format!("/{}", "x".repeat(256))), Code::InvalidName);
        assert!(Path::parse(&format!("/{}", "x".repeat(255))).is_ok());
        assert_eq!(code(&"/x".repeat(129)), Code::Invalid);
        assert!(Path::parse(&"/x".repeat(128)).is_ok());
        let below = Path::parse_at(7, "a/b").unwrap();
        assert_eq!((below.base(), below.names()), (InodeId(7), &["a", "b"][..]));
        assert!(Path::parse_at(7, "").unwrap().names().is_empty());
        assert_eq!(Path::parse_at(7, "/a").unwrap_err().code(), Code::Invalid);
    }
}

//! A path taken apart, with every name checked.

use crate::answer::{Code, Failure};
use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX};

/// An absolute path whose names passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    text: &'a str,
    names: Vec<&'a str>,
}

impl<'a> Path<'a> {
    /// Takes `text` apart. Repeated and closing slashes count as one.
    ///
    /// # Errors
    /// A path that does not begin with `/`, is deeper than [`DEPTH_MAX`], or has a name that is `.`, `..`, longer
    /// than [`NAME_BYTES_MAX`] or holds a NUL byte.
    pub fn parse(text: &'a str) -> Result<Self, Failure> {
        if !text.starts_with('/') {
            return Err(Failure::new(Code::Invalid, text, "a path begins with /"));
        }
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
        Ok(Self { text, names })
    }

    /// The path as it was given.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Its names, from the root down; none for the root itself.
    #[must_use]
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The names of the folder it lies in, and its own; `None` for the root.
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
    }
}

//! Names of files below the folder that a host serves.

use core::fmt;

use crate::{COMPONENT_BYTES_MAX, Digest, Identity, NAME_BYTES_MAX, NameError};

/// What names of our temporary files and ledgers begin with; nothing of that name is copied.
pub const PART_PREFIX: &str = ".nova-part-";

/// A relative path that passed every check: no `..`, no empty component, no NUL. Empty is the folder itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The folder itself.
    pub const ROOT: Self = Self(Vec::new());

    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        let count = bytes.len();
        if count > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: count, bytes_max: NAME_BYTES_MAX });
        }
        if bytes.first() == Some(&b'/') {
            return Err(NameError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(NameError::Nul);
        }
        if bytes.is_empty() {
            return Ok(Self::ROOT);
        }
        for component in bytes.split(|&byte| byte == b'/') {
            if component.is_empty() || component == b"." || component == b".." {
                return Err(NameError::Component);
            }
            if component.len() > COMPONENT_BYTES_MAX {
                return Err(NameError::TooLong { bytes: component.len(), bytes_max: COMPONENT_BYTES_MAX });
            }
        }
        Ok(Self(bytes))
    }

    /// The name of `below` in the folder of this name.
    ///
    /// # Errors
    /// When both together are too long.
    pub fn join(&self, below: &Self) -> Result<Self, NameError> {
        if self.is_root() || below.is_root() {
            return Ok(Self([self.0.as_slice(), &below.0].concat()));
        }
        Self::new([self.0.as_slice(), b"/", &below.0].concat())
    }

    /// The name of a component in the folder of this name.
    ///
    /// # Errors
    /// When `component` is none, or both together are too long.
    pub fn child(&self, component: &[u8]) -> Result<Self, NameError> {
        let component = Self::new(component)?;
        if component.is_root() || component.0.contains(&b'/') {
            return Err(NameError::Component);
        }
        self.join(&component)
    }

    /// What is left of this name below `folder`, when it is there.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Option<Self> {
        if folder.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(folder.0.as_slice())? {
            [] => Some(Self::ROOT),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// Folder and last component; nothing for the folder itself.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((Self::ROOT, &self.0)),
        }
    }

    /// Whether this is the folder itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of components.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.split(|&byte| byte == b'/').count() }
    }

    /// Whether one of its components is a temporary file of ours.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.0.split(|&byte| byte == b'/').any(|component| component.starts_with(PART_PREFIX.as_bytes()))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&String::from_utf8_lossy(&self.0)) }
    }
}

/// What the temporary files of every attempt at `name` begin with.
#[must_use]
pub fn part_prefix(name: &Name) -> String {
    format!("{PART_PREFIX}{}-", Digest::of(name.as_bytes()).short())
}

/// The temporary file of `name` as it is copied from a source of this identity: a copy that is begun again finds it.
#[must_use]
pub fn part_name(name: &Name, source: &Identity) -> String {
    format!("{}{}", part_prefix(name), Digest::of(&source.encoded()).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for (bytes, error) in [
            (b"/etc/passwd".to_vec(), NameError::Absolute),
            (b"..".to_vec(), NameError::Component),
            (b"a/../b".to_vec(), NameError::Component),
            (b"a//b".to_vec(), NameError::Component),
            (b"a/".to_vec(), NameError::Component),
            (b"./a".to_vec(), NameError::Component),
            (b"a\0b".to_vec(), NameError::Nul),
            (vec![b'a'; 256], NameError::TooLong { bytes: 256, bytes_max: 255 }),
            ([b'a', b'/'].repeat(2049), NameError::TooLong { bytes: 4098, bytes_max: 4096 }),
        ] {
            assert_eq!(Name::new(bytes.clone()), Err(error), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn names_are_joined_split_and_stripped() {
        let name = Name::new("a/b/c").unwrap();
        let (folder, last) = name.split().unwrap();
        assert_eq!((folder.to_string(), last), ("a/b".to_owned(), b"c".as_slice()));
        assert_eq!(folder.child(b"c").unwrap(), name);
        assert_eq!(folder.child(b"c/d"), Err(NameError::Component));
        assert_eq!(name.below(&Name::new("a").unwrap()).unwrap().to_string(), "b/c");
        assert_eq!(name.below(&Name::new("a/b/c").unwrap()), Some(Name::ROOT));
        assert_eq!(Name::new("ab").unwrap().below(&Name::new("a").unwrap()), None);
        assert_eq!((name.depth(), Name::ROOT.depth(), Name::ROOT.split()), (3, 0, None));
        assert_eq!(Name::ROOT.join(&name).unwrap(), name);
    }

    #[test]
    fn a_part_is_found_again_for_the_same_source_only() {
        let name = Name::new("a").unwrap();
        let one = Identity { bytes: 1, ..Identity::default() };
        assert_eq!(part_name(&name, &one), part_name(&name, &one));
        assert_ne!(part_name(&name, &one), part_name(&name, &Identity::default()));
        assert!(part_name(&name, &one).starts_with(&part_prefix(&name)));
        assert!(Name::new(part_name(&name, &one)).unwrap().is_part());
    }
}

//! The root key file: the versions of the key that wraps the keys of all domains.

use core::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::SecurityError;
use crate::hex::{decimal, hex_into, put_hex};
use crate::private_file::{self, PRIVATE};

/// First word of a root key file; its number is the version of the format.
const HEADER: &str = "novaclustr-root-key-1";
const KEY_BYTES: usize = 32;
/// Bytes of a root key's id.
pub(crate) const ID_BYTES: usize = 16;
/// Versions in one file.
const VERSIONS_MAX: usize = 64;

/// One version of the root key.
pub(crate) struct RootVersion {
    pub(crate) version: u32,
    pub(crate) secret: Zeroizing<[u8; KEY_BYTES]>,
}

/// A root key: an id and one or more versions of 256 random bits. The last wraps, all unwrap.
///
/// The file is text, mode 0600, the same on every controller:
///
/// | line | form |
/// | --- | --- |
/// | 1 | `novaclustr-root-key-1`, a space, the id as 32 hexadecimal digits in lower case |
/// | 2 to 65 | a version in decimal from 1, a space, the key as 64 hexadecimal digits in lower case |
///
/// Versions rise; every line ends with one line feed.
pub struct RootKey {
    pub(crate) id: [u8; ID_BYTES],
    pub(crate) versions: Vec<RootVersion>,
}

impl RootKey {
    /// Makes a root key with one version from the kernel's random numbers and writes it to `path`.
    ///
    /// # Errors
    /// [`SecurityError::Exists`] when there is one: overwriting it loses all data of the region.
    pub fn create(path: &Path) -> Result<Self, SecurityError> {
        let mut id = [0; ID_BYTES];
        fill(&mut id)?;
        let mut root = Self { id, versions: Vec::new() };
        root.push_version()?;
        private_file::create(path, root.encode().as_bytes(), PRIVATE)?;
        Ok(root)
    }

    /// Reads the root key at `path`.
    ///
    /// # Errors
    /// [`SecurityError::Exposed`] when others can read the file, [`SecurityError::RootKey`] when it holds none.
    pub fn open(path: &Path) -> Result<Self, SecurityError> {
        let text = private_file::read_private(path)?;
        Self::decode(&text).map_err(|reason| SecurityError::RootKey { path: path.to_owned(), reason })
    }

    /// Adds a version to the file at `path`; controllers that start with it wrap every domain key anew.
    ///
    /// # Errors
    /// As [`RootKey::open`]; also when the file cannot be replaced, and the old one stands then.
    pub fn add_version(path: &Path) -> Result<Self, SecurityError> {
        let mut root = Self::open(path)?;
        if root.versions.len() == VERSIONS_MAX {
            let reason =
                "it has 64 versions already; remove those that no domain key is wrapped under any more";
            return Err(SecurityError::RootKey { path: path.to_owned(), reason });
        }
        root.push_version()?;
        private_file::replace(path, root.encode().as_bytes(), PRIVATE)?;
        Ok(root)
    }

    /// The version that wraps.
    #[must_use]
    pub fn current_version(&self) -> u32 {
        self.current().version
    }

    pub(crate) fn current(&self) -> &RootVersion {
        self.versions.last().expect("a root key has a version")
    }

    fn push_version(&mut self) -> Result<(), SecurityError> {
        let version = self.versions.last().map_or(1, |last| last.version.saturating_add(1));
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        fill(secret.as_mut_slice())?;
        self.versions.push(RootVersion { version, secret });
        Ok(())
    }

    fn encode(&self) -> Zeroizing<String> {
        use core::fmt::Write as _;
        let mut text = Zeroizing::new(String::with_capacity(128 + 80 * self.versions.len()));
        text.push_str(HEADER);
        text.push(' ');
        put_hex(&mut text, &self.id);
        text.push('\n');
        for it in &self.versions {
            write!(text, "{} ", it.version).expect("writing into a String cannot fail");
            put_hex(&mut text, it.secret.as_slice());
            text.push('\n');
        }
        text
    }

    fn decode(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.strip_suffix('\n').ok_or("it does not end with a line feed")?.split('\n');
        let first = lines.next().and_then(|line| line.split_once(' '));
        let Some((HEADER, digits)) = first else { return Err("its header is another one") };
        let mut root = Self { id: [0; ID_BYTES], versions: Vec::new() };
        hex_into(digits, &mut root.id).ok_or("its id is not 32 digits of 0-9 and a-f")?;
        for line in lines {
            let (version, digits) = line.split_once(' ').ok_or("a version has no key")?;
            let version = decimal(version).filter(|version| *version > 0).ok_or("a version is no number")?;
            if root.versions.last().is_some_and(|last| last.version >= version) {
                return Err("its versions do not rise");
            }
            if root.versions.len() == VERSIONS_MAX {
                return Err("it has more than 64 versions");
            }
            let mut secret = Zeroizing::new([0; KEY_BYTES]);
            hex_into(digits, secret.as_mut_slice()).ok_or("a key is not 64 digits of 0-9 and a-f")?;
            root.versions.push(RootVersion { version, secret });
        }
        if root.versions.is_empty() { Err("it has no version of the key") } else { Ok(root) }
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), SecurityError> {
    getrandom::fill(bytes).map_err(|error| SecurityError::Crypto { what: "a key", reason: error.to_string() })
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").field("versions", &self.versions.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    pub(crate) const GOLDEN: &str = "novaclustr-root-key-1 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf\n\
        1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
        3 202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f\n";

    pub(crate) fn golden() -> RootKey {
        RootKey::decode(GOLDEN).unwrap()
    }

    #[test]
    fn file_form_stays_as_it_is() {
        let root = golden();
        assert_eq!((root.id[15], root.versions.len(), root.current_version()), (0xaf, 2, 3));
        assert_eq!(root.versions[0].secret[31], 31);
        assert_eq!(root.encode().as_str(), GOLDEN);
        assert_eq!(format!("{root:?}"), "RootKey { versions: 2, .. }");
    }

    #[test]
    fn every_other_form_is_refused() {
        let broken = [
            GOLDEN.trim_end().to_owned(),
            GOLDEN.to_uppercase(),
            GOLDEN.replace("key-1 ", "key-2 "),
            GOLDEN.replace("\n3 ", "\n1 "),
            GOLDEN.replace("\n1 ", "\n0 "),
            GOLDEN.replace("\n1 ", "\n01 "),
            GOLDEN.replace("\n3 ", "\n3  "),
            GOLDEN.replace("3f\n", "3g\n"),
            GOLDEN.replace("3f\n", "3f00\n"),
            GOLDEN.replace("af\n", "a\n"),
            format!("{GOLDEN}\n"),
            GOLDEN[..GOLDEN.find('\n').unwrap() + 1].to_owned(),
        ];
        for text in broken {
            assert!(RootKey::decode(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_version_is_added_to_the_file_and_the_old_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        let made = RootKey::create(&path).unwrap();
        assert!(matches!(RootKey::create(&path), Err(SecurityError::Exists { .. })));
        let more = RootKey::add_version(&path).unwrap();
        assert_eq!((made.current_version(), more.current_version()), (1, 2));
        let read = RootKey::open(&path).unwrap();
        assert_eq!(read.encode(), more.encode());
        assert_eq!((read.id, &*read.versions[0].secret), (made.id, &*made.versions[0].secret));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(RootKey::open(&path), Err(SecurityError::Exposed { .. })));
    }

    proptest! {
        #[test]
        fn decode_never_panics(text in "(novaclustr-root-key-1 )?[0-9a-f \n]{0,200}", at in 0..200_usize, byte: u8) {
            let _ = RootKey::decode(&text);
            let mut bytes = GOLDEN.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(text) = std::str::from_utf8(&bytes)
                && let Ok(root) = RootKey::decode(text)
            {
                let again = root.encode();
                prop_assert_eq!(again.as_str(), text);
            }
        }
    }
}

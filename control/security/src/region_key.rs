//! The key of the one domain of a region that was made before the key service; it is imported from its file.

use core::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::SecurityError;
use crate::hex::{decimal, hex_into, put_hex};
use crate::private_file::{self, PRIVATE};

/// First word of a region key file; its number is the version of the format.
const HEADER: &str = "novaclustr-region-key-1";
const KEY_BYTES: usize = 32;

/// A region key: 256 random bits with the id of their key domain and their version.
///
/// The file is one line of text, mode 0600; several readers parse it, so its form is fixed:
///
/// | field | form |
/// | --- | --- |
/// | header | `novaclustr-region-key-1` |
/// | domain | key domain id, decimal, 0 to 4,294,967,295 |
/// | version | version of the key within its domain, decimal, from 1 |
/// | key | 64 hexadecimal digits in lower case |
///
/// Fields are separated by one space, and one line feed ends the file.
pub struct RegionKey {
    domain: u32,
    version: u32,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl RegionKey {
    /// Makes a key from the kernel's random numbers and writes it to `path`.
    ///
    /// # Errors
    /// [`SecurityError::Exists`] when there is one: overwriting a key loses all data sealed under it.
    pub fn create(path: &Path, domain: u32, version: u32) -> Result<Self, SecurityError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice())
            .map_err(|e| SecurityError::Crypto { what: "a region key", reason: e.to_string() })?;
        let key = Self { domain, version, key };
        private_file::create(path, key.encode().as_bytes(), PRIVATE)?;
        Ok(key)
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`SecurityError::Exposed`] when others can read the file, [`SecurityError::RegionKey`] when it holds no key.
    pub fn open(path: &Path) -> Result<Self, SecurityError> {
        let text = private_file::read_private(path)?;
        Self::decode(&text).map_err(|reason| SecurityError::RegionKey { path: path.to_owned(), reason })
    }

    /// The key domain.
    #[must_use]
    pub const fn domain(&self) -> u32 {
        self.domain
    }

    /// The version within the domain.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The secret itself.
    #[must_use]
    pub fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    fn encode(&self) -> Zeroizing<String> {
        use core::fmt::Write as _;
        let mut text = Zeroizing::new(String::with_capacity(128));
        write!(text, "{HEADER} {} {} ", self.domain, self.version)
            .expect("writing into a String cannot fail");
        put_hex(&mut text, self.key.as_slice());
        text.push('\n');
        text
    }

    fn decode(text: &str) -> Result<Self, &'static str> {
        let line = text.strip_suffix('\n').ok_or("it does not end with a line feed")?;
        let mut fields = line.split(' ');
        if fields.next() != Some(HEADER) {
            return Err("its header is another one");
        }
        let domain = fields.next().and_then(decimal).ok_or("the domain is not a number")?;
        let version =
            fields.next().and_then(decimal).filter(|v| *v > 0).ok_or("the version is not a number from 1")?;
        let digits = fields.next().ok_or("the key is missing")?;
        if fields.next().is_some() {
            return Err("something follows the key");
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex_into(digits, key.as_mut_slice()).ok_or("the key is not 64 digits of 0-9 and a-f")?;
        Ok(Self { domain, version, key })
    }
}

impl fmt::Debug for RegionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionKey")
            .field("domain", &self.domain)
            .field("version", &self.version)
            .field("key", &"(redacted)")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &str = "novaclustr-region-key-1 7 2 \
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

    #[test]
    fn file_form_stays_as_it_is() {
        let key = RegionKey::decode(GOLDEN).unwrap();
        assert_eq!((key.domain(), key.version()), (7, 2));
        assert_eq!(key.secret()[31], 31);
        assert_eq!(key.encode().as_str(), GOLDEN);
    }

    #[test]
    fn every_other_form_is_refused() {
        let broken = [
            GOLDEN.trim_end().to_owned(),
            GOLDEN.to_uppercase(),
            GOLDEN.replace("-1 7", "-2 7"),
            GOLDEN.replace(" 7 ", " 07 "),
            GOLDEN.replace(" 7 2 ", " 7 0 "),
            GOLDEN.replace(" 7 ", " 4294967296 "),
            GOLDEN.replace("1f\n", "1f00\n"),
            GOLDEN.replace("1f\n", "1g\n"),
            GOLDEN.replace("1f\n", "1f x\n"),
            GOLDEN.replace(" 2 ", "  2 "),
        ];
        for text in broken {
            assert!(RegionKey::decode(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn debug_does_not_tell_the_key() {
        let key = RegionKey::decode(GOLDEN).unwrap();
        assert_eq!(format!("{key:?}"), r#"RegionKey { domain: 7, version: 2, key: "(redacted)" }"#);
    }

    #[test]
    fn a_key_is_written_once_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("region.key");
        let made = RegionKey::create(&path, 1, 1).unwrap();
        assert_eq!(RegionKey::open(&path).unwrap().secret(), made.secret());
        assert!(matches!(RegionKey::create(&path, 1, 1), Err(SecurityError::Exists { .. })));
    }

    proptest! {
        #[test]
        fn decode_never_panics(text in "(novaclustr-region-key-1 )?[0-9a-f \n]{0,90}") {
            let _ = RegionKey::decode(&text);
        }
    }
}

//! The key service: makes the keys of domains and wraps them under a root key that never leaves it.
//!
//! Spec 4.4. [`Kms`] is the face that an HSM or a cloud's service has: the root key has versions, and is named, never
//! shown. [`FileKms`] keeps it in a private file on every controller; [`MemoryKms`] keeps the keys themselves, and can
//! be away.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::root_key::{ID_BYTES, RootKey, RootVersion};

/// Bytes of a domain key.
pub const SECRET_BYTES: usize = 32;
/// First byte of a wrapped key: the form of what follows.
const FORM: u8 = 1;
const VERSION_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const NONCE_AT: usize = 1 + ID_BYTES + VERSION_BYTES;
const SEALED_AT: usize = NONCE_AT + NONCE_BYTES;
/// Bytes of a key that [`FileKms`] wrapped.
pub const WRAPPED_BYTES: usize = SEALED_AT + SECRET_BYTES + TAG_BYTES;

/// Which key: a domain and the version of its key. A wrapped key is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Key domain.
    pub domain: u32,
    /// Version of its key.
    pub version: u32,
}

/// The key of a domain at one version, in the clear. Leaves memory when dropped; its text form shows nothing.
pub struct DomainSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl DomainSecret {
    /// Takes the bytes of a key.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl fmt::Debug for DomainSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainSecret(redacted)")
    }
}

/// A key as anyone may keep it: only the key service can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Version of the root key that wraps it.
    pub root_version: u32,
    /// What the key service gave.
    pub bytes: Vec<u8>,
}

/// Why the key service did not do it. No variant holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// It cannot be asked now; keys that hosts hold already are good for their time.
    #[error("the key service does not answer: {reason}")]
    Away {
        /// What happened.
        reason: String,
    },
    /// The wrapped key is not of this root key, or of a version that is gone.
    #[error(
        "key version {} of domain {} is wrapped under version {root_version} of a root key that is not here: give \
         this controller the root key file of the region, with all versions that `nova key ls` names",
        name.version, name.domain
    )]
    UnknownRoot {
        /// The key.
        name: KeyName,
        /// The version of the root key, as the wrapped key says.
        root_version: u32,
    },
    /// The bytes are not a wrapped key, or not of this domain and version, or were changed.
    #[error("key version {} of domain {} does not unwrap: it was changed, or is of another name", name.version, name.domain)]
    NotAuthentic {
        /// The key.
        name: KeyName,
    },
    /// No random numbers, or the library failed.
    #[error("the cryptographic library failed: {reason}")]
    Crypto {
        /// What it said.
        reason: String,
    },
}

/// A key service: one root key in versions, of which the newest wraps. Calls may take as long as a network does.
pub trait Kms: fmt::Debug + Send + Sync {
    /// The version of the root key that wraps.
    ///
    /// # Errors
    /// [`KmsError`].
    fn root_version(&self) -> Result<u32, KmsError>;

    /// Makes a new key and wraps it; the key itself stays inside.
    ///
    /// # Errors
    /// [`KmsError`].
    fn generate(&self, name: KeyName) -> Result<WrappedKey, KmsError>;

    /// Wraps a key that exists.
    ///
    /// # Errors
    /// [`KmsError`].
    fn wrap(&self, name: KeyName, secret: &DomainSecret) -> Result<WrappedKey, KmsError>;

    /// The key itself.
    ///
    /// # Errors
    /// [`KmsError`].
    fn unwrap(&self, name: KeyName, wrapped: &[u8]) -> Result<DomainSecret, KmsError>;

    /// The same key, wrapped under the newest version of the root key; it stays inside.
    ///
    /// # Errors
    /// [`KmsError`].
    fn rewrap(&self, name: KeyName, wrapped: &[u8]) -> Result<WrappedKey, KmsError>;
}

/// The key service with its root key in a file.
///
/// | at | bytes | a wrapped key |
/// | --- | --- | --- |
/// | 0 | 1 | form: 1 |
/// | 1 | 16 | id of the root key |
/// | 17 | 4 | version of the root key, little-endian |
/// | 21 | 12 | nonce, random |
/// | 33 | 32 | the key, AES-256-GCM |
/// | 65 | 16 | tag |
///
/// The tag also covers `"novaclustr wrapped key 1"`, the first 21 bytes, domain u32 and version u32.
#[derive(Debug)]
pub struct FileKms {
    root: RootKey,
}

impl FileKms {
    /// A key service over a root key.
    #[must_use]
    pub const fn new(root: RootKey) -> Self {
        Self { root }
    }

    fn associated_data(name: KeyName, head: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(b"novaclustr wrapped key 1");
        out.extend_from_slice(head);
        out.extend_from_slice(&name.domain.to_le_bytes());
        out.extend_from_slice(&name.version.to_le_bytes());
        out
    }

    fn wrap_under(
        &self,
        root: &RootVersion,
        name: KeyName,
        secret: &DomainSecret,
    ) -> Result<WrappedKey, KmsError> {
        let mut bytes = Vec::with_capacity(WRAPPED_BYTES);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.root.id);
        bytes.extend_from_slice(&root.version.to_le_bytes());
        let mut nonce = [0; NONCE_BYTES];
        fill(&mut nonce)?;
        let beside = Self::associated_data(name, &bytes);
        bytes.extend_from_slice(&nonce);
        let mut sealed = Zeroizing::new(*secret.expose());
        let tag = cipher(root)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(beside),
                sealed.as_mut_slice(),
            )
            .map_err(|error| KmsError::Crypto { reason: error.to_string() })?;
        bytes.extend_from_slice(sealed.as_slice());
        bytes.extend_from_slice(tag.as_ref());
        Ok(WrappedKey { root_version: root.version, bytes })
    }
}

fn cipher(root: &RootVersion) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, root.secret.as_slice()).expect("a key of 32 bytes");
    LessSafeKey::new(key)
}

fn fill(bytes: &mut [u8]) -> Result<(), KmsError> {
    getrandom::fill(bytes).map_err(|error| KmsError::Crypto { reason: error.to_string() })
}

fn fresh() -> Result<DomainSecret, KmsError> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    fill(secret.as_mut_slice())?;
    Ok(DomainSecret(secret))
}

impl Kms for FileKms {
    fn root_version(&self) -> Result<u32, KmsError> {
        Ok(self.root.current_version())
    }

    fn generate(&self, name: KeyName) -> Result<WrappedKey, KmsError> {
        self.wrap(name, &fresh()?)
    }

    fn wrap(&self, name: KeyName, secret: &DomainSecret) -> Result<WrappedKey, KmsError> {
        self.wrap_under(self.root.current(), name, secret)
    }

    fn unwrap(&self, name: KeyName, wrapped: &[u8]) -> Result<DomainSecret, KmsError> {
        let refused = || KmsError::NotAuthentic { name };
        let whole: &[u8; WRAPPED_BYTES] = wrapped.try_into().map_err(|_| refused())?;
        if whole[0] != FORM {
            return Err(refused());
        }
        let (id, version) = whole[1..NONCE_AT].split_at(ID_BYTES);
        let root_version = u32::from_le_bytes(version.try_into().expect("4 bytes"));
        let unknown = KmsError::UnknownRoot { name, root_version };
        if id != self.root.id {
            return Err(unknown);
        }
        let root = self.root.versions.iter().find(|it| it.version == root_version).ok_or(unknown)?;
        let beside = Self::associated_data(name, &whole[..NONCE_AT]);
        let nonce = whole[NONCE_AT..SEALED_AT].try_into().expect("12 bytes");
        let mut opened: Zeroizing<[u8; SECRET_BYTES + TAG_BYTES]> =
            Zeroizing::new(whole[SEALED_AT..].try_into().expect("48 bytes"));
        let secret = cipher(root)
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(beside), opened.as_mut_slice())
            .map_err(|_| refused())?;
        Ok(DomainSecret::new((&*secret).try_into().expect("the tag has gone")))
    }

    fn rewrap(&self, name: KeyName, wrapped: &[u8]) -> Result<WrappedKey, KmsError> {
        self.wrap(name, &self.unwrap(name, wrapped)?)
    }
}

/// A key service for tests: it keeps the keys, and a wrapped key is only a number of one. It can be away.
#[derive(Debug, Default)]
pub struct MemoryKms {
    state: Mutex<MemoryState>,
}

#[derive(Debug, Default)]
struct MemoryState {
    away: bool,
    rotations: u32,
    keys: BTreeMap<u64, (KeyName, DomainSecret)>,
}

impl MemoryKms {
    /// Whether it answers from now on.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Makes another version of the root key.
    pub fn rotate_root(&self) {
        self.lock().rotations += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> Result<std::sync::MutexGuard<'_, MemoryState>, KmsError> {
        let state = self.lock();
        if state.away { Err(KmsError::Away { reason: "it was told to be".into() }) } else { Ok(state) }
    }
}

impl Kms for MemoryKms {
    fn root_version(&self) -> Result<u32, KmsError> {
        self.ask().map(|state| state.rotations + 1)
    }

    fn generate(&self, name: KeyName) -> Result<WrappedKey, KmsError> {
        self.wrap(name, &fresh()?)
    }

    fn wrap(&self, name: KeyName, secret: &DomainSecret) -> Result<WrappedKey, KmsError> {
        let mut state = self.ask()?;
        let number = state.keys.len() as u64 + 1;
        state.keys.insert(number, (name, DomainSecret::new(secret.expose())));
        Ok(WrappedKey { root_version: state.rotations + 1, bytes: number.to_le_bytes().to_vec() })
    }

    fn unwrap(&self, name: KeyName, wrapped: &[u8]) -> Result<DomainSecret, KmsError> {
        let state = self.ask()?;
        let number = wrapped.try_into().map(u64::from_le_bytes).ok();
        match number.and_then(|number| state.keys.get(&number)) {
            Some((known, secret)) if *known == name => Ok(DomainSecret::new(secret.expose())),
            _ => Err(KmsError::NotAuthentic { name }),
        }
    }

    fn rewrap(&self, name: KeyName, wrapped: &[u8]) -> Result<WrappedKey, KmsError> {
        let secret = self.unwrap(name, wrapped)?;
        self.wrap(name, &secret)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::root_key::tests::golden;

    const NAME: KeyName = KeyName { domain: 1, version: 2 };

    fn both() -> [Box<dyn Kms>; 2] {
        [Box::new(FileKms::new(golden())), Box::new(MemoryKms::default())]
    }

    #[test]
    fn what_is_wrapped_unwraps_under_its_own_name_only() {
        for kms in both() {
            let wrapped = kms.generate(NAME).unwrap();
            assert_eq!(wrapped.root_version, kms.root_version().unwrap());
            let secret = kms.unwrap(NAME, &wrapped.bytes).unwrap();
            let again = kms.rewrap(NAME, &wrapped.bytes).unwrap();
            assert_ne!(again.bytes, wrapped.bytes);
            assert_eq!(kms.unwrap(NAME, &again.bytes).unwrap().expose(), secret.expose());
            let other = kms.wrap(NAME, &DomainSecret::new(&[3; 32])).unwrap();
            assert_eq!(kms.unwrap(NAME, &other.bytes).unwrap().expose(), &[3; 32]);
            for name in [KeyName { domain: 2, ..NAME }, KeyName { version: 1, ..NAME }] {
                let refused = kms.unwrap(name, &wrapped.bytes).unwrap_err();
                assert_eq!(refused, KmsError::NotAuthentic { name }, "{kms:?}");
            }
            assert_ne!(kms.generate(NAME).unwrap().bytes, kms.generate(NAME).unwrap().bytes);
        }
    }

    #[test]
    fn the_wrapped_form_stays_as_it_is() {
        let kms = FileKms::new(golden());
        let golden: Vec<u8> = include_bytes!("../testdata/wrapped-v1.bin").to_vec();
        assert_eq!(kms.unwrap(NAME, &golden).unwrap().expose(), &[0x5A; 32]);
        assert_eq!((golden.len(), golden[0], golden[17]), (WRAPPED_BYTES, 1, 3));
        assert!(!golden.windows(4).any(|bytes| bytes == [0x5A; 4]));
    }

    #[test]
    fn an_older_version_of_the_root_key_still_unwraps_and_one_that_is_gone_does_not() {
        let kms = FileKms::new(golden());
        let old = kms.wrap_under(&kms.root.versions[0], NAME, &DomainSecret::new(&[8; 32])).unwrap();
        assert_eq!(old.root_version, 1);
        assert_eq!(kms.unwrap(NAME, &old.bytes).unwrap().expose(), &[8; 32]);
        let again = kms.rewrap(NAME, &old.bytes).unwrap();
        assert_eq!(again.root_version, 3);
        let mut later = golden();
        later.versions.remove(0);
        let later = FileKms::new(later);
        assert_eq!(later.unwrap(NAME, &again.bytes).unwrap().expose(), &[8; 32]);
        let gone = later.unwrap(NAME, &old.bytes).unwrap_err();
        assert_eq!(gone, KmsError::UnknownRoot { name: NAME, root_version: 1 });
        let mut elsewhere = golden();
        elsewhere.id[0] ^= 1;
        assert!(matches!(
            FileKms::new(elsewhere).unwrap(NAME, &again.bytes),
            Err(KmsError::UnknownRoot { .. })
        ));
    }

    #[test]
    fn a_service_that_is_away_says_so() {
        let kms = MemoryKms::default();
        let wrapped = kms.generate(NAME).unwrap();
        kms.set_away(true);
        assert!(matches!(kms.unwrap(NAME, &wrapped.bytes), Err(KmsError::Away { .. })));
        assert!(matches!(kms.root_version(), Err(KmsError::Away { .. })));
        kms.set_away(false);
        kms.rotate_root();
        assert_eq!(kms.rewrap(NAME, &wrapped.bytes).unwrap().root_version, 2);
    }

    #[test]
    fn no_text_form_shows_a_key() {
        let secret = DomainSecret::new(&[0x5A; 32]);
        let text =
            format!("{secret:?} {:?} {:?}", FileKms::new(golden()), KmsError::NotAuthentic { name: NAME });
        assert!(
            !text.contains("90") && !text.to_lowercase().contains("5a") && !text.contains("31"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn a_changed_wrapped_key_stays_shut(secret: [u8; 32], at in 0..WRAPPED_BYTES, bit in 0..8u32) {
            let kms = FileKms::new(golden());
            let mut wrapped = kms.wrap(NAME, &DomainSecret::new(&secret)).unwrap().bytes;
            let opened = kms.unwrap(NAME, &wrapped).unwrap();
            prop_assert_eq!(opened.expose(), &secret);
            wrapped[at] ^= 1 << bit;
            prop_assert!(kms.unwrap(NAME, &wrapped).is_err());
        }

        #[test]
        fn garbage_does_not_unwrap(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(FileKms::new(golden()).unwrap(NAME, &bytes).is_err());
        }
    }
}

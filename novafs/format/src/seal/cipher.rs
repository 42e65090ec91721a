//! AES-256-GCM, twice: from `aes-gcm`, in Rust, and from `aws-lc-rs`, in assembly. Both give the same bytes.
//!
//! Which one is quicker depends on the machine, so whoever starts measures and chooses (docs/adr/0012). A unit says
//! nothing of who sealed it, for there is nothing to say.

use aes_gcm::aead::KeyInit as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut as _, Aes256Gcm, Tag};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Length of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Length of a tag.
pub const TAG_BYTES: usize = 16;

/// Which implementation works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CipherKind {
    /// The crate `aes-gcm`: Rust, with the processor's AES and carry-less multiplication.
    #[default]
    AesGcm,
    /// The crate `aws-lc-rs`: AWS-LC's assembly.
    AwsLc,
}

impl CipherKind {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::AesGcm, Self::AwsLc];

    /// Its crate.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aes-gcm",
            Self::AwsLc => "aws-lc-rs",
        }
    }
}

/// The bytes, the nonce, what is said beside them, the tag and the key do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not match: wrong key, or something was changed after it was sealed")]
pub struct Refused;

/// AES-256-GCM under one key.
pub trait Aead {
    /// Encrypts `plain` to `out` and gives the tag over both it and `beside`.
    ///
    /// # Panics
    /// When `out` is not as long as `plain`, or that is over 64 GiB.
    fn seal(&self, nonce: [u8; NONCE_BYTES], beside: &[u8], plain: &[u8], out: &mut [u8]) -> [u8; TAG_BYTES];

    /// Decrypts `stored` to `out`. What `out` holds after a refusal is nothing to be used.
    ///
    /// # Errors
    /// [`Refused`] when the tag does not match.
    ///
    /// # Panics
    /// When `out` is not as long as `stored`.
    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        beside: &[u8],
        stored: &[u8],
        tag: [u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), Refused>;
}

impl Aead for Aes256Gcm {
    fn seal(&self, nonce: [u8; NONCE_BYTES], beside: &[u8], plain: &[u8], out: &mut [u8]) -> [u8; TAG_BYTES] {
        let buffer = InOutBuf::new(plain, out).expect("both are equally long");
        let sealed = self.encrypt_inout_detached(&nonce.into(), beside, buffer);
        sealed.expect("far below the limit of GCM").into()
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        beside: &[u8],
        stored: &[u8],
        tag: [u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let buffer = InOutBuf::new(stored, out).expect("both are equally long");
        self.decrypt_inout_detached(&nonce.into(), beside, buffer, &Tag::from(tag)).map_err(|_| Refused)
    }
}

impl Aead for LessSafeKey {
    fn seal(&self, nonce: [u8; NONCE_BYTES], beside: &[u8], plain: &[u8], out: &mut [u8]) -> [u8; TAG_BYTES] {
        let (nonce, beside) = (Nonce::assume_unique_for_key(nonce), Aad::from(beside));
        let mut tag = [0; TAG_BYTES];
        self.seal_out_of_place_scatter(nonce, beside, plain, out, &[], &mut tag)
            .expect("both are equally long, and far below the limit of GCM");
        tag
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        beside: &[u8],
        stored: &[u8],
        tag: [u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        assert_eq!(stored.len(), out.len(), "both are equally long");
        let (nonce, beside) = (Nonce::assume_unique_for_key(nonce), Aad::from(beside));
        self.open_separate_gather(nonce, beside, stored, &tag, out).map_err(|_| Refused)
    }
}

/// One of the two under one key. It wipes itself when dropped.
pub(super) enum Cipher {
    AesGcm(Box<Aes256Gcm>),
    AwsLc(LessSafeKey),
}

impl Cipher {
    pub(super) fn new(kind: CipherKind, key: &[u8; 32]) -> Self {
        match kind {
            CipherKind::AesGcm => Self::AesGcm(Box::new(Aes256Gcm::new(&(*key).into()))),
            CipherKind::AwsLc => {
                let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256");
                Self::AwsLc(LessSafeKey::new(key))
            }
        }
    }
}

impl Aead for Cipher {
    fn seal(&self, nonce: [u8; NONCE_BYTES], beside: &[u8], plain: &[u8], out: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            Self::AesGcm(cipher) => cipher.seal(nonce, beside, plain, out),
            Self::AwsLc(cipher) => cipher.seal(nonce, beside, plain, out),
        }
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        beside: &[u8],
        stored: &[u8],
        tag: [u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        match self {
            Self::AesGcm(cipher) => cipher.open(nonce, beside, stored, tag, out),
            Self::AwsLc(cipher) => cipher.open(nonce, beside, stored, tag, out),
        }
    }
}

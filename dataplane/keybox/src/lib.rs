//! A domain key on its way to one start of one data plane: sealed to it, and opened there.
//!
//! HPKE (RFC 9180), base mode: X25519, HKDF-SHA256, AES-256-GCM. The data plane makes a key pair at its start and keeps
//! the private half in memory; whoever carries a box (the agent, shared memory, a controller's stream) cannot read it.
//! A box says by its label for whom and what it is: one that is put in the place of another does not open. Who sealed
//! it is not proved by the box but by the way it comes: mutual TLS from a controller, then the agent's own socket.
#![forbid(unsafe_code)]

use core::fmt;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

/// Bytes of a public key, and of what a key is sealed with.
pub const PUBLIC_BYTES: usize = 32;
/// Bytes of a domain key.
pub const SECRET_BYTES: usize = 32;
/// Bytes of a box: the sender's share (32), the sealed key (32), the tag (16).
pub const BOXED_BYTES: usize = PUBLIC_BYTES + SECRET_BYTES + 16;

/// Keeps boxes apart from every other use of HPKE.
const INFO: &[u8] = b"novaclustr domain key for a host 1";

/// Why a key was not sealed or opened. Says nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyboxError {
    /// The library could not make a key pair.
    #[error("the cryptographic library could not make a key pair")]
    Generate,
    /// The public key cannot be sealed to.
    #[error("the public key of the host is not one of X25519: start its data plane anew")]
    BadPublic,
    /// The box is for another start, another domain or version, or was changed.
    #[error("a key does not open: it is for another start of this data plane, or was changed on its way")]
    NotForUs,
}

/// What is in a box, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Key domain.
    pub domain: u32,
    /// Version of its key.
    pub version: u32,
    /// Start of the data plane that it is for.
    pub boot: u64,
}

impl Label {
    /// Domain u32, version u32, boot u64, little-endian.
    fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..4].copy_from_slice(&self.domain.to_le_bytes());
        out[4..8].copy_from_slice(&self.version.to_le_bytes());
        out[8..].copy_from_slice(&self.boot.to_le_bytes());
        out
    }
}

/// A sealed domain key: the sender's share, ciphertext, tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxed(pub [u8; BOXED_BYTES]);

/// Seals a domain key to the data plane that has the private half of `public`.
///
/// # Errors
/// [`KeyboxError::BadPublic`].
pub fn seal(
    public: &[u8; PUBLIC_BYTES],
    label: Label,
    secret: &[u8; SECRET_BYTES],
) -> Result<Boxed, KeyboxError> {
    let public = HpkePublicKey(public.to_vec());
    let (share, sealed) =
        SUITE.seal(INFO, &label.encode(), secret, &public).map_err(|_| KeyboxError::BadPublic)?;
    let mut out = [0; BOXED_BYTES];
    assert_eq!((share.0.len(), sealed.len()), (PUBLIC_BYTES, SECRET_BYTES + 16), "RFC 9180, section 7");
    out[..PUBLIC_BYTES].copy_from_slice(&share.0);
    out[PUBLIC_BYTES..].copy_from_slice(&sealed);
    Ok(Boxed(out))
}

/// The key pair of one start of a data plane.
pub struct HostKey {
    public: [u8; PUBLIC_BYTES],
    /// Wiped when dropped.
    private: HpkePrivateKey,
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey").finish_non_exhaustive()
    }
}

impl HostKey {
    /// Makes a key pair from the library's random numbers.
    ///
    /// # Errors
    /// [`KeyboxError::Generate`].
    pub fn generate() -> Result<Self, KeyboxError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| KeyboxError::Generate)?;
        let public = public.0.try_into().map_err(|_| KeyboxError::Generate)?;
        Ok(Self { public, private })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }

    /// Opens a box that was sealed to this key under this label.
    ///
    /// # Errors
    /// [`KeyboxError::NotForUs`].
    pub fn open(&self, label: Label, boxed: &Boxed) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyboxError> {
        let share = EncapsulatedSecret(boxed.0[..PUBLIC_BYTES].to_vec());
        let opened = SUITE
            .open(&share, INFO, &label.encode(), &boxed.0[PUBLIC_BYTES..], &self.private)
            .map(Zeroizing::new)
            .map_err(|_| KeyboxError::NotForUs)?;
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        if opened.len() != SECRET_BYTES {
            return Err(KeyboxError::NotForUs);
        }
        secret.copy_from_slice(&opened);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: Label = Label { domain: 1, version: 2, boot: 3 };

    #[test]
    fn a_key_reaches_the_start_that_it_was_sealed_to_and_no_other() {
        let (here, elsewhere) = (HostKey::generate().unwrap(), HostKey::generate().unwrap());
        let boxed = seal(&here.public(), LABEL, &[7; 32]).unwrap();
        assert_eq!(*here.open(LABEL, &boxed).unwrap(), [7; 32]);
        assert_eq!(elsewhere.open(LABEL, &boxed).unwrap_err(), KeyboxError::NotForUs);
        for label in [Label { domain: 2, ..LABEL }, Label { version: 1, ..LABEL }, Label { boot: 4, ..LABEL }]
        {
            assert_eq!(here.open(label, &boxed).unwrap_err(), KeyboxError::NotForUs, "{label:?}");
        }
        assert_ne!(seal(&here.public(), LABEL, &[7; 32]).unwrap(), boxed, "each box has a share of its own");
    }

    #[test]
    fn the_zero_point_is_not_sealed_to() {
        assert_eq!(seal(&[0; 32], LABEL, &[7; 32]).unwrap_err(), KeyboxError::BadPublic);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", HostKey::generate().unwrap()), "HostKey { .. }");
    }

    proptest! {
        #[test]
        fn a_changed_box_stays_shut(at in 0..BOXED_BYTES, bit in 0..8u32, secret: [u8; 32]) {
            let here = HostKey::generate().unwrap();
            let mut boxed = seal(&here.public(), LABEL, &secret).unwrap();
            boxed.0[at] ^= 1 << bit;
            // X25519 ignores the highest bit of a share, and HPKE binds the share as it was sent.
            prop_assert_eq!(here.open(LABEL, &boxed).unwrap_err(), KeyboxError::NotForUs);
        }

        #[test]
        fn garbage_does_not_open(bytes in prop::collection::vec(any::<u8>(), BOXED_BYTES)) {
            let here = HostKey::generate().unwrap();
            let boxed = Boxed(bytes.try_into().unwrap());
            prop_assert_eq!(here.open(LABEL, &boxed).unwrap_err(), KeyboxError::NotForUs);
        }
    }
}

//! Where keys arrive: the key pair of this start, which opens what the controllers sealed to it.

use nova_keybox::{Boxed, HostKey, KeyboxError, Label};
use nova_units::BootId;
use novafs_format::seal::{CipherKind, DomainKey};

use crate::attendance::GivenKey;

/// Opens keys that come in boxes. The private half never leaves it and dies with the process.
#[derive(Debug)]
pub(crate) struct Desk {
    pair: HostKey,
    boot: BootId,
    cipher: CipherKind,
}

impl Desk {
    /// Makes the key pair of this start.
    pub(crate) fn open(boot: BootId, cipher: CipherKind) -> Result<Self, KeyboxError> {
        Ok(Self { pair: HostKey::generate()?, boot, cipher })
    }

    /// What keys are to be sealed to.
    pub(crate) fn public(&self) -> [u8; nova_keybox::PUBLIC_BYTES] {
        self.pair.public()
    }

    /// The key in a box.
    pub(crate) fn unpack(&self, given: &GivenKey) -> Result<DomainKey, KeyboxError> {
        let label = Label { domain: given.domain, version: given.version, boot: self.boot.0 };
        let secret = self.pair.open(label, &Boxed(given.boxed))?;
        Ok(DomainKey::new(given.domain, given.version, *secret).with_cipher(self.cipher))
    }
}

//! A sum by which replicas compare their states.

use sha2::{Digest as _, Sha256};

/// SHA-256 over what `encode` writes. `encode` is a state's own; equal states give equal digests.
pub fn digest(encode: impl FnOnce(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
    let mut sum = Sha256::new();
    encode(&mut |piece| sum.update(piece));
    sum.finalize().into()
}

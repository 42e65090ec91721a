//! BLAKE3, of a block and of a file over its blocks.

use core::fmt;

/// 32 bytes that no other content has.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 64 bits.
    #[must_use]
    pub const fn first(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The first 64 bits in hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{:016x}", self.first())
    }
}

/// The digest of a file of `bytes`, over the numbers and digests of its blocks in order; holes have none.
#[must_use]
pub fn root_of(bytes: u64, blocks: impl IntoIterator<Item = (u32, Digest)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes.to_be_bytes());
    for (block, digest) in blocks {
        hasher.update(&block.to_be_bytes());
        hasher.update(&digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_blake3_and_the_root_knows_length_and_order() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let root = root_of(2, [(0, a), (1, b)]);
        for other in
            [root_of(2, [(0, b), (1, a)]), root_of(3, [(0, a), (1, b)]), root_of(2, [(0, a), (2, b)])]
        {
            assert_ne!(root, other);
        }
    }
}

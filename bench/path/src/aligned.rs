//! Memory that direct I/O accepts.

use std::ops::{Deref, DerefMut};

/// What direct I/O asks of addresses, lengths and positions, in bytes.
pub const ALIGNMENT: usize = 4096;

/// Zeroed bytes that begin on a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBytes {
    /// Takes `bytes` of memory; a multiple of [`ALIGNMENT`] when it is for direct I/O.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let memory = vec![0; bytes + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        assert!(start <= ALIGNMENT, "a byte address can always be aligned");
        Self { memory, start, bytes }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_on_a_page() {
        for bytes in [1, 4096, 1 << 20] {
            let memory = AlignedBytes::zeroed(bytes);
            assert_eq!(memory.len(), bytes);
            assert_eq!(memory.as_ptr().addr() % ALIGNMENT, 0);
        }
    }
}

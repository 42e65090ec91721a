//! A log of few entries, each a number of its own.

/// Entries in order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Log(pub(crate) u16);

impl Log {
    /// Entries that fit.
    pub(crate) const ENTRIES_MAX: u8 = 4;
    const BITS: u8 = 4;

    pub(crate) fn len(self) -> u8 {
        let bits = 16 - u8::try_from(self.0.leading_zeros()).expect("at most 16");
        bits.div_ceil(Self::BITS)
    }

    pub(crate) fn entries(self) -> impl Iterator<Item = u8> {
        (0..self.len())
            .map(move |index| u8::try_from(self.0 >> (index * Self::BITS) & 0xf).expect("four bits"))
    }

    pub(crate) fn push(&mut self, entry: u8) {
        assert!(self.len() < Self::ENTRIES_MAX && (1..16).contains(&entry), "bounds have few writes");
        self.0 |= u16::from(entry) << (self.len() * Self::BITS);
    }

    pub(crate) fn first(self, count: u8) -> Self {
        if count >= Self::ENTRIES_MAX { self } else { Self(self.0 & ((1 << (count * Self::BITS)) - 1)) }
    }

    pub(crate) fn starts_with(self, other: Self) -> bool {
        self.first(other.len()) == other
    }
}

impl core::fmt::Debug for Log {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_its_entries_in_order() {
        let mut log = Log::default();
        for entry in [3, 1, 4, 2] {
            log.push(entry);
        }
        assert_eq!(log.entries().collect::<Vec<_>>(), [3, 1, 4, 2]);
        assert_eq!(log.first(4), log);
        assert_eq!(log.first(2).entries().collect::<Vec<_>>(), [3, 1]);
        assert!(log.starts_with(log.first(3)) && !log.first(2).starts_with(log));
        assert_eq!(log.first(0).len(), 0);
    }
}

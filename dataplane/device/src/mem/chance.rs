//! A probability without floating point, so that every machine draws alike.

/// How often something happens, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Every time.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `parts` times in a million.
    ///
    /// # Panics
    /// Above one million.
    #[must_use]
    pub const fn per_million(parts: u32) -> Self {
        assert!(parts <= 1_000_000, "a chance is at most one");
        Self(parts)
    }

    /// `parts` times in a hundred.
    ///
    /// # Panics
    /// Above one hundred.
    #[must_use]
    pub const fn percent(parts: u32) -> Self {
        assert!(parts <= 100, "a chance is at most one");
        Self(parts * 10_000)
    }

    /// Draws once. Draws nothing when the answer is certain, so that a fault switched off leaves a run as it was.
    pub(crate) fn hits(self, rng: &mut fastrand::Rng) -> bool {
        match self {
            Self::NEVER => false,
            Self::ALWAYS => true,
            Self(parts) => rng.u32(0..1_000_000) < parts,
        }
    }
}

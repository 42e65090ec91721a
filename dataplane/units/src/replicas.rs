//! How many copies of a block there are.

use core::fmt;

/// How many members a replica group should have: the copies of every block in it (Spec 3.2).
///
/// At least [`Replicas::MIN`], because an acknowledged write is durable on two members; at most [`Replicas::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replicas(u8);

impl Replicas {
    /// The fewest: with one copy alone no write could be acknowledged.
    pub const MIN: Self = Self(2);
    /// The most.
    pub const MAX: Self = Self(5);
    /// Spec 3.2: where nothing else is said.
    pub const DEFAULT: Self = Self(3);
    /// What a person is told who asks for another count.
    pub const RANGE: &str = "a block has 2 to 5 copies: an acknowledged write is durable on two hosts at least, so one is too few";

    /// This many copies; `None` when that is out of range.
    #[must_use]
    pub fn new(count: u32) -> Option<Self> {
        let replicas = Self(u8::try_from(count).ok()?);
        (Self::MIN..=Self::MAX).contains(&replicas).then_some(replicas)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.into()
    }

    /// The number, to compare with how many members there are.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0 as usize
    }

    /// Every number of copies that a group may keep, from the fewest on.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::MIN.0..=Self::MAX.0).map(Self)
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_to_five_copies_can_be_asked_for() {
        let known: Vec<u32> = (0..300).filter_map(Replicas::new).map(Replicas::get).collect();
        assert_eq!(known, [2, 3, 4, 5]);
        assert_eq!(Replicas::all().map(Replicas::count).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(Replicas::new(u32::MAX), None);
    }
}

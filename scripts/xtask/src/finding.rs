//! What a check has to say: which rule, where, and what to do about it.

use std::fmt;

/// One place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// File with line, crate, or package.
    pub(crate) place: String,
    /// Short name of the rule, the same for all its findings.
    pub(crate) rule: &'static str,
    /// What is wrong and what to do.
    pub(crate) advice: String,
}

impl Finding {
    /// A finding at `place`.
    pub(crate) fn new(rule: &'static str, place: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { place: place.into(), rule, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [{}] {}", self.place, self.rule, self.advice)
    }
}

//! SPDX expressions: `AND`, `OR`, `WITH`, parentheses, and the old `/` that means `OR`.

/// Whether `expression` can be met with licences that are `allowed`; `None` when it cannot be parsed.
///
/// A licence with an exception (`X WITH Y`) grants more than `X`, so `X` alone decides; `X+` is met by `X`.
pub(super) fn is_satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let satisfied = parser.any()?;
    parser.words.is_empty().then_some(satisfied)
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    /// `OR` binds weakest.
    fn any(&mut self) -> Option<bool> {
        let mut satisfied = self.all()?;
        while self.take("OR") {
            satisfied |= self.all()?;
        }
        Some(satisfied)
    }

    fn all(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.take("AND") {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let satisfied = self.any()?;
            return self.take(")").then_some(satisfied);
        }
        let name = self.next().filter(|word| !["OR", "AND", "WITH", ")"].contains(word))?;
        if self.take("WITH") {
            self.next()?;
        }
        Some((self.allowed)(name.trim_end_matches('+')))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn satisfied(expression: &str) -> Option<bool> {
        is_satisfied(expression, &|name| name == "MIT" || name == "ISC")
    }

    #[test]
    fn or_needs_one_and_needs_both() {
        assert_eq!(satisfied("MIT OR GPL-2.0"), Some(true));
        assert_eq!(satisfied("GPL-2.0/MIT"), Some(true));
        assert_eq!(satisfied("MIT AND GPL-2.0"), Some(false));
        assert_eq!(satisfied("MIT AND ISC"), Some(true));
    }

    #[test]
    fn and_binds_tighter_than_or_and_parentheses_override() {
        assert_eq!(satisfied("MIT OR GPL-2.0 AND BSD-3-Clause"), Some(true));
        assert_eq!(satisfied("(MIT OR GPL-2.0) AND BSD-3-Clause"), Some(false));
        assert_eq!(satisfied("(GPL-2.0 OR MIT) AND ISC"), Some(true));
    }

    #[test]
    fn exceptions_and_later_versions_are_judged_by_their_licence() {
        assert_eq!(satisfied("MIT WITH some-exception"), Some(true));
        assert_eq!(satisfied("ISC+"), Some(true));
    }

    #[test]
    fn what_does_not_parse_is_not_satisfied() {
        for text in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT ISC"] {
            assert_eq!(satisfied(text), None, "{text}");
        }
    }
}

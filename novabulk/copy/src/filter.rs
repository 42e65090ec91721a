//! Which entries are copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use novabulk_files::Name;

use crate::trouble::CopyError;

/// Patterns. One without a slash is about the last component; one with a slash is about the whole name below the source.
#[derive(Clone, Debug)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Filter {
    /// Of these patterns; without one to include, every file is included.
    ///
    /// # Errors
    /// When a pattern cannot be understood.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, CopyError> {
        let include = if include.is_empty() { None } else { Some(set(include)?) };
        Ok(Self { include, exclude: set(exclude)? })
    }

    /// Whether the entry, and all below it, is left out.
    #[must_use]
    pub fn excludes(&self, name: &Name) -> bool {
        self.exclude.is_match(path(name))
    }

    /// Whether the file is copied.
    #[must_use]
    pub fn takes_file(&self, name: &Name) -> bool {
        !self.excludes(name) && self.include.as_ref().is_none_or(|include| include.is_match(path(name)))
    }

    /// Whether only some files are copied; then directories without one of them are left out.
    #[must_use]
    pub const fn includes_some(&self) -> bool {
        self.include.is_some()
    }
}

fn path(name: &Name) -> &Path {
    Path::new(OsStr::from_bytes(name.as_bytes()))
}

fn set(patterns: &[String]) -> Result<GlobSet, CopyError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let failed = |error: globset::Error| CopyError::Pattern {
            pattern: pattern.clone(),
            why: error.kind().to_string(),
        };
        let stripped = pattern.trim_end_matches('/');
        let anywhere = match stripped.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if stripped.contains('/') => stripped.to_owned(),
            None => format!("**/{stripped}"),
        };
        let glob = GlobBuilder::new(&anywhere).literal_separator(true).build().map_err(failed)?;
        set.add(glob);
    }
    set.build()
        .map_err(|error| CopyError::Pattern { pattern: patterns.join(" "), why: error.kind().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn patterns(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_pattern_without_a_slash_is_about_the_last_component() {
        let filter = Filter::new(&[], &patterns(&["*.tmp", "target/", "a/*.o", "/top"])).unwrap();
        for (text, out) in [
            ("x.tmp", true),
            ("d/e/x.tmp", true),
            ("d/target", true),
            ("a/b.o", true),
            ("z/a/b.o", false),
            ("a/c/b.o", false),
            ("top", true),
            ("d/top", false),
            ("x.tmpl", false),
        ] {
            assert_eq!(filter.excludes(&name(text)), out, "{text}");
        }
    }

    #[test]
    fn with_patterns_to_include_one_must_match_and_none_to_exclude() {
        let filter = Filter::new(&patterns(&["*.rs"]), &patterns(&["old*"])).unwrap();
        assert!(filter.takes_file(&name("src/a.rs")) && filter.includes_some());
        assert!(!filter.takes_file(&name("src/old.rs")) && !filter.takes_file(&name("a.md")));
        assert!(Filter::new(&[], &[]).unwrap().takes_file(&name("anything")));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let error = Filter::new(&patterns(&["a[b"]), &[]).unwrap_err();
        assert!(error.to_string().contains("a[b"), "{error}");
    }
}

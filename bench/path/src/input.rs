//! Which files go in: regular ones, in sorted order, up to a limit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The first file that would go over this ends the choice.
    pub bytes: u64,
    /// As many files at most.
    pub files: usize,
}

impl Limit {
    /// Everything.
    pub const NONE: Self = Self { bytes: u64::MAX, files: usize::MAX };
}

/// A file to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path below [`Input::base`].
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Input {
    /// Folder that all names are below.
    pub base: PathBuf,
    /// The files, each directory in sorted order.
    pub files: Vec<SourceFile>,
    /// Links, special files, files we may not read, and names that do not fit into a list of lines.
    pub skipped: u64,
}

impl Input {
    /// Chooses files below the folders `roots` of `base`, in sorted order, until `limit` is reached.
    ///
    /// # Errors
    /// When `base` or a root cannot be read, or there is nothing to put.
    pub fn choose(base: &Path, roots: &[&str], limit: Limit) -> Result<Self> {
        let mut input = Self { base: base.to_owned(), files: Vec::new(), skipped: 0 };
        let mut bytes = 0;
        // A stack of what is still to be seen, the next on top: names stay in sorted order without recursion.
        let mut ahead: Vec<String> = roots.iter().rev().map(|root| (*root).to_owned()).collect();
        while let Some(name) = ahead.pop() {
            let path = base.join(&name);
            let kind = match fs::symlink_metadata(&path) {
                Ok(kind) => kind,
                Err(error) if roots.contains(&name.as_str()) => {
                    return Err(error).with_context(|| format!("read {}", path.display()));
                }
                Err(_) => {
                    input.skipped += 1;
                    continue;
                }
            };
            if kind.is_dir() {
                match fs::read_dir(&path) {
                    Ok(entries) => input.push_sorted(entries, &name, &mut ahead),
                    Err(error) if roots.contains(&name.as_str()) => {
                        return Err(error).with_context(|| format!("read {}", path.display()));
                    }
                    Err(_) => input.skipped += 1,
                }
            } else if kind.is_file() && !name.contains(['\n', '\r']) && File::open(&path).is_ok() {
                if !input.files.is_empty() && bytes + kind.len() > limit.bytes {
                    break;
                }
                bytes += kind.len();
                input.files.push(SourceFile { name, bytes: kind.len() });
                if input.files.len() >= limit.files {
                    break;
                }
            } else {
                input.skipped += 1;
            }
        }
        if input.bytes() == 0 {
            bail!("there is nothing to put below {}; name a folder with files", base.display());
        }
        Ok(input)
    }

    fn push_sorted(&mut self, entries: fs::ReadDir, folder: &str, ahead: &mut Vec<String>) {
        let mut names = Vec::new();
        for entry in entries.flatten() {
            match entry.file_name().into_string() {
                Ok(name) if folder.is_empty() => names.push(name),
                Ok(name) => names.push(format!("{folder}/{name}")),
                Err(_) => self.skipped += 1,
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        ahead.extend(names);
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The first files that hold `1 / parts` of all bytes, and at least one.
    #[must_use]
    pub fn first_part(&self, parts: u64) -> &[SourceFile] {
        let mut left = self.bytes() / parts;
        let enough = self.files.iter().position(|file| {
            let last = file.bytes >= left;
            left = left.saturating_sub(file.bytes);
            last
        });
        &self.files[..enough.map_or(self.files.len(), |at| at + 1)]
    }

    /// A name below which nothing of the input lies.
    #[must_use]
    pub fn free_name(&self, wanted: &str) -> String {
        let taken = |name: &str| self.files.iter().any(|file| file.name.split('/').next() == Some(name));
        let mut name = wanted.to_owned();
        while taken(&name) {
            name.push('_');
        }
        name
    }

    /// Writes the names of `files` to `path`, one a line.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn write_list(files: &[SourceFile], path: &Path) -> Result<()> {
        let mut text = String::new();
        for file in files {
            text.push_str(&file.name);
            text.push('\n');
        }
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("share/b/2", 20), ("share/b/1", 10), ("share/a", 5), ("lib/x", 7), ("other/z", 9)]
        {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; bytes]).unwrap();
        }
        std::os::unix::fs::symlink("a", folder.path().join("share/link")).unwrap();
        folder
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn files_come_in_sorted_order_and_links_are_counted() {
        let tree = tree();
        let input = Input::choose(tree.path(), &["share", "lib"], Limit::NONE).unwrap();
        assert_eq!(names(&input.files), ["share/a", "share/b/1", "share/b/2", "lib/x"]);
        assert_eq!((input.bytes(), input.skipped), (42, 1));
        let whole = Input::choose(tree.path(), &[""], Limit::NONE).unwrap();
        assert_eq!(names(&whole.files), ["lib/x", "other/z", "share/a", "share/b/1", "share/b/2"]);
    }

    #[test]
    fn the_choice_ends_before_a_limit() {
        let tree = tree();
        let chosen = |bytes, files| {
            let input = Input::choose(tree.path(), &["share"], Limit { bytes, files }).unwrap();
            input.files.len()
        };
        assert_eq!(chosen(15, 9), 2);
        assert_eq!(chosen(14, 9), 1);
        assert_eq!(chosen(1, 9), 1, "one file goes in always");
        assert_eq!(chosen(100, 2), 2);
    }

    #[test]
    fn a_part_has_its_share_of_the_bytes() {
        let tree = tree();
        let input = Input::choose(tree.path(), &["share", "lib"], Limit::NONE).unwrap();
        assert_eq!(names(input.first_part(3)), ["share/a", "share/b/1"]);
        assert_eq!(input.first_part(1).len(), 4);
        assert_eq!(input.first_part(1000).len(), 1);
    }

    #[test]
    fn a_taken_name_is_not_used_again() {
        let tree = tree();
        let input = Input::choose(tree.path(), &["share"], Limit::NONE).unwrap();
        assert_eq!(input.free_name("second"), "second");
        assert_eq!(input.free_name("share"), "share_");
    }

    #[test]
    fn an_empty_folder_and_a_missing_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            Input::choose(folder.path(), &[""], Limit::NONE)
                .unwrap_err()
                .to_string()
                .contains("nothing to put")
        );
        assert!(Input::choose(folder.path(), &["missing"], Limit::NONE).is_err());
    }
}

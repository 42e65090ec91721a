//! Finds the local files that a put takes, and under which names.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, Metadata};
use std::io::{self, BufRead};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use novafs_client::Source;

use crate::exit::Stop;
use crate::fs::path;

/// What was found below the sources.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Regular files with their targets, in order of their names.
    pub(super) files: Vec<Source>,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Directories that no file makes as they are, each before what it holds: empty, or with another mode.
    pub(super) directories: Vec<Directory>,
    /// Symbolic links: where they go and what they say.
    pub(super) links: Vec<(String, String)>,
    /// Further names of files: the target of the first name, and that of this one.
    pub(super) names: Vec<(String, String)>,
    /// Whether a file with several names is taken as several files.
    pub(super) apart: bool,
    /// Where files with several names go under their first, by device and inode.
    pub(super) first_names: HashMap<(u64, u64), String>,
    /// Sockets, pipes and devices: they are left out.
    pub(super) skipped: u64,
    /// What could not be taken, and why.
    pub(super) failed: Vec<String>,
}

/// A directory to make.
#[derive(Debug, PartialEq)]
pub(super) struct Directory {
    pub(super) target: String,
    pub(super) mode: u32,
}

/// Mode of a directory that a file makes on its way.
const MODE_ON_THE_WAY: u32 = 0o755;

impl Found {
    /// Adds `local`, a file or a directory with everything below it, under the name `target`.
    ///
    /// # Errors
    /// When there is no `local`, or it cannot be looked at. What is wrong further down is in [`Found::failed`].
    pub(super) fn add(&mut self, local: &Path, target: String) -> anyhow::Result<()> {
        let about = match fs::symlink_metadata(local) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Stop::not_found(format!("there is no {}", local.display())));
            }
            Err(error) => return Err(error).with_context(|| format!("look at {}", local.display())),
        };
        // A stack of our own: the depth of a tree is not ours to choose.
        let mut waiting = vec![(local.to_owned(), target, about)];
        while let Some((local, target, about)) = waiting.pop() {
            if about.is_dir() {
                match children(&local) {
                    Ok(children) => {
                        let mode = about.mode() & 0o7777;
                        if children.is_empty() || mode != MODE_ON_THE_WAY {
                            self.directories.push(Directory { target: target.clone(), mode });
                        }
                        self.add_children(children, &target, &mut waiting);
                    }
                    Err(error) => self.failed.push(format!("list {}: {error}", local.display())),
                }
            } else {
                self.add_file(local, target, &about);
            }
        }
        Ok(())
    }

    fn add_children(
        &mut self,
        children: Vec<(PathBuf, io::Result<Metadata>)>,
        target: &str,
        waiting: &mut Vec<(PathBuf, String, Metadata)>,
    ) {
        // The stack gives back the last first.
        for (local, about) in children.into_iter().rev() {
            let name = local.file_name().and_then(|name| name.to_str());
            match (name, about) {
                (Some(name), Ok(about)) => {
                    let target = path::join(target, name);
                    waiting.push((local, target, about));
                }
                (None, _) => self.failed.push(format!("{}: the name is not UTF-8", local.display())),
                // A file that went away while we walked was not there to be put.
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                (_, Err(error)) => self.failed.push(format!("look at {}: {error}", local.display())),
            }
        }
    }

    fn add_file(&mut self, local: PathBuf, target: String, about: &Metadata) {
        if about.is_symlink() {
            match fs::read_link(&local).map(|text| text.into_os_string().into_string()) {
                Ok(Ok(text)) => self.links.push((target, text)),
                Ok(Err(_)) => self.failed.push(format!("{}: what it says is not UTF-8", local.display())),
                Err(error) => self.failed.push(format!("read the link {}: {error}", local.display())),
            }
            return;
        }
        if !about.is_file() {
            self.skipped += 1;
            return;
        }
        if about.nlink() > 1 && !self.apart {
            match self.first_names.entry((about.dev(), about.ino())) {
                Entry::Occupied(first) => {
                    self.names.push((first.get().clone(), target));
                    return;
                }
                Entry::Vacant(first) => {
                    first.insert(target.clone());
                }
            }
        }
        self.bytes += about.len();
        self.files.push(Source { local, target });
    }

    /// Adds each path of `list`, one a line, absolute or relative to `base`. Names below `target` are those below
    /// `base`.
    pub(super) fn add_list(&mut self, list: impl BufRead, base: &Path, target: &str) -> anyhow::Result<()> {
        for line in list.split(b'\n') {
            use std::os::unix::ffi::OsStrExt as _;
            let line = line.context("read the list of files")?;
            if !line.is_empty() {
                self.add_below(Path::new(std::ffi::OsStr::from_bytes(&line)), base, target)?;
            }
        }
        Ok(())
    }

    /// Adds one path, absolute or relative to `base`, under its name below `base`.
    pub(super) fn add_below(&mut self, local: &Path, base: &Path, target: &str) -> anyhow::Result<()> {
        let relative = local
            .strip_prefix(base)
            .or_else(|error| if local.is_absolute() { Err(error) } else { Ok(local) });
        let Ok(relative) = relative else {
            return Err(Stop::usage(format!(
                "{} does not lie below {}: name its base with --base DIR",
                local.display(),
                base.display()
            )));
        };
        match path::below(relative) {
            Some(below) => self.add(&base.join(relative), path::join(target, &below)),
            None => {
                self.failed
                    .push(format!("{}: the name is not UTF-8, or leads out of its base", local.display()));
                Ok(())
            }
        }
    }
}

/// What is in a directory, in order of its names.
fn children(folder: &Path) -> io::Result<Vec<(PathBuf, io::Result<Metadata>)>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths
        .into_iter()
        .map(|path| {
            let about = fs::symlink_metadata(&path);
            (path, about)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("b/deep/2"), "22").unwrap();
        fs::write(at("b/1"), "1").unwrap();
        fs::write(at("a"), "333").unwrap();
        symlink("a", at("link")).unwrap();
        symlink("b", at("folder-link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        folder
    }

    fn targets(found: &Found) -> Vec<&str> {
        found.files.iter().map(|source| source.target.as_str()).collect()
    }

    #[test]
    fn a_tree_is_walked_in_order_with_its_links_and_sockets_are_skipped() {
        let folder = tree();
        let mut found = Found::default();
        found.add(folder.path(), "/hot".into()).unwrap();
        assert_eq!(targets(&found), ["/hot/a", "/hot/b/1", "/hot/b/deep/2"]);
        assert_eq!((found.bytes, found.skipped), (6, 1));
        let link = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(found.links, [link("/hot/folder-link", "b"), link("/hot/link", "a")]);
        assert!(found.directories.iter().any(|directory| directory.target == "/hot/empty"));
        assert_eq!(found.failed, Vec::<String>::new());
    }

    #[test]
    fn a_list_keeps_the_paths_below_its_base() {
        let folder = tree();
        let absolute = folder.path().join("b/1");
        let list = format!("a\n\n{}\nb/deep\nlink\n", absolute.display());
        let mut found = Found::default();
        found.add_list(list.as_bytes(), folder.path(), "/hot").unwrap();
        assert_eq!(targets(&found), ["/hot/a", "/hot/b/1", "/hot/b/deep/2"]);
        assert_eq!(found.files[1].local, absolute);
        assert_eq!((found.skipped, found.links.len()), (0, 1));
    }

    #[test]
    fn a_second_name_of_a_file_is_told_as_one_unless_they_are_wanted_apart() {
        let folder = tree();
        fs::hard_link(folder.path().join("a"), folder.path().join("b/again")).unwrap();
        let mut found = Found::default();
        found.add(folder.path(), "/hot".into()).unwrap();
        assert_eq!(targets(&found), ["/hot/a", "/hot/b/1", "/hot/b/deep/2"]);
        assert_eq!(found.names, [("/hot/a".to_owned(), "/hot/b/again".to_owned())]);
        let mut apart = Found { apart: true, ..Found::default() };
        apart.add(folder.path(), "/hot".into()).unwrap();
        assert_eq!((apart.files.len(), apart.names.len()), (4, 0));
    }

    #[test]
    fn a_directory_with_a_mode_of_its_own_is_told_before_what_it_holds() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tree();
        for (name, mode) in [("b", 0o750), ("b/deep", 0o700), ("empty", 0o755)] {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut found = Found::default();
        found.add(&folder.path().join("b"), "/hot/b".into()).unwrap();
        found.add(&folder.path().join("empty"), "/hot/empty".into()).unwrap();
        let told: Vec<_> = found.directories.iter().map(|it| (it.target.as_str(), it.mode)).collect();
        assert_eq!(told, [("/hot/b", 0o750), ("/hot/b/deep", 0o700), ("/hot/empty", 0o755)]);
    }

    #[test]
    fn a_path_outside_the_base_or_not_there_is_refused() {
        let folder = tree();
        let mut found = Found::default();
        let mut add = |path: &str| found.add_below(Path::new(path), folder.path(), "/hot");
        assert!(add("/etc/hostname").unwrap_err().to_string().contains("--base"));
        assert_eq!(crate::exit::kind_of(&add("none").unwrap_err()), crate::exit::Kind::NotFound);
        add("../x").unwrap();
        assert_eq!(found.failed.len(), 1);
    }

    #[test]
    fn a_name_that_is_not_utf8_fails_alone() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tree();
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"b/\xff")), "x").unwrap();
        let mut found = Found::default();
        found.add(folder.path(), "/hot".into()).unwrap();
        assert_eq!((found.files.len(), found.failed.len()), (3, 1));
    }
}

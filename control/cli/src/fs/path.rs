//! Names in NovaFS as people type them.

use std::path::{Component, Path};

use crate::exit::Stop;

/// An absolute path with single slashes and none at its end; `/` is the root.
pub(crate) fn checked(text: &str) -> anyhow::Result<String> {
    if !text.starts_with('/') {
        return Err(Stop::usage(format!("{text:?} is no path in NovaFS: those begin with /")));
    }
    let mut path = String::with_capacity(text.len());
    for part in text.split('/').filter(|part| !part.is_empty()) {
        if matches!(part, "." | "..") {
            return Err(Stop::usage(format!("{text:?} holds {part:?}: name the path itself")));
        }
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

/// What lies at `below` under `path`; `path` itself when `below` is empty.
pub(super) fn join(path: &str, below: &str) -> String {
    match (path, below) {
        (path, "") => path.to_owned(),
        (path, below) => format!("{}/{below}", path.trim_end_matches('/')),
    }
}

/// The last part of a path; empty for the root.
pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The directory that holds `path`; `None` for what lies directly under the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty())
}

/// The namespace that `path` lies in.
pub(super) fn namespace(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/').split('/').next().unwrap_or_default())
}

/// A local path below its base as a path below a target: `None` when a name is not UTF-8, or leads out of the base.
pub(super) fn below(path: &Path) -> Option<String> {
    let mut text = String::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                if !text.is_empty() {
                    text.push('/');
                }
                text.push_str(part.to_str()?);
            }
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn typed_paths_lose_needless_slashes_and_must_be_absolute() {
        assert_eq!(checked("//hot///a/").unwrap(), "/hot/a");
        assert_eq!(checked("/").unwrap(), "/");
        for wrong in ["hot", "", "/hot/../x", "/./x"] {
            assert_eq!(
                crate::exit::kind_of(&checked(wrong).unwrap_err()),
                crate::exit::Kind::Usage,
                "{wrong}"
            );
        }
    }

    #[test]
    fn paths_join_with_one_slash() {
        assert_eq!(join("/", "a/b"), "/a/b");
        assert_eq!(join("/hot", "a"), "/hot/a");
        assert_eq!(join("/hot", ""), "/hot");
        assert_eq!((name("/hot/a"), name("/")), ("a", ""));
        assert_eq!((parent("/hot/a/b"), parent("/hot")), (Some("/hot/a"), None));
        assert_eq!((namespace("/hot/a/b"), namespace("/hot")), ("/hot".into(), "/hot".into()));
    }

    #[test]
    fn a_local_path_stays_below_its_target() {
        assert_eq!(below(Path::new("./usr/share/x")).as_deref(), Some("usr/share/x"));
        assert_eq!(below(Path::new("")).as_deref(), Some(""));
        assert_eq!(below(Path::new("a/../../x")), None);
        assert_eq!(below(Path::new("/etc")), None);
        assert_eq!(below(Path::new(OsStr::from_bytes(b"a\xff"))), None);
    }
}

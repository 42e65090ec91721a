//! A side of a copy: a local path, or a path at a host.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use novabulk_copy::files::Name;

use crate::exit::{Kind, Stop};

/// What a remote side may begin with.
const SCHEME: &str = "nova://";

/// A side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Here(PathBuf),
    /// Below the folder that a host serves.
    There {
        /// Where the host listens.
        address: SocketAddr,
        /// The path, without slashes at its ends.
        name: Name,
        /// Whether it ended with a slash, or is the folder itself.
        is_folder: bool,
    },
}

/// Tells which side `text` is. `HOST:PORT/path` is remote; a local path that looks like one is written as `./path`.
pub(crate) fn parse(text: &str) -> anyhow::Result<Place> {
    let (rest, marked) = match text.strip_prefix(SCHEME) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, path),
        None => (rest, ""),
    };
    let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !marked && !matches!(port, Some(Ok(_))) {
        return Ok(Place::Here(PathBuf::from(text)));
    }
    let unknown = |why: String| {
        Stop::error(Kind::NotFound, format!("{host} is no address: {why}; give HOST:PORT/path"))
    };
    let mut addresses = host.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| unknown("the name has none".to_owned()))?;
    let trimmed = path.trim_matches('/');
    let name = Name::new(trimmed).map_err(|error| Stop::usage(format!("{text}: {error}")))?;
    Ok(Place::There { address, is_folder: trimmed.is_empty() || path.ends_with('/'), name })
}

/// The name of a local path below `/`, with no link in its folder: `.` and `..` are gone. What does not exist yet keeps
/// its last components.
pub(crate) fn name_of(path: &Path) -> anyhow::Result<Name> {
    let absolute = std::path::absolute(path)?;
    let failed = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Failed };
        Stop::error(kind, format!("{}: {error}", path.display()))
    };
    let resolved = match (absolute.parent(), absolute.file_name()) {
        // The last component may be a link that is meant itself.
        (Some(folder), Some(last)) => resolve(folder).map_err(failed)?.join(last),
        _ => absolute.canonicalize().map_err(failed)?,
    };
    let bytes = resolved.as_os_str().as_bytes();
    Name::new(bytes.strip_prefix(b"/").unwrap_or(bytes))
        .map_err(|error| Stop::usage(format!("{}: {error}", path.display())))
}

/// Without links, as far as it exists.
fn resolve(folder: &Path) -> std::io::Result<PathBuf> {
    match (folder.canonicalize(), folder.parent(), folder.file_name()) {
        (Err(error), Some(above), Some(last)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(resolve(above)?.join(last))
        }
        (resolved, ..) => resolved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_make_a_side_remote_and_everything_else_is_a_path() {
        for (text, name, is_folder) in [
            ("127.0.0.1:9470/a/b", "a/b", false),
            ("127.0.0.1:9470/a/", "a", true),
            ("127.0.0.1:9470", "", true),
            ("nova://127.0.0.1:9470/x", "x", false),
            ("[::1]:9470//x", "x", false),
        ] {
            let Place::There { name: found, is_folder: folder, .. } = parse(text).unwrap() else {
                panic!("{text} is remote")
            };
            assert_eq!((found.as_bytes(), folder), (name.as_bytes(), is_folder), "{text}");
        }
        for text in ["a", "/a:b/c", "./127.0.0.1:9470/a", "C:/x", "a:99999/x"] {
            assert_eq!(parse(text).unwrap(), Place::Here(text.into()));
        }
    }

    #[test]
    fn a_remote_name_that_leads_elsewhere_is_refused() {
        let error = parse("127.0.0.1:9470/../etc").unwrap_err();
        assert_eq!(crate::exit::kind_of(&error), Kind::Usage);
    }
}

//! Files that hold secrets: written whole or not at all, readable by their owner only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::SecurityError;

/// Readable and writable by the owner.
pub(crate) const PRIVATE: u32 = 0o600;
/// Readable by everyone.
pub(crate) const PUBLIC: u32 = 0o644;

/// Puts `bytes` at `path` with `mode`, replacing what is there; after an error or a crash the old file stands.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SecurityError> {
    let temporary = write_beside(path, bytes, mode).map_err(|source| write_error(path, source))?;
    fs::rename(&temporary, path).and_then(|()| sync_folder(path)).map_err(|source| {
        let _ = fs::remove_file(&temporary);
        write_error(path, source)
    })
}

/// Puts `bytes` at `path` with `mode`; refuses when something is there.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SecurityError> {
    let temporary = write_beside(path, bytes, mode).map_err(|source| write_error(path, source))?;
    // A link is made only where nothing stands, unlike a rename: of two creators one loses and is told.
    let linked = fs::hard_link(&temporary, path).and_then(|()| sync_folder(path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(SecurityError::Exists { path: path.to_owned() })
        }
        Err(source) => Err(write_error(path, source)),
    }
}

/// Reads a private text file into memory that is wiped on drop.
///
/// The mode is taken from the open file, so that a file swapped in between is judged by its own bits.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, SecurityError> {
    let read_error = |source| SecurityError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    let mode = file.metadata().map_err(read_error)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecurityError::Exposed { path: path.to_owned(), mode });
    }
    io::read_to_string(file).map(Zeroizing::new).map_err(read_error)
}

/// Reads a text file that anyone may read.
pub(crate) fn read_public(path: &Path) -> Result<String, SecurityError> {
    fs::read_to_string(path).map_err(|source| SecurityError::Read { path: path.to_owned(), source })
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // Left behind by a process that died with our id.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // The umask may have taken bits away; it can never add any.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_error(path: &Path, source: io::Error) -> SecurityError {
    SecurityError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.key");
        replace(&path, b"secret", PRIVATE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_private(&path).unwrap().as_str(), "secret");
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = read_private(&path).unwrap_err().to_string();
            assert!(refused.contains(&format!("chmod 600 {}", path.display())), "{refused}");
        }
    }

    #[test]
    fn what_is_made_once_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        create(&path, b"first", PRIVATE).unwrap();
        assert!(matches!(create(&path, b"second", PRIVATE), Err(SecurityError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays behind");
    }
}

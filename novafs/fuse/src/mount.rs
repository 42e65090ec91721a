//! A mount: begun, ended by anyone, waited for.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use novafs_client::{Client, ClientError, EntryKind};
use rustix::mount::UnmountFlags;

use crate::filesystem::Mounted;

/// How long the kernel keeps names and attributes.
pub const TTL: Duration = Duration::from_secs(1);
/// Requests of the kernel that are carried out at once.
const THREADS_DEFAULT: usize = 8;

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Whether other users than the one who mounts may use it. Without root that needs `user_allow_other` in
    /// `/etc/fuse.conf`.
    pub allow_other: bool,
    /// Whether nothing can be changed.
    pub read_only: bool,
    /// Requests carried out at once, at least 1.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { allow_other: false, read_only: false, threads: THREADS_DEFAULT }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// What is to be mounted.
    #[error("mount {path}")]
    Source {
        /// In NovaFS.
        path: String,
        /// What its region said.
        #[source]
        source: ClientError,
    },
    /// Only directories are mounted.
    #[error("{path} is no directory, and only directories of NovaFS can be mounted")]
    NotADirectory {
        /// In NovaFS.
        path: String,
    },
    /// The place where it is to appear.
    #[error("{} is no empty directory: make one and mount there", path.display())]
    Mountpoint {
        /// The place.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{doing} {}; it needs /dev/fuse, and root or the program fusermount3", path.display())]
    System {
        /// Verb.
        doing: &'static str,
        /// The place.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// A directory of NovaFS that programs see.
#[derive(Debug)]
pub struct Mount {
    session: BackgroundSession,
    mountpoint: PathBuf,
}

impl Mount {
    /// Mounts the directory `path` of NovaFS at the empty directory `mountpoint`. When it returns, programs can use it.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn start(
        client: Client,
        path: &str,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        let entry =
            client.stat(path).map_err(|source| MountError::Source { path: path.to_owned(), source })?;
        if entry.kind() != EntryKind::Directory {
            return Err(MountError::NotADirectory { path: path.to_owned() });
        }
        let empty = std::fs::read_dir(mountpoint).map(|mut names| names.next().is_none());
        if !empty.unwrap_or(false) {
            return Err(MountError::Mountpoint { path: mountpoint.to_owned() });
        }
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("novafs:{path}")),
            MountOption::Subtype("novafs".into()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            if options.read_only { MountOption::RO } else { MountOption::RW },
        ];
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = true;
        let session =
            fuser::spawn_mount(Mounted::new(client, entry.inode), mountpoint, &config).map_err(|source| {
                MountError::System { doing: "mount at", path: mountpoint.to_owned(), source }
            })?;
        Ok(Self { session, mountpoint: mountpoint.to_owned() })
    }

    /// Takes the mount out of the tree: programs find it no more, and what they have open stays until they close it.
    /// Then [`Mount::wait`] returns.
    ///
    /// # Errors
    /// [`MountError::System`].
    pub fn detach(&self) -> Result<(), MountError> {
        detach(&self.mountpoint).map_err(|source| MountError::System {
            doing: "unmount",
            path: self.mountpoint.clone(),
            source,
        })
    }

    /// Whether it has ended: by [`Mount::detach`] or by `umount`.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// Waits until it has ended and all files are closed.
    ///
    /// # Errors
    /// [`MountError::System`] when the connection to the kernel broke.
    pub fn wait(self) -> Result<(), MountError> {
        let Self { session, mountpoint } = self;
        session.join().map_err(|source| MountError::System { doing: "serve", path: mountpoint, source })
    }
}

/// Unmounts `mountpoint` now for who comes, later for who is inside.
fn detach(mountpoint: &Path) -> io::Result<()> {
    match rustix::mount::unmount(mountpoint, UnmountFlags::DETACH) {
        // Only root may; a program of the system does it for others.
        Err(rustix::io::Errno::PERM) => {
            let done = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(mountpoint).status()?;
            if done.success() { Ok(()) } else { Err(io::Error::other(format!("fusermount3: {done}"))) }
        }
        other => Ok(other?),
    }
}

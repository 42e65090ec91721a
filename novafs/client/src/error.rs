//! What a program can be told.

use std::path::PathBuf;
use std::time::Duration;

use nova_api::files::failure::Code;
use nova_ring::AttachError;
use nova_ring::abi::Status;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The agent of this host cannot be reached or refused.
    #[error("attach to the agent of this host")]
    Agent(#[source] AttachError),
    /// The data plane of this host cannot be reached or refused.
    #[error("attach to the data plane of this host")]
    DataPlane(#[source] AttachError),
    /// Metadata said no.
    #[error("{path}: {message}")]
    Refused {
        /// Why.
        code: Code,
        /// What it is about.
        path: String,
        /// In words.
        message: String,
    },
    /// Nothing answered in time.
    #[error("{what}: no success within {}: {last}; look at `nova cluster status`", seconds(.waited))]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// For how long.
        waited: Duration,
        /// The last obstacle.
        last: String,
    },
    /// The data plane could not do it.
    #[error("{what}: {status}{}", advice(*.status))]
    Data {
        /// What was tried.
        what: String,
        /// Its answer.
        status: Status,
    },
    /// A local file.
    #[error("{doing} {}", path.display())]
    Local {
        /// Verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A local file was written to while it was put.
    #[error("{} changed while it was read, twice: put it again when nobody writes it", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// The attachment to the data plane ended while it was needed; the caller starts the file again.
    #[error("the data plane of this host went away")]
    Lost,
    /// Another release, or a broken peer.
    #[error("{0}: install the same release of nova on this host")]
    Protocol(&'static str),
    /// The writer session ended and the file was not published.
    #[error("the writer session ended before {path} was published: put it again")]
    SessionEnded {
        /// The file.
        path: String,
    },
    /// An open file lost writes that were accepted: everything on it fails until it is closed.
    #[error("inode {inode}: {reason}; close the file, open it again and look at what it holds")]
    Broken {
        /// The file.
        inode: u64,
        /// What happened.
        reason: String,
    },
    /// The caller's own fault.
    #[error("{0}")]
    Usage(String),
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The name does not exist.
    NotFound,
    /// Something is down now; later it may work.
    Unavailable,
    /// The request was wrong.
    Usage,
    /// Anything else.
    Failed,
}

impl ClientError {
    /// Which of the few kinds it is, as exit codes tell them apart.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Refused { code: Code::NotFound, .. } => Trouble::NotFound,
            Self::Refused { code: Code::Unavailable | Code::NoGroups, .. }
            | Self::Agent(_)
            | Self::DataPlane(_)
            | Self::Unavailable { .. }
            | Self::Lost => Trouble::Unavailable,
            Self::Usage(_) => Trouble::Usage,
            _ => Trouble::Failed,
        }
    }

    /// The data plane has no key for it now.
    pub(crate) fn is_no_key(&self) -> bool {
        matches!(self, Self::Data { status: Status::NoKey, .. })
    }

    pub(crate) fn too_large(inode: u64) -> Self {
        let message = "a file ends before 2^63 bytes".into();
        Self::Refused { code: Code::TooLarge, path: format!("inode {inode}"), message }
    }

    pub(crate) fn local(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Local { doing, path: path.to_owned(), source }
    }
}

fn seconds(waited: &Duration) -> String {
    format!("{:.1} s", waited.as_secs_f64())
}

fn advice(status: Status) -> &'static str {
    match status {
        Status::Full => "; remove files or add a storage host",
        Status::NoKey => "; its controllers may be away: `nova cluster status`, `nova key ls`",
        Status::Corrupt => "; no replica passed its checks, restore it from a backup",
        _ => "",
    }
}

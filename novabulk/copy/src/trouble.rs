//! Why a step of a copy was not done.

use core::fmt;
use std::io;

use novabulk_files::{Fault, MessageError, NameError, Reply};
use rustix::io::Errno;

/// What a host says when it cannot do something: in kind for programs, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub fault: Fault,
    /// What happened, and to what.
    pub text: String,
}

impl Trouble {
    pub(crate) fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }

    /// What the kernel answered to `action`.
    pub(crate) fn of(error: Errno, action: impl fmt::Display) -> Self {
        let fault = match error {
            Errno::NOENT | Errno::NOTDIR => Fault::NotFound,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Fault::Denied,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Fault::NoRoom,
            Errno::LOOP | Errno::XDEV | Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => Fault::InTheWay,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Fault::Busy,
            Errno::NAMETOOLONG | Errno::INVAL => Fault::Invalid,
            _ => Fault::Io,
        };
        let why = match error {
            Errno::LOOP | Errno::XDEV => {
                "a symbolic link is in the way, and none is followed: remove it, or name the folder it leads to"
                    .to_owned()
            }
            Errno::NOTDIR => "a file or a symbolic link is in the way, and no link is followed: remove it, or name the \
                              folder it leads to"
                .to_owned(),
            Errno::NOSPC | Errno::DQUOT => "no room on the device: free some".to_owned(),
            error => io::Error::from(error).to_string(),
        };
        Self { fault, text: format!("{action}: {why}") }
    }

    pub(crate) fn io(error: &io::Error, action: impl fmt::Display) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::of(Errno::from_raw_os_error(number), action),
            None => Self::new(Fault::Io, format!("{action}: {error}")),
        }
    }

    pub(crate) fn reply(self) -> Reply {
        Reply::Failed { fault: self.fault, text: self.text }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for Trouble {}

impl From<NameError> for Trouble {
    fn from(error: NameError) -> Self {
        Self::new(Fault::Invalid, error.to_string())
    }
}

impl From<MessageError> for Trouble {
    fn from(error: MessageError) -> Self {
        Self::new(Fault::Invalid, error.to_string())
    }
}

/// Why a whole copy ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A host does not answer.
    #[error("{address} does not answer: {why}; run the same command again, and it goes on where it was")]
    Unavailable {
        /// Where it should be.
        address: String,
        /// What the last attempt said.
        why: String,
    },
    /// The ends do not trust each other, or there is no host of files.
    #[error("no secure connection with {why}; `nova identity trust` takes in the other's CA, on both ends")]
    Stranger {
        /// Whom, and what TLS says.
        why: String,
    },
    /// A host will not, or cannot.
    #[error(transparent)]
    Host(#[from] Trouble),
    /// A host answers what it was not asked.
    #[error("{address} does not keep to the protocol: {what}")]
    Protocol {
        /// Which.
        address: String,
        /// What it did.
        what: String,
    },
    /// A pattern cannot be understood.
    #[error("the pattern {pattern} is none: {why}")]
    Pattern {
        /// Which.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// More than one copy can have.
    #[error("more than {entries_max} entries: copy the folder in parts")]
    TooMany {
        /// The bound.
        entries_max: usize,
    },
}

impl From<NameError> for CopyError {
    fn from(error: NameError) -> Self {
        Self::Host(error.into())
    }
}

impl CopyError {
    /// What kind of fault it is, when a host told.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Host(trouble) => Some(trouble.fault),
            _ => None,
        }
    }
}

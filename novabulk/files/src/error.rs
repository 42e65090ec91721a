//! What can be wrong with a message, and what a host answers when it cannot do something.

use core::fmt;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It ends before its last field, or has bytes behind it.
    #[error("a message of another length than its fields have")]
    Length,
    /// It is longer than any message.
    #[error("a message of {bytes} bytes, longer than any")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Another version of the protocol.
    #[error("version {found} of the file service, and this host speaks 1: update the older host")]
    Version {
        /// What it says.
        found: u8,
    },
    /// A field has a value that no host writes.
    #[error("{field} has the value {value}, which means nothing")]
    Value {
        /// Which.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A name that would lead elsewhere.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Why bytes are not a name below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It starts with a slash.
    #[error("a name starts with a slash, and names are relative to the folder that is served")]
    Absolute,
    /// It has `.`, `..` or nothing between two slashes.
    #[error("a name has an empty component, `.` or `..`: name the file itself")]
    Component,
    /// It has a NUL.
    #[error("a name has a NUL byte")]
    Nul,
    /// It is too long.
    #[error("a name of {bytes} bytes; at most {bytes_max} are possible")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound it passes.
        bytes_max: usize,
    },
}

/// Why a host does not do what it was asked; the text beside it says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// Nothing has that name.
    NotFound = 1,
    /// The host may not, or is told not to.
    Denied = 2,
    /// The source is not what it was when it was listed.
    Changed = 3,
    /// No room, or past a limit of the host.
    NoRoom = 4,
    /// The request makes no sense.
    Invalid = 5,
    /// Not now; the same request may succeed later.
    Busy = 6,
    /// The file is not open here: the host started anew, or gave it up.
    NotOpen = 7,
    /// The bytes that came are not those that were read at the source.
    Corrupt = 8,
    /// The file system failed.
    Io = 9,
    /// Something of another kind is in the way.
    InTheWay = 10,
    /// Blocks are still missing.
    Missing = 11,
}

impl Fault {
    /// The fault with this number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NotFound,
            2 => Self::Denied,
            3 => Self::Changed,
            4 => Self::NoRoom,
            5 => Self::Invalid,
            6 => Self::Busy,
            7 => Self::NotOpen,
            8 => Self::Corrupt,
            9 => Self::Io,
            10 => Self::InTheWay,
            11 => Self::Missing,
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Denied => "not allowed",
            Self::Changed => "changed while it was copied",
            Self::NoRoom => "no room",
            Self::Invalid => "refused",
            Self::Busy => "busy",
            Self::NotOpen => "not open",
            Self::Corrupt => "corrupt",
            Self::Io => "input or output failed",
            Self::InTheWay => "something is in the way",
            Self::Missing => "not complete",
        })
    }
}

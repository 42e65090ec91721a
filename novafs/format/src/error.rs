//! Why bytes are not the record they were taken for.

use crate::cursor::Short;

/// Bytes that are not what they were taken for. Decoders return this for every input that is not canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end within the record.
    #[error("the record is cut short: it needs more bytes than there are")]
    Short,
    /// The record ends before the bytes do.
    #[error("{bytes} bytes follow the end of the record")]
    Trailing {
        /// How many bytes are left over.
        bytes: usize,
    },
    /// The checksum does not match.
    #[error("the checksum of the {what} does not match: it was torn, misplaced or has rotted")]
    Checksum {
        /// Which record.
        what: &'static str,
    },
    /// The record begins with something else.
    #[error("no {what} here: its magic number is missing")]
    Magic {
        /// Which record.
        what: &'static str,
    },
    /// Written by a later version of this software.
    #[error(
        "format version {found} is not known: this build reads version {known}; use the newer build, or format the device again"
    )]
    Version {
        /// Version in the record.
        found: u32,
        /// Version this build writes.
        known: u32,
    },
    /// The record belongs elsewhere: a misdirected write or read, or the remains of an earlier life of the device.
    #[error("the {what} belongs to another place or another life of the device")]
    Misplaced {
        /// Which record.
        what: &'static str,
    },
    /// A field has a value it cannot have.
    #[error("field {field} has a value it cannot have: {value}")]
    Field {
        /// Name of the field, as in docs/novafs-format.md.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

impl From<Short> for FormatError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// A field with a value it cannot have.
pub(crate) fn bad_field(field: &'static str, value: impl Into<u64>) -> FormatError {
    FormatError::Field { field, value: value.into() }
}

/// Fails when anything follows the record.
pub(crate) fn expect_end(rest: &[u8]) -> Result<(), FormatError> {
    if rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing { bytes: rest.len() }) }
}

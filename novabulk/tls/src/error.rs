//! Why there is no secure connection.

use std::io;
use std::path::PathBuf;

use nova_device::LaneError;

/// Why a configuration or a connection is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read a private key.
    #[error("{} is a private key that others may read (mode {mode:o}): chmod 600 it, and make a new one if they did", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{what} is no {wanted}: {reason}")]
    Malformed {
        /// Which file, or which part of a configuration.
        what: String,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses: a certificate, a version, a message.
    #[error("TLS: {0}")]
    Refused(#[from] rustls::Error),
    /// The peer speaks TLS, but not NovaBulk above it.
    #[error("the peer speaks {spoken:?} above TLS, not novabulk/1: is this the port of a NovaBulk listener?")]
    Protocol {
        /// What it named; empty when nothing.
        spoken: String,
    },
    /// The certificate does not say whose it is.
    #[error("the peer's certificate {0}")]
    Nameless(&'static str),
    /// The connection below broke.
    #[error("during the handshake {0}")]
    Lane(#[from] LaneError),
    /// The handshake took too long.
    #[error("the peer did not end its TLS handshake within 5 s")]
    TimedOut,
    /// The peer sent more than a handshake is long.
    #[error("the peer's handshake is longer than 64 KiB")]
    TooLong,
    /// As many handshakes as may be are under way, or no memory is left for another connection.
    #[error("{0}: try again, or raise the limit")]
    Busy(&'static str),
}

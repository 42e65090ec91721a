//! What can go wrong with identities and keys.

use std::path::PathBuf;

/// Why an identity, a key or a TLS configuration could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written durably.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something that is made once is there already; it is never overwritten.
    #[error("{path} exists already and is not overwritten; move it away if you mean to replace it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A private file can be read or written by others.
    #[error("{path} has mode {mode:04o}, so others on this machine can use it; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A name of a region or a node cannot stand in a certificate.
    #[error("{what} name {name:?} is not allowed: use 1 to 63 of a-z, 0-9 and '-', not '-' at either end")]
    BadName {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A further name for a certificate is neither an address nor a DNS name.
    #[error("{name:?} is neither an IP address nor a DNS name")]
    BadSubjectName {
        /// The name.
        name: String,
    },
    /// A certificate or key file holds something else.
    #[error("{path}: {reason}; issue the certificate again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key does not belong to the certificate beside it.
    #[error("{key} does not belong to {certificate}; issue the certificate again")]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// A certificate carries no identity of a region.
    #[error("the certificate carries no identity of a region: {reason}")]
    NotAnIdentity {
        /// What is missing or wrong.
        reason: String,
    },
    /// A region key file does not hold a region key.
    #[error(
        "{path} is not a region key file: {reason}; expected one line: novaclustr-region-key-1 <domain> <version> <64 hex digits>"
    )]
    RegionKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never the key.
        reason: &'static str,
    },
    /// A root key file does not hold a root key.
    #[error(
        "{path} is not a root key file: {reason}; expected the lines novaclustr-root-key-1 <32 hex digits> and \
         <version> <64 hex digits>"
    )]
    RootKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never the key.
        reason: &'static str,
    },
    /// The cryptographic library could not make a key or a signature.
    #[error("make {what}: {reason}")]
    Crypto {
        /// What was being made.
        what: &'static str,
        /// What the library said.
        reason: String,
    },
    /// Another part of the process chose a TLS library or versions that a region does not speak.
    #[error(
        "this process installed another TLS provider first, one that allows versions before TLS 1.3; call install_crypto at the start of main"
    )]
    ForeignProvider,
}

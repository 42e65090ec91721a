//! The region's CA, certificates and the TLS configuration made of them.
//!
//! Every gRPC connection of a region is mutual TLS 1.3 from the first day. One [`Authority`] signs a certificate
//! per process; the certificate carries a SPIFFE name ([`Identity`]) that says what the process is, and a DNS name
//! per role, so that a client refuses a server of the wrong role during the handshake and a server learns from
//! [`peer_identity`] who called. Private files are 0600, and a file that others can read is refused.
//!
//! The keys of NovaFS come from a [`Kms`], whose root key is a file for now. A [`RegionKey`] is what regions had before:
//! the key of their one domain, to be imported.
#![forbid(unsafe_code)]

mod authority;
mod credentials;
mod error;
mod hex;
mod identity;
mod kms;
mod peer;
mod private_file;
mod region_key;
mod root_key;

pub use authority::{Authority, CERTIFICATE_LIFETIME, CLOCK_SKEW_ALLOWED, Issued, REGION_CA_LIFETIME};
pub use credentials::{Credentials, HANDSHAKE_TIMEOUT, install_crypto};
pub use error::SecurityError;
pub use identity::{Identity, NAME_BYTES_MAX, Role, Zone};
pub use kms::{
    DomainSecret, FileKms, KeyName, Kms, KmsError, MemoryKms, SECRET_BYTES, WRAPPED_BYTES, WrappedKey,
};
pub use peer::{authorize, peer_identity};
pub use region_key::RegionKey;
pub use root_key::RootKey;

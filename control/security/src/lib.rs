//! The region's CA, certificates and the TLS configuration made of them.
//!
//! Every gRPC connection of a region is mutual TLS 1.3 from the first day. One [`Authority`] signs a certificate
//! per process; the certificate carries a SPIFFE name ([`Identity`]) that says what the process is, and a DNS name
//! per role, so that a client refuses a server of the wrong role during the handshake and a server learns from
//! [`peer_identity`] who called. Private files are 0600, and a file that others can read is refused.
//!
//! The [`RegionKey`] is the root of NovaFS sealing until the key service exists.
#![forbid(unsafe_code)]

mod authority;
mod credentials;
mod error;
mod identity;
mod peer;
mod private_file;
mod region_key;

pub use authority::{Authority, CERTIFICATE_LIFETIME, CLOCK_SKEW_ALLOWED, Issued, REGION_CA_LIFETIME};
pub use credentials::{Credentials, HANDSHAKE_TIMEOUT, install_crypto};
pub use error::SecurityError;
pub use identity::{Identity, NAME_BYTES_MAX, Role, Zone};
pub use peer::{authorize, peer_identity};
pub use region_key::RegionKey;

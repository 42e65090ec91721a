//! TLS 1.3 under NovaBulk, mutual and always on (Spec 2.6, RFC 8446).
//!
//! rustls shakes hands over a [`Lane`](nova_device::Lane) and checks certificates. Then its traffic secrets come here, and a
//! [`TlsLane`] seals and opens the records itself, because a payload is shared by replicas and may not be sealed where it
//! lies: sealing goes *out of* the shared buffer into a wire buffer, opening from a staging buffer *into* the slab where the
//! payload belongs. Either is one pass over the bytes. The records on the wire are those of any TLS 1.3 peer.
//!
//! What is refused: TLS 1.2, peers without a certificate of ours, resumption and early data (either would outlive a
//! revocation), renegotiation by more than [`KEY_UPDATES_MAX`] key updates without data, an end without `close_notify`.
#![forbid(unsafe_code)]

mod config;
mod counters;
mod end;
mod error;
mod handshake;
mod lane;
mod memory;
mod name;
mod record;
mod secrets;
mod sums;
mod tls;
mod verify;

pub use config::TlsConfig;
pub use counters::TlsCounters;
pub use error::TlsError;
pub use lane::TlsLane;
pub use name::PeerName;
pub use record::RECORD_PLAIN_BYTES_MAX;
pub use tls::{HANDSHAKES_MAX, SealedBy, Tls, TlsOptions};

use core::time::Duration;

/// What both ends speak above TLS (RFC 7301); a peer that speaks something else is refused.
pub const ALPN: &[u8] = b"novabulk/1";
/// Spec B.2: from the first byte to the end of the handshake; HELLO has the rest of these 5 s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest flight of a handshake that is taken in.
pub const HANDSHAKE_BYTES_MAX: usize = 64 << 10;
/// A traffic key seals this many records, 137 GB, before the next one: AES-GCM is safe for 2^24.5 (RFC 8446, 5.5).
pub const RECORDS_PER_KEY: u64 = 1 << 23;
/// Key updates of a peer without data between them.
pub const KEY_UPDATES_MAX: u32 = 32;

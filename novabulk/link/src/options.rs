//! Limits, and what a link is made with.

use core::time::Duration;

use nova_units::{BootId, CREDIT_BYTES, FRAME_PAYLOAD_BYTES_MAX, NodeId};
use novabulk_frame::HOPS;

/// Longest body of a request or a reply: one frame, received straight into one slab.
pub const BODY_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize;
/// Spec B.2: a peer that is called has at least two connections, one for control and one for bulk.
pub const CONNECTIONS_MIN: usize = 2;
/// Spec B.2: and at most this many.
pub const CONNECTIONS_MAX: usize = 16;
/// Spec B.2: an unused connection is closed after this.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Spec B.2: a connection stands, HELLO included, within this or not at all.
pub const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that other hosts may have to one shard; more are dropped at once.
pub const ACCEPTED_MAX: usize = 256;
/// How long a received body may wait for a slab before its connection is given up.
pub const BODY_WAIT: Duration = Duration::from_secs(5);
/// A control connection on which a call ran out of time and nothing was heard for this long is dead.
pub const CONTROL_SILENCE_MAX: Duration = Duration::from_secs(2);
/// The same for bulk, where a slow disk may keep every answer back for a while.
pub const BULK_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Calls to one peer that may wait for a connection; the next is told that the peer is busy.
pub const WAITING_MAX: usize = 4096;

/// Fewest units a hop needs, so that a body of [`BODY_BYTES_MAX`] always gets through.
pub(crate) const GRANT_UNITS_MIN: u32 = FRAME_PAYLOAD_BYTES_MAX / CREDIT_BYTES + 1;

/// Who this end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The host.
    pub node: NodeId,
    /// This start of its daemon.
    pub boot: BootId,
}

/// How a link behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Connections per peer, control included: [`CONNECTIONS_MIN`] to [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Connections for bulk that a peer gets as soon as it is called, however little is asked of it.
    pub bulk_connections: usize,
    /// When an unused connection is closed.
    pub idle_timeout: Duration,
    /// What an accepted bulk connection may hold in request bodies, per hop, in units of 256 KiB.
    pub grants: [u32; HOPS],
    /// Sum of what accepted connections may hold; past it they get the least a hop can work with. `None` is half of
    /// the shard's pool.
    pub receive_bytes: Option<u64>,
    /// Port of the first shard, told to peers.
    pub port_base: u16,
    /// Number of shards that listen, told to peers.
    pub port_count: u16,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            bulk_connections: 1,
            idle_timeout: IDLE_TIMEOUT,
            grants: [16, 16, GRANT_UNITS_MIN],
            receive_bytes: None,
            port_base: 0,
            port_count: 0,
        }
    }
}

impl LinkOptions {
    /// Asserts what a configuration check should have found.
    pub(crate) fn check(&self) {
        let connections = CONNECTIONS_MIN..=CONNECTIONS_MAX;
        assert!(connections.contains(&self.connections_max), "{} connections a peer", self.connections_max);
        let bulk = 1..self.connections_max;
        assert!(bulk.contains(&self.bulk_connections), "{} connections for bulk", self.bulk_connections);
        assert!(
            self.grants.iter().all(|units| *units >= GRANT_UNITS_MIN),
            "a hop needs {GRANT_UNITS_MIN} units at least: {:?}",
            self.grants
        );
    }
}

//! How NovaFS speaks to other hosts. `novabulk-link` carries it over lanes; the simulator has its own.

use core::time::Duration;

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::{NodeId, Priority};

/// The other hosts.
pub trait Peers: Clone + 'static {
    /// Sends `request` to `to` and waits for its answer.
    ///
    /// # Errors
    /// When there is no answer. Unless the error is [`PeerError::Refused`] or [`PeerError::Busy`], the peer may or
    /// may not have done what was asked.
    ///
    /// # Cancel safety
    /// Safe: a dropped call may still be carried out, and its answer is thrown away.
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError>;
}

/// One request to another host.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which share of the link it uses.
    pub priority: Priority,
    /// How many hosts it has passed: each hop has its own credits, so that a chain cannot lock itself.
    pub hop: u8,
    /// The opaque part of the control header.
    pub head: Vec<u8>,
    /// Payload.
    pub body: Option<SharedBuf>,
    /// The largest body the answer may have, in bytes; room for it is set aside before the request leaves.
    pub reply_bytes_max: u32,
    /// How long to wait for the answer, from now.
    pub deadline: Duration,
    /// Whether it is short and urgent, like a ping, and goes over the control connection.
    pub control: bool,
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub struct Reply {
    /// The opaque part of the control header.
    pub head: Vec<u8>,
    /// Payload.
    pub body: Option<DmaBuf>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No connection to the peer can be made, or its address is not known.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer by the deadline.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer will not do this, however often it is asked.
    #[error("the peer refused ({code}): {reason}")]
    Refused {
        /// A code of the protocol that refused.
        code: u16,
        /// In words, for the log.
        reason: String,
    },
    /// The peer, or the queue to it, is full.
    #[error("the peer is busy: ask again after {retry_after:?}")]
    Busy {
        /// How long to wait before asking again.
        retry_after: Duration,
    },
    /// The connection closed before the answer came.
    #[error("the connection to the peer closed before its answer")]
    Closed,
}

/// A request as it reaches the host that serves it.
#[derive(Debug)]
pub struct Incoming {
    /// The opaque part of the control header.
    pub head: Vec<u8>,
    /// Payload.
    pub body: Option<DmaBuf>,
    /// Which share of the link it used.
    pub priority: Priority,
    /// How many hosts it has passed.
    pub hop: u8,
}

/// What a [`Handler`] answers.
#[derive(Clone, Debug)]
pub struct Served {
    /// The opaque part of the control header.
    pub head: Vec<u8>,
    /// Payload.
    pub body: Option<SharedBuf>,
}

/// Serves the requests of other hosts.
pub trait Handler: 'static {
    /// Does what `request` asks and answers it. Runs as a task of its own, beside others.
    async fn serve(&self, from: NodeId, request: Incoming) -> Served;
}

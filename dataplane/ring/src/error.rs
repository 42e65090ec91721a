//! What can go wrong with an attachment.

use std::io;

use crate::abi::Slot;

/// The other side wrote something that no honest peer writes. Detach it; nothing of it can be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerBroken {
    /// Its index lies further away than the ring is long.
    #[error("the ring's peer moved its index {distance} slots away, the ring has {capacity}: detach it")]
    Index {
        /// Distance between both indices.
        distance: u64,
        /// Slots of the ring.
        capacity: u64,
    },
}

/// A slot that was not sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum PushError {
    /// The ring has no room; the slot comes back, send it again when the peer has caught up.
    #[error("the ring is full: wait until the peer has taken something")]
    Full(Slot),
    /// The peer broke the rules.
    #[error(transparent)]
    Broken(#[from] PeerBroken),
}

/// Why two processes are not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The socket cannot be reached: the service is not running or the path is wrong.
    #[error("connect to {path}: is the service running on this host?")]
    Connect {
        /// The socket's path.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The service said no, in words.
    #[error("the service refused: {0}")]
    Refused(String),
    /// The peer spoke something else than this handshake.
    #[error("the peer does not speak the ring handshake: {0}")]
    NotRing(&'static str),
    /// A system call failed.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { doing, source: errno.into() }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

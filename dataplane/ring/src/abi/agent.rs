//! Slots between the host's agent and its data plane.

use nova_units::{DeviceId, Epoch, GroupId, Incarnation, NodeId};

use super::BadSlot;
use super::fields::{Field, Put, Take, slots};
use crate::layout::SNAPSHOT_BYTES;

/// Peers in one report; more hosts take more slots.
pub const PEERS_MAX: usize = 12;

/// A host that members here ping, and whether it was heard within the silence limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerHeard {
    /// The host.
    pub node: NodeId,
    /// Whether it answers.
    pub heard: bool,
}

/// Up to [`PEERS_MAX`] hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeersHeard {
    count: u8,
    peers: [PeerHeard; PEERS_MAX],
}

impl PeersHeard {
    /// The first [`PEERS_MAX`] of `peers`.
    #[must_use]
    pub fn new(peers: &[PeerHeard]) -> Self {
        let mut found = Self { count: 0, peers: [PeerHeard::default(); PEERS_MAX] };
        for (slot, peer) in found.peers.iter_mut().zip(peers) {
            *slot = *peer;
            found.count += 1;
        }
        found
    }

    /// The hosts.
    #[must_use]
    pub fn as_slice(&self) -> &[PeerHeard] {
        &self.peers[..usize::from(self.count)]
    }
}

impl Field for PeersHeard {
    // Count as u8, heard as a bit each in u16, a zero byte, then a node as u64 each.
    fn put(&self, out: &mut Put) {
        let mut heard = 0u16;
        for (bit, peer) in self.as_slice().iter().enumerate() {
            heard |= u16::from(peer.heard) << bit;
        }
        self.count.put(out);
        heard.put(out);
        0u8.put(out);
        for peer in self.as_slice() {
            peer.node.put(out);
        }
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = u8::take(from, name)?;
        let heard = u16::take(from, name)?;
        let zero = u8::take(from, name)?;
        if usize::from(count) > PEERS_MAX || u32::from(heard) >> count != 0 || zero != 0 {
            return Err(BadSlot::Range(name));
        }
        let mut found = Self { count, peers: [PeerHeard::default(); PEERS_MAX] };
        for (bit, peer) in found.peers.iter_mut().take(usize::from(count)).enumerate() {
            *peer = PeerHeard { node: NodeId::take(from, name)?, heard: heard >> bit & 1 == 1 };
        }
        Ok(found)
    }
}

slots! {
    /// Agent to data plane. Nothing is replayed after an attach: the agent sends its whole picture again.
    AgentCommand {
        /// A new snapshot lies in a buffer. The agent leaves that buffer alone until `Configured` came for it, so a
        /// newer one meanwhile goes into the other.
        1 => Configure {
            /// Version of the snapshot; older than the one in use is dropped.
            version: u64,
            /// Buffer, 0 or 1.
            buffer: u8,
            /// Bytes of the message at the buffer's begin.
            bytes: u32,
        }
        /// A program may attach once with this ticket.
        2 => AdmitTicket {
            /// The ticket.
            ticket: [u8; 16],
            /// The user the agent gave it to.
            uid: u32,
            /// For how long from now it is good, in milliseconds.
            valid_ms: u32,
        }
        /// The controller still counts on this host.
        3 => Lease {
            /// CLOCK_BOOTTIME in milliseconds when the acknowledged heartbeat was sent.
            sent_boottime_ms: u64,
            /// The lease from that moment; 0 ends it now.
            lease_ms: u64,
        }
        /// The device may serve under this incarnation.
        4 => Incarnate {
            /// The device.
            device: DeviceId,
            /// Its life.
            incarnation: Incarnation,
            /// Whether it starts empty: whatever it holds belongs to an earlier life.
            wipe: bool,
        }
        /// Go down: finish what is in flight, make a checkpoint, leave.
        5 => Stop {}
    }
}

impl AgentCommand {
    fn check(&self) -> Result<(), BadSlot> {
        match *self {
            Self::Configure { buffer, .. } if buffer > 1 => Err(BadSlot::Range("buffer")),
            Self::Configure { bytes, .. } if bytes > SNAPSHOT_BYTES => Err(BadSlot::Range("bytes")),
            _ => Ok(()),
        }
    }
}

slots! {
    /// Data plane to agent.
    AgentEvent {
        /// A device was mounted; it serves nothing until `Incarnate`.
        64 => Mounted {
            /// The device.
            device: DeviceId,
            /// How often it was mounted; durable, only grows.
            mount_counter: u64,
            /// The incarnation it carries; 0 when it never had one.
            incarnation: Incarnation,
            /// Usable bytes.
            bytes_total: u64,
        }
        /// Which of the pinged hosts answer; sent while one is silent, and once when none is.
        65 => Peers {
            /// The hosts.
            peers: PeersHeard,
        }
        /// A joiner of a group whose primary is here holds everything durably.
        66 => JoinReady {
            /// The group.
            group: GroupId,
            /// The epoch under which it was joining.
            epoch: Epoch,
            /// The joiner.
            node: NodeId,
        }
        /// The device erred on a durable write or flush: final.
        67 => DeviceFailed {
            /// The device.
            device: DeviceId,
            /// What the system said.
            errno: i32,
        }
        /// The snapshot is in use; its buffer is free again.
        68 => Configured {
            /// Version of the snapshot.
            version: u64,
        }
        /// Room on the host's devices.
        69 => Usage {
            /// Usable bytes.
            bytes_total: u64,
            /// Bytes without data.
            bytes_free: u64,
        }
        /// Whether the data plane acts on its configuration now: false without a node lease or a confirmed device.
        70 => Serving {
            /// Whether it serves.
            serving: bool,
        }
        /// What the host knows of its copy of a group; told when it changed.
        80 => Health {
            /// The group.
            group: GroupId,
            /// Units in it, as last counted; 0 before.
            units: u64,
            /// Blocks in it, likewise.
            blocks: u64,
            /// Bytes that scrub verified since the data plane started.
            bytes_verified: u64,
            /// Everything older was verified since then, in milliseconds since 1970; 0 when it never was.
            verified_since_ms: u64,
            /// Copies known to be bad.
            bad_units: u32,
            /// Blocks with bad copies or disputed units.
            risky_blocks: u32,
            /// Units that members hold differently.
            disputed_units: u32,
            /// Copies written anew.
            repaired: u64,
            /// Units stored since the host last began to be filled with the group.
            filled_units: u64,
            /// Metadata of the group is damaged on the device.
            damaged: bool,
        }
    }
}

impl AgentEvent {
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the macro asks every direction for its check"
    )]
    fn check(self) -> Result<(), BadSlot> {
        Ok(())
    }
}

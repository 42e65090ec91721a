//! Messages too large for a slot: the map a data plane works by, routes, and where units lie.
//!
//! They cross shared memory between programs of one release, and still follow the rules of wire messages: fields are
//! only added, numbers never used again.

use prost::Message as _;

use crate::arena::{ArenaView, OutOfArena};
use crate::layout::SNAPSHOT_BYTES;

/// Everything a data plane has to know of its cluster. Whole each time; a higher version replaces a lower one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostMap {
    /// Log index of the cluster group.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Term of the leader that sent it; a lower one is ignored.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// This host.
    #[prost(uint64, tag = "3")]
    pub self_node: u64,
    /// Every host.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<HostNode>,
    /// Every replica group.
    #[prost(message, repeated, tag = "5")]
    pub groups: Vec<HostGroup>,
    /// Era of new blocks.
    #[prost(uint32, tag = "7")]
    pub region_era: u32,
    /// This host's devices that were confirmed.
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<HostDevice>,
}

/// A device of this host that may serve.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostDevice {
    /// The device, 16 bytes, big-endian.
    #[prost(bytes = "vec", tag = "1")]
    pub device: Vec<u8>,
    /// The incarnation under which it may.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

/// A host in the map.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostNode {
    /// The host.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// `ip:port` of its first shard; empty while unknown.
    #[prost(string, tag = "2")]
    pub addr: String,
    /// Boot of its data plane; 0 while unknown.
    #[prost(uint64, tag = "3")]
    pub boot: u64,
    /// Its state, numbered as `nova.cluster.v1.Node.State`.
    #[prost(uint32, tag = "4")]
    pub state: u32,
    /// Its name, which its certificate must have.
    #[prost(string, tag = "5")]
    pub name: String,
}

/// A replica group in the map.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostGroup {
    /// The group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// Its epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Host of the primary.
    #[prost(uint64, tag = "3")]
    pub primary: u64,
    /// Whether it takes no writes now: one member is left.
    #[prost(bool, tag = "4")]
    pub frozen: bool,
    /// Its members, in order.
    #[prost(message, repeated, tag = "5")]
    pub members: Vec<HostMember>,
    /// Hosts that are no members now and may hold what members held: asked for a copy that no member has.
    #[prost(uint64, repeated, tag = "6")]
    pub former: Vec<u64>,
    /// How many members it has when it is whole.
    #[prost(uint32, tag = "7")]
    pub replicas: u32,
}

/// A member of a group in the map.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostMember {
    /// Its host.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The life of its device that is the member.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Whether it is still being filled: it takes writes, but neither counts nor reads.
    #[prost(bool, tag = "3")]
    pub joining: bool,
}

/// How a program reaches the data plane of its host.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DataRoute {
    /// Path of the data plane's socket.
    #[prost(string, tag = "1")]
    pub socket: String,
    /// One-use ticket, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub ticket: Vec<u8>,
    /// For how long from now the ticket is good, in milliseconds.
    #[prost(uint32, tag = "3")]
    pub valid_ms: u32,
}

/// Where units of a block lie, as its members tell.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Located {
    /// A row for each unit and member.
    #[prost(message, repeated, tag = "1")]
    pub replicas: Vec<LocatedUnit>,
    /// Members that did not tell.
    #[prost(uint64, repeated, tag = "2")]
    pub silent_nodes: Vec<u64>,
    /// Why, in words, in the same order.
    #[prost(string, repeated, tag = "3")]
    pub silent_reasons: Vec<String>,
}

/// One unit on one member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LocatedUnit {
    /// The unit.
    #[prost(uint32, tag = "1")]
    pub unit: u32,
    /// The host.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// The device, 16 bytes, big-endian as its name is written.
    #[prost(bytes = "vec", tag = "3")]
    pub device: Vec<u8>,
    /// Byte offset of its cell on the device.
    #[prost(uint64, tag = "4")]
    pub position: u64,
    /// Sealed bytes stored.
    #[prost(uint32, tag = "5")]
    pub stored_bytes: u32,
    /// Epoch of its commit point.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Number of its commit point.
    #[prost(uint64, tag = "7")]
    pub seq: u64,
    /// Generation that sealed it.
    #[prost(uint32, tag = "8")]
    pub generation: u32,
    /// SHA-256 of the unit.
    #[prost(bytes = "vec", tag = "9")]
    pub digest: Vec<u8>,
    /// Bytes of plaintext in it.
    #[prost(uint32, tag = "10")]
    pub plain_bytes: u32,
    /// Seal counter within its generation.
    #[prost(uint64, tag = "11")]
    pub counter: u64,
}

/// Why a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is larger than a buffer.
    #[error("the cluster map has {bytes} bytes, a snapshot buffer holds {SNAPSHOT_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Both buffers are with the data plane: wait for `Configured`.
    #[error("both snapshot buffers are in use: wait for the data plane to take one")]
    BothInUse,
    /// The command names bytes outside the area.
    #[error(transparent)]
    Outside(#[from] OutOfArena),
    /// The bytes are no such message.
    #[error("the snapshot cannot be read: {0}")]
    Garbled(prost::DecodeError),
}

/// The agent's side of the two snapshot buffers.
#[derive(Debug)]
pub struct SnapshotWriter {
    area: ArenaView,
    /// Version that lies in each buffer and was not yet taken.
    lent: [Option<u64>; 2],
}

impl SnapshotWriter {
    /// Over the area of an agent's link.
    #[must_use]
    pub fn new(area: ArenaView) -> Self {
        Self { area, lent: [None; 2] }
    }

    /// Writes `map` into a free buffer; answers the command to send.
    ///
    /// # Errors
    /// [`SnapshotError::BothInUse`]: keep the map and come back after [`SnapshotWriter::taken`].
    pub fn write(&mut self, map: &HostMap) -> Result<crate::abi::AgentCommand, SnapshotError> {
        let message = map.encode_to_vec();
        let bytes = u32::try_from(message.len())
            .ok()
            .filter(|&bytes| bytes <= SNAPSHOT_BYTES)
            .ok_or(SnapshotError::TooLarge { bytes: message.len() })?;
        let (buffer, free) =
            (0u8..).zip(&mut self.lent).find(|(_, lent)| lent.is_none()).ok_or(SnapshotError::BothInUse)?;
        self.area.copy_in(u64::from(buffer) * u64::from(SNAPSHOT_BYTES), &message)?;
        *free = Some(map.version);
        Ok(crate::abi::AgentCommand::Configure { version: map.version, buffer, bytes })
    }

    /// The data plane said `Configured { version }`: buffers with that version or an older one are free.
    pub fn taken(&mut self, version: u64) {
        for lent in &mut self.lent {
            if lent.is_some_and(|lent| lent <= version) {
                *lent = None;
            }
        }
    }
}

/// The data plane's side: copies the map of a `Configure` out of its buffer and reads it.
///
/// # Errors
/// [`SnapshotError::Outside`] or [`SnapshotError::Garbled`]: the agent is broken, detach it and keep the last map.
pub fn read_map(area: &ArenaView, buffer: u8, bytes: u32) -> Result<HostMap, SnapshotError> {
    let offset = u64::from(buffer) * u64::from(SNAPSHOT_BYTES);
    area.check(offset, u64::from(bytes))?;
    let mut message = vec![0; usize::try_from(bytes).expect("32 bits fit an address")];
    area.copy_out(offset, &mut message)?;
    HostMap::decode(&*message).map_err(SnapshotError::Garbled)
}

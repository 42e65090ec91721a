//! Slots between the host's agent and its data plane.

use nova_units::{
    BlockId, BootId, DeviceId, Epoch, GroupId, Incarnation, MOUNT_TRAIL_MAX, MountNonce, MountTrail, NodeId,
};

use super::BadSlot;
use super::fields::{Field, Put, Take, slots};
use crate::layout::SNAPSHOT_BYTES;

/// Peers in one report; more hosts take more slots.
pub const PEERS_MAX: usize = 7;

/// A host that members here ping, and whether it was heard within the silence limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerHeard {
    /// The host.
    pub node: NodeId,
    /// Of one that is silent: its start that is not heard, when that is known. An answer to it says nothing of a
    /// later start.
    pub boot: Option<BootId>,
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
    // Count as u8, heard as a bit each in u16, a zero byte, then a node as u64 and its start as u64 each, 0 when unknown.
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
            peer.boot.unwrap_or_default().put(out);
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
            let (node, boot) = (NodeId::take(from, name)?, BootId::take(from, name)?);
            let boot = (boot != BootId(0)).then_some(boot);
            *peer = PeerHeard { node, boot, heard: heard >> bit & 1 == 1 };
        }
        Ok(found)
    }
}

/// Runs of block ids in one slot; a batch takes as many slots as it needs.
pub const RUNS_MAX: usize = 8;
/// Most units in a [`LostUnits`].
pub const LOST_NAMED_MAX: usize = 8;
/// Block ids in one slot of an answer.
pub const HELD_MAX: usize = 12;
/// Ids of one run.
pub const RUN_BLOCKS_MAX: u32 = 1 << 20;
/// A domain key on its way to one start of one data plane: what the key was sealed to, and the sealed key.
pub const BOXED_KEY_BYTES: usize = 80;
/// Blocks of one page of [`AgentCommand::ListBlocks`].
pub const PAGE_BLOCKS_MAX: u16 = 4096;

/// Neighbouring block ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockRun {
    /// The first.
    pub first: BlockId,
    /// How many, 1..=[`RUN_BLOCKS_MAX`].
    pub count: u32,
}

/// One to [`RUNS_MAX`] runs of block ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRuns {
    count: u8,
    runs: [BlockRun; RUNS_MAX],
}

impl BlockRuns {
    /// The first [`RUNS_MAX`] of `runs`.
    #[must_use]
    pub fn new(runs: &[BlockRun]) -> Self {
        let mut found = Self { count: 0, runs: [BlockRun::default(); RUNS_MAX] };
        for (slot, run) in found.runs.iter_mut().zip(runs) {
            *slot = *run;
            found.count += 1;
        }
        found
    }

    /// The runs.
    #[must_use]
    pub fn as_slice(&self) -> &[BlockRun] {
        &self.runs[..usize::from(self.count)]
    }
}

impl Field for BlockRuns {
    // Count as u8, then first as u64 and count as u32 each.
    fn put(&self, out: &mut Put) {
        self.count.put(out);
        for run in self.as_slice() {
            run.first.put(out);
            run.count.put(out);
        }
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = u8::take(from, name)?;
        if !(1..=RUNS_MAX).contains(&usize::from(count)) {
            return Err(BadSlot::Range(name));
        }
        let mut found = Self { count, runs: [BlockRun::default(); RUNS_MAX] };
        for run in found.runs.iter_mut().take(usize::from(count)) {
            *run = BlockRun { first: BlockId::take(from, name)?, count: u32::take(from, name)? };
            let ends = run.first.0.checked_add(u64::from(run.count));
            if !(1..=RUN_BLOCKS_MAX).contains(&run.count) || ends.is_none() {
                return Err(BadSlot::Range(name));
            }
        }
        Ok(found)
    }
}

/// Up to [`HELD_MAX`] block ids in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBlocks {
    count: u8,
    blocks: [BlockId; HELD_MAX],
}

impl HeldBlocks {
    /// The first [`HELD_MAX`] of `blocks`.
    #[must_use]
    pub fn new(blocks: &[BlockId]) -> Self {
        let mut found = Self { count: 0, blocks: [BlockId(0); HELD_MAX] };
        for (slot, block) in found.blocks.iter_mut().zip(blocks) {
            *slot = *block;
            found.count += 1;
        }
        found
    }

    /// The ids.
    #[must_use]
    pub fn as_slice(&self) -> &[BlockId] {
        &self.blocks[..usize::from(self.count)]
    }
}

impl Field for HeldBlocks {
    // Count as u8, then a block as u64 each.
    fn put(&self, out: &mut Put) {
        self.count.put(out);
        for block in self.as_slice() {
            block.put(out);
        }
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = u8::take(from, name)?;
        if usize::from(count) > HELD_MAX {
            return Err(BadSlot::Range(name));
        }
        let mut found = Self { count, blocks: [BlockId(0); HELD_MAX] };
        for block in found.blocks.iter_mut().take(usize::from(count)) {
            *block = BlockId::take(from, name)?;
        }
        if found.as_slice().is_sorted_by(|one, next| one < next) {
            Ok(found)
        } else {
            Err(BadSlot::Range(name))
        }
    }
}

/// Up to [`LOST_NAMED_MAX`] units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostUnits {
    count: u8,
    units: [(BlockId, u16); LOST_NAMED_MAX],
}

impl LostUnits {
    /// The first [`LOST_NAMED_MAX`] of `units`.
    #[must_use]
    pub fn new(units: impl IntoIterator<Item = (BlockId, u16)>) -> Self {
        let mut found = Self { count: 0, units: [(BlockId(0), 0); LOST_NAMED_MAX] };
        for (slot, unit) in found.units.iter_mut().zip(units) {
            *slot = unit;
            found.count += 1;
        }
        found
    }

    /// The units.
    #[must_use]
    pub fn as_slice(&self) -> &[(BlockId, u16)] {
        &self.units[..usize::from(self.count)]
    }
}

/// Bytes of text in one slot; a longer one takes several.
pub const WORDS_BYTES_MAX: usize = 96;

/// A part of a text for people: at most [`WORDS_BYTES_MAX`] bytes of UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    count: u8,
    bytes: [u8; WORDS_BYTES_MAX],
}

impl Words {
    /// `text` in as many parts as it takes, each cut between two characters; none for an empty one.
    pub fn of(text: &str) -> impl Iterator<Item = Self> + '_ {
        let mut rest = text;
        core::iter::from_fn(move || {
            let (part, more) = rest.split_at(rest.floor_char_boundary(WORDS_BYTES_MAX));
            rest = more;
            (!part.is_empty()).then(|| {
                let mut bytes = [0; WORDS_BYTES_MAX];
                bytes[..part.len()].copy_from_slice(part.as_bytes());
                Self { count: u8::try_from(part.len()).expect("at most WORDS_BYTES_MAX"), bytes }
            })
        })
    }

    /// The text.
    ///
    /// # Panics
    /// Never: both ways to make one check it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.count)]).expect("checked when it was made")
    }
}

impl Field for Words {
    // Count as u8, then the bytes.
    fn put(&self, out: &mut Put) {
        self.count.put(out);
        out.bytes(&self.bytes[..usize::from(self.count)]);
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = u8::take(from, name)?;
        let mut bytes = [0; WORDS_BYTES_MAX];
        for byte in bytes.get_mut(..usize::from(count)).ok_or(BadSlot::Range(name))? {
            *byte = u8::take(from, name)?;
        }
        match core::str::from_utf8(&bytes[..usize::from(count)]) {
            Ok(_) => Ok(Self { count, bytes }),
            Err(_) => Err(BadSlot::Range(name)),
        }
    }
}

impl Field for MountTrail {
    // Count as u8, then a nonce as u64 each.
    fn put(&self, out: &mut Put) {
        let mounts = self.as_slice();
        u8::try_from(mounts.len()).expect("a trail has at most eight mounts").put(out);
        for mount in mounts {
            mount.put(out);
        }
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = usize::from(u8::take(from, name)?);
        let mut mounts = [MountNonce::default(); MOUNT_TRAIL_MAX];
        for mount in mounts.get_mut(..count).ok_or(BadSlot::Range(name))? {
            *mount = MountNonce::take(from, name)?;
        }
        Self::new(&mounts[..count]).ok_or(BadSlot::Range(name))
    }
}

impl Field for LostUnits {
    // Count as u8, then block as u64 and unit as u16 each.
    fn put(&self, out: &mut Put) {
        self.count.put(out);
        for (block, unit) in self.as_slice() {
            block.put(out);
            unit.put(out);
        }
    }

    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        let count = u8::take(from, name)?;
        if usize::from(count) > LOST_NAMED_MAX {
            return Err(BadSlot::Range(name));
        }
        let mut found = Self { count, units: [(BlockId(0), 0); LOST_NAMED_MAX] };
        for unit in found.units.iter_mut().take(usize::from(count)) {
            *unit = (BlockId::take(from, name)?, u16::take(from, name)?);
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
        /// A device that the controllers know of this host; said of each of them before `OpenDevices`.
        6 => ExpectDevice {
            /// The device.
            device: DeviceId,
            /// It failed, and is never trusted again.
            failed: bool,
        }
        /// Read the configuration again and open every device in it that is not open. The list of devices is told anew when
        /// that is done, after `DevicesOrdered`.
        7 => OpenDevices {
            /// Number of the order; later ones have higher numbers.
            order: u64,
        }
        /// Let go of a device, which the controllers have taken out of all groups. Answered like `OpenDevices`.
        8 => CloseDevice {
            /// Number of the order.
            order: u64,
            /// The device; one that is not open is closed already.
            device: DeviceId,
        }
        /// Nothing refers to these blocks any more and nothing ever will: the group forgets them. Answered by
        /// `BlocksDeleted` once the group holds none of them, and not at all when that cannot be said now; the
        /// controllers ask again.
        20 => DeleteBlocks {
            /// The group; its primary is here.
            group: GroupId,
            /// The blocks.
            runs: BlockRuns,
        }
        /// Which blocks does the device here hold? Answered by `BlocksHeld`.
        21 => ListBlocks {
            /// Named in the answer.
            request: u64,
            /// The group.
            group: GroupId,
            /// The first id that may be in the answer.
            from: BlockId,
            /// Most ids in the answer, 1..=[`PAGE_BLOCKS_MAX`].
            limit: u16,
        }
        /// A version of a domain's key, sealed to the public key of `KeyWanted`: who carries it cannot read it.
        30 => GiveKey {
            /// The domain.
            domain: u32,
            /// The version.
            version: u32,
            /// Version that new blocks of the domain are sealed with.
            current: u32,
            /// For how long from now it may be held without being said again, in seconds.
            held_s: u32,
            /// The key.
            boxed: [u8; BOXED_KEY_BYTES],
        }
        /// A key domain was dropped: its keys are forgotten now, and for good.
        31 => DropKeys {
            /// The domain.
            domain: u32,
        }
    }
}

impl AgentCommand {
    fn check(&self) -> Result<(), BadSlot> {
        match *self {
            Self::Configure { buffer, .. } if buffer > 1 => Err(BadSlot::Range("buffer")),
            Self::Configure { bytes, .. } if bytes > SNAPSHOT_BYTES => Err(BadSlot::Range("bytes")),
            Self::GiveKey { version, current, .. } if version == 0 || version > current => {
                Err(BadSlot::Range("version"))
            }
            Self::ListBlocks { limit, .. } if !(1..=PAGE_BLOCKS_MAX).contains(&limit) => {
                Err(BadSlot::Range("limit"))
            }
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
            /// Its place in the configuration of the data plane, from 0.
            place: u8,
            /// Its mounts since the last that the controllers confirmed.
            trail: MountTrail,
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
        /// Room on a device.
        69 => Usage {
            /// The device.
            device: DeviceId,
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
        /// A device of the configuration does not serve since this start; the others do. The log of the data plane says
        /// why.
        71 => DeviceBroken {
            /// Its place in the configuration, from 0.
            place: u8,
        }
        /// Why the device at a place does not serve; said before its `DeviceBroken`, in as many parts as the text takes.
        74 => DeviceTrouble {
            /// Its place in the configuration, from 0.
            place: u8,
            /// The next part of the text.
            words: Words,
        }
        /// The last order to open or close devices that was carried out; the list of devices follows.
        75 => DevicesOrdered {
            /// Its number.
            order: u64,
        }
        /// How long a device took to make entries durable in its last window; told when a window ended.
        76 => DevicePace {
            /// The device.
            device: DeviceId,
            /// Counts the windows, from 1.
            window: u64,
            /// Entries in it.
            entries: u64,
            /// Half of them took this long at most, in microseconds.
            median_us: u64,
            /// All but one in a hundred did, in microseconds.
            p99_us: u64,
        }
        /// All devices were told: so many `Mounted` and so many `DeviceBroken` came before.
        72 => DevicesTold {
            /// Devices that were mounted.
            mounted: u8,
            /// Devices that were not.
            broken: u8,
        }
        /// A host answers, and a device of it does not keep up in the groups that it holds; sent while that lasts.
        73 => DeviceSilent {
            /// The host.
            node: NodeId,
            /// Its start that is meant; 0 when it is not known.
            boot: BootId,
            /// The life of the device.
            incarnation: Incarnation,
        }
        /// Somebody here asked for data of a key domain: its keys are needed. Said once to each agent.
        90 => KeyWanted {
            /// The domain.
            domain: u32,
            /// Public key of this start of the data plane (X25519); keys are sealed to it.
            public: [u8; 32],
        }
        /// The group holds none of these blocks any more. Still true when it is said again, or late.
        80 => BlocksDeleted {
            /// The group.
            group: GroupId,
            /// How many of the blocks were there and were deleted now.
            deleted: u32,
            /// Sealed bytes that each member held of them.
            bytes: u64,
            /// The blocks, as they were named.
            runs: BlockRuns,
        }
        /// A part of the answer to `ListBlocks`. Parts come in order; one that is missing makes the answer void.
        81 => BlocksHeld {
            /// Of the command.
            request: u64,
            /// Counts the parts of one answer, from 0.
            part: u16,
            /// The last part.
            last: bool,
            /// More blocks follow behind those of this answer.
            more: bool,
            /// The ids.
            blocks: HeldBlocks,
        }
        /// What the host knows of its copy of a group; told when it changed.
        82 => Health {
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
        /// How far the host is filled with a group that it joins; told when it changed.
        83 => Filling {
            /// The group.
            group: GroupId,
            /// It is being filled with pages now.
            filling: bool,
            /// Block of the last unit that was stored of them.
            block: BlockId,
            /// That unit.
            unit: u16,
            /// The last entry of the group's log that a joiner holds; 0 of a member in sync.
            followed: u64,
        }
        /// Units whose copy is bad and of which no host that could be asked has a good one; told when it changed.
        84 => Lost {
            /// The group.
            group: GroupId,
            /// How many.
            units: u32,
            /// Some of them.
            named: LostUnits,
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

//! The state of the cluster group.

use nova_fleet::Fleet;
use nova_groups::Groups;
use nova_keys::Keys;
use prost::Message;

/// First bytes of a snapshot, with its version behind them in little-endian.
const SNAPSHOT_MAGIC: [u8; 8] = *b"NOVACLUS";
const SNAPSHOT_VERSION: u32 = 1;

/// Changes in one log entry.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterCommand {
    /// In the order in which they are applied.
    #[prost(message, repeated, tag = "1")]
    pub steps: Vec<ClusterStep>,
}

/// One change.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterStep {
    /// Of which slice.
    #[prost(oneof = "StepOp", tags = "1, 2, 30")]
    pub op: Option<StepOp>,
}

/// The slices of the cluster group.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StepOp {
    /// Hosts.
    #[prost(message, tag = "1")]
    Fleet(nova_fleet::Command),
    /// Replica groups.
    #[prost(message, tag = "2")]
    Groups(nova_groups::Command),
    /// Key domains.
    #[prost(message, tag = "30")]
    Keys(nova_keys::Command),
}

impl From<nova_keys::Command> for ClusterStep {
    fn from(command: nova_keys::Command) -> Self {
        Self { op: Some(StepOp::Keys(command)) }
    }
}

impl From<nova_fleet::Command> for ClusterStep {
    fn from(command: nova_fleet::Command) -> Self {
        Self { op: Some(StepOp::Fleet(command)) }
    }
}

impl From<nova_groups::Command> for ClusterStep {
    fn from(command: nova_groups::Command) -> Self {
        Self { op: Some(StepOp::Groups(command)) }
    }
}

/// The answer to one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepAnswer {
    /// Of the fleet.
    Fleet(nova_fleet::Answer),
    /// Of the groups.
    Groups(nova_groups::Answer),
    /// Of the keys.
    Keys(nova_keys::Answer),
    /// This controller does not know the step.
    Unknown,
}

/// One answer for each step of the batch, in order.
pub type ClusterAnswer = Vec<StepAnswer>;

/// Hosts, replica groups and key domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Hosts.
    pub fleet: Fleet,
    /// Replica groups.
    pub groups: Groups,
    /// Key domains.
    pub keys: Keys,
    /// Log index of the last batch that was applied: the version of the map.
    pub version: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "vec", tag = "2")]
    fleet: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    groups: Vec<u8>,
    /// Empty in a snapshot of a release without keys.
    #[prost(bytes = "vec", tag = "30")]
    keys: Vec<u8>,
}

impl ClusterState {
    /// Applies the batch at `index` of the log.
    pub fn apply(&mut self, index: u64, batch: &ClusterCommand) -> ClusterAnswer {
        self.version = index;
        batch
            .steps
            .iter()
            .map(|step| match &step.op {
                Some(StepOp::Fleet(command)) => StepAnswer::Fleet(self.fleet.apply(command)),
                Some(StepOp::Groups(command)) => StepAnswer::Groups(self.groups.apply(command)),
                Some(StepOp::Keys(command)) => StepAnswer::Keys(self.keys.apply(command)),
                None => StepAnswer::Unknown,
            })
            .collect()
    }

    /// Writes the whole state: magic, version, one message.
    pub fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        out(&SNAPSHOT_MAGIC);
        out(&SNAPSHOT_VERSION.to_le_bytes());
        let snapshot = Snapshot {
            version: self.version,
            fleet: self.fleet.encode_to_vec(),
            groups: self.groups.encode_to_vec(),
            keys: self.keys.encode_to_vec(),
        };
        out(&snapshot.encode_to_vec());
    }

    /// Reads what [`ClusterState::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(&SNAPSHOT_MAGIC).ok_or("this is no snapshot of the cluster")?;
        let (version, rest) =
            rest.split_first_chunk::<4>().ok_or("the snapshot of the cluster is cut short")?;
        if u32::from_le_bytes(*version) != SNAPSHOT_VERSION {
            return Err("the snapshot of the cluster is of a newer version; upgrade this controller".into());
        }
        let snapshot =
            Snapshot::decode(rest).map_err(|_| "the snapshot of the cluster is damaged; fetch it again")?;
        Ok(Self {
            version: snapshot.version,
            fleet: Fleet::decode(&snapshot.fleet).map_err(|error| error.to_string())?,
            groups: Groups::decode(&snapshot.groups).map_err(|error| error.to_string())?,
            keys: Keys::decode(&snapshot.keys).map_err(|error| error.to_string())?,
        })
    }
}

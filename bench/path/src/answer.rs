//! What `nova --json` answers, as far as it is looked at here. Fields that are not named are not looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// `nova fs put`.
#[derive(Clone, Debug, Deserialize)]
pub struct Put {
    /// Files put.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links and special files that were passed over.
    pub skipped: u64,
    /// How long it took.
    pub seconds: f64,
    /// The longest time between two acknowledged writes while some were in flight, in milliseconds.
    pub stall_ms_max: f64,
    /// Requests that were asked again.
    pub retries: u64,
}

/// `nova fs get`.
#[derive(Clone, Debug, Deserialize)]
pub struct Get {
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `nova fs du`.
#[derive(Clone, Debug, Deserialize)]
pub struct Usage {
    /// Files below the path.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `nova fs ls`.
#[derive(Clone, Debug, Deserialize)]
pub struct Listing {
    /// Everything found.
    pub entries: Vec<Entry>,
}

/// One line of [`Listing`].
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub path: String,
    /// `file` or `directory`.
    pub kind: String,
    /// Size of a file.
    #[serde(default)]
    pub bytes: u64,
}

/// `nova fs locate`.
#[derive(Clone, Debug, Deserialize)]
pub struct Located {
    /// The file.
    pub path: String,
    /// Its units in order.
    pub units: Vec<LocatedUnit>,
}

/// One unit of a file, and where its replicas are.
#[derive(Clone, Debug, Deserialize)]
pub struct LocatedUnit {
    /// The block, as the command prints it.
    pub block: Value,
    /// Index of the unit in its block.
    pub unit: u64,
    /// The group that keeps the block, as the command prints it.
    pub group: Value,
    /// How many copies the group keeps when it is whole.
    pub replicas_wanted: usize,
    /// One per member of the group.
    pub replicas: Vec<Replica>,
}

/// One replica of a unit.
#[derive(Clone, Debug, Deserialize)]
pub struct Replica {
    /// Name of the host.
    pub host: String,
    /// The device's file, in a region on one machine.
    pub device_path: Option<PathBuf>,
    /// Where its cell begins on the device, in bytes.
    pub position: u64,
    /// Sealed bytes in the cell.
    pub stored_bytes: u64,
}

/// `nova dev up` and `nova dev status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Region {
    /// Where the region keeps everything.
    pub folder: PathBuf,
    /// The Raft members.
    pub controllers: Vec<Controller>,
    /// Storage and compute hosts.
    pub hosts: Vec<Host>,
}

/// One controller process.
#[derive(Clone, Debug, Deserialize)]
pub struct Controller {
    /// `controller-1` and so on.
    pub name: String,
    /// Its process, when it has one.
    #[serde(default)]
    pub pid: Option<i32>,
}

/// One host: two processes.
#[derive(Clone, Debug, Deserialize)]
pub struct Host {
    /// `storage-1`, `compute-1` and so on.
    pub name: String,
    /// `storage` or `compute`.
    pub role: String,
    /// The data plane, when it runs.
    #[serde(default)]
    pub novad_pid: Option<i32>,
    /// The agent, when it runs.
    #[serde(default)]
    pub agent_pid: Option<i32>,
    /// The files of its devices, in the order of its configuration.
    #[serde(default)]
    pub devices: Vec<PathBuf>,
    /// Where programs attach to the agent.
    #[serde(default)]
    pub agent_socket: Option<PathBuf>,
}

impl Region {
    /// Every process of the region that has an id, with the name of its host or controller.
    #[must_use]
    pub fn processes(&self) -> Vec<(String, i32)> {
        let controllers = self.controllers.iter().map(|one| (one.name.clone(), one.pid));
        let hosts = self.hosts.iter().flat_map(|host| {
            [
                (format!("{} novad", host.name), host.novad_pid),
                (format!("{} agent", host.name), host.agent_pid),
            ]
        });
        controllers.chain(hosts).filter_map(|(name, pid)| Some((name, pid?))).collect()
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

/// `nova dev kill`.
#[derive(Clone, Debug, Deserialize)]
pub struct Killed {
    /// What was ended.
    pub killed: Vec<KilledProcess>,
}

/// One process of [`Killed`].
#[derive(Clone, Debug, Deserialize)]
pub struct KilledProcess {
    /// Whose process it was.
    pub name: String,
    /// Which it was.
    pub pid: i32,
}

/// `nova cluster status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The Raft groups of the controllers.
    #[serde(default)]
    pub raft: Vec<RaftGroup>,
    /// Hosts and what they count.
    pub hosts: Vec<HostStatus>,
    /// Replica groups.
    pub groups: Vec<Group>,
    /// Groups whose members are all in sync.
    pub groups_in_sync: u64,
    /// All groups.
    pub groups_total: u64,
    /// How space of removed files comes back.
    #[serde(default)]
    pub collection: Collection,
    /// What an operator should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How space of removed files comes back.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Collection {
    /// Ids that wait.
    pub blocks_waiting: u64,
    /// Blocks collected since the region was made.
    pub blocks_collected: u64,
    /// Sealed bytes that each member held of them.
    pub bytes_collected: u64,
    /// When the last full pass ended; 0: none yet.
    pub full_pass_ms: u64,
}

/// `nova fs fsck`.
#[derive(Clone, Debug, Deserialize)]
pub struct Checked {
    /// Blocks that files have.
    pub blocks_referenced: u64,
    /// Blocks that all members together hold.
    pub blocks_held: u64,
    /// Copies of groups that were compared.
    pub members: u64,
    /// What differs.
    pub findings: Vec<Finding>,
}

/// One difference.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// `missing`, `unknown`, `misplaced` or `silent`.
    pub kind: String,
    /// On which host.
    pub host: String,
    /// Which block; none for a silent member.
    pub block: Option<u64>,
}

/// `nova fs fsck --deep`.
#[derive(Clone, Debug, Deserialize)]
pub struct CheckedDeep {
    /// Files that were compared.
    pub files: u64,
    /// Blocks of them.
    pub blocks: u64,
    /// Copies of these that members told of.
    pub copies: u64,
    /// What differs.
    pub findings: Vec<DeepFinding>,
}

/// One difference in a file.
#[derive(Clone, Debug, Deserialize)]
pub struct DeepFinding {
    /// `silent`, `missing_unit`, `root` and so on.
    pub kind: String,
    /// The file.
    pub path: String,
    /// On which host; none where all agree.
    pub host: Option<String>,
    /// In words.
    pub detail: String,
}

/// A Raft group.
#[derive(Clone, Debug, Deserialize)]
pub struct RaftGroup {
    /// `cluster` or `files`.
    pub name: String,
    /// Id of the controller that leads it; 0 when none does.
    pub leader: u64,
}

/// A host as the controllers see it.
#[derive(Clone, Debug, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub node: u64,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// Places in its configuration of devices that it could not mount.
    #[serde(default)]
    pub broken_devices: Vec<usize>,
    /// What it counts, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// A device in [`HostStatus`].
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceStatus {
    /// Its id, in hexadecimal.
    pub device: String,
    /// Its place in the configuration of its host; `None` when it is not mounted.
    pub place: Option<usize>,
    /// `serving`, `failed` or `absent`.
    pub state: String,
    /// Its life.
    pub incarnation: u64,
    /// Room on it.
    pub bytes_free: u64,
    /// Groups with a replica on it.
    pub groups: usize,
    /// It is far slower than the others of the region.
    pub slow: bool,
}

/// `nova fs health`.
#[derive(Clone, Debug, Deserialize)]
pub struct Health {
    /// Something has fewer intact copies than it should have.
    pub at_risk: bool,
    /// Blocks of which that is true.
    pub blocks_at_risk: u64,
    /// Copies known to be bad.
    pub bad_units: u64,
    /// The longest time for which something was not verified.
    pub oldest_verification_seconds: Option<u64>,
    /// The storage hosts.
    pub hosts: Vec<HostHealth>,
}

/// `nova node ls`.
#[derive(Clone, Debug, Deserialize)]
pub struct Hosts {
    /// All of them.
    pub hosts: Vec<HostStatus>,
}

/// A host in [`Health`].
#[derive(Clone, Debug, Deserialize)]
pub struct HostHealth {
    /// Its name.
    pub name: String,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// Groups with a replica on it.
    pub groups: u64,
    /// Bytes that its scrub read and checked.
    pub bytes_verified: u64,
    /// Times its scrub went over everything.
    pub passes: u64,
    /// Copies written anew.
    pub repaired: u64,
}

/// A replica group.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Its number.
    pub group: u32,
    /// Counts the changes of its members.
    pub epoch: u64,
    /// Number of the host that orders its writes.
    pub primary: u64,
    /// How many members it has when it is whole.
    pub replicas: usize,
    /// Whether it has them, all in sync.
    pub in_sync: bool,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, Deserialize)]
pub struct GroupMember {
    /// Number of its host.
    pub node: u64,
    /// Life of the device that holds the replica.
    pub incarnation: u64,
    /// `in_sync` or `joining`.
    pub role: String,
}

impl Status {
    /// Groups with at least `replicas` members in sync.
    #[must_use]
    pub fn groups_with(&self, replicas: usize) -> usize {
        let full = |group: &&Group| {
            group.members.iter().filter(|member| member.role == "in_sync").count() >= replicas
        };
        self.groups.iter().filter(full).count()
    }

    /// Whether there are groups of `replicas` members, and every one of them is whole.
    #[must_use]
    pub fn groups_whole(&self, replicas: usize) -> bool {
        let mut of = self.groups.iter().filter(|group| group.replicas == replicas).peekable();
        of.peek().is_some() && of.all(|group| group.in_sync)
    }

    /// Whether there are groups, and every one has `replicas` members in sync.
    #[must_use]
    pub fn all_in_sync(&self, replicas: usize) -> bool {
        !self.groups.is_empty()
            && self.groups_in_sync == self.groups_total
            && self.groups_with(replicas) == self.groups.len()
    }

    /// Id of the controller that leads a Raft group.
    #[must_use]
    pub fn leader_of(&self, group: &str) -> Option<u64> {
        let found = self.raft.iter().find(|raft| raft.name == group);
        found.map(|raft| raft.leader).filter(|leader| *leader != 0)
    }

    /// Room on the fullest device.
    #[must_use]
    pub fn bytes_free_min(&self) -> u64 {
        let devices = self.hosts.iter().flat_map(|host| &host.devices);
        devices.filter(|device| device.state == "serving").map(|device| device.bytes_free).min().unwrap_or(0)
    }

    /// A host.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostStatus> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Pages that all hosts together have repaired since each was started.
    #[must_use]
    pub fn pages_repaired(&self) -> u64 {
        self.hosts.iter().filter_map(|host| host.counters.get("pages_repaired")).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_names_all_its_processes() {
        let text = r#"{"folder":"/r","controllers":[{"name":"controller-1","pid":7,"address":"127.0.0.1:1"}],
            "hosts":[{"name":"storage-1","role":"storage","novad_pid":8,"agent_pid":9,"devices":["/r/d"],"agent_socket":"/r/s"},
                     {"name":"compute-1","role":"compute","novad_pid":null,"agent_pid":10,"devices":[],"agent_socket":"/r/t"}],
            "seconds":1.5}"#;
        let region: Region = serde_json::from_str(text).unwrap();
        let expected =
            [("controller-1", 7), ("storage-1 novad", 8), ("storage-1 agent", 9), ("compute-1 agent", 10)];
        assert_eq!(region.processes(), expected.map(|(name, pid)| (name.to_owned(), pid)));
        assert!(region.host("storage-1").is_some() && region.host("storage-2").is_none());
    }

    fn status(groups: &str, in_sync: u64, total: u64) -> Status {
        let text = format!(
            r#"{{"controllers":[],"raft":[],"hosts":[
                {{"name":"storage-1","node":1,"counters":{{"pages_repaired":3,"other":1}}}},
                {{"name":"storage-2","node":2,"counters":{{"pages_repaired":4}}}},{{"name":"compute-1","node":3}}],
               "groups":{groups},"groups_in_sync":{in_sync},"groups_total":{total},"notes":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn repaired_pages_are_summed_over_hosts() {
        assert_eq!(status("[]", 0, 0).pages_repaired(), 7);
    }

    #[test]
    fn a_joining_member_is_not_in_sync() {
        let member = |role: &str| format!(r#"{{"node":1,"incarnation":1,"role":"{role}"}}"#);
        let group = |roles: [&str; 3]| {
            let (whole, members) = (roles == ["in_sync"; 3], roles.map(member).join(","));
            format!(
                r#"[{{"group":1,"epoch":1,"primary":1,"replicas":3,"in_sync":{whole},"members":[{members}]}}]"#
            )
        };
        assert!(status(&group(["in_sync"; 3]), 1, 1).all_in_sync(3));
        assert!(!status(&group(["in_sync", "in_sync", "joining"]), 1, 1).all_in_sync(3));
        assert!(!status(&group(["in_sync"; 3]), 0, 1).all_in_sync(3));
        assert!(!status("[]", 0, 0).all_in_sync(3), "no groups is not in sync");
    }
}

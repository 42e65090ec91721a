//! The configuration: TOML, every key known, or the controller does not start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nova_groups::GROUPS_MAX;
use nova_raft::Timing;
use serde::Deserialize;

use crate::collection::TimeOfDay;

/// What `--explain-config` prints: a configuration with every key.
pub(crate) const EXPLANATION: &str = r#"# Configuration of nova-control. Keys without "default" must be given; unknown keys are refused.

# Name of the region, as in the certificates.
region = "dev"
# This controller: one of the peers below. An id is never used again for another controller.
id = 1
# Where it listens: gRPC with mutual TLS, for hosts, operators and the other controllers.
listen = "127.0.0.1:7401"
# Its logs and snapshots.
folder = "/var/lib/nova/control"
# Replica groups to make at least for each number of copies that a namespace wants, once as many storage hosts serve; more
# are made so that every device holds three of each. Raise it for more; groups are never taken away. Default: 12.
groups_wanted = 12

# How space of removed files comes back. Optional, and so is each key.
[collection]
# Blocks that no file has are collected once they have waited this long, for whoever still reads them; at once while a
# device is more than 80 % full (Spec E.2). Default: 60.
after_seconds = 60
# When the full pass runs, in UTC: it compares what is stored with the file metadata and collects what is in neither
# (Spec C.4). Default: "04:00".
full_at = "04:00"
# Most blocks that the region collects in a second, so that clients do not notice. Default: 2000.
blocks_per_second = 2000

# When the state is written out, so that the log behind it can go (Spec A.1). Optional, and so is each key.
[snapshots]
# When the last time is so long ago. Default: 900.
every_seconds = 900
# Or when the log has grown so much since. Default: 256.
log_mib = 256

# The keys of NovaFS (Spec 4.4). Optional: without it this controller gives no host a key, and each edge has the region's
# key in a file.
[keys]
# The root key file of the region, mode 0600, the same on every controller; `nova key root create` makes one.
root = "/etc/nova/root.key"
# The region key file of a region that was made before: its key becomes a version of the default domain, so that what is
# stored stays readable. Read once, when the region has no key domain; optional.
# import = "/etc/nova/region.key"
# A key that is older is rotated: new blocks get a new one. Default: 180 (Spec 4.4).
rotate_after_days = 180
# How long a host may hold a key without hearing of it again. A dropped domain is readable nowhere after this, also on
# hosts that nobody reaches; and a region reads and writes as long without its controllers. 1 to 168. Default: 24.
held_hours = 24

[tls]
# The region's CA, and the certificate and private key of this controller (PEM; the key has mode 0600).
ca = "/etc/nova/ca.pem"
certificate = "/etc/nova/control.pem"
key = "/etc/nova/control.key"

# All controllers of the region, this one too, the same list on each: three (Spec 2.2), or one for a trial.
[[peers]]
id = 1
address = "127.0.0.1:7401"
"#;

/// A checked configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) region: String,
    pub(crate) id: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) folder: PathBuf,
    #[serde(default = "groups_wanted_default")]
    pub(crate) groups_wanted: usize,
    #[serde(default)]
    pub(crate) collection: CollectionConfig,
    #[serde(default)]
    pub(crate) snapshots: SnapshotsConfig,
    #[serde(default)]
    pub(crate) keys: Option<KeysConfig>,
    pub(crate) tls: Tls,
    peers: Vec<Peer>,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysConfig {
    pub(crate) root: PathBuf,
    #[serde(default)]
    pub(crate) import: Option<PathBuf>,
    #[serde(default = "rotate_after_days_default")]
    pub(crate) rotate_after_days: u32,
    #[serde(default = "held_hours_default")]
    pub(crate) held_hours: u32,
}

/// Spec 4.4.
fn rotate_after_days_default() -> u32 {
    180
}

/// Control design, section 5.
fn held_hours_default() -> u32 {
    24
}

/// A key that nobody speaks of is held for a week at most.
const HELD_HOURS_MAX: u32 = 168;

/// How space of removed files comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CollectionConfig {
    pub(crate) after_seconds: u32,
    pub(crate) full_at: TimeOfDay,
    pub(crate) blocks_per_second: u32,
}

impl Default for CollectionConfig {
    fn default() -> Self {
        Self { after_seconds: 60, full_at: TimeOfDay::COLLECTION, blocks_per_second: 2000 }
    }
}

/// When the state of a group is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SnapshotsConfig {
    every_seconds: u32,
    log_mib: u32,
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self { every_seconds: 900, log_mib: 256 }
    }
}

impl SnapshotsConfig {
    /// As a group takes it.
    pub(crate) fn timing(self) -> Timing {
        Timing {
            snapshot_interval: Duration::from_secs(self.every_seconds.into()),
            snapshot_log_bytes: u64::from(self.log_mib) << 20,
            ..Timing::default()
        }
    }
}

/// Where the certificates are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    id: u64,
    address: String,
}

fn groups_wanted_default() -> usize {
    nova_groups::GROUPS_DEFAULT
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("configuration {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(!config.region.is_empty(), "region must be given");
        ensure!(
            (1..=GROUPS_MAX).contains(&config.groups_wanted),
            "groups_wanted is 1 to {GROUPS_MAX}, not {}",
            config.groups_wanted
        );
        ensure!(config.collection.blocks_per_second > 0, "collection.blocks_per_second is at least 1");
        let SnapshotsConfig { every_seconds, log_mib } = config.snapshots;
        ensure!(
            every_seconds > 0 && log_mib > 0,
            "snapshots.every_seconds and snapshots.log_mib are at least 1"
        );
        if let Some(keys) = &config.keys {
            ensure!(keys.rotate_after_days > 0, "keys.rotate_after_days is at least 1");
            ensure!(
                (1..=HELD_HOURS_MAX).contains(&keys.held_hours),
                "keys.held_hours is 1 to {HELD_HOURS_MAX}, not {}",
                keys.held_hours
            );
        }
        let members = config.members();
        ensure!(members.len() == config.peers.len(), "two peers have the same id");
        for (id, address) in &members {
            ensure!(*id != 0, "peer ids begin at 1");
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty()).then_some(())?;
                port.parse::<u16>().ok()
            });
            ensure!(port.is_some_and(|port| port != 0), "address {address:?} of peer {id} is not host:port");
        }
        if !members.contains_key(&config.id) {
            bail!("id {} is not among the peers; the list names every controller, this one too", config.id);
        }
        // An even number tolerates no more losses than the odd one below it.
        ensure!(members.len() % 2 == 1, "a region has an odd number of controllers, not {}", members.len());
        Ok(config)
    }

    /// Every controller: id and address.
    pub(crate) fn members(&self) -> BTreeMap<u64, String> {
        self.peers.iter().map(|peer| (peer.id, peer.address.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_is_itself_a_valid_configuration_with_the_defaults() {
        let config = Config::parse(EXPLANATION).unwrap();
        assert_eq!(config.groups_wanted, groups_wanted_default());
        let without: String = EXPLANATION
            .lines()
            .filter(|line| !line.starts_with("groups_wanted"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(Config::parse(&without).unwrap().groups_wanted, 12);
        assert_eq!(config.collection, CollectionConfig::default());
        assert_eq!(config.snapshots, SnapshotsConfig::default());
        let (timing, usual) = (config.snapshots.timing(), Timing::default());
        assert_eq!(timing.snapshot_interval, usual.snapshot_interval);
        assert_eq!(timing.snapshot_log_bytes, usual.snapshot_log_bytes);
        let keys = config.keys.unwrap();
        assert_eq!((keys.rotate_after_days, keys.held_hours, keys.import), (180, 24, None));
        let (before, behind) = EXPLANATION.split_once("[collection]").unwrap();
        let without = format!("{before}{}", &behind[behind.find("[tls]").unwrap()..]);
        assert_eq!(Config::parse(&without).unwrap().collection, CollectionConfig::default());
        assert_eq!(Config::parse(&without).unwrap().keys, None);
    }

    #[test]
    fn a_wrong_configuration_says_what_is_wrong() {
        let said = |from: &str, to: &str| {
            assert!(EXPLANATION.contains(from));
            format!("{:#}", Config::parse(&EXPLANATION.replace(from, to)).unwrap_err())
        };
        assert!(said("groups_wanted = 12", "groups = 12").contains("unknown field `groups`"));
        assert!(said("groups_wanted = 12", "groups_wanted = 0").contains("1 to 4096"));
        assert!(said("full_at = \"04:00\"", "full_at = \"4am\"").contains("not a time of the day"));
        assert!(said("blocks_per_second = 2000", "blocks_per_second = 0").contains("at least 1"));
        assert!(said("every_seconds = 900", "every_seconds = 0").contains("at least 1"));
        assert!(said("rotate_after_days = 180", "rotate_after_days = 0").contains("at least 1"));
        assert!(said("held_hours = 24", "held_hours = 169").contains("1 to 168"));
        assert!(said("region = \"dev\"", "").contains("missing field `region`"));
        assert!(said("id = 1\naddress", "id = 2\naddress").contains("not among the peers"));
        assert!(
            said("id = 1\naddress = \"127.0.0.1:7401\"", "id = 1\naddress = \"7401\"").contains("host:port")
        );
        let two = "[[peers]]\nid = 2\naddress = \"b:1\"\n[[peers]]\nid = 1";
        assert!(said("[[peers]]\nid = 1", two).contains("odd number"));
    }
}

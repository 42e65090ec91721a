//! novad's configuration: strict TOML, every default named and explained.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_units::MIB;
use novafs_member::ScrubOptions;
use serde::Deserialize;

use crate::certificates::CertificateFiles;
use crate::roster::dealt;

/// Devices of one novad.
pub(crate) const DEVICES_MAX: usize = 24;
/// Smallest device that holds its superblocks, a WAL and a few slots.
const DEVICE_MIB_MIN: u64 = 256;
/// Slowest scrub (Spec 3.7).
const SCRUB_PERCENT_MIN: u32 = 2;

/// What one novad is told. Unknown keys are refused, so that a typing error is not a silent default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The host's name, for messages.
    pub(crate) name: String,
    /// Unix socket at which the agent and local programs attach.
    pub(crate) socket: PathBuf,
    /// Where other hosts reach this one's first shard; each further one listens a port higher.
    pub(crate) data_listen: SocketAddr,
    /// What this host shows to others, and whom it trusts.
    pub(crate) tls: CertificateFiles,
    /// The hw-profile: cores, memory, spinning.
    pub(crate) profile: PathBuf,
    /// Whether this host seals and opens blocks for local programs, with keys that the controllers give it.
    #[serde(default)]
    pub(crate) edge: bool,
    /// In place of `edge`, for a region whose controllers have no root key: the region's key file, mode 0600.
    #[serde(default)]
    pub(crate) region_key: Option<PathBuf>,
    /// The devices to keep blocks on, at most [`DEVICES_MAX`]. A host without one is an edge only.
    #[serde(default, rename = "device")]
    pub(crate) devices: Vec<DeviceConfig>,
    /// The pace at which everything on each device is verified.
    #[serde(default)]
    pub(crate) scrub: ScrubConfig,
}

/// The pace of the scrub.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScrubConfig {
    /// Verified a day whatever else goes on, in percent of the bytes in use; at least 2 (Spec 3.7).
    percent_a_day: u32,
    /// MiB a second while no client asks for anything; 0 is never faster.
    idle_mib_a_second: u64,
    /// A pass over the device begins no sooner than this after the one before.
    pass_every_seconds: u64,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        let pace = ScrubOptions::default();
        Self {
            percent_a_day: pace.percent_a_day,
            idle_mib_a_second: pace.idle_bytes_a_second / MIB,
            pass_every_seconds: pace.pass_every.as_secs(),
        }
    }
}

impl ScrubConfig {
    /// The pace, for the member.
    pub(crate) fn options(self) -> ScrubOptions {
        ScrubOptions {
            percent_a_day: self.percent_a_day,
            idle_bytes_a_second: self.idle_mib_a_second.saturating_mul(MIB),
            pass_every: Duration::from_secs(self.pass_every_seconds),
            ..ScrubOptions::default()
        }
    }
}

/// One device: a preallocated file or a raw block device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceConfig {
    /// Path of the file or block device.
    pub(crate) path: PathBuf,
    /// Make the file with this many MiB when it is not there. Without it a missing file is an error.
    #[serde(default)]
    pub(crate) create_mib: Option<u64>,
    /// The shard that drives it, counted from 0. Without it devices are dealt to the shards one after the other.
    #[serde(default)]
    pub(crate) shard: Option<u16>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a valid novad configuration; `novad --explain` shows every key")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("create_mib = {given} of device {path} is too small: at least {DEVICE_MIB_MIN} MiB")]
    DeviceTooSmall { path: PathBuf, given: u64 },
    #[error(
        "the device {path} has shard = {given}, and shards.count of the hw-profile is {count}: shards are counted from 0"
    )]
    NoSuchShard { path: PathBuf, given: u16, count: u16 },
    #[error("data_listen = {given}: {count} shards need as many ports from there on, and ports end at 65535")]
    PortsEnd { given: SocketAddr, count: u16 },
    #[error("{given} devices: one novad has at most {DEVICES_MAX}")]
    TooManyDevices { given: usize },
    #[error("the device {path} is named twice: give every [[device]] a path of its own")]
    DeviceTwice { path: PathBuf },
    #[error(
        "scrub.percent_a_day = {given}: at least {SCRUB_PERCENT_MIN}, so that all is verified within 50 days"
    )]
    ScrubTooSlow { given: u32 },
    #[error("neither a [[device]] nor edge = true is given: this novad would store nothing and be no edge")]
    NoRole,
    #[error(
        "region_key and edge = true exclude each other: remove region_key, and give the file to the controllers as \
         keys.import"
    )]
    TwoKeySources,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text).map_err(|error| match error {
            Parsing::Syntax(source) => {
                ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) }
            }
            Parsing::Meaning(error) => error,
        })
    }

    fn parse(text: &str) -> Result<Self, Parsing> {
        let config: Self = toml::from_str(text).map_err(Parsing::Syntax)?;
        config.check().map_err(Parsing::Meaning)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.edge && self.region_key.is_some() {
            return Err(ConfigError::TwoKeySources);
        }
        if self.devices.is_empty() && self.region_key.is_none() && !self.edge {
            return Err(ConfigError::NoRole);
        }
        if self.scrub.percent_a_day < SCRUB_PERCENT_MIN {
            return Err(ConfigError::ScrubTooSlow { given: self.scrub.percent_a_day });
        }
        if self.devices.len() > DEVICES_MAX {
            return Err(ConfigError::TooManyDevices { given: self.devices.len() });
        }
        let mut seen = BTreeSet::new();
        for DeviceConfig { path, create_mib, .. } in &self.devices {
            if !seen.insert(path) {
                return Err(ConfigError::DeviceTwice { path: path.clone() });
            }
            if let Some(given) = create_mib.filter(|mib| *mib < DEVICE_MIB_MIN) {
                return Err(ConfigError::DeviceTooSmall { path: path.clone(), given });
            }
        }
        Ok(())
    }
}

/// What one shard is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardConfig {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Places of its devices in the configuration, and their paths.
    pub(crate) devices: Vec<(u8, PathBuf)>,
}

impl Config {
    /// What each of `count` shards is told.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchShard`] and [`ConfigError::PortsEnd`].
    pub(crate) fn deal(&self, count: u16) -> Result<Vec<ShardConfig>, ConfigError> {
        let mut shards = Vec::with_capacity(usize::from(count));
        for shard in 0..count {
            let mut listen = self.data_listen;
            // Port 0 is whichever is free, for each of them.
            if listen.port() != 0 {
                let port = listen.port().checked_add(shard);
                listen.set_port(port.ok_or(ConfigError::PortsEnd { given: listen, count })?);
            }
            shards.push(ShardConfig { listen, devices: Vec::new() });
        }
        for (place, device) in self.devices.iter().enumerate() {
            let given = device.shard.unwrap_or_else(|| dealt(place, count));
            let path = device.path.clone();
            let Some(shard) = shards.get_mut(usize::from(given)) else {
                return Err(ConfigError::NoSuchShard { path, given, count });
            };
            shard.devices.push((u8::try_from(place).expect("checked against DEVICES_MAX"), path));
        }
        Ok(shards)
    }
}

impl DeviceConfig {
    /// Size of a file that is to be made.
    pub(crate) fn create_bytes(&self) -> Option<u64> {
        self.create_mib.map(|mib| mib * MIB)
    }
}

#[derive(Debug)]
enum Parsing {
    Syntax(toml::de::Error),
    Meaning(ConfigError),
}

/// Every key with its meaning, as `novad --explain` prints it.
pub(crate) const EXPLAINED: &str = "\
# novad configuration
name = \"storage-1\"             # the host's name, for messages
socket = \"/run/nova/novad.sock\" # the agent and local programs attach here; made with mode 0600
data_listen = \"127.0.0.1:7101\" # NovaBulk, of the first shard; each further one a port higher; always TLS 1.3
profile = \"hw-profiles/laptop.toml\"
edge = true                     # optional: seals and opens blocks here, with keys that the controllers give it
# region_key = \"region.key\"    # in place of edge, when the controllers have no root key: the key itself, mode 0600
[[device]]                      # optional, up to 24 times: stores blocks here
path = \"device.nova\"          # a file, or a raw block device such as /dev/disk/by-id/nvme-...
create_mib = 4096               # optional: make the file when it is missing, at least 256
[[device]]                      # one that is missing or damaged is reported, and the others serve; new ones come behind:
                                # `nova node device open` has this file read again
path = \"/dev/disk/by-id/nvme-1\"
shard = 0                       # optional: which shard drives it; else the shards take turns, in this order
[tls]                           # what this host shows to others; files that change are read again within 5 s
ca = \"/etc/nova/ca.pem\"        # the region's CA; several while it is replaced
certificate = \"/etc/nova/novad.pem\" # of spiffe://<region>.nova/<zone>/novad/<name>
key = \"/etc/nova/novad.key\"    # mode 0600
[scrub]                         # optional: how fast everything on each device is verified; these are the defaults
percent_a_day = 2               # whatever else goes on, of the bytes in use; at least 2
idle_mib_a_second = 16          # while no client asks for anything; 0 is never faster
pass_every_seconds = 86400      # a pass begins no sooner than this after the one before
";

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'a'\nsocket = '/s'\ndata_listen = '127.0.0.1:1'\nprofile = 'p'\nregion_key = 'k'\n\
         tls = { ca = 'ca', certificate = 'c', key = 'k' }\n";

    #[test]
    fn the_explained_configuration_is_a_valid_one() {
        let config = Config::parse(EXPLAINED).expect("what we show must work");
        let bytes: Vec<_> = config.devices.iter().map(DeviceConfig::create_bytes).collect();
        assert_eq!(bytes, [Some(4096 << 20), None]);
    }

    #[test]
    fn a_cause_is_said_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("novad.toml");
        let said =
            |path: &Path| format!("{:#}", anyhow::Error::new(Config::read(path).expect_err("refused")));
        assert_eq!(said(&missing).matches("No such file").count(), 1, "{}", said(&missing));
        std::fs::write(&missing, "name = ").expect("write");
        assert_eq!(said(&missing).matches("TOML parse error").count(), 1, "{}", said(&missing));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(matches!(Config::parse(&format!("{GOOD}prot = 1\n")), Err(Parsing::Syntax(_))));
    }

    #[test]
    fn each_device_has_a_path_of_its_own_and_there_are_not_too_many() {
        let device = |path: &str| format!("[[device]]\npath = '{path}'\ncreate_mib = 256\n");
        let with = |devices: &[String]| Config::parse(&format!("{GOOD}{}", devices.concat()));
        let two = with(&[device("a"), device("b")]).expect("two devices");
        assert_eq!(
            two.devices.iter().map(|it| it.path.as_path()).collect::<Vec<_>>(),
            [Path::new("a"), Path::new("b")]
        );
        assert!(matches!(
            with(&[device("a"), device("b"), device("a")]),
            Err(Parsing::Meaning(ConfigError::DeviceTwice { path })) if path == Path::new("a")
        ));
        let many: Vec<String> = (0..=DEVICES_MAX).map(|index| device(&index.to_string())).collect();
        assert_eq!(with(&many[1..]).expect("as many as there may be").devices.len(), DEVICES_MAX);
        assert!(matches!(with(&many), Err(Parsing::Meaning(ConfigError::TooManyDevices { given: 25 }))));
        let small = device("a").replace("256", "255");
        assert!(matches!(
            with(&[small]),
            Err(Parsing::Meaning(ConfigError::DeviceTooSmall { given: 255, .. }))
        ));
        assert!(
            matches!(with(&["[device]\npath = 'a'\n".into()]), Err(Parsing::Syntax(_))),
            "one is a list too"
        );
    }

    #[test]
    fn devices_are_dealt_to_the_shards_in_turn_unless_the_configuration_says_where_they_go() {
        let device = |path: &str, more: &str| format!("[[device]]\npath = '{path}'\n{more}\n");
        let devices = [device("a", ""), device("b", "shard = 0"), device("c", ""), device("d", "")].concat();
        let config = Config::parse(&format!("{GOOD}{devices}")).expect("four devices");
        let dealt = |count| {
            let shards = config.deal(count).expect("all shards are there");
            let places = |it: &ShardConfig| it.devices.iter().map(|(place, _)| *place).collect::<Vec<_>>();
            shards.iter().map(|it| (it.listen.port(), places(it))).collect::<Vec<_>>()
        };
        assert_eq!(dealt(1), [(1, vec![0, 1, 2, 3])]);
        assert_eq!(dealt(2), [(1, vec![0, 1, 2]), (2, vec![3])]);
        assert_eq!(dealt(3), [(1, vec![0, 1, 3]), (2, vec![]), (3, vec![2])]);
    }

    #[test]
    fn a_shard_that_is_not_there_and_ports_past_the_last_are_refused() {
        let with = |text: &str, more: &str| Config::parse(&format!("{text}{more}")).expect("sound by itself");
        let config = with(GOOD, "[[device]]\npath = 'a'\nshard = 2\n");
        assert!(matches!(config.deal(2), Err(ConfigError::NoSuchShard { given: 2, count: 2, .. })));
        assert!(config.deal(3).is_ok());
        let high = with(&GOOD.replace("127.0.0.1:1", "127.0.0.1:65534"), "");
        assert!(high.deal(2).is_ok());
        assert!(matches!(high.deal(3), Err(ConfigError::PortsEnd { count: 3, .. })));
        let any = with(&GOOD.replace("127.0.0.1:1", "127.0.0.1:0"), "").deal(2).expect("the kernel chooses");
        assert!(any.iter().all(|shard| shard.listen.port() == 0));
    }

    #[test]
    fn a_host_without_certificates_is_refused() {
        let text = GOOD.replace("tls = ", "# tls = ");
        assert!(
            matches!(Config::parse(&text), Err(Parsing::Syntax(error)) if error.message().contains("tls"))
        );
    }

    #[test]
    fn a_scrub_below_two_percent_a_day_is_refused() {
        let slow = format!("{GOOD}[scrub]\npercent_a_day = 1\n");
        assert!(matches!(
            Config::parse(&slow),
            Err(Parsing::Meaning(ConfigError::ScrubTooSlow { given: 1 }))
        ));
        let fast =
            Config::parse(&format!("{GOOD}[scrub]\nidle_mib_a_second = 64\n")).expect("faster is fine");
        let wanted = ScrubOptions { idle_bytes_a_second: 64 << 20, ..ScrubOptions::default() };
        assert_eq!(fast.scrub.options(), wanted);
    }

    #[test]
    fn a_novad_without_a_role_is_refused() {
        let text = GOOD.replace("region_key = 'k'\n", "");
        assert!(matches!(Config::parse(&text), Err(Parsing::Meaning(ConfigError::NoRole))));
        assert!(Config::parse(&format!("{text}edge = true\n")).is_ok());
    }

    #[test]
    fn an_edge_has_its_keys_from_one_place() {
        let text = format!("{GOOD}edge = true\n");
        assert!(matches!(Config::parse(&text), Err(Parsing::Meaning(ConfigError::TwoKeySources))));
    }
}

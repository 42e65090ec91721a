//! Hardware profiles: how the data plane uses one kind of machine.
//!
//! A profile is strict TOML: unknown keys are refused, units stand in the names, and a key that is left out has the
//! default that [`explain`] prints together with where it comes from.
#![forbid(unsafe_code)]

mod check;
mod explain;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use check::{ARENA_MIB_MIN, SHARDS_MAX};
pub use explain::explain;

/// One kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, in reports and baselines.
    pub name: String,
    /// Shards and where they run.
    #[serde(default)]
    pub shards: Shards,
    /// Memory of each shard.
    #[serde(default)]
    pub memory: Memory,
    /// How a shard waits.
    #[serde(default)]
    pub poll: Poll,
    /// What may be in flight on a device.
    #[serde(default)]
    pub device: Device,
}

/// Shards and where they run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shards {
    /// How many; 1 to [`SHARDS_MAX`].
    pub count: u16,
    /// Core of each shard; empty: the kernel places them (shared machines).
    pub cores: Vec<u16>,
}

/// Memory of each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Buffers of payload of one shard, in MiB; taken at start.
    pub arena_mib: u32,
    /// Whether the arena asks for huge pages.
    pub huge_pages: HugePages,
}

/// Whether an arena asks for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Ask, go on with small ones when there are none, and say so.
    Try,
    /// Do not ask.
    Never,
}

/// How a shard waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Poll {
    /// Microseconds of busy polling before a shard parks; 0 parks at once.
    pub spin_us: u32,
    /// Microseconds a task may run before the executor asks it to yield.
    pub preempt_timer_us: u32,
}

/// What may be in flight on a device, and who gets how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Requests.
    pub requests_max: u16,
    /// MiB of requests.
    pub in_flight_mib_max: u16,
    /// Part of clients in the bytes that a device serves beside its log, when all want more than there is.
    pub client_share: u16,
    /// Of repair.
    pub repair_share: u16,
    /// Of checkpoints, compaction and tiering.
    pub background_share: u16,
    /// Of scrub.
    pub scrub_share: u16,
}

impl Default for Shards {
    fn default() -> Self {
        Self { count: 1, cores: Vec::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { arena_mib: 64, huge_pages: HugePages::Never }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self { spin_us: 0, preempt_timer_us: 250 }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self {
            requests_max: 128,
            in_flight_mib_max: 32,
            client_share: 40,
            repair_share: 25,
            background_share: 15,
            scrub_share: 10,
        }
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("read the hw-profile {path}: give the path of a file like those under hw-profiles/")]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no such TOML.
    #[error("{origin} is not a hw-profile (`nova profile explain` lists every key)")]
    Parse {
        /// File or name.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value outside its range.
    #[error("{key} = {given}: {rule}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        given: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// One core for each shard, or none.
    #[error(
        "shards.cores names {cores} cores for {count} shards: name one core a shard, or none to leave them unpinned"
    )]
    CoreCount {
        /// Cores named.
        cores: usize,
        /// Shards.
        count: u16,
    },
    /// Two shards on one core.
    #[error("shards.cores names core {core} twice: a core drives one shard")]
    CoreTwice {
        /// The core.
        core: u16,
    },
    /// The machine lacks a core.
    #[error(
        "shards.cores names core {core}, this machine lets the process use {available}: choose another hw-profile"
    )]
    NoSuchCore {
        /// The core.
        core: u16,
        /// Cores that may be used, counted from 0.
        available: u16,
    },
    /// More shards than cores.
    #[error(
        "shards.count = {count}, and this machine lets the process use {available} cores: shards that share a core \
         wait for each other; set shards.count to {available} at most"
    )]
    TooManyShards {
        /// Shards of the profile.
        count: u16,
        /// Cores that may be used.
        available: u16,
    },
}

impl Profile {
    /// Reads and checks a profile from TOML; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ProfileError`], naming the key.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|source| ProfileError::Parse { origin: origin.to_owned(), source: Box::new(source) })?;
        profile.check()?;
        Ok(profile)
    }

    /// Reads and checks a profile from a file.
    ///
    /// # Errors
    /// [`ProfileError`], naming the path or the key.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A profile that comes with the program: `ci`, `laptop` or `storage-nvme12-100g`.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Some(Self::parse(text, name).expect("the test below reads each of them"))
    }

    /// Text of a profile that comes with the program.
    #[must_use]
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Bytes of one shard's arena.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        u64::from(self.memory.arena_mib) * nova_units::MIB
    }
}

/// The profiles that come with the program.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("ci", include_str!("../../../hw-profiles/ci.toml")),
    ("laptop", include_str!("../../../hw-profiles/laptop.toml")),
    ("storage-nvme12-100g", include_str!("../../../hw-profiles/storage-nvme12-100g.toml")),
];

#[cfg(test)]
mod tests;

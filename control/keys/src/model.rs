//! What exists.

use imbl::OrdMap;
use nova_units::Timestamp;

/// Id of the domain that every region has; namespaces are in it unless they were put into another.
pub const DEFAULT_DOMAIN: u32 = 1;
/// Its name.
pub const DEFAULT_NAME: &str = "default";
/// Domains of a region, dropped ones included: their ids are never used again.
pub const DOMAINS_MAX: usize = 4096;
/// Versions of one domain's key; at one rotation in 180 days that is half a millennium.
pub const VERSIONS_MAX: usize = 1024;
/// Longest name of a domain.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest wrapped key: what a KMS gives for 32 bytes.
pub const WRAPPED_BYTES_MAX: usize = 1024;

/// One version of a domain's key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// When it was made; of an imported one, when it came.
    pub created: Timestamp,
    /// Version of the root key that wraps it.
    pub root_version: u32,
    /// The key, as only the key service can read it.
    pub wrapped: Vec<u8>,
}

/// What a version may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionState {
    /// New blocks are sealed with it.
    Current,
    /// Blocks that name it are read, and written on.
    Readable,
    /// It is gone, and so are the data.
    Dropped,
}

/// Where a domain is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It has keys; the highest version is the current one.
    Live {
        /// At least one.
        versions: OrdMap<u32, KeyVersion>,
    },
    /// Its wrapped keys are gone for good.
    Dropped {
        /// When.
        at: Timestamp,
        /// The version that was current.
        last: u32,
    },
}

/// A key domain: what is erased together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name; never used again.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Where it is in its life.
    pub state: DomainState,
}

impl Domain {
    /// The version that new blocks are sealed with, while there is one.
    #[must_use]
    pub fn current(&self) -> Option<(u32, &KeyVersion)> {
        match &self.state {
            DomainState::Live { versions } => versions.get_max().map(|(version, key)| (*version, key)),
            DomainState::Dropped { .. } => None,
        }
    }

    /// The versions that can be read, in order; none of a dropped domain.
    pub fn versions(&self) -> impl Iterator<Item = (u32, &KeyVersion)> {
        let live = match &self.state {
            DomainState::Live { versions } => Some(versions),
            DomainState::Dropped { .. } => None,
        };
        live.into_iter().flatten().map(|(version, key)| (*version, key))
    }

    /// What `version` may be used for; `None` when there never was one of that number.
    #[must_use]
    pub fn state_of(&self, version: u32) -> Option<VersionState> {
        match &self.state {
            DomainState::Dropped { last, .. } => {
                (1..=*last).contains(&version).then_some(VersionState::Dropped)
            }
            DomainState::Live { versions } => {
                let current = self.current().map(|(current, _)| current);
                versions.contains_key(&version).then_some(if current == Some(version) {
                    VersionState::Current
                } else {
                    VersionState::Readable
                })
            }
        }
    }
}

/// All key domains of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub(crate) domains: OrdMap<u32, Domain>,
    pub(crate) names: OrdMap<String, u32>,
    /// Rises with every change.
    pub(crate) revision: u64,
    /// Never goes back.
    pub(crate) clock: Timestamp,
}

impl Keys {
    /// Domains by id, dropped ones included.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Domain)> {
        self.domains.iter().map(|(id, domain)| (*id, domain))
    }

    /// A domain.
    #[must_use]
    pub fn domain(&self, id: u32) -> Option<&Domain> {
        self.domains.get(&id)
    }

    /// The domain of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Id for the next domain.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.domains.get_max().map_or(DEFAULT_DOMAIN, |(last, _)| last.saturating_add(1))
    }

    /// Rises with every change: whoever has told others of the keys compares it.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The time of the log.
    #[must_use]
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }
}

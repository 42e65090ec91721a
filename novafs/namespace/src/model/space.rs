//! Policies of namespaces, and what was removed from them.

use core::time::Duration;

use nova_units::{InodeId, Replicas, Timestamp, UNIT_LOG2_MAX};

use super::Totals;

/// A namespace that exists from the start (Spec 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandardSpace {
    /// Its name under the root.
    pub name: &'static str,
    /// How long its files are kept there.
    pub retention: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Spec 3.3: the standard namespaces and how long files stay in them.
pub const STANDARD_SPACES: [StandardSpace; 4] = [
    StandardSpace { name: "hot", retention: DAY.saturating_mul(7) },
    StandardSpace { name: "warm", retention: DAY.saturating_mul(30) },
    StandardSpace { name: "cold", retention: DAY.saturating_mul(365) },
    StandardSpace { name: "scratch", retention: DAY },
];

/// The key domain of a namespace that says nothing else.
const KEY_DOMAIN_DEFAULT: u32 = 1;

/// The policy of a namespace: a directory under the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Files move freely only within one key domain.
    pub key_domain: u32,
    /// Copies of each new block.
    pub replicas: Replicas,
    /// How long files are kept after their last modification; `None`: until they are removed.
    pub retention: Option<Duration>,
    /// How long what was removed can be had back; zero: not at all.
    pub undelete: Duration,
    /// Its units are `1 << unit_log2` bytes.
    pub unit_log2: u8,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            key_domain: KEY_DOMAIN_DEFAULT,
            replicas: Replicas::DEFAULT,
            retention: None,
            undelete: DAY,
            unit_log2: UNIT_LOG2_MAX,
        }
    }
}

/// A file or tree in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// The file, or the top of the tree; it has no name any more.
    pub root: InodeId,
    /// Where it was.
    pub path: Box<str>,
    /// The namespace it was in.
    pub space: InodeId,
    /// Since when.
    pub removed: Timestamp,
    /// When it goes.
    pub purge: Timestamp,
    /// What it was when it was removed, itself included.
    pub weight: Totals,
}

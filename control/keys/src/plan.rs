//! What should be done about keys when nobody asks.

use core::time::Duration;

use nova_units::Timestamp;

use crate::model::Keys;

/// What one plan asks for at most: each needs the key service.
pub const DUE_MAX: usize = 16;

/// Something that is due. The leader has the key service do it, and asks for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The region has no default domain yet.
    CreateDefault,
    /// A domain's current key is older than it may be.
    Rotate {
        /// The domain.
        domain: u32,
        /// The version to make.
        version: u32,
    },
    /// A key is wrapped under an older version of the root key than the current one.
    Rewrap {
        /// The domain.
        domain: u32,
        /// Which version of its key.
        version: u32,
    },
}

/// What is due at `now`, when keys are rotated after `rotate_after` (Spec 4.4: 180 days) and the root key has
/// `root_version`. New keys come first: they are wrapped under the current root key anyway.
#[must_use]
pub fn plan(keys: &Keys, now: Timestamp, rotate_after: Duration, root_version: u32) -> Vec<Due> {
    if keys.next_id() == crate::DEFAULT_DOMAIN {
        return vec![Due::CreateDefault];
    }
    let rotate_after_ms = u64::try_from(rotate_after.as_millis()).unwrap_or(u64::MAX);
    let old = keys.iter().filter_map(|(domain, it)| {
        let (current, key) = it.current()?;
        let is_due = now.0.saturating_sub(key.created.0) >= rotate_after_ms;
        let version = current.checked_add(1).filter(|_| it.versions().count() < crate::VERSIONS_MAX)?;
        is_due.then_some(Due::Rotate { domain, version })
    });
    let behind = keys.iter().flat_map(|(domain, it)| {
        it.versions()
            .filter(|(_, key)| key.root_version < root_version)
            .map(move |(version, _)| Due::Rewrap { domain, version })
    });
    old.chain(behind).take(DUE_MAX).collect()
}

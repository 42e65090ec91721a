//! What a profile must fulfil: by itself, and on the machine it is started on.

use std::collections::BTreeSet;

use crate::{Profile, ProfileError};

/// Smallest arena: 32 buffers of 1 MiB for requests in flight and as much for the classes below.
pub const ARENA_MIB_MIN: u32 = 48;
/// Largest arena of one shard.
const ARENA_MIB_MAX: u32 = 1 << 18;
/// Most shards of one novad: as many as it has devices, one for each.
pub const SHARDS_MAX: u16 = 24;

fn range(key: &'static str, given: u64, inside: bool, rule: &'static str) -> Result<(), ProfileError> {
    if inside { Ok(()) } else { Err(ProfileError::Range { key, given, rule }) }
}

impl Profile {
    /// Whether every value is in its range.
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let Self { shards, memory, poll, device, .. } = self;
        let count = shards.count;
        range("shards.count", count.into(), (1..=SHARDS_MAX).contains(&count), "must be 1 to 24")?;
        range(
            "memory.arena_mib",
            memory.arena_mib.into(),
            (ARENA_MIB_MIN..=ARENA_MIB_MAX).contains(&memory.arena_mib),
            "must be 48 to 262144 MiB: below 48 the buffers of one full set of requests do not fit",
        )?;
        range("poll.spin_us", poll.spin_us.into(), poll.spin_us <= 10_000, "must be at most 10000")?;
        range(
            "poll.preempt_timer_us",
            poll.preempt_timer_us.into(),
            (50..=100_000).contains(&poll.preempt_timer_us),
            "must be 50 to 100000",
        )?;
        let requests = device.requests_max;
        range("device.requests_max", requests.into(), (8..=1024).contains(&requests), "must be 8 to 1024")?;
        let in_flight = device.in_flight_mib_max;
        range(
            "device.in_flight_mib_max",
            in_flight.into(),
            (2..=1024).contains(&in_flight),
            "must be 2 to 1024",
        )?;
        for (key, share) in [
            ("device.client_share", device.client_share),
            ("device.repair_share", device.repair_share),
            ("device.background_share", device.background_share),
            ("device.scrub_share", device.scrub_share),
        ] {
            range(
                key,
                share.into(),
                (1..=100).contains(&share),
                "must be 1 to 100: with 0 it would wait for ever",
            )?;
        }
        if !shards.cores.is_empty() && shards.cores.len() != usize::from(count) {
            return Err(ProfileError::CoreCount { cores: shards.cores.len(), count });
        }
        let mut seen = BTreeSet::new();
        match shards.cores.iter().find(|&&core| !seen.insert(core)) {
            Some(&core) => Err(ProfileError::CoreTwice { core }),
            None => Ok(()),
        }
    }

    /// Whether novad can be started with the profile on a machine with so many cores.
    ///
    /// # Errors
    /// [`ProfileError::TooManyShards`] or [`ProfileError::NoSuchCore`].
    pub fn check_start(&self, cores_available: u16) -> Result<(), ProfileError> {
        let count = self.shards.count;
        if count > cores_available {
            return Err(ProfileError::TooManyShards { count, available: cores_available });
        }
        match self.shards.cores.iter().find(|&&core| core >= cores_available) {
            Some(&core) => Err(ProfileError::NoSuchCore { core, available: cores_available }),
            None => Ok(()),
        }
    }
}

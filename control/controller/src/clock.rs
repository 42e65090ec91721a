//! The two clocks of a controller. Slices see neither: their times come as arguments.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nova_units::Timestamp;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since this process first asked; for silence, leases and waits.
pub(crate) fn monotonic() -> Duration {
    START.elapsed()
}

/// Wall-clock time, for commands and for people.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

//! Times and limits of the protocol.

use std::time::Duration;

/// How long a read lease lasts from the moment its ping was sent (design: control 2.1, L).
pub const LEASE: Duration = Duration::from_millis(500);
/// How long a promise binds the one who gave it: the lease and 5 % for clocks that drift apart.
pub const PROMISE: Duration = Duration::from_millis(525);
/// How often every pair of hosts pings.
pub const PING_EVERY: Duration = Duration::from_millis(100);
/// How long a ping may take; later answers would lend hardly any lease.
pub const PING_DEADLINE: Duration = Duration::from_millis(450);
/// A peer that did not answer for this long is reported.
pub const SILENCE: Duration = Duration::from_millis(1_000);
/// A peer that answers, but neither agrees on the epoch nor makes progress for this long, is reported as silent too:
/// its disk may hang, or its agent be cut off. A host says so of its own device after as long.
pub const STALL: Duration = Duration::from_millis(3_000);
/// Reports are repeated this often until the configuration answers them.
pub const REPORT_EVERY: Duration = Duration::from_millis(100);
/// A host whose own tick came this late accuses nobody ...
pub const TICK_LATE: Duration = Duration::from_millis(100);
/// ... for this long.
pub const QUIET_AFTER_LATE_TICK: Duration = Duration::from_millis(1_000);
/// A commit that no other message carried is told within this time.
pub const COMMIT_NOTICE: Duration = Duration::from_millis(5);
/// How often the driver gives [`crate::Input::Tick`] at least.
pub const TICK_EVERY: Duration = Duration::from_millis(20);
/// Pause before a stream that broke is opened again.
pub const REOPEN_AFTER: Duration = Duration::from_millis(50);
/// How long an open may take: a member answers it only when it may acknowledge, at most [`PROMISE`] later.
pub const OPEN_DEADLINE: Duration = Duration::from_millis(1_500);
/// How long a prepare, a page or a fetch may take.
pub const PREPARE_DEADLINE: Duration = Duration::from_millis(2_500);
/// Entries with at least this many bytes of sealed units go along a chain of members, smaller ones from the primary to
/// each: a chain halves what leaves the primary, and adds the way between two members.
pub const CHAIN_BYTES_MIN: usize = 128 << 10;
/// How long the first member of a chain may take. The primary then still has time to ask the second one itself before
/// that one counts as stalled.
pub const CHAIN_DEADLINE: Duration = Duration::from_millis(2_000);
/// How long the second one may take, before the first answers without it.
pub const PASS_ON_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long a notice of commits may take; nobody waits for it.
pub const COMMITS_DEADLINE: Duration = Duration::from_millis(500);
/// No new units are ordered for this long after a member had no room; deletes are.
pub const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Most entries of a group that are prepared and not committed, writes being looked up included; more are told to
/// come back.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 256;
/// Most entries under way to one member of a group.
pub const STREAM_ENTRIES_MAX: usize = 32;
/// Most bytes of sealed units under way to one member of a group; one entry may always go.
pub const STREAM_BYTES_MAX: usize = 8 << 20;
/// Most prepares a member holds back because one before them is missing.
pub const EARLY_MAX: usize = 64;
/// Most pings to one peer that wait for their answer.
pub const PINGS_OUT_MAX: usize = 4;
/// What an edge is told to wait when nothing better is known.
pub const RETRY_SOON_MS: u32 = 20;
/// What an edge is told to wait while a group is frozen.
pub const RETRY_FROZEN_MS: u32 = 200;

const _: () = assert!(PROMISE.as_nanos() > LEASE.as_nanos(), "a promise outlives the lease it lends");
const _: () = assert!(PASS_ON_DEADLINE.as_nanos() < CHAIN_DEADLINE.as_nanos());
const _: () = assert!(CHAIN_DEADLINE.as_nanos() < STALL.as_nanos());
const _: () = assert!(OPEN_DEADLINE.as_nanos() > PROMISE.as_nanos());

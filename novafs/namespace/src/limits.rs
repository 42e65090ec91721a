//! Every bound of the namespace, by name.

use core::time::Duration;

/// Longest name of an entry, in bytes of UTF-8, as on Linux.
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest path: how many names it may have.
pub const DEPTH_MAX: usize = 128;
/// Files of one publish command.
pub const FILES_PER_PUBLISH_MAX: usize = 4096;
/// Blocks of one file: 8 TiB in blocks of 128 MiB.
pub const BLOCKS_PER_FILE_MAX: usize = 65_536;
/// Blocks that one reservation may ask for.
pub const BLOCKS_PER_RESERVATION_MAX: u32 = 16_384;
/// Blocks that a session may hold reserved and not yet published.
pub const BLOCKS_PER_SESSION_MAX: u32 = 65_536;
/// Replica groups that one reservation may spread over.
pub const GROUPS_PER_RESERVATION_MAX: usize = 1024;
/// Entries of one page of a listing.
pub const LIST_MAX: u32 = 4096;
/// Inodes of a region: what fits 40 % of a controller's 64 GB (control design, section 1).
pub const INODES_MAX: u64 = 60_000_000;
/// Open writer sessions.
pub const SESSIONS_MAX: usize = 65_536;
/// Clients whose last answers are remembered; the one that was silent longest is forgotten first.
pub const CLIENTS_MAX: usize = 4096;
/// Answers remembered for one client: how many of its requests may be under way at once.
pub const ANSWERS_PER_CLIENT_MAX: usize = 128;
/// Outcomes of published files remembered for one client, over all its answers.
pub const OUTCOMES_PER_CLIENT_MAX: usize = 65_536;
/// Entries that one sweep takes out of removed trees.
pub const SWEEP_ENTRIES_MAX: u32 = 1024;

/// Lease of a writer session that asks for none.
pub const SESSION_LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest lease of a writer session.
pub const SESSION_LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease of a writer session.
pub const SESSION_LEASE_MAX: Duration = Duration::from_secs(600);

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
/// Longest file, in bytes: what a signed 64-bit offset reaches.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Names of one file.
pub const LINKS_MAX: usize = 1024;
/// Longest text of a symbolic link, in bytes, as on Linux.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest name of an extended attribute, in bytes, as on Linux.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Names and values of the extended attributes of one inode together, hence also one value, as on Linux.
pub const XATTR_BYTES_MAX: usize = 65_536;
/// Entries of one page of a listing.
pub const LIST_MAX: u32 = 4096;
/// Bytes of one page of a listing, as they are estimated on the wire: a page fits the smaller reply of a ring.
pub const LIST_BYTES_MAX: usize = 200 << 10;
/// Blocks of a file whose map is put into a page.
pub const LIST_BLOCKS_PER_FILE_MAX: usize = 1024;
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
/// Files and trees that one command takes out of the trash.
pub const PURGE_MAX: u32 = 1024;
/// Files that one command removes because their retention is over.
pub const EXPIRE_MAX: usize = 256;
/// Files that one session may have open for writing.
pub const WRITING_PER_SESSION_MAX: usize = 65_536;
/// What stays in the trash although its time is over, because a session writes it, is looked at again after this.
pub const WRITTEN_IN_TRASH: Duration = Duration::from_secs(60);

/// Lease of a writer session that asks for none.
pub const SESSION_LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest lease of a writer session.
pub const SESSION_LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease of a writer session.
pub const SESSION_LEASE_MAX: Duration = Duration::from_secs(600);

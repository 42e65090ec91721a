//! File metadata as a pure slice: inodes, directories, block maps, sessions.
//!
//! [`Namespace`] is the state, [`Command`] what may be asked of it, [`Namespace::apply`] the only thing that
//! changes it, and [`plan()`] what should be asked of it when nobody does. Nothing here reads a clock or a random
//! number: both come inside commands, so that every controller that applies the same log has the same state.
//!
//! The state is held in persistent maps: a clone costs nothing, and a reader or a snapshot keeps its own version
//! while commands go on.
#![forbid(unsafe_code)]

mod answer;
mod apply;
mod census;
mod command;
mod limits;
mod model;
mod path;
mod plan;
mod query;
mod snapshot;
mod tree;

pub use answer::{
    Answer, BlocksReserved, Code, Done, Failure, Opened, Outcome, Published, Reply, SessionOpened, Swept,
    Touched,
};
pub use census::{BlockUse, Census};
pub use command::{
    Block, CloseFile, Collected, Command, CommitFile, EndSession, Expire, Link, MakeDirectory, MakeSymlink,
    NewFile, Only, Op, OpenFile, OpenSession, Publish, Purge, PurgeTrash, Remove, RemoveXattr, Rename,
    ReserveBlocks, SetAttributes, SetQuota, SetSpace, SetXattr, Sweep, Truncate, Undelete,
};
pub use limits::{
    ANSWERS_PER_CLIENT_MAX, BLOCKS_PER_FILE_MAX, BLOCKS_PER_RESERVATION_MAX, BLOCKS_PER_SESSION_MAX,
    CLIENTS_MAX, DEPTH_MAX, EXPIRE_MAX, FILE_BYTES_MAX, FILES_PER_PUBLISH_MAX, GROUPS_PER_RESERVATION_MAX,
    INODES_MAX, LINKS_MAX, LIST_BLOCKS_PER_FILE_MAX, LIST_BYTES_MAX, LIST_MAX, NAME_BYTES_MAX,
    OUTCOMES_PER_CLIENT_MAX, PURGE_MAX, SESSION_LEASE_DEFAULT, SESSION_LEASE_MAX, SESSION_LEASE_MIN,
    SESSIONS_MAX, SWEEP_ENTRIES_MAX, SYMLINK_BYTES_MAX, WRITING_PER_SESSION_MAX, WRITTEN_IN_TRASH,
    XATTR_BYTES_MAX, XATTR_NAME_BYTES_MAX,
};
pub use model::{
    Collection, Directory, Extra, File, Inode, Kind, Name, Namespace, Node, Orphan, OtherName, Quota, ROOT,
    Reservation, STANDARD_SPACES, Session, Space, StandardSpace, StoredBlock, Totals, Trashed,
};
pub use path::Path;
pub use plan::{CLOCK_JUMP_MAX, Renewals, Upkeep, plan};
pub use query::{BlockMap, Capacity, EntryView, ListAsk, ListPage, TrashPage};
pub use snapshot::{SNAPSHOT_MAGIC, SNAPSHOT_VERSION, SnapshotError};

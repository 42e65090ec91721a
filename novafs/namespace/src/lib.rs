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
mod command;
mod limits;
mod model;
mod path;
mod plan;
mod query;
mod snapshot;

pub use answer::{
    Answer, BlocksReserved, Code, Done, Failure, Outcome, Published, Reply, SessionOpened, Swept,
};
pub use command::{
    Block, CloseFile, Collected, Command, CommitFile, EndSession, Expire, Link, MakeDirectory, MakeSymlink,
    NewFile, Only, Op, OpenFile, OpenSession, Publish, Purge, PurgeTrash, Remove, RemoveXattr, Rename,
    ReserveBlocks, SetAttributes, SetQuota, SetSpace, SetXattr, Sweep, Truncate, Undelete,
};
pub use limits::{
    ANSWERS_PER_CLIENT_MAX, BLOCKS_PER_FILE_MAX, BLOCKS_PER_RESERVATION_MAX, BLOCKS_PER_SESSION_MAX,
    CLIENTS_MAX, DEPTH_MAX, FILES_PER_PUBLISH_MAX, GROUPS_PER_RESERVATION_MAX, INODES_MAX, LIST_MAX,
    NAME_BYTES_MAX, OUTCOMES_PER_CLIENT_MAX, SESSION_LEASE_DEFAULT, SESSION_LEASE_MAX, SESSION_LEASE_MIN,
    SESSIONS_MAX, SWEEP_ENTRIES_MAX,
};
pub use model::{
    Directory, File, Inode, Kind, Name, Namespace, Node, Orphan, ROOT, Reservation, STANDARD_SPACES, Session,
    Space, StandardSpace, StoredBlock, Totals,
};
pub use path::Path;
pub use plan::{Renewals, plan};
pub use query::{EntryView, ListPage};
pub use snapshot::{SNAPSHOT_MAGIC, SNAPSHOT_VERSION, SnapshotError};

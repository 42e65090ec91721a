//! What can go wrong with a group.

use std::path::PathBuf;
use std::time::Duration;

/// Why a group could not be opened or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The disk or file system refused.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something that had been durable does not read any more. The member may have acknowledged what is lost.
    #[error(
        "{path} has rotted at byte {at}: {reason}. Nothing was changed. This controller may have forgotten what it acknowledged and must not vote again under its id, also not with an empty folder: leave it stopped, the region serves while a majority of its controllers runs (docs/control.md, \"When a log has rotted\")"
    )]
    Rot {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Another process, or another group of this one, works on the folder.
    #[error("{path} is in use by another process; stop it first")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds the log of another member or group.
    #[error(
        "{path} belongs to member {member} or to another group; check the data folder in the configuration"
    )]
    ForeignLog {
        /// The file.
        path: PathBuf,
        /// The member it belongs to.
        member: u64,
    },
    /// No snapshot reads that the log goes on from.
    #[error(
        "no snapshot in {folder} reads that the log goes on from ({reason}). This controller has lost its state and must not vote again under its id, also not with an empty folder: leave it stopped, the region serves while a majority of its controllers runs (docs/control.md, \"When a log has rotted\")"
    )]
    NoSnapshot {
        /// Where the snapshots are.
        folder: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// A change of members was refused.
    #[error("change the members of the group: {0}")]
    Membership(String),
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The group has stopped.
    #[error("the Raft group has stopped: {0}")]
    Stopped(String),
}

/// Why a proposal was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none does; the command was not and will not be carried out.
    #[error("this controller does not lead the group")]
    NotLeader {
        /// Id and address of the leader, when there is one.
        leader: Option<(u64, String)>,
    },
    /// The outcome is unknown: the command may have been or may yet be carried out. Ask again with the same key.
    #[error("the command may or may not have been carried out: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The command is too large to replicate.
    #[error("a command of {bytes} bytes is over the bound of {bound}; split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest.
        bound: usize,
    },
    /// The group has stopped on this member.
    #[error("the Raft group has stopped on this controller: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

/// Why a read was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another member leads, or none does.
    #[error("this controller does not lead the group")]
    NotLeader {
        /// Id and address of the leader, when there is one.
        leader: Option<(u64, String)>,
    },
    /// No majority confirmed in time that this member still leads.
    #[error("no majority of controllers answered within {0:?}")]
    NoQuorum(Duration),
    /// The group has stopped on this member.
    #[error("the Raft group has stopped on this controller: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

//! Commands about policies and the trash.

/// Bounds what lies below a directory; what is there already stays.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetQuota {
    /// What the path is relative to.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// Which.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Bytes of files, counted where their first name lies; 0: no bound.
    #[prost(uint64, tag = "3")]
    pub bytes_max: u64,
    /// Names of files, symbolic links and directories; 0: no bound.
    #[prost(uint64, tag = "4")]
    pub files_max: u64,
}

/// Changes the policy of a namespace; blocks that exist keep what they have.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetSpace {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How long its files are kept after their last modification; 0: for ever.
    #[prost(uint64, optional, tag = "2")]
    pub retention_ms: Option<u64>,
    /// Copies of each new block, 2 to 5.
    #[prost(uint32, optional, tag = "3")]
    pub replicas: Option<u32>,
    /// Only while it is empty.
    #[prost(uint32, optional, tag = "4")]
    pub key_domain: Option<u32>,
    /// How long removed files can be had back; 0: not at all.
    #[prost(uint64, optional, tag = "5")]
    pub undelete_ms: Option<u64>,
    /// Its units are `1 << unit_log2` bytes, 12 to 16.
    #[prost(uint32, optional, tag = "6")]
    pub unit_log2: Option<u32>,
}

/// Takes something out of the trash.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Undelete {
    /// Its number in the trash.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Where to, absolute; empty: where it was.
    #[prost(string, tag = "2")]
    pub target: String,
}

/// Lets something in the trash go.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PurgeTrash {
    /// Its number in the trash; 0: all.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Lets go what is due in the trash.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Purge {
    /// At most this many, 1 to `PURGE_MAX`.
    #[prost(uint32, tag = "1")]
    pub limit: u32,
    /// What is due then, at the latest by the clock of the state.
    #[prost(uint64, tag = "2")]
    pub now_ms: u64,
    /// Also what is not due: the state is nearly full.
    #[prost(bool, tag = "3")]
    pub early: bool,
}

/// Removes files whose retention is over, when it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Expire {
    /// The files, at most `EXPIRE_MAX`.
    #[prost(uint64, repeated, tag = "1")]
    pub inodes: Vec<u64>,
    /// The time, at the latest by the clock of the state.
    #[prost(uint64, tag = "2")]
    pub now_ms: u64,
}

//! Versioned wire messages; no behaviour.
//!
//! One module a package of the schema under `proto/`. Fields are only ever added; a number is never used again.
#![forbid(unsafe_code)]
#![allow(clippy::allow_attributes_without_reason, reason = "the generated stubs allow without one")]

/// File metadata: sessions, publishing, names.
pub mod files {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated from proto/files.proto"
    )]
    include!(concat!(env!("OUT_DIR"), "/nova.files.v1.rs"));
}

/// Hosts, groups and the map that data planes work by.
pub mod cluster {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated from proto/cluster.proto"
    )]
    include!(concat!(env!("OUT_DIR"), "/nova.cluster.v1.rs"));
}

/// Key domains, and keys on their way to hosts.
pub mod keys {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated from proto/keys.proto"
    )]
    include!(concat!(env!("OUT_DIR"), "/nova.keys.v1.rs"));
}

/// Between the controllers of a region, and the entries of their logs.
pub mod raft {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated from proto/raft.proto"
    )]
    include!(concat!(env!("OUT_DIR"), "/nova.raft.v1.rs"));
}

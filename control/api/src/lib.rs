//! Versioned wire messages; no behaviour.
//!
//! One module a package of the schema under `proto/`. Fields are only ever added; a number is never used again.
#![forbid(unsafe_code)]

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

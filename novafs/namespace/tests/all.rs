//! Integration tests of the namespace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "all/census.rs"]
mod census;
#[path = "all/dedup.rs"]
mod dedup;
#[path = "all/kit.rs"]
mod kit;
#[path = "all/names.rs"]
mod names;
#[path = "all/posix.rs"]
mod posix;
#[path = "all/prop_tree.rs"]
mod prop_tree;
#[path = "all/publish.rs"]
mod publish;
#[path = "all/quota.rs"]
mod quota;
#[path = "all/scale.rs"]
mod scale;
#[path = "all/snapshot.rs"]
mod snapshot;
#[path = "all/trash.rs"]
mod trash;
#[path = "all/writer.rs"]
mod writer;

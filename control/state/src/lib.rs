//! Composes the slices into the state of a Raft group.
//!
//! A region has two: [`ClusterState`] (hosts and replica groups) and [`FilesState`] (file metadata). Both have the
//! shape that the replicated log asks for: a batch of commands at a log index gives a batch of answers, the whole
//! state is written in pieces and read again, a clone costs nothing, and [`digest`] tells replicas that differ.
#![forbid(unsafe_code)]

mod cluster;
mod digest;
mod files;

pub use cluster::{ClusterAnswer, ClusterCommand, ClusterState, ClusterStep, StepAnswer, StepOp};
pub use digest::digest;
pub use files::{FilesAnswer, FilesCommand, FilesState};

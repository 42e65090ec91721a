//! Composes the slices into the state of a Raft group.

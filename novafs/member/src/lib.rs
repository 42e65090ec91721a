//! Drives the replica groups of one storage host over its store and its peers.

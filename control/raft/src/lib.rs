//! Replicates commands: segmented WAL, snapshots, peer transport.

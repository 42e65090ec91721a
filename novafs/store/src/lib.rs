//! One device's blocks: WAL, cells, tree, checkpoints, recovery.

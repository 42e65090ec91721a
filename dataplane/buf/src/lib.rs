//! Buffers that a disk or a NIC may fill: an arena per shard, lent in classes.

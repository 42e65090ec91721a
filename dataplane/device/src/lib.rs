//! The seams Disk, Lane, Clock, Shard and Peers, each with a real, an in-memory and a faulty version.

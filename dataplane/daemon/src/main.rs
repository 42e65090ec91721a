//! The data plane of a host: wires NovaFS and NovaBulk onto shards.

fn main() {}

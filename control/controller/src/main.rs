//! Binary nova-control: Raft groups, cluster and file services.

fn main() {}

//! Binary nova-agent: stands beside novad, speaks for it to the controllers and serves local programs.

fn main() {}

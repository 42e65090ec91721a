//! Benchmarks of single hot paths, as JSON lines.

fn main() {}

//! Project tasks: tidy, ci.

fn main() {}

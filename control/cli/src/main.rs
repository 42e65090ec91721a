//! Binary nova: everything a person types; also starts a region on one machine.

fn main() {}

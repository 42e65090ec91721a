//! What benchmarks that stand beside other programs share: where those run, how they were set up, and what is made of
//! the rounds.
#![forbid(unsafe_code)]

pub mod namespace;
pub mod recipe;
pub mod rounds;
pub mod work;

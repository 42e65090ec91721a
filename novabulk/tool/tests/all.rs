//! The tool from outside: real processes, real files, loopback.
#![forbid(unsafe_code)]
#[cfg(test)]
mod all {
    mod copies;
    mod kills;
    mod rig;
    mod trees;
}

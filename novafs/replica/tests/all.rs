//! Everything this crate promises to others, in one binary.

#[cfg(test)]
mod all {
    mod fuzz_heads;
    mod golden_heads;
    mod samples;
}

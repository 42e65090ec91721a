//! The messages from outside: their bytes, and what decoders let through.
#![forbid(unsafe_code)]
#[cfg(test)]
mod all {
    mod fuzz_decode;
    mod golden_messages;
    mod samples;
}

//! Codecs against bytes of strangers, and the choice among them on links that are made up.
#![forbid(unsafe_code)]
#[cfg(test)]
mod all {
    mod fuzz_decode;
    mod links;
}

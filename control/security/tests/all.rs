//! What holds between processes of a region, over real TLS on loopback.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, say what they expect by unwrapping it")]
mod all {
    mod authority;
    mod mutual_tls;
}

//! Text as services log it: most of a line is like that of the line before, and some of it never was there.

use std::fmt::Write as _;

use fastrand::Rng;

const LEVELS: [&str; 8] = ["INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR"];
const METHODS: [&str; 5] = ["GET", "GET", "GET", "POST", "PUT"];
const PATHS: [&str; 8] = [
    "/api/v1/orders",
    "/api/v1/orders/items",
    "/api/v2/users/profile",
    "/static/app.js",
    "/health",
    "/api/v2/search",
    "/api/v1/invoices",
    "/login",
];
const CODES: [u16; 8] = [200, 200, 200, 200, 204, 304, 404, 500];
const MESSAGES: [&str; 8] = [
    "request served",
    "cache miss, asked the database",
    "session opened",
    "retry after timeout",
    "connection to shard restored",
    "slow query",
    "token refreshed",
    "upload accepted",
];
/// The first line is of this second.
const BEGIN_SECOND: u64 = 1_760_000_000;

/// Replaces what is in `chunk` by `bytes` bytes of whole lines; the last one is cut.
pub(super) fn fill(chunk: &mut Vec<u8>, bytes: usize, rng: &mut Rng) {
    let mut text = String::with_capacity(bytes + 512);
    // Every chunk begins somewhere else in the day, as files of several days that were put together.
    let mut millis = BEGIN_SECOND * 1000 + rng.u64(..86_400_000);
    while text.len() < bytes {
        millis += rng.u64(..40);
        line(&mut text, millis, rng);
    }
    chunk.clear();
    chunk.extend_from_slice(&text.as_bytes()[..bytes]);
}

fn line(text: &mut String, millis: u64, rng: &mut Rng) {
    let (second, of_day) = (millis / 1000, millis / 1000 % 86_400);
    let written = writeln!(
        text,
        "day={} {:02}:{:02}:{:02}.{:03} {} host=web-{:02} pid={} trace={:016x} {} {}/{} {} {} bytes in {} ms user={} - {}",
        second / 86_400,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        millis % 1000,
        LEVELS[rng.usize(..LEVELS.len())],
        rng.u8(..24),
        4000 + rng.u16(..32),
        rng.u64(..),
        METHODS[rng.usize(..METHODS.len())],
        PATHS[rng.usize(..PATHS.len())],
        rng.u32(..200_000),
        CODES[rng.usize(..CODES.len())],
        rng.u32(..60_000),
        rng.u32(..900),
        rng.u32(..5_000),
        MESSAGES[rng.usize(..MESSAGES.len())],
    );
    written.expect("a string takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_lines_and_exactly_the_bytes_that_were_asked_for() {
        let mut chunk = Vec::new();
        fill(&mut chunk, 10_000, &mut Rng::with_seed(1));
        let text = String::from_utf8(chunk).unwrap();
        assert_eq!(text.len(), 10_000);
        let lines: Vec<&str> = text.lines().collect();
        assert!((50..100).contains(&lines.len()), "{} lines", lines.len());
        assert!(
            lines[..lines.len() - 1].iter().all(|line| line.starts_with("day=") && line.contains(" trace="))
        );
    }
}

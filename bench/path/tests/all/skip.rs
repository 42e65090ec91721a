//! Tests that this machine cannot run: said aloud, and counted by `scripts/test`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Says that the test of this thread does not run here, and why; one line a test goes to `target/tmp/skipped`.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {test}: {why}");
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
}

//! What goes to standard output: one JSON object, or text.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// Prints `value` as one line of JSON, or `text` of it.
pub(crate) fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let line = if json {
        serde_json::to_string(value).context("write the answer as JSON")? + "\n"
    } else {
        text(value)
    };
    let mut out = io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has gone away (`| head`) ends the output, not with an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// A count of bytes for people: `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

//! Progress on standard error: a line that is redrawn for people, a line a second for scripts that ask for it.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use novabulk_copy::{Counts, Tally};
use serde::Serialize;

use crate::{Global, Progress, output};

/// A copy that ends sooner shows nothing.
const SILENT: Duration = Duration::from_secs(1);
/// Between two lines when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The rate is that of the last while of this length.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Shows how far a copy is.
#[derive(Debug)]
pub(super) struct Meter {
    face: Face,
    json: bool,
    begun: Instant,
    shown: Option<Instant>,
    /// When how many bytes were there.
    past: Vec<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Terminal,
    Lines,
    None,
}

/// An event of a copy.
#[derive(Debug, Serialize)]
struct Event<'a> {
    event: &'static str,
    files: u64,
    files_total: u64,
    bytes: u64,
    bytes_total: u64,
    bytes_per_second: u64,
    seconds_left: Option<u64>,
    limited_by: &'a str,
}

impl Meter {
    pub(super) fn new(global: &Global) -> Self {
        let face = match (global.progress, std::io::stderr().is_terminal()) {
            (Progress::Never, _) | (Progress::Auto, false) => Face::None,
            (Progress::Always, false) => Face::Lines,
            (_, true) => Face::Terminal,
        };
        let begun = Instant::now();
        Self { face, json: global.json, begun, shown: None, past: vec![(begun, 0)] }
    }

    /// Shows it, when it is time.
    pub(super) fn show(&mut self, tally: &Tally) {
        let now = Instant::now();
        let counts = tally.counts();
        self.past.push((now, counts.bytes));
        let kept = self.past.iter().rposition(|(at, _)| now - *at >= RATE_OVER).unwrap_or(0);
        self.past.drain(..kept);
        let due = self.shown.is_none_or(|shown| self.face == Face::Terminal || now - shown >= LINE_EVERY);
        if self.face == Face::None || now - self.begun < SILENT || !due {
            return;
        }
        self.shown = Some(now);
        let limit = tally.limit().to_string();
        let event = self.event(now, &counts, &limit);
        // Progress that cannot be written is not worth an end.
        let _ = if self.json {
            writeln!(std::io::stderr(), "{}", serde_json::to_string(&event).unwrap_or_default())
        } else if self.face == Face::Terminal {
            write!(std::io::stderr(), "\r\x1b[2K{}", text(&event))
        } else {
            writeln!(std::io::stderr(), "{}", text(&event))
        };
    }

    fn event<'a>(&self, now: Instant, counts: &Counts, limit: &'a str) -> Event<'a> {
        let (then, bytes) = self.past[0];
        let micros = (now - then).as_micros().max(1);
        let rate = u128::from(counts.bytes.saturating_sub(bytes)) * 1_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let left = counts.bytes_total.saturating_sub(counts.bytes);
        Event {
            event: "progress",
            files: counts.files,
            files_total: counts.files_total,
            bytes: counts.bytes,
            bytes_total: counts.bytes_total,
            bytes_per_second: rate,
            seconds_left: left.checked_div(rate),
            limited_by: limit,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.face == Face::Terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn text(event: &Event<'_>) -> String {
    let left = event.seconds_left.map_or("?".to_owned(), |seconds| {
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    });
    format!(
        "{} of {} files, {} of {}, {}/s, ETA {left}, limited by {}",
        event.files,
        event.files_total,
        output::bytes(event.bytes),
        output::bytes(event.bytes_total),
        output::bytes(event.bytes_per_second),
        event.limited_by
    )
}

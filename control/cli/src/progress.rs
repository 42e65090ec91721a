//! Progress on standard error: a bar for people, a line a second for scripts that ask for it.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Progress;
use crate::output;

/// A command that ends sooner shows nothing.
const SILENT: Duration = Duration::from_secs(1);
/// Between two lines when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Between two lines that say the same.
const SAME_EVERY: Duration = Duration::from_secs(10);
/// Between two redraws of a spinner.
const TICK: Duration = Duration::from_millis(120);

/// What is under way, with how far it is.
pub(crate) struct Meter {
    face: Face,
    begun: Instant,
    bytes: u64,
    bytes_total: u64,
    message: String,
}

enum Face {
    Bar { bar: ProgressBar, shown: bool },
    Lines { last: Instant, said: String },
    None,
}

impl Meter {
    /// For something without a measure: only its message changes.
    pub(crate) fn steps(when: Progress) -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is valid");
        Self::new(when, ProgressBar::new_spinner().with_style(style), 0)
    }

    /// For `bytes_total` bytes to move.
    pub(crate) fn bytes(when: Progress, bytes_total: u64) -> Self {
        let style = ProgressStyle::with_template(
            "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta}",
        )
        .expect("the template is valid");
        Self::new(when, ProgressBar::new(bytes_total).with_style(style), bytes_total)
    }

    fn new(when: Progress, bar: ProgressBar, bytes_total: u64) -> Self {
        let begun = Instant::now();
        let face = match (when, std::io::stderr().is_terminal()) {
            (Progress::Never, _) | (Progress::Auto, false) => Face::None,
            (Progress::Always, false) => Face::Lines { last: begun, said: String::new() },
            (_, true) => {
                bar.set_draw_target(ProgressDrawTarget::hidden());
                Face::Bar { bar, shown: false }
            }
        };
        Self { face, begun, bytes: 0, bytes_total, message: String::new() }
    }

    /// Says what is being done.
    pub(crate) fn say(&mut self, message: impl Into<String>) {
        self.message = message.into();
        if let Face::Bar { bar, .. } = &self.face {
            bar.set_message(self.message.clone());
        }
        self.show();
    }

    /// `bytes` of the whole have been moved.
    pub(crate) fn set(&mut self, message: String, bytes: u64) {
        self.bytes = bytes;
        if let Face::Bar { bar, .. } = &self.face {
            bar.set_position(bytes);
        }
        self.say(message);
    }

    fn show(&mut self) {
        let elapsed = self.begun.elapsed();
        match &mut self.face {
            Face::Bar { bar, shown } if !*shown && elapsed >= SILENT => {
                *shown = true;
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            }
            Face::Lines { last, said } => {
                // What has a measure changes all the time; a step says something new, or that it takes long.
                let same = self.bytes_total == 0 && *said == self.message;
                if last.elapsed() >= if same { SAME_EVERY } else { LINE_EVERY } {
                    *last = Instant::now();
                    said.clone_from(&self.message);
                    output::say(format_args!(
                        "{}",
                        line(&self.message, self.bytes, self.bytes_total, elapsed)
                    ));
                }
            }
            _ => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Face::Bar { bar, .. } = &self.face {
            bar.finish_and_clear();
        }
    }
}

fn line(message: &str, bytes: u64, bytes_total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if bytes_total == 0 {
        return format!("{message} ({seconds} s)");
    }
    let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    let eta = match rate {
        0 => "unknown".to_owned(),
        rate => format!("{} s", bytes_total.saturating_sub(bytes).div_ceil(rate)),
    };
    let (moved, total, rate) = (output::bytes(bytes), output::bytes(bytes_total), output::bytes(rate));
    format!("{message} {moved} of {total}, {rate}/s, ETA {eta}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let text = line("put", 10 << 20, 40 << 20, Duration::from_secs(2));
        assert_eq!(text, "put 10.00 MiB of 40.00 MiB, 5.00 MiB/s, ETA 6 s");
        assert!(line("put", 0, 40, Duration::from_secs(2)).ends_with("ETA unknown"));
        assert_eq!(line("start", 0, 0, Duration::from_secs(2)), "start (2 s)");
    }
}

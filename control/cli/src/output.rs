//! What goes to standard output: one JSON object, or text with aligned columns.

use std::fmt::Write as _;
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
        let mut line = serde_json::to_string(value).context("write the answer as JSON")?;
        line.push('\n');
        line
    } else {
        text(value)
    };
    write(line.as_bytes())
}

/// Writes to standard output. A reader that has gone away (`| head`) ends the output, not with an error.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    settle(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Tells a person something on standard error.
pub(crate) fn say(message: impl std::fmt::Display) {
    let line = format!("{message}\n");
    // Where nobody reads it any more (`2>&1 | head`) there is nobody to tell; the code of the command still tells.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Hands on what is still in the buffer of standard output.
pub(crate) fn flush(out: &mut io::StdoutLock<'_>) -> anyhow::Result<()> {
    settle(out.flush())
}

fn settle(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// Rows under a heading, each column as wide as its widest cell. Columns in `right` are aligned to the right.
pub(crate) fn table<const N: usize>(heading: [&str; N], right: &[usize], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading = heading.map(str::to_owned);
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let padding = " ".repeat(width - cell.chars().count());
            if right.contains(&column) {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        writeln!(text, "{}", line.trim_end()).expect("writing to a String does not fail");
    }
    text
}

/// A count of bytes for people: `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Milliseconds since 1970 as UTC, `2026-01-31 23:59:59`; the calendar of Gregory, which it is for every file.
pub(crate) fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60)
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that the leap day is last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Days from 0000-03-01 to 1970-01-01.
    let from_march = days + 719_468;
    let era = from_march / DAYS_OF_400_YEARS;
    let day_of_era = from_march % DAYS_OF_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_OF_400_YEARS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "10".to_owned()], ["long".to_owned(), "5".to_owned()]];
        assert_eq!(table(["NAME", "N"], &[1], &rows), "NAME   N\na     10\nlong   5\n");
    }

    #[test]
    fn days_become_dates_across_leap_years_and_centuries() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (951_868_800_000, "2000-03-01 00:00:00"),
            (1_704_067_199_999, "2023-12-31 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn hexadecimal_digits_keep_leading_zeros() {
        assert_eq!(hex(&[0, 0x0f, 0xf0]), "000ff0");
    }
}

//! What the demo measured, as one table.

use std::fmt;
use std::time::Duration;

use crate::raw::RawRates;

/// Figures of one run; what was not reached stays `None`.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Bytes of the tree.
    pub bytes: u64,
    /// Files of the tree.
    pub files: u64,
    /// Links and special files that were passed over.
    pub skipped: u64,
    /// How the first put went.
    pub put: Option<Transfer>,
    /// How reading everything back went.
    pub get: Option<Transfer>,
    /// The disk before the put.
    pub raw_before: Option<RawRates>,
    /// The disk after the put.
    pub raw_after: Option<RawRates>,
    /// Longest time without an acknowledged write while a storage host was killed.
    pub stall: Option<Duration>,
    /// Time from the start of the killed host until all groups had three members in sync.
    pub caught_up: Option<Duration>,
    /// Files read back with the right SHA-256.
    pub verified: Option<u64>,
    /// Files that were read back.
    pub read_back: Option<u64>,
    /// Replicas that were damaged on disk.
    pub damaged: Option<u64>,
    /// Damaged replicas that are right on disk again.
    pub restored: Option<u64>,
    /// Pages the hosts say they repaired.
    pub pages_repaired: Option<u64>,
    /// Files listed with the right size after the Raft leader was killed.
    pub listed: Option<u64>,
    /// The whole run.
    pub took: Duration,
}

/// One way through the region.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes of files.
    pub bytes: u64,
    /// From the first to the last.
    pub took: Duration,
    /// Processor time of every process of the region and of the command.
    pub processor: Duration,
}

/// Copies of everything that is written.
const REPLICAS: f64 = 3.0;
const GB: f64 = 1e9;

impl Transfer {
    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        crate::raw::rate(self.bytes, self.took)
    }

    /// Processor seconds per 10^9 bytes.
    #[must_use]
    pub fn processor_per_gb(&self) -> f64 {
        self.processor.as_secs_f64() / (crate::raw::rate(self.bytes, Duration::from_secs(1)) / GB).max(1e-9)
    }
}

impl Figures {
    /// The disk around the put: the mean of both measurements.
    #[must_use]
    pub fn raw(&self) -> Option<RawRates> {
        match (self.raw_before, self.raw_after) {
            (Some(before), Some(after)) => Some(before.mean(after)),
            (before, after) => before.or(after),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let not_reached = || "not reached".to_owned();
        let or = |value: Option<String>| value.unwrap_or_else(not_reached);
        let rate = |bytes_per_second: f64| format!("{:.1} MB/s", bytes_per_second / 1e6);
        let both = |pick: fn(&RawRates) -> f64| match (self.raw_before, self.raw_after) {
            (Some(before), Some(after)) => {
                format!("{} before, {} after the put", rate(pick(&before)), rate(pick(&after)))
            }
            (Some(before), None) => format!("{} before the put", rate(pick(&before))),
            _ => not_reached(),
        };
        let share = |way: Option<Transfer>, pick: fn(&RawRates) -> f64, copies: f64| {
            Some(format!("{:.2}", way?.rate() * copies / pick(&self.raw()?).max(1.0)))
        };
        let of = |part: Option<u64>, whole: Option<u64>| {
            Some(format!("{} of {}", grouped(part?), grouped(whole?)))
        };
        let seconds = |took: Duration| format!("{:.1} s", took.as_secs_f64());
        vec![
            ("bytes", grouped(self.bytes)),
            ("files", grouped(self.files)),
            ("links and special files skipped", grouped(self.skipped)),
            (
                "put, 3 replicas",
                or(self.put.map(|put| format!("{} in {}", rate(put.rate()), seconds(put.took)))),
            ),
            ("get", or(self.get.map(|get| format!("{} in {}", rate(get.rate()), seconds(get.took))))),
            (
                "put, CPU seconds per GB, all processes",
                or(self.put.map(|put| format!("{:.2}", put.processor_per_gb()))),
            ),
            (
                "get, CPU seconds per GB, all processes",
                or(self.get.map(|get| format!("{:.2}", get.processor_per_gb()))),
            ),
            ("raw disk, direct write", both(|raw| raw.write)),
            ("raw disk, direct read", both(|raw| raw.read)),
            ("put x 3 / raw write", or(share(self.put, |raw| raw.write, REPLICAS))),
            ("get / raw read", or(share(self.get, |raw| raw.read, 1.0))),
            (
                "longest stall, storage host killed",
                or(self.stall.map(|stall| format!("{} ms", stall.as_millis()))),
            ),
            ("killed host caught up after", or(self.caught_up.map(seconds))),
            ("files verified by SHA-256", or(of(self.verified, self.read_back))),
            ("replicas damaged and right again on disk", or(of(self.restored, self.damaged))),
            ("pages repaired, as the hosts count", or(self.pages_repaired.map(grouped))),
            ("files listed after the leader was killed", or(of(self.listed, self.read_back))),
            ("the whole", seconds(self.took)),
        ]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let values = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        writeln!(f, "| {:names$} | {:values$} |", "what", "measured")?;
        writeln!(f, "| {:-<names$} | {:-<values$} |", "", "")?;
        for (name, value) in rows {
            writeln!(f, "| {name:names$} | {value:values$} |")?;
        }
        Ok(())
    }
}

/// A number with its thousands set apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn ratios_are_against_the_mean_of_the_disk() {
        let way = |rate: u64| Transfer {
            bytes: rate * 1_000_000 * 10,
            took: Duration::from_secs(10),
            processor: Duration::from_secs(2),
        };
        let figures = Figures {
            bytes: 1_000_000_000,
            put: Some(way(100)),
            get: Some(way(400)),
            raw_before: Some(RawRates { write: 500e6, read: 900e6 }),
            raw_after: Some(RawRates { write: 700e6, read: 700e6 }),
            stall: Some(Duration::from_millis(412)),
            verified: Some(1000),
            read_back: Some(1001),
            ..Figures::default()
        };
        let text = figures.to_string();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {name}"))).unwrap();
            line.split('|').nth(2).unwrap().trim().to_owned()
        };
        assert_eq!(value("put x 3 / raw write"), "0.50");
        assert_eq!(value("get / raw read"), "0.50");
        assert_eq!(value("put, 3 replicas"), "100.0 MB/s in 10.0 s");
        assert_eq!(value("put, CPU seconds per GB"), "2.00");
        assert_eq!(value("longest stall"), "412 ms");
        assert_eq!(value("files verified"), "1,000 of 1,001");
        assert_eq!(value("pages repaired"), "not reached");
        let widths: Vec<_> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
    }
}

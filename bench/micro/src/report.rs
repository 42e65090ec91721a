//! Samples by bench, and the lines they become.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

/// Longest sample that is told apart: 60 s.
const SAMPLE_MAX_NS: u64 = 60_000_000_000;

struct Series {
    samples: Histogram<u64>,
    bytes_each: u64,
    against: &'static str,
    cpu: Duration,
    written: u64,
}

/// All samples of a run.
#[derive(Default)]
pub(crate) struct Report {
    series: BTreeMap<&'static str, Series>,
}

impl Report {
    /// Notes one sample of `bench`, which moved `bytes_each`; `against` says what the figure is to be held against.
    pub(crate) fn note(
        &mut self,
        bench: &'static str,
        bytes_each: u64,
        against: &'static str,
        took: Duration,
    ) {
        let series = self.series.entry(bench).or_insert_with(|| Series {
            samples: Histogram::new_with_max(SAMPLE_MAX_NS, 3).expect("bounds that the crate accepts"),
            bytes_each,
            against,
            cpu: Duration::ZERO,
            written: 0,
        });
        let took = u64::try_from(took.as_nanos()).unwrap_or(SAMPLE_MAX_NS);
        series.samples.saturating_record(took);
    }

    /// Adds what all samples of a bench together took of the processor, and had written to devices.
    pub(crate) fn account(&mut self, bench: &'static str, cpu: Duration, written: u64) {
        if let Some(series) = self.series.get_mut(bench) {
            series.cpu += cpu;
            series.written += written;
        }
    }

    /// Repeats `work` for `slice` and notes every turn.
    pub(crate) fn repeat(
        &mut self,
        bench: &'static str,
        bytes_each: u64,
        against: &'static str,
        slice: Duration,
        mut work: impl FnMut(),
    ) {
        let until = Instant::now() + slice;
        loop {
            let begun = Instant::now();
            if begun >= until {
                return;
            }
            work();
            self.note(bench, bytes_each, against, begun.elapsed());
        }
    }

    /// Prints a line for each bench.
    pub(crate) fn print(&self) {
        for (bench, series) in &self.series {
            let Series { samples, bytes_each, against, cpu, written } = series;
            let seconds = samples.mean() / 1e9;
            #[expect(clippy::cast_precision_loss, reason = "sizes of at most 1 MiB")]
            let rate = (*bytes_each > 0).then(|| *bytes_each as f64 / seconds / 1e9);
            let each = samples.len().max(1);
            let cpu_each = (!cpu.is_zero()).then(|| u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX) / each);
            let line = json!({
                "bench": bench,
                "samples": samples.len(),
                "unit": "ns",
                "mean": samples.mean(),
                "p50": samples.value_at_quantile(0.5),
                "p99": samples.value_at_quantile(0.99),
                "max": samples.max(),
                "bytes": bytes_each,
                "gb_per_s": rate,
                "cpu_ns_each": cpu_each,
                "written_each": cpu_each.map(|_| written / each),
                "against": against,
            });
            println!("{line}");
        }
    }
}

//! How long creates took, apart for those that met a snapshot.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A file that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
}

/// Sorted times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency(Vec<Duration>);

impl Latency {
    /// Those under way while one of the spans was, and the others. Spans are in order and apart from each other.
    pub(crate) fn split(made: Vec<Made>, spans: &[(Instant, Instant)]) -> (Self, Self) {
        let meets = |made: &Made| {
            // The first span that ends after the create began is the only one that matters.
            let first = spans.partition_point(|(_, end)| *end < made.begun);
            spans.get(first).is_some_and(|(begin, _)| *begin <= made.begun + made.took)
        };
        let (during, between): (Vec<Made>, Vec<Made>) = made.into_iter().partition(meets);
        (Self::of(during), Self::of(between))
    }

    fn of(made: Vec<Made>) -> Self {
        let mut times: Vec<Duration> = made.into_iter().map(|made| made.took).collect();
        times.sort_unstable();
        Self(times)
    }

    /// The time that `permille` of 1,000 took at most; zero of none.
    fn quantile(&self, permille: usize) -> Duration {
        let index = (self.0.len() * permille).div_ceil(1000).saturating_sub(1);
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "creates": self.0.len(), "p50_ms": ms(self.quantile(500)), "p99_ms": ms(self.quantile(990)),
            "max_ms": ms(self.quantile(1000)),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |permille: usize| self.quantile(permille).as_secs_f64() * 1e3;
        let (p50, p99, max) = (ms(500), ms(990), ms(1000));
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms of {}", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_that_meets_a_span_counts_as_during_it() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let made = |begun: u64, took: u64| Made { begun: at(begun), took: Duration::from_millis(took) };
        let spans = [(at(100), at(200)), (at(500), at(600))];
        let all =
            vec![made(0, 50), made(0, 150), made(120, 5), made(199, 90), made(250, 100), made(300, 900)];
        let (during, between) = Latency::split(all, &spans);
        let ms = |latency: &Latency| latency.0.iter().map(Duration::as_millis).collect::<Vec<_>>();
        assert_eq!((ms(&during), ms(&between)), (vec![5, 90, 150, 900], vec![50, 100]));
        assert_eq!(during.quantile(500), Duration::from_millis(90));
        assert_eq!(during.quantile(1000), Duration::from_millis(900));
        assert_eq!(Latency::default().quantile(990), Duration::ZERO);
    }
}

//! Many seeds on several threads. A run is one thread's; seeds share nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Counts, Outcome, Trouble, run};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The runs that failed.
    pub troubles: Vec<Trouble>,
    /// How much happened in those that did not.
    pub counts: Counts,
}

/// Runs `seeds` seeds from `first` on.
///
/// # Panics
/// Never for a run: its panic becomes a [`Trouble`].
pub fn run_many(
    first: u64,
    seeds: u64,
    threads: usize,
    ended: impl Fn(Result<&Outcome, &Trouble>) + Sync,
) -> Report {
    let next = AtomicU64::new(first);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let ended_as = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
                    let mut report = report.lock().expect("nothing panics while it is held");
                    match ended_as {
                        Ok(Ok(outcome)) => {
                            report.counts.add(&outcome.counts);
                            ended(Ok(&outcome));
                        }
                        Ok(Err(trouble)) => {
                            ended(Err(&trouble));
                            report.troubles.push(*trouble);
                        }
                        Err(panic) => {
                            let trouble = panicked(seed, panic.as_ref());
                            ended(Err(&trouble));
                            report.troubles.push(trouble);
                        }
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().expect("nothing panics while it is held");
    report.troubles.sort_by_key(|trouble| trouble.seed);
    report
}

fn panicked(seed: u64, panic: &(dyn std::any::Any + Send)) -> Trouble {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Trouble { seed, violations: vec![format!("panic: {text}")], events: Vec::new() }
}

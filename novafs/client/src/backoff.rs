//! Waiting between attempts, up to a deadline.

use std::time::{Duration, Instant};

use crate::error::ClientError;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// Doubling pauses from 10 ms to 500 ms, until a deadline has passed.
#[derive(Debug)]
pub(crate) struct Backoff {
    started: Instant,
    deadline: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { started: Instant::now(), deadline, next: FIRST }
    }

    /// Sleeps before the next attempt, or says that time is up.
    pub(crate) fn pause(&mut self, what: &'static str, last: impl ToString) -> Result<(), ClientError> {
        let waited = self.started.elapsed();
        if waited >= self.deadline {
            return Err(ClientError::Unavailable { what, waited, last: last.to_string() });
        }
        std::thread::sleep(self.next.min(self.deadline - waited));
        self.next = (self.next * 2).min(LONGEST);
        Ok(())
    }
}

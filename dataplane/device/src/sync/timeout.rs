//! A wait with an end.

use core::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use crate::Clock;

/// The time came before the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done in time")]
pub struct TimedOut;

/// Waits for `future`, but not past `at`. When both are ready the result wins.
///
/// # Errors
/// When the time comes first; the future is dropped then.
///
/// # Cancel safety
/// As safe as `future`.
pub async fn timeout_at<C: Clock, F: Future>(
    clock: &C,
    at: Duration,
    future: F,
) -> Result<F::Output, TimedOut> {
    let mut future = pin!(future);
    let mut sleep = pin!(clock.sleep_until(at));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(TimedOut))
    })
    .await
}

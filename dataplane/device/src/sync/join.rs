//! Waits for many at once.

use core::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

/// Runs all `futures` within this task until every one has ended; their outputs are in the order of the futures.
///
/// Each wake polls every future that has not ended, so it is meant for tens of them; give thousands tasks of their own.
///
/// # Cancel safety
/// As safe as the futures: all that have not ended are dropped.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Part<F>> =
        futures.into_iter().map(|future| Part::Running(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut all_ended = true;
        for part in &mut running {
            let Part::Running(future) = part else { continue };
            match future.as_mut().poll(context) {
                Poll::Ready(output) => *part = Part::Ended(output),
                Poll::Pending => all_ended = false,
            }
        }
        if all_ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let ended = running.into_iter().map(|part| match part {
        Part::Ended(output) => output,
        Part::Running(_) => unreachable!("every future has ended"),
    });
    ended.collect()
}

enum Part<F: Future> {
    Running(Pin<Box<F>>),
    Ended(F::Output),
}

//! Reads that arrive together share one round of ReadIndex.

use nova_raft::{Group, ReadError, StateMachine};
use tokio::sync::{mpsc, oneshot};

/// Reads that wait for the next round; more are told to come again.
const WAITING_MAX: usize = 65_536;

type Waiter<S> = oneshot::Sender<Result<S, ReadError>>;

/// A group's reads. Clones share its rounds.
#[derive(Debug)]
pub(crate) struct Reads<S: StateMachine> {
    queue: mpsc::Sender<Waiter<S>>,
}

impl<S: StateMachine> Clone for Reads<S> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<S: StateMachine> Reads<S> {
    /// Reads of `group`; the task that makes the rounds ends when the last clone is dropped.
    pub(crate) fn start(group: Group<S>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiter<S>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut waiters = Vec::new();
            // Whoever comes after a round began waits for the next: its read must not be older than itself.
            while waiting.recv_many(&mut waiters, WAITING_MAX).await > 0 {
                let read = group.read().await;
                for waiter in waiters.drain(..) {
                    // One that went away needs no answer.
                    let _ = waiter.send(read.clone());
                }
            }
        });
        Self { queue }
    }

    /// The state, not older than the moment of the call.
    pub(crate) async fn read(&self) -> Result<S, ReadError> {
        let unavailable = |reason: &str| ReadError::Unavailable { reason: reason.to_owned() };
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(answer).map_err(|_| unavailable("too many reads wait; try again"))?;
        answered.await.unwrap_or_else(|_| Err(unavailable("the controller is stopping")))
    }
}

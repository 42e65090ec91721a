//! Requests of many clients go into the log together.

use std::sync::Arc;

use nova_raft::{Group, ProposeError};
use nova_state::FilesCommand;
use novafs_namespace::{Answer, Command};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::clock;
use crate::machine::Files;

/// Requests that wait to be proposed; more are told to come again.
const WAITING_MAX: usize = 8192;
/// Requests of one log entry.
const BATCH_COMMANDS_MAX: usize = 1024;
/// Bytes of one log entry, unless a single request is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Entries under way at once; while they are, the next one fills.
const ENTRIES_UNDER_WAY_MAX: usize = 4;

type Waiter = (Command, oneshot::Sender<Result<Answer, ProposeError>>);

/// Writes to the files group. Clones share its batches.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    queue: mpsc::Sender<Waiter>,
}

impl Writes {
    /// Writes to `group`; the task that batches them ends when the last clone is dropped.
    pub(crate) fn start(group: Group<Files>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(batch(group, waiting));
        Self { queue }
    }

    /// Proposes `command` with others; its time is set when the batch closes.
    pub(crate) async fn propose(&self, command: Command) -> Result<Answer, ProposeError> {
        let (answer, answered) = oneshot::channel();
        // Not queued, hence not carried out.
        let full = |_| ProposeError::Unavailable { reason: "too many writes wait; try again".to_owned() };
        self.queue.try_send((command, answer)).map_err(full)?;
        let stopping = |_| Err(ProposeError::Unknown { reason: "the controller is stopping".to_owned() });
        answered.await.unwrap_or_else(stopping)
    }
}

async fn batch(group: Group<Files>, mut waiting: mpsc::Receiver<Waiter>) {
    let under_way = Arc::new(Semaphore::new(ENTRIES_UNDER_WAY_MAX));
    let mut left_over: Option<Waiter> = None;
    loop {
        let permit = Arc::clone(&under_way).acquire_owned().await.expect("the semaphore is never closed");
        let first = match left_over.take() {
            Some(waiter) => waiter,
            None => match waiting.recv().await {
                Some(waiter) => waiter,
                None => return,
            },
        };
        let mut bytes = first.0.encoded_len();
        let mut waiters = vec![first];
        while waiters.len() < BATCH_COMMANDS_MAX
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.0.encoded_len();
            if bytes > BATCH_BYTES_MAX {
                left_over = Some(next);
                break;
            }
            waiters.push(next);
        }
        let group = group.clone();
        tokio::spawn(async move {
            propose(&group, waiters).await;
            drop(permit);
        });
    }
}

async fn propose(group: &Group<Files>, waiters: Vec<Waiter>) {
    let at_ms = clock::wall().0;
    let (mut commands, answers): (Vec<Command>, Vec<_>) = waiters.into_iter().unzip();
    for command in &mut commands {
        command.at_ms = at_ms;
    }
    match group.propose(FilesCommand { commands }).await {
        Ok(answered) => {
            assert_eq!(answered.len(), answers.len(), "each command of a batch has its answer");
            for (waiter, answer) in answers.into_iter().zip(answered) {
                // One that went away asks again and is answered from the table of answers.
                let _ = waiter.send(Ok(answer));
            }
        }
        Err(error) => {
            for waiter in answers {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }
}

//! Makes written files visible, many in one commit.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nova_api::files::request::Op;
use nova_api::files::{NewFile, Publish, PublishOutcome, response};

use crate::error::ClientError;
use crate::metadata::Metadata;

/// Files in one publish.
pub(crate) const BATCH_FILES_MAX: usize = 256;
/// Blocks in one publish: bounds its bytes.
const BATCH_BLOCKS_MAX: usize = 4096;
/// How long the first file of a batch waits for more.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// A file that is durable and not yet visible.
pub(crate) struct Ready<T> {
    pub(crate) session: u64,
    pub(crate) file: NewFile,
    /// What the sender wants back with the outcome.
    pub(crate) token: T,
}

/// Publishes what comes in until all senders are gone; `done` hears how each file ended.
pub(crate) fn publish_all<T>(
    metadata: &Metadata,
    ready: &Receiver<Ready<T>>,
    replace: bool,
    mut done: impl FnMut(T, u64, Result<(), ClientError>),
) {
    let mut left_over: Option<Ready<T>> = None;
    loop {
        let Some(first) = left_over.take().or_else(|| ready.recv().ok()) else { return };
        let session = first.session;
        let mut blocks = first.file.blocks.len();
        let (mut files, mut tokens) = (vec![first.file], vec![first.token]);
        let until = Instant::now() + BATCH_WAIT;
        while files.len() < BATCH_FILES_MAX && blocks < BATCH_BLOCKS_MAX {
            match ready.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(next) if next.session == session => {
                    blocks += next.file.blocks.len();
                    files.push(next.file);
                    tokens.push(next.token);
                }
                // Another session begins another batch.
                Ok(next) => {
                    left_over = Some(next);
                    break;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let count = files.len();
        let ask = Publish { session, files, make_parents: true, replace };
        let outcomes = match metadata.change(Op::Publish(ask)) {
            Ok(response::Result::Published(published)) if published.outcomes.len() == count => {
                published.outcomes.into_iter().map(outcome).collect::<Vec<_>>()
            }
            Ok(_) => repeat(count, || ClientError::Protocol("a publish was answered with something else")),
            Err(ClientError::Refused { code, path, message }) => {
                repeat(count, || ClientError::Refused { code, path: path.clone(), message: message.clone() })
            }
            Err(ClientError::Unavailable { what, waited, last }) => {
                repeat(count, || ClientError::Unavailable { what, waited, last: last.clone() })
            }
            Err(error) => {
                let last = crate::metadata::chain(&error);
                repeat(count, || ClientError::Unavailable {
                    what: "publish files",
                    waited: Duration::ZERO,
                    last: last.clone(),
                })
            }
        };
        for (token, outcome) in tokens.into_iter().zip(outcomes) {
            done(token, session, outcome);
        }
    }
}

fn outcome(outcome: PublishOutcome) -> Result<(), ClientError> {
    match outcome.failure {
        None => Ok(()),
        Some(failure) => {
            let code = failure.code();
            Err(ClientError::Refused { code, path: failure.path, message: failure.message })
        }
    }
}

fn repeat(count: usize, make: impl FnMut() -> ClientError) -> Vec<Result<(), ClientError>> {
    std::iter::repeat_with(make).map(Err).take(count).collect()
}

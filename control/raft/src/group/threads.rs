//! The threads of one group.
//!
//! Groups of one controller have no thread in common, and none with the services above them: a large command that is
//! applied in one, or a burst of requests, never stands before the heartbeats of another.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::RaftError;

/// Threads of a group: one may apply a large command while the other answers.
const THREADS: usize = 2;

/// A runtime that may be dropped anywhere; what still runs on it is then dropped too.
#[derive(Debug)]
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts the threads of group `name`.
    pub(super) fn start(name: &str) -> Result<Self, RaftError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name(format!("raft-{name}"))
            .enable_all()
            .build();
        let runtime = runtime
            .map_err(|error| RaftError::Stopped(format!("start the threads of group {name}: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `task` there.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.as_ref().expect("there until it is dropped").spawn(task)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not by waiting: the last handle on a group may be dropped inside another runtime, where nobody may wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

//! File metadata as a program reaches it: a request is sent again with the same number until it is answered, as
//! `novafs/client` does.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::MemShard;
use nova_device::sync::timeout_at;
use nova_device::{Clock, Shard};
use nova_units::NodeId;
use novafs_namespace::{Answer, Code, Failure, Op};

use crate::ask::{Ask, Call, Request, Told};
use crate::files_group::FilesGroup;

/// How long one answer is waited for before the request is sent again.
const ATTEMPT: Duration = Duration::from_millis(600);
/// Longest pause before that.
const PAUSE_MS_MAX: u64 = 120;
/// One in so many requests is sent twice at once.
const TWICE_ONE_IN: u64 = 16;

/// Why a request was not carried out, as far as its client knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// It was refused for good.
    Refused(Failure),
    /// Nobody answered in time; it may have been carried out, or may still be.
    Unknown,
}

impl Refusal {
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(failure) if failure.code() == code)
    }
}

/// A client of the file metadata.
#[derive(Debug)]
pub(crate) struct Metadata {
    node: NodeId,
    shard: MemShard,
    group: Rc<FilesGroup>,
    client: u64,
    sequence: Cell<u64>,
}

impl Metadata {
    /// A client that nobody knows yet.
    pub(crate) fn new(node: NodeId, shard: &MemShard, group: &Rc<FilesGroup>) -> Self {
        let client = shard.random().max(1);
        Self { node, shard: shard.clone(), group: Rc::clone(group), client, sequence: Cell::new(0) }
    }

    /// The group, for what only a simulator may look at.
    pub(crate) fn group(&self) -> &Rc<FilesGroup> {
        &self.group
    }

    /// Something that changes the state, within `patience`.
    pub(crate) async fn change(&self, op: Op, patience: Duration) -> Result<Answer, Refusal> {
        self.change_by(Ask::Change(op), patience).await
    }

    /// Block ids for a session.
    pub(crate) async fn reserve(
        &self,
        session: u64,
        count: u32,
        patience: Duration,
    ) -> Result<Answer, Refusal> {
        self.change_by(Ask::Reserve { session, count }, patience).await
    }

    async fn change_by(&self, ask: Ask, patience: Duration) -> Result<Answer, Refusal> {
        self.sequence.set(self.sequence.get() + 1);
        let request = Request { client: self.client, sequence: self.sequence.get(), ask };
        match self.ask(request, patience).await? {
            Told::Answer(answer) => Ok(answer),
            other => unreachable!("a change is answered by its command: {other:?}"),
        }
    }

    /// A question, within `patience`.
    pub(crate) async fn read(&self, ask: Ask, patience: Duration) -> Result<Told, Refusal> {
        self.ask(Request { client: 0, sequence: 0, ask }, patience).await
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Told, Refusal> {
        let clock = self.shard.clock();
        let until = clock.now() + patience;
        let call = Rc::new(Call::default());
        loop {
            self.group.send(self.node, request.clone(), &call);
            if self.below(TWICE_ONE_IN) == 0 {
                // A network may bring it twice.
                self.group.send(self.node, request.clone(), &call);
            }
            let pause = Duration::from_millis(1 + self.below(PAUSE_MS_MAX));
            match timeout_at(clock, clock.now() + ATTEMPT + pause, call.answered()).await {
                Ok(told) if told.is_again() => {
                    call.again();
                    clock.sleep_until(clock.now() + pause).await;
                }
                Ok(told) => {
                    return match told.failure() {
                        Some(failure) => Err(Refusal::Refused(failure.clone())),
                        None => Ok(told),
                    };
                }
                Err(_) => {}
            }
            if clock.now() >= until {
                return Err(Refusal::Unknown);
            }
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.shard.random() % bound
    }
}

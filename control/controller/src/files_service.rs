//! The service `Files`: what a client asks of the file metadata.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nova_api::files as pb;
use nova_api::files::files_server::Files as FilesApi;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Wire;
use nova_raft::{Group, ProposeError};
use nova_security::{Role, authorize};
use nova_units::{InodeId, SessionId};
use novafs_namespace::{
    Code, Command, EndSession, Failure, GROUPS_PER_RESERVATION_MAX, Namespace, Op, Renewals, ReserveBlocks,
};
use tonic::{Request, Response, Status};

use crate::machine::{Cluster, Files};
use crate::reads::Reads;
use crate::writes::Writes;
use crate::{clock, convert, refusal};

/// Serves file metadata while this controller leads the files group.
#[derive(Clone, Debug)]
pub(crate) struct FilesService {
    pub(crate) reads: Reads<Files>,
    pub(crate) writes: Writes,
    /// Where the writable replica groups are known from; this controller need not lead it.
    pub(crate) cluster: Group<Cluster>,
    pub(crate) renewals: Arc<Mutex<Renewals>>,
    /// Moves on with every reservation, so that small ones spread over all groups too.
    pub(crate) turn: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl FilesApi for FilesService {
    async fn execute(&self, request: Request<pb::Request>) -> Result<Response<pb::Response>, Status> {
        authorize(&request, &[Role::Agent, Role::Gateway, Role::Operator, Role::Controller])?;
        let pb::Request { client, sequence, op } = request.into_inner();
        let op = op.ok_or_else(|| {
            Status::invalid_argument("the request asks nothing; upgrade the controllers first")
        })?;
        let result = self.execute_op(client, sequence, op).await?;
        Ok(Response::new(pb::Response { result: Some(result) }))
    }
}

impl FilesService {
    async fn execute_op(&self, client: u64, sequence: u64, op: Ask) -> Result<Wire, Status> {
        let op = match op {
            Ask::Stat(ask) => {
                return self
                    .query(|it| it.stat(&ask.path).map(|view| Wire::Entry(convert::entry(&view))))
                    .await;
            }
            Ask::List(ask) => {
                let list = |it: &Namespace| {
                    it.list(&ask.path, &ask.after, ask.limit)
                        .map(|page| Wire::Listing(convert::listing(&page)))
                };
                return self.query(list).await;
            }
            Ask::Resolve(ask) => {
                let resolve = |it: &Namespace| {
                    let found = if ask.path.is_empty() {
                        it.open_inode(InodeId(ask.inode))
                    } else {
                        it.open(&ask.path)
                    };
                    found.map(|(view, file)| Wire::Resolved(convert::resolved(&view, &file)))
                };
                return self.query(resolve).await;
            }
            Ask::Usage(ask) => {
                return self
                    .query(|it| it.usage(&ask.path).map(|sums| Wire::Usage(convert::usage(sums))))
                    .await;
            }
            Ask::RenewSession(ask) => return self.renew(SessionId(ask.session)).await,
            Ask::OpenSession(ask) => Op::OpenSession(convert::open_session(ask)),
            Ask::CloseSession(ask) => Op::EndSession(EndSession { session: ask.session }),
            Ask::ReserveBlocks(ask) => Op::ReserveBlocks(self.with_groups(ask)),
            Ask::Publish(ask) => Op::Publish(convert::publish(ask)),
            Ask::MakeDirectory(ask) => Op::MakeDirectory(convert::make_directory(ask)),
            Ask::Rename(ask) => Op::Rename(convert::rename(ask)),
            Ask::Remove(ask) => Op::Remove(convert::remove(ask)),
            _ => return Ok(convert::failure(Failure::new(Code::Invalid, "", "not in this version"))),
        };
        match self.writes.propose(Command { client, sequence, at_ms: 0, op: Some(op) }).await {
            Ok(answer) => Ok(convert::answer(answer)),
            Err(ProposeError::Unknown { reason }) => {
                let message = format!("{reason}; send the request again with the same number");
                Ok(convert::failure(Failure::new(Code::Unavailable, "", &message)))
            }
            Err(error) => Err(refusal::of_propose(error)),
        }
    }

    async fn query(&self, ask: impl FnOnce(&Namespace) -> Result<Wire, Failure>) -> Result<Wire, Status> {
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        Ok(ask(&state.0.namespace).unwrap_or_else(convert::failure))
    }

    /// A renewal changes nothing in the log: the leader notes when it heard the session. A deposed leader notes
    /// nothing, because its read fails.
    async fn renew(&self, session: SessionId) -> Result<Wire, Status> {
        let heard = clock::monotonic();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let open = state.0.namespace.session(session).is_some();
        if !open {
            let message = "the writer session has ended; open another and write again";
            return Ok(convert::failure(Failure::new(Code::Fenced, "", message)));
        }
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner).renew(session, heard);
        Ok(Wire::Done(pb::Done {}))
    }

    fn with_groups(&self, ask: pb::ReserveBlocks) -> ReserveBlocks {
        let state = self.cluster.local();
        let mut groups: Vec<u32> = state.0.groups.writable(&ask.namespace).map(|id| id.0).collect();
        if !groups.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % groups.len();
            groups.rotate_left(turn);
            groups.truncate(GROUPS_PER_RESERVATION_MAX);
        }
        ReserveBlocks { session: ask.session, count: ask.count, groups }
    }
}

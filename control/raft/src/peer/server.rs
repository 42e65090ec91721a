//! Calls from other members.

use core::fmt;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use nova_api::raft as pb;
use nova_api::raft::raft_peer_server::{RaftPeer, RaftPeerServer};
use nova_security::{Role, authorize};
use openraft::Raft;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};
use tokio::io::AsyncWriteExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{GROUP_KEY, MESSAGE_BYTES_MAX, TARGET_KEY};
use crate::StateMachine;
use crate::convert;
use crate::machine::Machine;
use crate::snapshot::{self, SnapshotFile};
use crate::types::{Snapshot, Types};

type Replies = Pin<Box<dyn Stream<Item = Result<pb::AppendReply, Status>> + Send>>;

/// The groups of this process, behind one gRPC service. Clones share them.
#[derive(Clone, Default)]
pub struct Peers(Arc<RwLock<BTreeMap<String, Arc<dyn Endpoint>>>>);

impl Peers {
    /// No groups yet; [`crate::Group::open`] adds its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The service, for a `tonic` server with mutual TLS. It admits controllers of the region only.
    ///
    /// Serve it on a `TcpIncoming` with `with_nodelay(Some(true))`: the `tcp_nodelay` of a server does not reach
    /// listeners made outside of it, and with Nagle's delay every answer to the leader may wait 40 ms.
    #[must_use]
    pub fn service(&self) -> RaftPeerServer<Self> {
        RaftPeerServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn add(&self, group: &str, endpoint: Arc<dyn Endpoint>) {
        let mut groups = self.0.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group.to_owned(), endpoint);
    }

    pub(crate) fn remove(&self, group: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(group);
    }

    /// The group a call is for, once the caller and the target have been checked.
    fn route<T>(&self, request: &Request<T>) -> Result<Arc<dyn Endpoint>, Status> {
        authorize(request, &[Role::Controller])?;
        let text = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok());
        let group = text(GROUP_KEY).ok_or_else(|| Status::invalid_argument("the call names no group"))?;
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let endpoint =
            groups.get(group).ok_or_else(|| Status::not_found("no such group on this controller"))?;
        let target = text(TARGET_KEY).and_then(|target| target.parse().ok());
        if target != Some(endpoint.member()) {
            let message = format!("this is member {}; check the addresses of the members", endpoint.member());
            return Err(Status::failed_precondition(message));
        }
        Ok(Arc::clone(endpoint))
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(groups.keys()).finish()
    }
}

#[tonic::async_trait]
impl RaftPeer for Peers {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let endpoint = self.route(&request)?;
        Ok(Response::new(endpoint.append(request.into_inner())))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let endpoint = self.route(&request)?;
        endpoint.vote(request.into_inner(), false).await.map(Response::new)
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let endpoint = self.route(&request)?;
        endpoint.vote(request.into_inner(), true).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let endpoint = self.route(&request)?;
        endpoint.snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let endpoint = self.route(&request)?;
        endpoint.transfer_leader(request.into_inner()).await.map(Response::new)
    }
}

/// One group behind the service, whatever its state machine is.
pub(crate) trait Endpoint: Send + Sync {
    fn member(&self) -> u64;
    fn append(&self, requests: Streaming<pb::AppendRequest>) -> Replies;
    fn vote(&self, request: pb::VoteRequest, before: bool) -> BoxFuture<'_, Result<pb::VoteReply, Status>>;
    fn snapshot(
        &self,
        chunks: Streaming<pb::SnapshotChunk>,
    ) -> BoxFuture<'_, Result<pb::SnapshotReply, Status>>;
    fn transfer_leader(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> BoxFuture<'_, Result<pb::TransferLeaderReply, Status>>;
}

/// This process's member of a group.
pub(crate) struct LocalMember<S: StateMachine> {
    pub(crate) id: u64,
    pub(crate) raft: Raft<Types, Machine<S>>,
    pub(crate) machine: Machine<S>,
}

impl<S: StateMachine> Endpoint for LocalMember<S> {
    fn member(&self) -> u64 {
        self.id
    }

    fn append(&self, requests: Streaming<pb::AppendRequest>) -> Replies {
        // A request that does not decode ends the stream, and the leader begins another.
        let requests = requests.map(|request| request.and_then(decode_append)).take_while(|request| {
            if let Err(status) = request {
                tracing::debug!(%status, "a stream of log entries ended");
            }
            futures::future::ready(request.is_ok())
        });
        let requests = requests.filter_map(|request| futures::future::ready(request.ok()));
        let replies = self.raft.stream_append(requests);
        Box::pin(replies.map(|reply| reply.map(encode_append).map_err(|error| stopped(&error))))
    }

    fn vote(&self, request: pb::VoteRequest, before: bool) -> BoxFuture<'_, Result<pb::VoteReply, Status>> {
        Box::pin(async move {
            let request = VoteRequest::<Types> {
                vote: convert::vote_from(request.vote.ok_or_else(|| missing("vote"))?),
                last_log_id: request.last.map(convert::log_id_from),
                leadership_transfer: request.leadership_transfer,
            };
            let reply =
                if before { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
            let reply = reply.map_err(|error| stopped(&error))?;
            Ok(pb::VoteReply {
                vote: Some(convert::vote(&reply.vote)),
                granted: reply.vote_granted,
                last: reply.last_log_id.as_ref().map(convert::log_id),
            })
        })
    }

    fn snapshot(
        &self,
        mut chunks: Streaming<pb::SnapshotChunk>,
    ) -> BoxFuture<'_, Result<pb::SnapshotReply, Status>> {
        Box::pin(async move {
            let header =
                chunks.message().await?.and_then(|chunk| chunk.header).ok_or_else(|| missing("header"))?;
            let vote = convert::vote_from(header.vote.ok_or_else(|| missing("vote"))?);
            let meta = header.meta.ok_or_else(|| missing("meta"))?;
            let meta = snapshot::decode_meta(meta).map_err(Status::invalid_argument)?;
            let path = self.machine.snapshots().temporary();
            let received = receive(&mut chunks, &path, header.bytes).await;
            let installed = match received {
                Ok(()) => {
                    let snapshot = SnapshotFile { path: path.clone(), bytes: header.bytes };
                    let snapshot = Snapshot { meta, snapshot };
                    self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| stopped(&error))
                }
                Err(error) => Err(error),
            };
            // Installing gives the file its name; what is still here was refused.
            let _ = tokio::fs::remove_file(&path).await;
            Ok(pb::SnapshotReply { vote: Some(convert::vote(&installed?.vote)) })
        })
    }

    fn transfer_leader(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> BoxFuture<'_, Result<pb::TransferLeaderReply, Status>> {
        Box::pin(async move {
            let from = convert::vote_from(request.from.ok_or_else(|| missing("vote"))?);
            let request =
                TransferLeaderRequest::new(from, request.to, request.last.map(convert::log_id_from));
            let reply = self.raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))?;
            let refusal = reply.err().map(|error| match error {
                TransferLeaderError::VoteChanged { expected, actual } => {
                    pb::transfer_leader_reply::Refusal::VoteChanged(pb::VoteChanged {
                        expected: Some(convert::vote(&expected)),
                        actual: Some(convert::vote(&actual)),
                    })
                }
                TransferLeaderError::LogNotFlushed { expected, actual } => {
                    pb::transfer_leader_reply::Refusal::LogNotFlushed(pb::LogNotFlushed {
                        expected: expected.as_ref().map(convert::log_id),
                        actual: actual.as_ref().map(convert::log_id),
                    })
                }
            });
            Ok(pb::TransferLeaderReply { refusal })
        })
    }
}

/// Writes the chunks of a snapshot to `path`, durably.
async fn receive(
    chunks: &mut Streaming<pb::SnapshotChunk>,
    path: &std::path::Path,
    bytes: u64,
) -> Result<(), Status> {
    let local = |error: io::Error| Status::internal(format!("write a received snapshot: {error}"));
    let mut file = tokio::fs::File::create_new(path).await.map_err(local)?;
    let mut left = bytes;
    while let Some(chunk) = chunks.message().await? {
        let count = u64::try_from(chunk.data.len()).unwrap_or(u64::MAX);
        left = left
            .checked_sub(count)
            .ok_or_else(|| Status::invalid_argument("more bytes of a snapshot than announced"))?;
        file.write_all(&chunk.data).await.map_err(local)?;
    }
    if left > 0 {
        return Err(Status::data_loss("a snapshot ended early"));
    }
    file.sync_all().await.map_err(local)
}

fn decode_append(request: pb::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let entries = request.entries.into_iter().map(convert::entry_from).collect::<Result<_, _>>();
    Ok(AppendEntriesRequest {
        vote: convert::vote_from(request.vote.ok_or_else(|| missing("vote"))?),
        prev_log_id: request.previous.map(convert::log_id_from),
        entries: entries.map_err(Status::invalid_argument)?,
        leader_commit: request.committed.map(convert::log_id_from),
    })
}

fn encode_append(reply: StreamAppendResult<Types>) -> pb::AppendReply {
    let outcome = match reply {
        Ok(last) => {
            pb::append_reply::Outcome::Appended(pb::Appended { last: last.as_ref().map(convert::log_id) })
        }
        Err(StreamAppendError::Conflict(id)) => pb::append_reply::Outcome::Conflict(convert::log_id(&id)),
        Err(StreamAppendError::HigherVote(vote)) => {
            pb::append_reply::Outcome::HigherVote(convert::vote(&vote))
        }
    };
    pb::AppendReply { outcome: Some(outcome) }
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("the message lacks its {field}"))
}

fn stopped(error: &dyn fmt::Display) -> Status {
    Status::unavailable(format!("the group does not run here: {error}"))
}

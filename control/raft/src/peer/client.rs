//! Calls to another member.

use core::future::Future;
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use nova_api::raft as pb;
use nova_api::raft::raft_peer_client::RaftPeerClient;
use nova_security::{Credentials, Role};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{CHUNK_BYTES, GROUP_KEY, MESSAGE_BYTES_MAX, TARGET_KEY};
use crate::convert;
use crate::snapshot::{self, SnapshotFile};
use crate::types::{Address, Snapshot, Types, Vote};

type Rpc = RPCError<Types>;

/// A connection that is not there after this is given up for now.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A member answers a vote, or opens a stream, within this.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before a peer that could not be reached is dialled again.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);
/// A member has made the entries of a request durable within this; a disk may take its time.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// A chunk of a snapshot is taken within this.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(5);
/// A member has read and installed a whole snapshot within this.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A silent connection is asked for a sign of life this often, and given up when none comes.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// An unreachable member is tried again after this; a restarted one is back in a group at once.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Chunks of a snapshot that wait to be sent.
const CHUNKS_QUEUED: usize = 4;

/// Makes connections to the other members of one group.
pub(crate) struct Network {
    pub(crate) group: String,
    pub(crate) credentials: Credentials,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    // Heartbeats and snapshots get connections of their own by the trait's defaults, which call this again: a bulk
    // transfer never stands before a heartbeat.
    async fn new_client(&mut self, target: u64, address: &Address) -> Connection {
        Connection {
            target,
            group: MetadataValue::try_from(self.group.as_str()).expect("checked when the group was opened"),
            client: connect(&self.credentials, address),
        }
    }
}

fn connect(credentials: &Credentials, address: &Address) -> Result<RaftPeerClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|error| error.to_string())?;
    let endpoint =
        endpoint.tls_config(credentials.client_tls(Role::Controller)).map_err(|error| error.to_string())?;
    let channel = endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let client = RaftPeerClient::new(channel);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// A connection to one member.
pub(crate) struct Connection {
    target: u64,
    group: MetadataValue<Ascii>,
    client: Result<RaftPeerClient<Channel>, String>,
}

impl Connection {
    fn client(&mut self) -> Result<&mut RaftPeerClient<Channel>, Rpc> {
        self.client.as_mut().map_err(|error| unreachable(error.as_str()))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(GROUP_KEY, self.group.clone());
        request.metadata_mut().insert(TARGET_KEY, MetadataValue::from(self.target));
        request
    }

    async fn ask(&mut self, request: VoteRequest<Types>, before: bool) -> Result<VoteResponse<Types>, Rpc> {
        let message = self.request(pb::VoteRequest {
            vote: Some(convert::vote(&request.vote)),
            last: request.last_log_id.as_ref().map(convert::log_id),
            leadership_transfer: request.leadership_transfer,
        });
        let client = self.client()?;
        let call = async { if before { client.pre_vote(message).await } else { client.vote(message).await } };
        let reply = within(CALL_TIMEOUT, call).await?.into_inner();
        let vote = convert::vote_from(reply.vote.ok_or_else(|| unreachable("a vote reply without a vote"))?);
        Ok(VoteResponse {
            vote,
            vote_granted: reply.granted,
            last_log_id: reply.last.map(convert::log_id_from),
        })
    }
}

impl NetVote<Types> for Connection {
    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, Rpc> {
        self.ask(rpc, false).await
    }

    // The trait's default grants, which would quietly switch pre-vote off.
    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, Rpc> {
        self.ask(rpc, true).await
    }
}

impl NetBackoff<Types> for Connection {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(core::iter::repeat(RETRY_AFTER)))
    }
}

impl NetStreamAppend<Types> for Connection {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let sent = Arc::new(AtomicU64::new(0));
            let counting = Arc::clone(&sent);
            let requests = self.request(input.map(move |request| {
                counting.fetch_add(1, Ordering::Release);
                encode_append(&request)
            }));
            let replies = match within(CALL_TIMEOUT, self.client()?.append(requests)).await {
                Ok(replies) => replies.into_inner(),
                Err(error) => {
                    // openraft tries a stream again at once, whatever the error: thousands of times a second.
                    tokio::time::sleep(REDIAL_PAUSE).await;
                    return Err(error);
                }
            };
            let state = (replies, sent, 0_u64);
            let replies = futures::stream::try_unfold(state, |(mut replies, sent, answered)| async move {
                // An idle stream waits as long as it likes; one that owes an answer does not.
                let reply = loop {
                    match timeout(APPEND_TIMEOUT, replies.message()).await {
                        Ok(reply) => break reply.map_err(|status| from_status(&status))?,
                        Err(_) if sent.load(Ordering::Acquire) > answered => {
                            return Err(unreachable("no answer to log entries in time"));
                        }
                        Err(_) => {}
                    }
                };
                let Some(reply) = reply else { return Ok(None) };
                Ok(Some((decode_append(reply)?, (replies, sent, answered + 1))))
            });
            Ok(replies.boxed())
        })
    }
}

impl NetSnapshot<Types> for Connection {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let header = pb::SnapshotHeader {
            vote: Some(convert::vote(&vote)),
            meta: Some(snapshot::encode_meta(&snapshot.meta)),
            bytes: snapshot.snapshot.bytes,
        };
        let (chunks, queue) = mpsc::channel(CHUNKS_QUEUED);
        let queue = futures::stream::unfold(queue, |mut queue| async {
            queue.recv().await.map(|chunk| (chunk, queue))
        });
        let request = self.request(queue);
        let client = self.client()?;
        let sending = async {
            send_file(&snapshot.snapshot, header, chunks)
                .await
                .map_err(|error| unreachable(&error.to_string()))
        };
        let call = async {
            let reply = client.snapshot(request).await.map_err(|status| from_status(&status))?;
            Ok::<_, Rpc>(reply.into_inner())
        };
        let whole = async {
            let mut call = core::pin::pin!(call.fuse());
            let mut sending = core::pin::pin!(sending.fuse());
            futures::select! {
                // The member may refuse before the last chunk.
                reply = call => return reply,
                sent = sending => sent?,
            }
            match timeout(INSTALL_TIMEOUT, call).await {
                Ok(reply) => reply,
                Err(_) => Err(unreachable("a snapshot was not installed in time")),
            }
        };
        let mut whole = core::pin::pin!(whole.fuse());
        let mut cancel = core::pin::pin!(cancel.fuse());
        let reply = futures::select! {
            reply = whole => reply.map_err(StreamingError::from)?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let vote = reply.vote.ok_or_else(|| unreachable("a snapshot reply without a vote"))?;
        Ok(SnapshotResponse::new(convert::vote_from(vote)))
    }
}

/// Sends the header and then the file, in chunks.
async fn send_file(
    snapshot: &SnapshotFile,
    header: pb::SnapshotHeader,
    chunks: mpsc::Sender<pb::SnapshotChunk>,
) -> io::Result<()> {
    let put = async |chunk| match timeout(CHUNK_TIMEOUT, chunks.send(chunk)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(io::Error::other("the member stopped taking a snapshot")),
        Err(_) => Err(io::Error::other("the member took no chunk of a snapshot in time")),
    };
    let mut file = tokio::fs::File::open(&snapshot.path).await?;
    put(pb::SnapshotChunk { header: Some(header), data: Bytes::new() }).await?;
    loop {
        let mut data = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut data).await? == 0 {
            return Ok(());
        }
        put(pb::SnapshotChunk { header: None, data: data.freeze() }).await?;
    }
}

impl NetTransferLeader<Types> for Connection {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Rpc> {
        let message = self.request(pb::TransferLeaderRequest {
            from: Some(convert::vote(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(convert::log_id),
        });
        let client = self.client()?;
        let reply = within(CALL_TIMEOUT, client.transfer_leader(message)).await?.into_inner();
        let missing = || unreachable("a refusal to take over that does not say why");
        Ok(match reply.refusal {
            None => Ok(()),
            Some(pb::transfer_leader_reply::Refusal::VoteChanged(change)) => {
                Err(TransferLeaderError::VoteChanged {
                    expected: change.expected.map(convert::vote_from).ok_or_else(missing)?,
                    actual: change.actual.map(convert::vote_from).ok_or_else(missing)?,
                })
            }
            Some(pb::transfer_leader_reply::Refusal::LogNotFlushed(log)) => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: log.expected.map(convert::log_id_from),
                    actual: log.actual.map(convert::log_id_from),
                })
            }
        })
    }
}

fn encode_append(request: &AppendEntriesRequest<Types>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(convert::vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(convert::log_id),
        committed: request.leader_commit.as_ref().map(convert::log_id),
        entries: request.entries.iter().map(convert::entry).collect(),
    }
}

fn decode_append(reply: pb::AppendReply) -> Result<StreamAppendResult<Types>, Rpc> {
    Ok(match reply.outcome.ok_or_else(|| unreachable("an append reply without an outcome"))? {
        pb::append_reply::Outcome::Appended(appended) => Ok(appended.last.map(convert::log_id_from)),
        pb::append_reply::Outcome::Conflict(id) => Err(StreamAppendError::Conflict(convert::log_id_from(id))),
        pb::append_reply::Outcome::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(convert::vote_from(vote)))
        }
    })
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Rpc> {
    match timeout(limit, call).await {
        Ok(reply) => reply.map_err(|status| from_status(&status)),
        Err(_) => Err(unreachable("no answer in time")),
    }
}

fn from_status(status: &Status) -> Rpc {
    unreachable(&format!("{:?}: {}", status.code(), status.message()))
}

fn unreachable(reason: &str) -> Rpc {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

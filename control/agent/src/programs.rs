//! Local programs: their metadata requests go to the controllers, and a ticket lets them into novad.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Context as _;
use nova_api::files::{Request, Response};
use nova_ring::abi::{AgentCommand, BadSlot, METADATA_BYTES_MAX, MetadataReply, MetadataRequest, Status};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::snapshot::DataRoute;
use nova_ring::{
    Acceptor, Admission, ArenaView, CAPACITY_DEFAULT, Kind, LOOK_AGAIN, Link, OutOfArena, PeerBroken,
    PushError, Terms,
};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::controllers::Controllers;
use crate::doorbell;
use crate::picture::Picture;

/// Programs attached at once (design: control 4.2).
const PROGRAMS_MAX: usize = 128;
/// Requests of one program that are carried out, or whose reply it has no room for; further ones stay in its ring.
const IN_FLIGHT_MAX: usize = 64;
/// Largest arena of one program's requests and replies.
const ARENA_BYTES_MAX: u64 = 64 << 20;
/// How long a ticket is good.
const TICKET_VALID_MS: u32 = 10_000;
/// Permission bits of the socket: the user that runs the agent.
const SOCKET_MODE: u32 = 0o600;

/// Why a program was detached.
#[derive(Debug, thiserror::Error)]
enum Detached {
    #[error(transparent)]
    Broken(#[from] PeerBroken),
    #[error("it sent a slot that makes no sense: {0}")]
    BadSlot(#[from] BadSlot),
    #[error("its doorbell cannot be watched: {0}")]
    Doorbell(#[from] std::io::Error),
}

/// Listens for programs until the acceptor is dropped.
pub(crate) fn listen(
    config: &Config,
    picture: Arc<Picture>,
    controllers: Arc<Controllers>,
) -> anyhow::Result<Acceptor> {
    let mut boot = [0; 8];
    getrandom::fill(&mut boot).map_err(|error| anyhow::anyhow!("draw a boot id: {error}"))?;
    let door = Door {
        boot: u64::from_le_bytes(boot) | 1,
        generation: AtomicU64::new(0),
        attached: Arc::new(AtomicUsize::new(0)),
        runtime: Handle::current(),
        host: Arc::new(Host {
            picture,
            controllers,
            novad_socket: config.novad_socket.display().to_string(),
        }),
    };
    Acceptor::listen(&config.socket, SOCKET_MODE, Arc::new(door))
        .with_context(|| format!("listen for programs at {}", config.socket.display()))
}

/// What requests of programs need.
struct Host {
    picture: Arc<Picture>,
    controllers: Arc<Controllers>,
    novad_socket: String,
}

struct Door {
    boot: u64,
    generation: AtomicU64,
    attached: Arc<AtomicUsize>,
    runtime: Handle,
    host: Arc<Host>,
}

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        if hello.kind != Kind::Metadata {
            return Err("this is the agent's socket: data goes to novad's, with a ticket from here".into());
        }
        if hello.area_bytes > ARENA_BYTES_MAX {
            return Err(format!(
                "an arena of {} bytes is over the limit of {ARENA_BYTES_MAX}",
                hello.area_bytes
            ));
        }
        if self.attached.load(Ordering::Acquire) >= PROGRAMS_MAX {
            return Err(format!("{PROGRAMS_MAX} programs are attached to this host, its limit"));
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Terms { capacity: CAPACITY_DEFAULT, area_bytes: hello.area_bytes, boot: self.boot, generation })
    }

    fn attached(&self, _: Hello, peer: Credentials, link: Link) {
        let (host, attached) = (Arc::clone(&self.host), Arc::clone(&self.attached));
        attached.fetch_add(1, Ordering::AcqRel);
        self.runtime.spawn(async move {
            if let Err(why) = serve(link, peer, host).await {
                tracing::warn!(pid = peer.pid, uid = peer.uid, "detached a program: {why}");
            }
            attached.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Serves a program until it ends or breaks a rule. Requests that are under way are dropped with it: what they changed
/// in metadata stands, and is deduplicated when the program sends them again.
async fn serve(link: Link, peer: Credentials, host: Arc<Host>) -> Result<(), Detached> {
    let Link { mut sender, mut receiver, area, socket, .. } = link;
    let bell = doorbell::watch(&receiver)?;
    let mut under_way = JoinSet::new();
    let mut unsent = std::collections::VecDeque::new();
    loop {
        while under_way.len() + unsent.len() < IN_FLIGHT_MAX {
            let Some(slot) = receiver.pop()? else { break };
            let request = MetadataRequest::decode(&slot)?;
            under_way.spawn(carry_out(Arc::clone(&host), area.clone(), peer.uid, request));
        }
        while let Some(ended) = under_way.try_join_next() {
            unsent.push_back(ended.expect("a request does not panic, and nobody aborts it"));
        }
        let mut sent = false;
        while let Some(reply) = unsent.front() {
            match sender.push(MetadataReply::encode(reply)) {
                Ok(()) => sent = true,
                Err(PushError::Full(_)) => break,
                Err(PushError::Broken(broken)) => return Err(broken.into()),
            }
            unsent.pop_front();
        }
        if sent {
            sender.ring();
        }
        if socket.is_gone() {
            return Ok(());
        }
        // At the limit the ring may well hold slots: only the end of a request makes room for one more, or a program
        // that takes its replies, and that rings no bell.
        if under_way.len() + unsent.len() < IN_FLIGHT_MAX && !receiver.prepare_sleep()? {
            continue;
        }
        tokio::select! {
            readable = bell.readable() => readable?.clear_ready(),
            Some(ended) = under_way.join_next() => {
                unsent.push_back(ended.expect("a request does not panic, and nobody aborts it"));
            }
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        receiver.awake();
        receiver.drain_doorbell();
    }
}

async fn carry_out(host: Arc<Host>, area: ArenaView, uid: u32, request: MetadataRequest) -> MetadataReply {
    let number = request.request();
    let (status, bytes) = match request {
        MetadataRequest::Request { offset, bytes, reply_offset, reply_bytes_max, .. } => {
            match execute(&host, &area, offset, bytes).await {
                Err(status) => (status, 0),
                Ok(response) => put(&area, reply_offset, reply_bytes_max, &response.encode_to_vec()),
            }
        }
        MetadataRequest::OpenData { reply_offset, reply_bytes_max, .. } => match open_data(&host, uid) {
            None => (Status::Unavailable, 0),
            Some(route) => put(&area, reply_offset, reply_bytes_max, &route.encode_to_vec()),
        },
    };
    MetadataReply::Reply { request: number, status, bytes }
}

async fn execute(host: &Host, area: &ArenaView, offset: u64, bytes: u32) -> Result<Response, Status> {
    // Copied out once, then read: the program may change its arena meanwhile.
    let mut message = vec![0; usize::try_from(bytes).expect("32 bits fit an address")];
    area.copy_out(offset, &mut message).map_err(|OutOfArena { .. }| Status::Invalid)?;
    let request = Request::decode(&*message).map_err(|_| Status::Invalid)?;
    host.controllers.execute(&request).await.map_err(|status| {
        tracing::warn!(%status, "a request of a program was not answered");
        match status.code() {
            tonic::Code::InvalidArgument => Status::Invalid,
            tonic::Code::ResourceExhausted => Status::Busy,
            _ => Status::Unavailable,
        }
    })
}

/// A way into novad; none while it is not attached.
fn open_data(host: &Host, uid: u32) -> Option<DataRoute> {
    let mut ticket = [0; 16];
    getrandom::fill(&mut ticket).ok()?;
    let admitted = host.picture.command(AgentCommand::AdmitTicket { ticket, uid, valid_ms: TICKET_VALID_MS });
    admitted.then(|| DataRoute {
        socket: host.novad_socket.clone(),
        ticket: ticket.to_vec(),
        valid_ms: TICKET_VALID_MS,
    })
}

/// Puts a reply into the arena, within the room that the program gave it.
fn put(area: &ArenaView, offset: u64, bytes_max: u32, message: &[u8]) -> (Status, u32) {
    match u32::try_from(message.len()) {
        Ok(bytes) if bytes <= bytes_max.min(METADATA_BYTES_MAX) => match area.copy_in(offset, message) {
            Ok(()) => (Status::Ok, bytes),
            Err(OutOfArena { .. }) => (Status::Invalid, 0),
        },
        _ => (Status::Full, 0),
    }
}

//! Calls to file metadata, through the agent of this host.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{Request, Response, response};
use nova_ring::abi::{BadSlot, METADATA_BYTES_MAX, MetadataReply, MetadataRequest, Slot, Status};
use nova_ring::handshake::Hello;
use nova_ring::snapshot::DataRoute;
use nova_ring::{ArenaView, Kind, METADATA_AREA_BYTES, attach};
use prost::Message;

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::port::{Port, split};
use crate::space::Space;
use crate::window::Window;

/// Request and reply of a call share a slab: the request's part of a small and of a large one.
const SMALL_REQUEST_BYTES: u64 = 64 << 10;
const SMALL_BYTES: u64 = 320 << 10;
const LARGE_BYTES: u64 = 4 << 20;
/// Calls under way at once.
const SMALL_COUNT: u64 = 16;
const _: () = assert!(SMALL_BYTES * SMALL_COUNT + LARGE_BYTES <= METADATA_AREA_BYTES);
/// How long an agent may keep one call before it is taken for dead.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// One attachment to the agent.
#[derive(Debug)]
struct Attachment {
    port: Port<(Status, u32)>,
    area: ArenaView,
    space: Space,
}

/// File metadata as this program reaches it.
#[derive(Debug)]
pub(crate) struct Metadata {
    socket: PathBuf,
    deadline: Duration,
    /// This program for the deduplication of its requests: 64 random bits, never 0.
    client: u64,
    window: Window,
    current: Mutex<Option<Arc<Attachment>>>,
}

/// How one attempt went wrong.
enum Attempt {
    /// Try again.
    Again(String),
    /// The reply needs more room.
    TooLarge,
    /// Final.
    Failed(ClientError),
}

fn decode(slot: &Slot) -> Result<(u64, (Status, u32)), BadSlot> {
    let MetadataReply::Reply { request, status, bytes } = MetadataReply::decode(slot)?;
    Ok((request, (status, bytes)))
}

impl Metadata {
    /// Attaches, so that a wrong path is told at once.
    pub(crate) fn connect(socket: PathBuf, deadline: Duration) -> Result<Self, ClientError> {
        let client = random()?.max(1);
        let found = Self { socket, deadline, client, window: Window::default(), current: Mutex::new(None) };
        found.attachment()?;
        Ok(found)
    }

    /// The living attachment; makes one when there is none.
    fn attachment(&self) -> Result<Arc<Attachment>, ClientError> {
        let mut current = self.current.lock().expect("no holder of this lock panics");
        if let Some(found) = current.as_ref().filter(|found| !found.port.is_gone()) {
            return Ok(Arc::clone(found));
        }
        let hello = Hello::new(Kind::Metadata, [0; 16], METADATA_AREA_BYTES, self.client);
        let (sender, receiver, socket, area) =
            split(attach(&self.socket, &hello).map_err(ClientError::Agent)?);
        if area.bytes() < METADATA_AREA_BYTES {
            return Err(ClientError::Protocol("the agent grants a smaller arena than its programs need"));
        }
        let port = Port::start(sender, receiver, socket, decode)
            .map_err(ClientError::local("start a thread for", &self.socket))?;
        let space = Space::new(&[(SMALL_BYTES, SMALL_COUNT), (LARGE_BYTES, 1)]);
        let made = Arc::new(Attachment { port, area, space });
        *current = Some(Arc::clone(&made));
        Ok(made)
    }

    /// A request that changes nothing.
    pub(crate) fn read(&self, op: Op) -> Result<response::Result, ClientError> {
        self.call(&Request { client: 0, sequence: 0, op: Some(op) })
    }

    /// A request that changes something: done once, however often it has to be sent.
    pub(crate) fn change(&self, op: Op) -> Result<response::Result, ClientError> {
        let number = self.window.begin();
        self.call(&Request { client: self.client, sequence: number.sequence, op: Some(op) })
    }

    /// A way into the data plane of this host.
    pub(crate) fn open_data(&self) -> Result<DataRoute, ClientError> {
        let mut backoff = Backoff::new(self.deadline);
        loop {
            match self.try_open_data() {
                Ok(route) => return Ok(route),
                Err(Attempt::Again(last)) => {
                    backoff.pause("ask the agent for a way into the data plane", last)?
                }
                Err(Attempt::TooLarge) => {
                    return Err(ClientError::Protocol("the agent's route is too large"));
                }
                Err(Attempt::Failed(error)) => return Err(error),
            }
        }
    }

    fn try_open_data(&self) -> Result<DataRoute, Attempt> {
        let reply = self.exchange(None, SMALL_BYTES)?;
        DataRoute::decode(&*reply)
            .map_err(|_| Attempt::Failed(ClientError::Protocol("the agent's route cannot be read")))
    }

    fn call(&self, request: &Request) -> Result<response::Result, ClientError> {
        let message = request.encode_to_vec();
        let count = u64::try_from(message.len()).expect("a length fits 64 bits");
        if count > u64::from(METADATA_BYTES_MAX) {
            return Err(ClientError::Usage(format!(
                "a metadata request of {count} bytes is over the limit of 2 MiB"
            )));
        }
        let mut slab = if count > SMALL_REQUEST_BYTES { LARGE_BYTES } else { SMALL_BYTES };
        let mut backoff = Backoff::new(self.deadline);
        loop {
            let answer = self.exchange(Some(&message), slab).and_then(|reply| {
                let garbled = || Attempt::Failed(ClientError::Protocol("the metadata reply cannot be read"));
                let result = Response::decode(&*reply)
                    .ok()
                    .and_then(|response| response.result)
                    .ok_or_else(garbled)?;
                match result {
                    response::Result::Failure(failure) => match failure.code() {
                        Code::Unavailable | Code::NoGroups => Err(Attempt::Again(failure.message)),
                        code => {
                            let (path, message) = (failure.path, failure.message);
                            Err(Attempt::Failed(ClientError::Refused { code, path, message }))
                        }
                    },
                    result => Ok(result),
                }
            });
            match answer {
                Ok(result) => return Ok(result),
                Err(Attempt::Again(last)) => backoff.pause("ask file metadata", last)?,
                Err(Attempt::TooLarge) if slab == SMALL_BYTES => slab = LARGE_BYTES,
                Err(Attempt::TooLarge) => {
                    return Err(ClientError::Protocol("the metadata reply is over its limit of 2 MiB"));
                }
                Err(Attempt::Failed(error)) => return Err(error),
            }
        }
    }

    /// One message to the agent (or the question for a route) and its reply's bytes.
    fn exchange(&self, message: Option<&[u8]>, slab: u64) -> Result<Vec<u8>, Attempt> {
        let link = self.attachment().map_err(|error| match error {
            ClientError::Agent(source) => Attempt::Again(chain(&source)),
            other => Attempt::Failed(other),
        })?;
        let room = || Attempt::Again("all calls to the agent are in use".into());
        let piece = link.space.take(slab, REPLY_TIMEOUT).ok_or_else(room)?;
        let request_room =
            if slab == LARGE_BYTES { u64::from(METADATA_BYTES_MAX) } else { SMALL_REQUEST_BYTES };
        let (offset, reply_offset) = (piece.offset, piece.offset + request_room);
        let reply_bytes_max =
            u32::try_from(slab - request_room).expect("a slab is small").min(METADATA_BYTES_MAX);
        let bytes =
            message.map_or(0, |message| u32::try_from(message.len()).expect("checked against the limit"));
        if let Some(message) = message {
            link.area.copy_in(offset, message).expect("the slab lies in the area");
        }
        let (inbox, answers) = mpsc::channel();
        let submitted = link.port.submit(&inbox, |request| {
            match message {
                Some(_) => MetadataRequest::Request { request, offset, bytes, reply_offset, reply_bytes_max },
                None => MetadataRequest::OpenData { request, reply_offset, reply_bytes_max },
            }
            .encode()
        });
        let outcome = match submitted {
            Some(_) => answers.recv_timeout(REPLY_TIMEOUT).ok().and_then(|(_, answer)| answer),
            None => None,
        };
        let Some((status, count)) = outcome else {
            // Silent or gone: the slab may still be written by the agent, so the whole attachment goes.
            link.port.end();
            return Err(Attempt::Again("the agent of this host went away".into()));
        };
        match status {
            Status::Ok if count <= reply_bytes_max => {
                let mut reply = vec![0; usize::try_from(count).expect("at most 2 MiB")];
                link.area.copy_out(reply_offset, &mut reply).expect("the slab lies in the area");
                Ok(reply)
            }
            Status::Ok => {
                Err(Attempt::Failed(ClientError::Protocol("the agent's reply is longer than its room")))
            }
            Status::Full => Err(Attempt::TooLarge),
            Status::Unavailable | Status::Busy | Status::TimedOut | Status::Stopping => {
                Err(Attempt::Again(format!("the agent of this host answers: {status}")))
            }
            status => {
                Err(Attempt::Failed(ClientError::Data { what: "ask the agent of this host".into(), status }))
            }
        }
    }
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        line.push_str(": ");
        line.push_str(&next.to_string());
        source = next.source();
    }
    line
}

fn random() -> Result<u64, ClientError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| ClientError::Local {
        doing: "take random bytes from",
        path: "the kernel".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

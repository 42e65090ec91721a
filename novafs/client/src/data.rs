//! The data plane of this host: attach, send, and attach again.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nova_ring::abi::{Answer, BadSlot, ClientCommand, OpenedWriter, Slot, Status};
use nova_ring::handshake::Hello;
use nova_ring::{ArenaView, AttachError, Kind, attach};

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::metadata::{Metadata, chain};
use crate::port::{Inbox, Port, split};
use crate::space::{Piece, Space};
use crate::writers::{KeyName, Writers};

/// Most bytes of one transfer; a slab of the arena.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;
/// Slab of a small file: one unit.
const SMALL_BYTES: u64 = 64 << 10;
/// How long the data plane may keep a request. Its own deadline is shorter: silence beyond this means it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// One attachment to the data plane.
#[derive(Debug)]
pub(crate) struct Attachment {
    port: Port<Answer>,
    pub(crate) area: ArenaView,
    space: Space,
    writers: Writers,
}

/// The data plane as this program reaches it.
#[derive(Debug)]
pub(crate) struct DataPlane {
    metadata: Arc<Metadata>,
    arena_bytes: u64,
    deadline: Duration,
    current: Mutex<Option<Arc<Attachment>>>,
}

fn decode(slot: &Slot) -> Result<(u64, Answer), BadSlot> {
    let answer = Answer::decode(slot)?;
    Ok((answer.request, answer))
}

impl DataPlane {
    pub(crate) fn new(metadata: Arc<Metadata>, arena_bytes: u64, deadline: Duration) -> Self {
        Self { metadata, arena_bytes, deadline, current: Mutex::new(None) }
    }

    /// The living attachment; makes one when there is none, however often that takes within the deadline.
    pub(crate) fn attachment(&self) -> Result<Arc<Attachment>, ClientError> {
        let mut current = self.current.lock().expect("no holder of this lock panics");
        if let Some(found) = current.as_ref().filter(|found| !found.port.is_gone()) {
            return Ok(Arc::clone(found));
        }
        *current = None;
        let mut backoff = Backoff::new(self.deadline);
        loop {
            match self.attach() {
                Ok(made) => {
                    let made = Arc::new(made);
                    *current = Some(Arc::clone(&made));
                    return Ok(made);
                }
                Err(ClientError::DataPlane(source)) => {
                    backoff.pause("attach to the data plane of this host", chain(&source))?;
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn attach(&self) -> Result<Attachment, ClientError> {
        let route = self.metadata.open_data()?;
        let ticket = <[u8; 16]>::try_from(route.ticket.as_slice())
            .map_err(|_| ClientError::Protocol("the agent's ticket has not 16 bytes"))?;
        let hello = Hello::new(Kind::Client, ticket, self.arena_bytes, 0);
        let link = attach(route.socket.as_ref(), &hello).map_err(ClientError::DataPlane)?;
        let (sender, receiver, socket, area) = split(link);
        // Half of the arena for small files, half for large ones.
        let half = area.bytes() / 2;
        let (small, large) = (half / SMALL_BYTES, half / CHUNK_BYTES);
        if large == 0 {
            return Err(ClientError::Protocol("the data plane grants an arena under 2 MiB"));
        }
        let port = Port::start(sender, receiver, socket, decode).map_err(|source| {
            ClientError::DataPlane(AttachError::System { doing: "start a thread for its answers", source })
        })?;
        let space = Space::new(&[(SMALL_BYTES, small), (CHUNK_BYTES, large)]);
        Ok(Attachment { port, area, space, writers: Writers::default() })
    }
}

impl Attachment {
    /// Whether the data plane went away; what was asked of it is lost.
    pub(crate) fn is_gone(&self) -> bool {
        self.port.is_gone()
    }

    /// Room in the arena; waits for others to finish.
    pub(crate) fn room(&self, bytes: u64) -> Result<Piece<'_>, ClientError> {
        match self.space.take(bytes, ANSWER_TIMEOUT) {
            Some(piece) if !self.port.is_gone() => Ok(piece),
            _ => Err(ClientError::Lost),
        }
    }

    /// Room in the arena if there is some now. Who has transfers in flight must not wait for room: everyone could be
    /// waiting for room that only an answer nobody takes gives back.
    pub(crate) fn room_now(&self, bytes: u64) -> Option<Piece<'_>> {
        self.space.take(bytes, Duration::ZERO)
    }

    /// Sends a command; its answer comes to `inbox`.
    pub(crate) fn submit(
        &self,
        inbox: &Inbox<Answer>,
        make: impl FnOnce(u64) -> ClientCommand,
    ) -> Result<u64, ClientError> {
        self.port.submit(inbox, |request| make(request).encode()).ok_or(ClientError::Lost)
    }

    /// The next answer. Silence ends the attachment: its arena may still be in the data plane's hands.
    pub(crate) fn answer(
        &self,
        inbox: &mpsc::Receiver<(u64, Option<Answer>)>,
    ) -> Result<Answer, ClientError> {
        match inbox.recv_timeout(ANSWER_TIMEOUT) {
            Ok((_, Some(answer))) if answer.status != Status::Stopping => Ok(answer),
            _ => {
                self.port.end();
                Err(ClientError::Lost)
            }
        }
    }

    /// One command until it is done, refused, or the deadline has passed.
    pub(crate) fn call(
        &self,
        what: &'static str,
        deadline: Duration,
        make: impl Fn(u64) -> ClientCommand,
    ) -> Result<Answer, ClientError> {
        let mut backoff = Backoff::new(deadline);
        let (inbox, answers) = mpsc::channel();
        loop {
            self.submit(&inbox, &make)?;
            let answer = self.answer(&answers)?;
            match answer.status {
                Status::Ok => return Ok(answer),
                status if status.is_retryable() => backoff.pause(what, status)?,
                status => return Err(ClientError::Data { what: what.into(), status }),
            }
        }
    }

    /// The writer for new blocks of a key domain, 0: of the edge's choice. It is opened when first needed, and another
    /// one within a second after the key was rotated. Another attachment has other writers: a new salt.
    pub(crate) fn writer_for_new(
        &self,
        domain: u32,
        deadline: Duration,
    ) -> Result<OpenedWriter, ClientError> {
        let key = self.writers.current(domain, deadline, || {
            let answer = self.call("ask for the current key", deadline, |request| {
                ClientCommand::CurrentKey { request, key_domain: domain }
            })?;
            let found = OpenedWriter::decode(&answer.detail);
            Ok((found.key_domain, found.key_version))
        })?;
        self.writer_of(key, deadline)
    }

    /// The writer for a block that is sealed under `key`.
    pub(crate) fn writer_of(&self, key: KeyName, deadline: Duration) -> Result<OpenedWriter, ClientError> {
        self.writers.of(key, deadline, || {
            let (key_domain, key_version) = key;
            let answer = self.call("open a writer", deadline, |request| ClientCommand::OpenWriter {
                request,
                key_domain,
                key_version,
            })?;
            let open = OpenedWriter::decode(&answer.detail);
            if (open.key_domain, open.key_version) != key {
                return Err(ClientError::Protocol(
                    "a writer was opened under another key than the one asked for",
                ));
            }
            Ok(open)
        })
    }

    /// The same, if it is open.
    pub(crate) fn open_writer_of(&self, key: KeyName) -> Option<OpenedWriter> {
        self.writers.open_of(key)
    }

    /// The data plane lost the key of these writers, perhaps for a while: the next write opens another.
    pub(crate) fn forget_writers(&self) {
        self.writers.forget();
    }
}

//! One attachment as either side holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::ArenaView;
use crate::counters::Counters;
use crate::doorbell::{self, Doorbell};
use crate::error::AttachError;
use crate::handshake::{self, ABI_VERSION, Answer, Hello};
use crate::lane::{LOOK_AGAIN, Receiver, Sender};
use crate::layout::{LAYOUT_HASH, Layout, Terms};
use crate::memory::{Mapping, check_sealed, sealed_memory};

/// First word of page 0.
const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"novaring");
/// Words of page 0 in use: magic, ABI version, layout hash, kind, boot, generation.
const HEADER_WORDS: usize = 6;

/// One attachment: what it sends, receives, counts and shares. The parts may go to different threads; the socket
/// must live as long as the attachment, because its end tells the peer that we are gone.
#[derive(Debug)]
pub struct Link {
    /// The terms the service granted.
    pub terms: Terms,
    /// Slots to the other side.
    pub sender: Sender,
    /// Slots from the other side.
    pub receiver: Receiver,
    /// Counters that the service writes.
    pub counters: Counters,
    /// The arena, or the snapshot buffers.
    pub area: ArenaView,
    /// The socket of the handshake.
    pub socket: Socket,
}

/// The socket of an attachment. After the handshake the service sends a byte to wake its peer, and nothing else is said
/// on it. Dropped, it ends the attachment.
#[derive(Debug)]
pub struct Socket(Arc<UnixStream>);

impl Socket {
    /// Whether the other side is gone. Does not wait.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        handshake::is_gone(&self.0)
    }

    /// Ends the attachment for both sides now, whoever still holds a copy of the descriptor.
    pub fn end(&self) {
        // A socket that is already closed is what we want.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The doorbell may still hold the descriptor.
        self.end();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn header_words(hello: &Hello, terms: &Terms) -> [u64; HEADER_WORDS] {
    [
        HEADER_MAGIC,
        u64::from(ABI_VERSION),
        LAYOUT_HASH,
        u64::from(hello.kind.number()),
        terms.boot,
        terms.generation,
    ]
}

fn header(mapping: &Mapping) -> &[AtomicU64; HEADER_WORDS] {
    let at = mapping.at(0, HEADER_WORDS * 8);
    // SAFETY: `at` checked the bounds, page 0 is aligned, and atomics may change under a shared reference.
    unsafe { at.cast::<[AtomicU64; HEADER_WORDS]>().as_ref() }
}

/// The service's half: makes memory and its doorbell, and answers the hello with them.
///
/// # Errors
/// When the system gives no memory, or the peer is gone. The caller drops the socket then.
pub(crate) fn welcome(socket: UnixStream, hello: &Hello, terms: Terms) -> Result<Link, AttachError> {
    let layout = Layout::new(&terms)?;
    let memory = sealed_memory("nova-ring", layout.bytes)?;
    let mapping = Arc::new(Mapping::new(&memory, layout.bytes)?);
    for (word, value) in header(&mapping).iter().zip(header_words(hello, &terms)) {
        word.store(value, Ordering::Relaxed);
    }
    let bell = doorbell::of_service()?;
    handshake::send_welcome(&socket, terms, [memory.as_fd(), bell.as_fd()])?;
    let socket = Arc::new(socket);
    let (bell, peers) = (Doorbell::OfService(bell), Doorbell::OfPeer(Arc::clone(&socket)));
    Ok(Link {
        terms,
        sender: Sender::new(&mapping, layout.to_peer, terms.capacity, peers),
        receiver: Receiver::new(&mapping, layout.to_service, terms.capacity, bell),
        counters: Counters::new(&mapping, layout.counters),
        area: ArenaView::new(&mapping, layout.area, layout.area_bytes),
        socket: Socket(socket),
    })
}

/// Attaches to the service that listens at `path`. Waits at most [`handshake::HANDSHAKE_TIMEOUT`] for each step.
///
/// # Errors
/// [`AttachError`]; nothing is left behind.
pub fn attach(path: &Path, hello: &Hello) -> Result<Link, AttachError> {
    let socket =
        UnixStream::connect(path).map_err(|source| AttachError::Connect { path: path.to_owned(), source })?;
    handshake::bound(&socket)?;
    let mut writer = &socket;
    std::io::Write::write_all(&mut writer, &hello.encode()).map_err(AttachError::io("send a hello"))?;
    let (answer, fds) = handshake::read_answer(&socket)?;
    let terms = match answer {
        Answer::Welcome(terms) => terms,
        Answer::Refused(reason) => return Err(AttachError::Refused(reason)),
    };
    let [memory, bell] = <[OwnedFd; 2]>::try_from(fds)
        .map_err(|_| AttachError::NotRing("its welcome has not two descriptors"))?;
    let layout = Layout::new(&terms)?;
    check_sealed(&memory, layout.bytes)?;
    let mapping = Arc::new(Mapping::new(&memory, layout.bytes)?);
    let found = header(&mapping).each_ref().map(|word| word.load(Ordering::Relaxed));
    if found != header_words(hello, &terms) {
        return Err(AttachError::NotRing("its memory has another header than it said"));
    }
    // The peer sleeps on it: `Receiver::wait`.
    socket.set_read_timeout(Some(LOOK_AGAIN)).map_err(AttachError::io("bound the sleep of a ring"))?;
    let socket = Arc::new(socket);
    let (services, bell) = (Doorbell::OfService(bell), Doorbell::OfPeer(Arc::clone(&socket)));
    Ok(Link {
        terms,
        sender: Sender::new(&mapping, layout.to_service, terms.capacity, services),
        receiver: Receiver::new(&mapping, layout.to_peer, terms.capacity, bell),
        counters: Counters::new(&mapping, layout.counters),
        area: ArenaView::new(&mapping, layout.area, layout.area_bytes),
        socket: Socket(socket),
    })
}

#[cfg(test)]
mod tests;

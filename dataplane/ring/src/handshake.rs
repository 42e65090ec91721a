//! Two processes meet on a Unix socket: a hello, an answer with the memory and a doorbell.
//!
//! | hello, 64 bytes | | answer, 320 bytes | |
//! | --- | --- | --- | --- |
//! | 0 | magic `NOVARING` | 0 | magic `NOVARING` |
//! | 8 | ABI version, u32 | 8 | verdict, u32: 1 welcome, 2 refused |
//! | 12 | kind, u32 | 12 | slots of a ring, u32 |
//! | 16 | layout hash, u64 | 16 | bytes of the area, u64 |
//! | 24 | ticket, 16 bytes | 24 | boot of the service, u64 |
//! | 40 | bytes of area asked for, u64 | 32 | generation, u64 |
//! | 48 | boot of the peer, u64 | 40 | bytes of text, u16 |
//! | 56 | zero | 42 | reason of a refusal, UTF-8; then zero |
//!
//! Little-endian. A welcome carries two descriptors: memory, and the eventfd that is the doorbell of the service. The
//! socket then stays open: a byte from the service is the doorbell of the peer, the peer says nothing more, and its end
//! is the end of the attachment.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::error::AttachError;
use crate::layout::{Kind, LAYOUT_HASH, Terms};

/// Version of the slots, of the handshake and of the doorbells. 2: the peer is woken over the socket, and a report of
/// peers names their starts. 4: a mount comes with its trail.
pub const ABI_VERSION: u32 = 4;
/// How long one side waits for the other's half of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a hello.
pub const HELLO_BYTES: usize = 64;
/// Bytes of an answer.
pub const ANSWER_BYTES: usize = 320;

const MAGIC: [u8; 8] = *b"NOVARING";
const WELCOME: u32 = 1;
const REFUSED: u32 = 2;
const TEXT_OFFSET: usize = 42;
const FDS: usize = 2;

/// What a peer says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the slots it speaks.
    pub abi: u32,
    /// Hash of the layout it was built with.
    pub layout_hash: u64,
    /// What it wants to be.
    pub kind: Kind,
    /// The one-use ticket its agent gave it; zero where none is needed.
    pub ticket: [u8; 16],
    /// Bytes of area it would like; the service decides.
    pub area_bytes: u64,
    /// The peer's own start.
    pub boot: u64,
}

impl Hello {
    /// A hello of this build.
    #[must_use]
    pub fn new(kind: Kind, ticket: [u8; 16], area_bytes: u64, boot: u64) -> Self {
        Self { abi: ABI_VERSION, layout_hash: LAYOUT_HASH, kind, ticket, area_bytes, boot }
    }

    /// Its bytes on the socket.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.abi.to_le_bytes());
        out[12..16].copy_from_slice(&self.kind.number().to_le_bytes());
        out[16..24].copy_from_slice(&self.layout_hash.to_le_bytes());
        out[24..40].copy_from_slice(&self.ticket);
        out[40..48].copy_from_slice(&self.area_bytes.to_le_bytes());
        out[48..56].copy_from_slice(&self.boot.to_le_bytes());
        out
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`AttachError::NotRing`] when these are not such bytes. Version and layout are checked apart: [`Hello::check`].
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, AttachError> {
        if bytes[..8] != MAGIC {
            return Err(AttachError::NotRing("its hello has another magic"));
        }
        if bytes[56..] != [0; 8] {
            return Err(AttachError::NotRing("its hello has bits this version does not know"));
        }
        let kind = Kind::from_number(u32_at(bytes, 12))
            .ok_or(AttachError::NotRing("it asks for an unknown kind"))?;
        let mut ticket = [0; 16];
        ticket.copy_from_slice(&bytes[24..40]);
        Ok(Self {
            abi: u32_at(bytes, 8),
            layout_hash: u64_at(bytes, 16),
            kind,
            ticket,
            area_bytes: u64_at(bytes, 40),
            boot: u64_at(bytes, 48),
        })
    }

    /// Whether this build understands that peer.
    ///
    /// # Errors
    /// The refusal to send, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.abi != ABI_VERSION {
            return Err(format!(
                "you speak ring ABI {}, this service speaks {ABI_VERSION}: install the same release of both",
                self.abi
            ));
        }
        if self.layout_hash != LAYOUT_HASH {
            return Err(
                "your build lays out the ring in another way: install the same release of both".into()
            );
        }
        Ok(())
    }
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Come in, under these terms.
    Welcome(Terms),
    /// No, and why.
    Refused(String),
}

impl Answer {
    /// Its bytes on the socket; a reason is cut to what fits.
    #[must_use]
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let mut out = [0; ANSWER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        match self {
            Self::Welcome(terms) => {
                out[8..12].copy_from_slice(&WELCOME.to_le_bytes());
                out[12..16].copy_from_slice(&terms.capacity.to_le_bytes());
                out[16..24].copy_from_slice(&terms.area_bytes.to_le_bytes());
                out[24..32].copy_from_slice(&terms.boot.to_le_bytes());
                out[32..40].copy_from_slice(&terms.generation.to_le_bytes());
            }
            Self::Refused(reason) => {
                out[8..12].copy_from_slice(&REFUSED.to_le_bytes());
                let mut end = reason.len().min(ANSWER_BYTES - TEXT_OFFSET);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                let count = u16::try_from(end).expect("the text field is shorter than 64 KiB");
                out[40..42].copy_from_slice(&count.to_le_bytes());
                out[TEXT_OFFSET..TEXT_OFFSET + end].copy_from_slice(&reason.as_bytes()[..end]);
            }
        }
        out
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`AttachError::NotRing`] when these are not such bytes.
    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Result<Self, AttachError> {
        if bytes[..8] != MAGIC {
            return Err(AttachError::NotRing("its answer has another magic"));
        }
        match u32_at(bytes, 8) {
            WELCOME => Ok(Self::Welcome(Terms {
                capacity: u32_at(bytes, 12),
                area_bytes: u64_at(bytes, 16),
                boot: u64_at(bytes, 24),
                generation: u64_at(bytes, 32),
            })),
            REFUSED => {
                let count = usize::from(u16::from_le_bytes([bytes[40], bytes[41]]));
                let text = bytes[TEXT_OFFSET..]
                    .get(..count)
                    .ok_or(AttachError::NotRing("its reason is too long"))?;
                Ok(Self::Refused(String::from_utf8_lossy(text).into_owned()))
            }
            _ => Err(AttachError::NotRing("its answer is neither yes nor no")),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a fixed offset inside"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a fixed offset inside"))
}

/// Who is on the other end, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id when it connected.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Credentials {
    /// Of the peer of a connected socket.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of(socket: &UnixStream) -> Result<Self, AttachError> {
        let found = rustix::net::sockopt::socket_peercred(socket)
            .map_err(AttachError::system("ask who connected"))?;
        Ok(Self { pid: found.pid.as_raw_nonzero().get(), uid: found.uid.as_raw(), gid: found.gid.as_raw() })
    }
}

/// Bounds how long reads and writes of the handshake may take.
pub(crate) fn bound(socket: &UnixStream) -> Result<(), AttachError> {
    socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(AttachError::io("bound the handshake"))?;
    socket.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(AttachError::io("bound the handshake"))
}

/// Reads the hello of a peer that just connected; waits at most [`HANDSHAKE_TIMEOUT`] for each piece of it.
///
/// # Errors
/// When the peer goes away, is too slow, or speaks something else.
pub fn read_hello(mut socket: &UnixStream) -> Result<Hello, AttachError> {
    bound(socket)?;
    let mut bytes = [0; HELLO_BYTES];
    socket.read_exact(&mut bytes).map_err(AttachError::io("read the hello of a ring peer"))?;
    Hello::decode(&bytes)
}

/// Receives nothing more from a peer whose hello was read: from here on its sends fail. What it sent behind its hello
/// is thrown away here, on a thread of the door, because it may carry descriptors, and to close those may take as long
/// as the peer likes.
pub(crate) fn hush(socket: &UnixStream) -> Result<(), AttachError> {
    socket.shutdown(Shutdown::Read).map_err(AttachError::io("silence a ring peer"))?;
    let mut thrown = [0; HELLO_BYTES];
    while matches!(rustix::net::recv(socket, &mut thrown, RecvFlags::DONTWAIT), Ok((_, 1..))) {}
    Ok(())
}

/// Sends a refusal; the caller then drops the socket.
///
/// # Errors
/// When the peer is already gone.
pub fn refuse(mut socket: &UnixStream, reason: &str) -> Result<(), AttachError> {
    let answer = Answer::Refused(reason.to_owned()).encode();
    socket.write_all(&answer).map_err(AttachError::io("send a refusal"))
}

pub(crate) fn send_welcome(
    socket: &UnixStream,
    terms: Terms,
    fds: [BorrowedFd<'_>; FDS],
) -> Result<(), AttachError> {
    let answer = Answer::Welcome(terms).encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "space for two descriptors was taken");
    let sent =
        rustix::net::sendmsg(socket, &[std::io::IoSlice::new(&answer)], &mut control, SendFlags::NOSIGNAL)
            .map_err(AttachError::system("send a welcome"))?;
    let mut rest = socket;
    rest.write_all(&answer[sent..]).map_err(AttachError::io("send a welcome"))
}

pub(crate) fn read_answer(socket: &UnixStream) -> Result<(Answer, Vec<OwnedFd>), AttachError> {
    let mut bytes = [0; ANSWER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut head = [std::io::IoSliceMut::new(&mut bytes)];
    let received = rustix::net::recvmsg(socket, &mut head, &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(AttachError::system("read the service's answer"))?
        .bytes;
    let mut fds = Vec::with_capacity(FDS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received == 0 {
        return Err(AttachError::NotRing("it closed the socket without an answer"));
    }
    let mut rest = socket;
    rest.read_exact(&mut bytes[received..]).map_err(AttachError::io("read the service's answer"))?;
    Ok((Answer::decode(&bytes)?, fds))
}

/// Whether the other end of an attachment's socket is closed. Does not wait, and receives nothing.
pub(crate) fn is_gone(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    // Both directions are shut only when the other side closed or ended; an error of the call says nothing of it.
    matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

//! Kernel TCP through the ring of the shard.

use core::{cell::Cell, fmt};
use std::{
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd},
    rc::Rc,
};

use io_uring::opcode;
use nova_buf::{DmaBuf, SharedBuf};
use nova_units::PeerAddr;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Reactor, RealClock, clock::boot_time, file::File, operation::Message, slots::Payload};
use crate::{CONNECT_TIMEOUT, Lane, LaneError, Listener, lane::check_room, sync};

/// Unsent bytes the kernel keeps for a connection: what waits longer waits with us, where priorities decide.
pub const NOTSENT_LOWAT_BYTES: u32 = 256 << 10;

/// Connections that wait to be accepted.
const BACKLOG_MAX: i32 = 1024;

fn lane_error(errno: i32) -> LaneError {
    match errno {
        libc::ECONNREFUSED => LaneError::Refused,
        libc::ETIMEDOUT => LaneError::TimedOut,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL => {
            LaneError::NoResources { errno }
        }
        errno => LaneError::Broken { errno },
    }
}

fn socket_error(error: &io::Error) -> LaneError {
    lane_error(error.raw_os_error().unwrap_or(libc::EIO))
}

/// One TCP connection.
pub struct TcpLane {
    reactor: Reactor,
    socket: Rc<File>,
    send_poisoned: Cell<bool>,
    recv_poisoned: Cell<bool>,
}

impl TcpLane {
    /// Connects; gives up after 5 seconds.
    ///
    /// # Errors
    /// When nobody listens there, nobody answers, or this host has no sockets left.
    ///
    /// # Cancel safety
    /// Safe: a dropped attempt is cancelled and its socket closed.
    pub async fn connect(reactor: &Reactor, to: SocketAddr) -> Result<Self, LaneError> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), Some(Protocol::TCP))
            .map_err(|error| socket_error(&error))?;
        tune(&socket).map_err(|error| socket_error(&error))?;
        let socket = Rc::new(File::new(socket.into()));
        let address = Box::new(SockAddr::from(to));
        let entry = opcode::Connect::new(socket.raw(), address.as_ptr().cast(), address.len()).build();
        let connecting = reactor.socket_operation(&socket, entry, Payload::Address(address));
        let at = boot_time() + CONNECT_TIMEOUT;
        match sync::timeout_at(&RealClock::new(reactor), at, connecting).await {
            Ok((0, _)) => Ok(Self::new(reactor, socket)),
            Ok((result, _)) => Err(lane_error(-result)),
            Err(sync::TimedOut) => Err(LaneError::TimedOut),
        }
    }

    fn new(reactor: &Reactor, socket: Rc<File>) -> Self {
        let reactor = reactor.clone();
        Self { reactor, socket, send_poisoned: Cell::new(false), recv_poisoned: Cell::new(false) }
    }

    async fn send_all(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        let mut message = Message::new(head, body);
        let flags = u32::try_from(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).expect("flags are positive");
        while message.left() > 0 {
            let entry = opcode::SendMsg::new(self.socket.raw(), message.header()).flags(flags).build();
            let (result, payload) =
                self.reactor.socket_operation(&self.socket, entry, Payload::Message(message)).await;
            let Payload::Message(back) = payload else { unreachable!("the payload comes back") };
            message = back;
            match result {
                result if result > 0 => message.advance(usize::try_from(result).expect("positive")),
                result if result == -libc::EINTR || result == -libc::EAGAIN => {}
                result => return Err(lane_error(-result)),
            }
        }
        Ok(())
    }

    /// Receives at least `min` bytes behind the first `begin` of `into`.
    async fn receive(
        &self,
        mut into: DmaBuf,
        begin: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        let mut filled = begin;
        // An exact count is worth waiting for inside the kernel; otherwise the first bytes are.
        let flags = if begin + min == into.len() { libc::MSG_WAITALL } else { 0 };
        while filled < begin + min {
            let room = &mut into[filled..];
            let len = u32::try_from(room.len()).expect("a buffer has at most 1 MiB");
            let entry = opcode::Recv::new(self.socket.raw(), room.as_mut_ptr(), len).flags(flags).build();
            let (result, payload) =
                self.reactor.socket_operation(&self.socket, entry, Payload::Fill(into)).await;
            let Payload::Fill(back) = payload else { unreachable!("the payload comes back") };
            into = back;
            match result {
                0 => return (Err(LaneError::Closed), into),
                result if result > 0 => filled += usize::try_from(result).expect("positive"),
                result if result == -libc::EINTR || result == -libc::EAGAIN => {}
                result => return (Err(lane_error(-result)), into),
            }
        }
        (Ok(filled - begin), into)
    }
}

/// Small messages leave at once, and little waits unsent in the kernel.
fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

impl Lane for TcpLane {
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        if self.send_poisoned.replace(true) {
            return Err(LaneError::Poisoned);
        }
        let result = self.send_all(head, body).await;
        self.send_poisoned.set(result.is_err());
        result
    }

    async fn recv_behind(
        &self,
        into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        check_room(&into, filled, min);
        if self.recv_poisoned.replace(true) {
            return (Err(LaneError::Poisoned), into);
        }
        let (result, into) = self.receive(into, filled, min).await;
        self.recv_poisoned.set(false);
        (result, into)
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        let entry = opcode::Shutdown::new(self.socket.raw(), libc::SHUT_WR).build();
        let (result, _) = self.reactor.socket_operation(&self.socket, entry, Payload::None).await;
        if result < 0 { Err(lane_error(-result)) } else { Ok(()) }
    }
}

impl fmt::Debug for TcpLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLane").field("socket", &self.socket.raw().0).finish_non_exhaustive()
    }
}

/// Takes TCP connections on one address.
pub struct TcpListener {
    reactor: Reactor,
    socket: Rc<File>,
    address: SocketAddr,
}

impl TcpListener {
    /// Listens on `address`; port 0 lets the kernel choose, see [`Listener::address`].
    ///
    /// # Errors
    /// When the address is taken or is not one of this host.
    pub fn bind(reactor: &Reactor, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        // A daemon that starts again does not wait for connections of its earlier life to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_MAX)?;
        let bound = socket.local_addr()?.as_socket();
        let address = bound.expect("a TCP socket has an internet address");
        Ok(Self { reactor: reactor.clone(), socket: Rc::new(File::new(socket.into())), address })
    }
}

impl Listener for TcpListener {
    type Lane = TcpLane;

    async fn accept(&self) -> Result<(TcpLane, PeerAddr), LaneError> {
        loop {
            let entry = opcode::Accept::new(self.socket.raw(), core::ptr::null_mut(), core::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build();
            let (result, _) = self.reactor.socket_operation(&self.socket, entry, Payload::Accepted).await;
            match -result {
                errno if errno <= 0 => {
                    // SAFETY: a successful accept returns a new descriptor that nothing else owns.
                    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(result) });
                    // The peer may have gone already: then the next one is due.
                    let Ok(peer) = tune(&socket).and_then(|()| socket.peer_addr()) else { continue };
                    let Some(peer) = peer.as_socket() else { continue };
                    return Ok((
                        TcpLane::new(&self.reactor, Rc::new(File::new(socket.into()))),
                        PeerAddr(peer),
                    ));
                }
                libc::EINTR | libc::EAGAIN | libc::ECONNABORTED | libc::EPROTO => {}
                errno => return Err(lane_error(errno)),
            }
        }
    }

    fn address(&self) -> PeerAddr {
        PeerAddr(self.address)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("address", &self.address).finish_non_exhaustive()
    }
}

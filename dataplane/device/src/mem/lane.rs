//! Connections in memory.

use core::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{collections::VecDeque, rc::Rc};

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::PeerAddr;

use super::{
    network::{BACKLOG_MAX, Port},
    shard::HostId,
    world,
};
use crate::{CONNECT_TIMEOUT, Lane, LaneError, Listener, lane::check_room, sync::Notify};

/// Bytes under way in one direction before a sender has to wait, as the buffers of a kernel would hold.
const WINDOW_BYTES: usize = 256 << 10;

/// What a broken connection answers.
const ECONNRESET: i32 = 104;

/// Ports of connecting ends; nobody listens on them.
const EPHEMERAL_PORT: u16 = 49152;

/// Both directions between two ends.
#[derive(Debug)]
pub(super) struct Connection {
    addresses: [IpAddr; 2],
    hosts: [HostId; 2],
    /// `pipes[0]` leads from end 0 to end 1.
    pipes: [Pipe; 2],
    broken: Cell<bool>,
    /// One end lost its power: nothing arrives any more, and nobody is told.
    silent: Cell<bool>,
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: RefCell<VecDeque<Chunk>>,
    queued_bytes: Cell<usize>,
    /// When the last byte sent so far arrives; later bytes do not overtake it.
    last_at: Cell<Duration>,
    finished: Cell<bool>,
    reader_gone: Cell<bool>,
    readable: Notify,
    writable: Notify,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    taken: usize,
    at: Duration,
}

impl Connection {
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        self.addresses
    }

    pub(super) fn hosts(&self) -> [HostId; 2] {
        self.hosts
    }

    pub(super) fn reset(&self) {
        self.broken.set(true);
        self.wake_readers();
        for pipe in &self.pipes {
            pipe.writable.notify_all();
        }
    }

    pub(super) fn silence(&self) {
        self.silent.set(true);
    }

    pub(super) fn wake_readers(&self) {
        for pipe in &self.pipes {
            pipe.readable.notify_all();
        }
    }
}

/// One end of a connection in memory. Dropping it ends its sending direction; what was sent still arrives.
#[derive(Debug)]
pub struct MemLane {
    world: Rc<world::Inner>,
    connection: Rc<Connection>,
    /// Which end this is.
    side: usize,
    send_poisoned: Cell<bool>,
    recv_poisoned: Cell<bool>,
}

impl MemLane {
    pub(super) async fn connect(
        world: &Rc<world::Inner>,
        host: HostId,
        from: IpAddr,
        to: SocketAddr,
    ) -> Result<Self, LaneError> {
        let network = &world.network;
        let faults = network.faults();
        let asked_at = world.now();
        let round_trip = world.draw(|rng| faults.latency.draw(rng) + faults.latency.draw(rng));
        let refused = world.draw(|rng| faults.refuse.hits(rng));
        world.sleep_until(asked_at + round_trip).await;
        let way_is_cut = network.is_cut(from, to.ip()) || network.is_cut(to.ip(), from);
        if way_is_cut || !world.is_up(to.ip()) {
            world.sleep_until(asked_at + CONNECT_TIMEOUT).await;
            return Err(LaneError::TimedOut);
        }
        let port = network.port(to).filter(|port| !refused && port.backlog.borrow().len() < BACKLOG_MAX);
        let Some(port) = port else { return Err(LaneError::Refused) };
        let connection = Rc::new(Connection {
            addresses: [from, to.ip()],
            hosts: [host, port.host],
            pipes: Default::default(),
            broken: Cell::new(false),
            silent: Cell::new(false),
        });
        network.add(&connection);
        let near = Self::new(Rc::clone(world), Rc::clone(&connection), 0);
        let far = Self::new(Rc::clone(world), connection, 1);
        port.backlog.borrow_mut().push_back((far, SocketAddr::new(from, EPHEMERAL_PORT)));
        port.arrived.notify_one();
        Ok(near)
    }

    fn new(world: Rc<world::Inner>, connection: Rc<Connection>, side: usize) -> Self {
        Self { world, connection, side, send_poisoned: Cell::new(false), recv_poisoned: Cell::new(false) }
    }

    /// Breaks the connection now; both ends are told.
    pub fn reset(&self) {
        self.connection.reset();
    }

    fn outgoing(&self) -> &Pipe {
        &self.connection.pipes[self.side]
    }

    fn incoming(&self) -> &Pipe {
        &self.connection.pipes[1 - self.side]
    }

    async fn push(&self, mut bytes: &[u8], extra: Duration) -> Result<(), LaneError> {
        let pipe = self.outgoing();
        while !bytes.is_empty() {
            // Nobody tells the sender that a silent peer is gone: its window fills up.
            let gone = self.connection.broken.get() || pipe.reader_gone.get();
            if gone && !self.connection.silent.get() {
                return Err(LaneError::Broken { errno: ECONNRESET });
            }
            let room = WINDOW_BYTES - pipe.queued_bytes.get();
            if room == 0 {
                pipe.writable.notified().await;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let latency = self.world.draw(|rng| self.world.network.faults().latency.draw(rng));
            let at = (self.world.now() + latency + extra).max(pipe.last_at.get());
            pipe.last_at.set(at);
            pipe.queued_bytes.set(pipe.queued_bytes.get() + now.len());
            pipe.chunks.borrow_mut().push_back(Chunk { bytes: now.to_vec(), taken: 0, at });
            pipe.readable.notify_all();
            bytes = later;
        }
        Ok(())
    }

    /// Receives between `min` and `out.len()` bytes.
    async fn pull(&self, out: &mut [u8], min: usize) -> Result<usize, LaneError> {
        let pipe = self.incoming();
        let [here, there] = [self.side, 1 - self.side].map(|side| self.connection.addresses[side]);
        let mut filled = 0;
        loop {
            if self.connection.broken.get() {
                return Err(LaneError::Broken { errno: ECONNRESET });
            }
            let cut = self.connection.silent.get() || self.world.network.is_cut(there, here);
            if cut {
                pipe.readable.notified().await;
                continue;
            }
            filled += pipe.take(&mut out[filled..], self.world.now());
            if filled >= min {
                return Ok(filled);
            }
            let next = pipe.chunks.borrow().front().map(|chunk| chunk.at);
            match next {
                Some(at) => {
                    // A reset or a heal in between is seen when the time has come, at most a latency later.
                    self.world.sleep_until(at).await;
                }
                None if pipe.finished.get() => return Err(LaneError::Closed),
                None => pipe.readable.notified().await,
            }
        }
    }

    /// As little as the caller accepts, sometimes: a stream has no message borders.
    fn draw_len(&self, min: usize, max: usize) -> usize {
        if min == max {
            return max;
        }
        self.world.draw(|rng| if rng.u8(0..4) == 0 { rng.usize(min..=max) } else { max })
    }
}

impl Pipe {
    /// Moves bytes that have arrived to the front of `out`; tells how many.
    fn take(&self, out: &mut [u8], now: Duration) -> usize {
        let mut chunks = self.chunks.borrow_mut();
        let mut filled = 0;
        while filled < out.len() {
            let Some(chunk) = chunks.front_mut().filter(|chunk| chunk.at <= now) else { break };
            let rest = &chunk.bytes[chunk.taken..];
            let count = rest.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            chunk.taken += count;
            if chunk.taken == chunk.bytes.len() {
                chunks.pop_front();
            }
        }
        drop(chunks);
        if filled > 0 {
            self.queued_bytes.set(self.queued_bytes.get() - filled);
            self.writable.notify_all();
        }
        filled
    }
}

impl Lane for MemLane {
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        if self.send_poisoned.replace(true) {
            return Err(LaneError::Poisoned);
        }
        let faults = self.world.network.faults();
        if self.world.draw(|rng| faults.reset.hits(rng)) {
            self.connection.reset();
        }
        let delayed = self.world.draw(|rng| faults.delay.hits(rng));
        let extra = if delayed { faults.delay_by } else { Duration::ZERO };
        self.push(head, extra).await?;
        if let Some(body) = body {
            self.push(&body, extra).await?;
        }
        self.send_poisoned.set(false);
        Ok(())
    }

    async fn recv_behind(
        &self,
        mut into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        check_room(&into, filled, min);
        if self.recv_poisoned.replace(true) {
            return (Err(LaneError::Poisoned), into);
        }
        let len = self.draw_len(min, into.len() - filled);
        let result = self.pull(&mut into[filled..filled + len], min).await;
        self.recv_poisoned.set(false);
        (result, into)
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        if self.connection.broken.get() {
            return Err(LaneError::Broken { errno: ECONNRESET });
        }
        self.outgoing().finished.set(true);
        self.outgoing().readable.notify_all();
        Ok(())
    }
}

impl Drop for MemLane {
    fn drop(&mut self) {
        self.outgoing().finished.set(true);
        self.outgoing().readable.notify_all();
        let incoming = self.incoming();
        incoming.reader_gone.set(true);
        incoming.writable.notify_all();
    }
}

/// Takes connections on one port of a simulated host; closes the port when dropped.
#[derive(Debug)]
pub struct MemListener {
    world: Rc<world::Inner>,
    at: SocketAddr,
    port: Rc<Port>,
}

impl MemListener {
    pub(super) fn bind(world: Rc<world::Inner>, host: HostId, at: SocketAddr) -> Self {
        let port = world.network.bind(at, host);
        Self { world, at, port }
    }
}

impl Listener for MemListener {
    type Lane = MemLane;

    async fn accept(&self) -> Result<(MemLane, PeerAddr), LaneError> {
        loop {
            let arrived = self.port.backlog.borrow_mut().pop_front();
            if let Some((lane, from)) = arrived {
                return Ok((lane, PeerAddr(from)));
            }
            self.port.arrived.notified().await;
        }
    }

    fn address(&self) -> PeerAddr {
        PeerAddr(self.at)
    }
}

impl Drop for MemListener {
    fn drop(&mut self) {
        self.world.network.unbind(self.at, &self.port);
        let waiting = self.port.backlog.take();
        drop(waiting);
    }
}

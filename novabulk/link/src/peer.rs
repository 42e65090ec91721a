//! One shard of another host: its address and the connections to it.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use nova_device::{
    Clock, PeerError, Shard,
    sync::{Notify, timeout_at},
};
use nova_units::{NodeId, PeerAddr, Priority};
use novabulk_frame::{HOPS, Hop, LinkRole, ResetReason};
use novabulk_tls::TlsError;
use novabulk_transfer::{Config, Input, REQUESTS_MAX, Side};

use crate::{
    backoff::Backoff,
    link::Inner,
    options::{ESTABLISH_TIMEOUT, WAITING_MAX},
    wire::{BUSY_RETRY, Wire},
};

/// A connection more than half full calls for another one.
const LOADED: usize = REQUESTS_MAX / 2;

/// The pool of connections to one shard of a host. Connections are used in the direction they were dialled.
#[derive(Debug)]
pub(crate) struct Peer<S: Shard> {
    node: NodeId,
    address: Cell<PeerAddr>,
    retired: Cell<bool>,
    control: Lanes<S>,
    bulk: Lanes<S>,
    backoff: RefCell<Backoff>,
    met: Cell<bool>,
    waiting: Cell<usize>,
    /// A connection came, went, or could not be made.
    changed: Notify,
}

/// Connections of one role.
#[derive(Debug)]
struct Lanes<S: Shard> {
    wires: RefCell<Vec<Rc<Wire<S>>>>,
    dialing: Cell<usize>,
}

impl<S: Shard> Default for Lanes<S> {
    fn default() -> Self {
        Self { wires: RefCell::default(), dialing: Cell::new(0) }
    }
}

impl<S: Shard> Lanes<S> {
    /// Connections that take work or will; those that are ending do not keep new ones from being made.
    fn count(&self) -> usize {
        self.wires.borrow().iter().filter(|wire| !wire.is_leaving()).count() + self.dialing.get()
    }
}

impl<S: Shard> Peer<S> {
    pub(crate) fn new(node: NodeId, address: PeerAddr) -> Rc<Self> {
        Rc::new(Self {
            node,
            address: Cell::new(address),
            retired: Cell::new(false),
            control: Lanes::default(),
            bulk: Lanes::default(),
            backoff: RefCell::default(),
            met: Cell::new(false),
            waiting: Cell::new(0),
            changed: Notify::new(),
        })
    }

    fn lanes(&self, role: LinkRole) -> &Lanes<S> {
        match role {
            LinkRole::Control => &self.control,
            LinkRole::Bulk => &self.bulk,
        }
    }

    pub(crate) fn standing(&self) -> usize {
        self.control.wires.borrow().len() + self.bulk.wires.borrow().len()
    }

    pub(crate) fn address(&self) -> PeerAddr {
        self.address.get()
    }

    /// The peer listens somewhere else from now on.
    pub(crate) fn move_to(&self, address: PeerAddr) {
        if self.address.replace(address) != address {
            self.backoff.borrow_mut().reset();
            self.drain();
        }
    }

    /// The peer is no longer part of the cluster.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        self.drain();
        self.changed.notify_all();
    }

    fn drain(&self) {
        for wire in self.wires() {
            wire.on(Input::Drain);
        }
    }

    /// Every connection to the peer; a copy, because what is done to one may take it off the list.
    pub(crate) fn wires(&self) -> Vec<Rc<Wire<S>>> {
        let control = self.control.wires.borrow();
        let bulk = self.bulk.wires.borrow();
        control.iter().chain(bulk.iter()).map(Rc::clone).collect()
    }

    /// The least loaded connection that takes a request of this priority now.
    pub(crate) fn pick(&self, role: LinkRole, priority: Priority, hop: Hop) -> Option<Rc<Wire<S>>> {
        let wires = self.lanes(role).wires.borrow();
        wires.iter().filter(|wire| wire.has_room(priority, hop)).min_by_key(|wire| wire.load()).map(Rc::clone)
    }

    /// Like [`Peer::pick`], but dials or waits for a connection.
    pub(crate) async fn connected(
        self: &Rc<Self>,
        inner: &Rc<Inner<S>>,
        role: LinkRole,
        priority: Priority,
        hop: Hop,
    ) -> Result<Rc<Wire<S>>, PeerError> {
        loop {
            if self.retired.get() {
                return Err(PeerError::Unreachable);
            }
            if let Some(wire) = self.pick(role, priority, hop) {
                return Ok(wire);
            }
            let lanes = self.lanes(role);
            if lanes.dialing.get() == 0 {
                if lanes.count() >= Self::connections_max(inner, role) {
                    return Err(PeerError::Busy { retry_after: BUSY_RETRY });
                }
                let wait = self.backoff.borrow().wait(inner.shard.clock().now());
                if wait.is_some() {
                    return Err(PeerError::Unreachable);
                }
                self.dial(inner, role);
                self.keep_minimum(inner);
            }
            let _waiting =
                Waiting::begin(&self.waiting).ok_or(PeerError::Busy { retry_after: BUSY_RETRY })?;
            self.changed.notified().await;
        }
    }

    /// Spec B.2: a peer that is used has a control and a bulk connection, so that neither call waits for a dial. Where more
    /// were wished for, all are made at once: what is sent over a long line is dealt to those that stand when it begins.
    fn keep_minimum(self: &Rc<Self>, inner: &Rc<Inner<S>>) {
        for (role, wished) in
            [(LinkRole::Control, 1), (LinkRole::Bulk, inner.options.bulk_connections.max(1))]
        {
            for _ in self.lanes(role).count()..wished.min(Self::connections_max(inner, role)) {
                self.dial(inner, role);
            }
        }
    }

    /// Dials one more when every connection is more than half full, or there are fewer than were wished for.
    pub(crate) fn grow(self: &Rc<Self>, inner: &Rc<Inner<S>>, role: LinkRole) {
        let lanes = self.lanes(role);
        let loaded = lanes.wires.borrow().iter().all(|wire| wire.load() > LOADED)
            || (role == LinkRole::Bulk && lanes.count() < inner.options.bulk_connections);
        let may = lanes.dialing.get() == 0 && lanes.count() < Self::connections_max(inner, role);
        if loaded && may && self.backoff.borrow().wait(inner.shard.clock().now()).is_none() {
            self.dial(inner, role);
        }
    }

    fn connections_max(inner: &Inner<S>, role: LinkRole) -> usize {
        match role {
            LinkRole::Control => 1,
            LinkRole::Bulk => inner.options.connections_max - 1,
        }
    }

    /// Starts the task that makes a connection and looks after it until it closes.
    fn dial(self: &Rc<Self>, inner: &Rc<Inner<S>>, role: LinkRole) {
        let dialing = &self.lanes(role).dialing;
        dialing.set(dialing.get() + 1);
        let again = self.met.get() && self.standing() == 0;
        inner.tally.count(|tally| {
            tally.dials += 1;
            tally.reconnects += u64::from(again);
        });
        let (peer, inner) = (Rc::clone(self), Rc::clone(inner));
        inner.shard.clone().spawn(Inner::<S>::class_of(role), async move { peer.tend(&inner, role).await });
    }

    async fn tend(self: Rc<Self>, inner: &Rc<Inner<S>>, role: LinkRole) {
        let wire = self.establish(inner, role).await;
        let lanes = self.lanes(role);
        lanes.dialing.set(lanes.dialing.get() - 1);
        let Some(wire) = wire else {
            inner.tally.count(|tally| tally.dial_failures += 1);
            // Dials that were begun together fail together, once.
            if lanes.dialing.get() == 0 {
                self.backoff.borrow_mut().fail(inner.shard.clock().now(), inner.shard.random());
            }
            return self.changed.notify_all();
        };
        self.met.set(true);
        self.backoff.borrow_mut().reset();
        lanes.wires.borrow_mut().push(Rc::clone(&wire));
        inner.meet(&wire);
        if self.retired.get() {
            wire.on(Input::Drain);
        }
        self.changed.notify_all();
        wire.closed().await;
        lanes.wires.borrow_mut().retain(|other| !Rc::ptr_eq(other, &wire));
        self.changed.notify_all();
    }

    /// From the first packet to HELLO within [`ESTABLISH_TIMEOUT`], and only with the host that was meant.
    async fn establish(&self, inner: &Rc<Inner<S>>, role: LinkRole) -> Option<Rc<Wire<S>>> {
        let clock = inner.shard.clock();
        let until = clock.now() + ESTABLISH_TIMEOUT;
        let address = self.address.get();
        let lane = timeout_at(clock, until, inner.shard.connect(address)).await.ok()?.ok()?;
        let securing = inner.tls.connect(lane, clock);
        let lane = match timeout_at(clock, until, securing).await.unwrap_or(Err(TlsError::TimedOut)) {
            Ok(lane) => lane,
            Err(error) => {
                inner.note_refusal(address, &error);
                return None;
            }
        };
        let config = Config { side: Side::Dialer, hello: inner.hello(role, [0; HOPS]) };
        // The peer has connections of its own for what it asks.
        let wire = Wire::start(inner, config, lane, None, |wire, inbound, _body| {
            wire.on(Input::Refuse { id: inbound.id, reason: ResetReason::GoingAway });
        });
        let opened = timeout_at(clock, until, wire.opened()).await == Ok(true);
        if opened && wire.peer_node() == self.node && self.address.get() == address {
            return Some(wire);
        }
        wire.on(Input::LaneLost);
        None
    }
}

/// One call that waits for a connection.
struct Waiting<'peer>(&'peer Cell<usize>);

impl<'peer> Waiting<'peer> {
    fn begin(count: &'peer Cell<usize>) -> Option<Self> {
        (count.get() < WAITING_MAX).then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

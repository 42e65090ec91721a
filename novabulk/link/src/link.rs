//! The link of one shard: its peers, and the lanes it serves.

use core::{cell::RefCell, time::Duration};
use std::{
    collections::BTreeMap,
    rc::{Rc, Weak},
};

use nova_buf::DmaBuf;
use nova_device::{Clock, Handler, Incoming, PeerError, Peers, Reply, Request, Shard, sync::timeout_at};
use nova_units::{NodeId, PeerAddr, TaskClass};
use novabulk_frame::{HEAD_BYTES_MAX, Hello, Hop, LinkRole};
use novabulk_tls::{Tls, TlsCounters, TlsError, TlsLane};
use novabulk_transfer::{Config, Inbound, Input, Side};

use crate::{
    admission::{Admission, Admitted},
    budget::Budget,
    counters::{Counters, Tally},
    options::{BODY_BYTES_MAX, LinkOptions, LocalIdentity},
    peer::Peer,
    wire::{BUSY_RETRY, Call, Wire, failed, refusal},
};

/// Calls other hosts and serves theirs. A clone is another handle to the same link; it belongs to one thread.
#[derive(Debug)]
pub struct Link<S: Shard> {
    pub(crate) inner: Rc<Inner<S>>,
}

/// By host and shard. The first shard of every host is here as long as the host is; others are once they were called.
type PeersByShard<S> = BTreeMap<(NodeId, u16), Rc<Peer<S>>>;

#[derive(Debug)]
pub(crate) struct Inner<S: Shard> {
    pub(crate) shard: S,
    pub(crate) options: LinkOptions,
    pub(crate) tally: Rc<Tally>,
    local: LocalIdentity,
    pub(crate) tls: Tls,
    pub(crate) admission: Rc<Admission>,
    budget: Rc<Budget>,
    peers: RefCell<PeersByShard<S>>,
    accepted: RefCell<Vec<Weak<Wire<S>>>>,
}

impl<S: Shard> Clone for Link<S> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<S: Shard> Link<S> {
    /// A link without peers, all of whose connections are under `tls`.
    ///
    /// # Panics
    /// When the options are out of range; the configuration was checked at start.
    #[must_use]
    pub fn new(shard: S, local: LocalIdentity, options: LinkOptions, tls: Tls) -> Self {
        options.check();
        let budget = Budget::new(options.receive_bytes.unwrap_or(shard.pool().bytes() / 2));
        Self {
            inner: Rc::new(Inner {
                shard,
                options,
                tally: Rc::default(),
                local,
                tls,
                admission: Rc::default(),
                budget,
                peers: RefCell::default(),
                accepted: RefCell::default(),
            }),
        }
    }

    /// Takes over where the first shard of every other host listens; the newest configuration snapshot.
    ///
    /// Connections to hosts that are gone or have moved take no new calls and end when their last answer has come.
    pub fn set_peers(&self, addresses: BTreeMap<NodeId, PeerAddr>) {
        let mut peers = self.inner.peers.borrow_mut();
        peers.retain(|(node, shard), peer| {
            let address = addresses.get(node).and_then(|first| address_of(*first, *shard));
            match address {
                Some(address) => peer.move_to(address),
                None => peer.retire(),
            }
            address.is_some()
        });
        for (node, address) in addresses {
            peers.entry((node, 0)).or_insert_with(|| Peer::new(node, address));
        }
    }

    /// Who may call itself which host, by its certificate. Until this is said, nobody may.
    ///
    /// Connections that stand are not looked at again.
    pub fn admit(&self, admitted: Admitted) {
        self.inner.admission.replace(admitted);
    }

    /// Why a connection was not made secure, or its other end is not who it says, the newest of those since this was last
    /// asked; for a log.
    #[must_use]
    pub fn take_refusal(&self) -> Option<String> {
        self.inner.admission.take_refusal()
    }

    /// [`Peers::call`], of a shard of the host that is not the first: it listens as many ports behind that one.
    ///
    /// # Errors
    /// As [`Peers::call`]; [`PeerError::Unreachable`] when nobody listens there.
    ///
    /// # Cancel safety
    /// Safe, like [`Peers::call`].
    pub async fn call_shard(&self, to: NodeId, shard: u16, request: Request) -> Result<Reply, PeerError> {
        self.inner.tally.count(|tally| tally.calls += 1);
        let result = self.carry(to, shard, request).await;
        if result.is_err() {
            self.inner.tally.count(|tally| tally.calls_failed += 1);
        }
        result
    }

    /// Secures and serves a lane that `from` opened, each request as a task of its own.
    ///
    /// Drops the lane when [`crate::ACCEPTED_MAX`] are served already, and when its other end does not prove who it is.
    pub fn accept<H: Handler>(&self, lane: S::Lane, from: PeerAddr, handler: Rc<H>) {
        let link = self.clone();
        self.inner.shard.spawn(TaskClass::Control, async move {
            match link.inner.tls.accept(lane, link.inner.shard.clock()).await {
                Ok(lane) => link.serve(lane, handler).await,
                Err(error) => link.inner.note_refusal(from, &error),
            }
        });
    }

    async fn serve<H: Handler>(&self, lane: TlsLane<S::Lane>, handler: Rc<H>) {
        let inner = &self.inner;
        let Some(lease) = inner.budget.lease(inner.options.grants) else {
            inner.tally.count(|tally| tally.accept_refusals += 1);
            return;
        };
        inner.tally.count(|tally| tally.accepted += 1);
        let hello = inner.hello(LinkRole::Bulk, lease.grants);
        let tally = Rc::clone(&inner.tally);
        let serve = move |wire: &Rc<Wire<S>>, inbound: Inbound, body: Option<DmaBuf>| {
            let (handler, wire) = (Rc::clone(&handler), Rc::clone(wire));
            tally.count(|tally| tally.served += 1);
            let class = wire.task_class();
            wire.shard().clone().spawn(class, async move {
                let from = wire.peer_node();
                let incoming = Incoming {
                    head: inbound.head,
                    body,
                    priority: inbound.priority,
                    hop: inbound.hop.number(),
                };
                let served = handler.serve(from, incoming).await;
                wire.answer(inbound.id, inbound.reply_max, served);
            });
        };
        let config = Config { side: Side::Listener, hello };
        let wire = Wire::start(inner, config, lane, Some(lease), serve);
        {
            let mut accepted = inner.accepted.borrow_mut();
            accepted.retain(|wire| wire.strong_count() > 0);
            accepted.push(Rc::downgrade(&wire));
        }
        if wire.opened().await {
            inner.meet(&wire);
        }
    }

    /// Takes no new work in either direction; what is under way ends, and every connection closes within 30 s.
    pub fn drain(&self) {
        for peer in core::mem::take(&mut *self.inner.peers.borrow_mut()).into_values() {
            peer.retire();
        }
        for wire in self.inner.accepted.borrow().iter().filter_map(Weak::upgrade) {
            wire.on(Input::Drain);
        }
    }

    /// Totals since the link was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.tally.read()
    }

    /// What was done to the bytes of its connections, and of all others under the same [`Tls`].
    #[must_use]
    pub fn tls_counters(&self) -> TlsCounters {
        self.inner.tls.counters()
    }

    /// Connections to a peer that stand now, to all its shards and in both roles.
    #[must_use]
    pub fn connections(&self, to: NodeId) -> usize {
        self.inner.peers_at(to).iter().map(|peer| peer.standing()).sum()
    }

    async fn carry(&self, to: NodeId, shard: u16, request: Request) -> Result<Reply, PeerError> {
        let inner = &self.inner;
        let hop = check(&request)?;
        let until = inner.shard.clock().now().saturating_add(request.deadline);
        let peer = inner.peer(to, shard).ok_or(PeerError::Unreachable)?;
        let role = if request.control && request.body.is_none() { LinkRole::Control } else { LinkRole::Bulk };
        let room = self.room(until, request.reply_bytes_max).await?;
        let wire = match peer.pick(role, request.priority, hop) {
            Some(wire) => wire,
            None => {
                timeout_at(inner.shard.clock(), until, peer.connected(inner, role, request.priority, hop))
                    .await
                    .map_err(|_| PeerError::TimedOut)??
            }
        };
        peer.grow(inner, role);
        let call = Call {
            hop,
            priority: request.priority,
            head: request.head,
            body: request.body,
            reply_max: request.reply_bytes_max,
            until,
            room,
        };
        let answer = wire.call(call).await.map_err(failed)?;
        Ok(Reply { head: answer.head, body: answer.body })
    }

    /// The buffer for the answer's body, set aside before the request leaves.
    async fn room(&self, until: Duration, bytes: u32) -> Result<Option<DmaBuf>, PeerError> {
        if bytes == 0 {
            return Ok(None);
        }
        let bytes = usize::try_from(bytes).expect("checked against BODY_BYTES_MAX");
        let taking = self.inner.shard.pool().take(bytes);
        match timeout_at(self.inner.shard.clock(), until, taking).await {
            Ok(room) => Ok(Some(room)),
            // Nothing has left this host, so the caller may ask again.
            Err(_) => Err(PeerError::Busy { retry_after: BUSY_RETRY }),
        }
    }
}

impl<S: Shard> Peers for Link<S> {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        self.call_shard(to, 0, request).await
    }
}

impl<S: Shard> Inner<S> {
    /// A shard of a host; one that was not called before is where its host says that it listens.
    fn peer(&self, node: NodeId, shard: u16) -> Option<Rc<Peer<S>>> {
        let mut peers = self.peers.borrow_mut();
        if let Some(known) = peers.get(&(node, shard)) {
            return Some(Rc::clone(known));
        }
        let address = address_of(peers.get(&(node, 0))?.address(), shard)?;
        let peer = Peer::new(node, address);
        peers.insert((node, shard), Rc::clone(&peer));
        Some(peer)
    }

    /// Every shard of a host that was called.
    fn peers_at(&self, node: NodeId) -> Vec<Rc<Peer<S>>> {
        let peers = self.peers.borrow();
        peers.range((node, 0)..=(node, u16::MAX)).map(|(_, peer)| Rc::clone(peer)).collect()
    }

    /// What this end says on a connection.
    pub(crate) fn hello(&self, role: LinkRole, grants: [u32; novabulk_frame::HOPS]) -> Hello {
        Hello {
            version_min: novabulk_frame::VERSION,
            version_max: novabulk_frame::VERSION,
            role,
            features: 0,
            node: self.local.node,
            boot: self.local.boot,
            body_bytes_max: u32::try_from(BODY_BYTES_MAX).expect("one frame"),
            port_base: self.options.port_base,
            port_count: self.options.port_count,
            grants,
        }
    }

    /// A new connection stands. When the peer has restarted since older ones were made, nothing more comes on those,
    /// even if nobody said so: a host that lost its power does not say good-bye.
    pub(crate) fn meet(&self, newcomer: &Wire<S>) {
        let Some((node, boot)) = newcomer.peer_boot() else { return };
        let mut wires: Vec<Rc<Wire<S>>> = self.accepted.borrow().iter().filter_map(Weak::upgrade).collect();
        wires.extend(self.peers_at(node).iter().flat_map(|peer| peer.wires()));
        for wire in wires {
            if wire.peer_boot().is_some_and(|(other, other_boot)| other == node && other_boot != boot) {
                wire.on(Input::LaneLost);
            }
        }
    }

    /// A connection with `address` was not made secure.
    pub(crate) fn note_refusal(&self, address: PeerAddr, error: &TlsError) {
        self.tally.count(|tally| tally.handshake_failures += 1);
        self.admission.note_refusal(format!("{address}: {error}"));
    }

    /// Short and urgent tasks for control, the rest among clients.
    pub(crate) const fn class_of(role: LinkRole) -> TaskClass {
        match role {
            LinkRole::Control => TaskClass::Control,
            LinkRole::Bulk => TaskClass::Client,
        }
    }
}

/// Where a shard listens whose host's first one listens at `first`; nowhere when there is no such port.
fn address_of(first: PeerAddr, shard: u16) -> Option<PeerAddr> {
    let PeerAddr(mut address) = first;
    address.set_port(address.port().checked_add(shard)?);
    Some(PeerAddr(address))
}

/// What no peer would take, refused before anything is set aside for it.
fn check(request: &Request) -> Result<Hop, PeerError> {
    let too_long = |code, what: &str, bytes: usize, bytes_max: usize| PeerError::Refused {
        code,
        reason: format!("{what} of {bytes} bytes, at most {bytes_max} go into one call: cut it"),
    };
    let body_bytes = request.body.as_ref().map_or(0, |body| body.len());
    if body_bytes > BODY_BYTES_MAX {
        return Err(too_long(refusal::BODY_TOO_LONG, "body", body_bytes, BODY_BYTES_MAX));
    }
    let reply_bytes = usize::try_from(request.reply_bytes_max).unwrap_or(usize::MAX);
    if reply_bytes > BODY_BYTES_MAX {
        return Err(too_long(refusal::REPLY_TOO_LONG, "reply", reply_bytes, BODY_BYTES_MAX));
    }
    if request.head.len() > HEAD_BYTES_MAX {
        return Err(too_long(refusal::HEAD_TOO_LONG, "head", request.head.len(), HEAD_BYTES_MAX));
    }
    Hop::from_number(request.hop).ok_or_else(|| PeerError::Refused {
        code: refusal::TOO_MANY_HOPS,
        reason: format!("a request passed on {} times; at most 2 have credit", request.hop),
    })
}

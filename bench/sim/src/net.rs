//! Calls between simulated hosts: delayed, cut one way or both, reset, and delivered late.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use nova_buf::{DmaBuf, SharedBuf};
use nova_device::mem::MemShard;
use nova_device::sync::{oneshot, timeout_at};
use nova_device::{Clock, Handler, Incoming, PeerError, Peers, Reply, Request, Shard};
use nova_units::{NodeId, PageSum, TaskClass};
use novafs_format::PAGE;
use novafs_member::Service;

/// How long a call whose answer cannot come keeps its caller waiting at most.
const FOREVER: Duration = Duration::from_mins(10);

/// What calls suffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way, at least and at most, in microseconds.
    pub(crate) micros: (u64, u64),
    /// Of a thousand messages, how many break their connection.
    pub(crate) reset_permille: u32,
    /// Of a thousand messages, how many come late.
    pub(crate) late_permille: u32,
    /// How late at most, in milliseconds.
    pub(crate) late_ms: u64,
}

impl Weather {
    /// A good day.
    pub(crate) const FAIR: Self = Self { micros: (20, 200), reset_permille: 0, late_permille: 0, late_ms: 0 };
}

/// The network of a world.
#[derive(Debug)]
pub(crate) struct Net {
    fabric: MemShard,
    rng: RefCell<fastrand::Rng>,
    hosts: RefCell<BTreeMap<NodeId, Endpoint>>,
    cuts: RefCell<BTreeSet<(NodeId, NodeId)>>,
    slow: RefCell<BTreeMap<(NodeId, NodeId), Duration>>,
    pub(crate) weather: Cell<Weather>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    shard: MemShard,
    service: Service<MemShard, SimPeers>,
}

struct Letter {
    from: NodeId,
    to: NodeId,
    head: Vec<u8>,
    body: Option<Vec<u8>>,
    request: (nova_units::Priority, u8),
}

type Answered = Result<(Vec<u8>, Option<Vec<u8>>), PeerError>;

impl Net {
    pub(crate) fn new(fabric: MemShard, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            fabric,
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            hosts: RefCell::default(),
            cuts: RefCell::default(),
            slow: RefCell::default(),
            weather: Cell::new(Weather::FAIR),
        })
    }

    pub(crate) fn attach(&self, node: NodeId, shard: MemShard, service: Service<MemShard, SimPeers>) {
        self.hosts.borrow_mut().insert(node, Endpoint { shard, service });
    }

    pub(crate) fn detach(&self, node: NodeId) {
        self.hosts.borrow_mut().remove(&node);
    }

    /// Lets nothing pass from one to the other, this way only.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.cuts.borrow_mut().insert((from, to));
    }

    /// What one sends the other takes so much longer, this way only.
    pub(crate) fn slow_down(&self, from: NodeId, to: NodeId, by: Duration) {
        self.slow.borrow_mut().insert((from, to), by);
    }

    pub(crate) fn heal(&self, from: NodeId, to: NodeId) {
        self.cuts.borrow_mut().remove(&(from, to));
    }

    pub(crate) fn heal_all(&self) {
        self.cuts.borrow_mut().clear();
        self.weather.set(Weather::FAIR);
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.borrow().contains(&(from, to))
    }

    /// One way of a message: false when it is lost with its connection.
    pub(crate) async fn travel(&self, from: NodeId, to: NodeId) -> bool {
        let (delay, lost) = {
            let weather = self.weather.get();
            let mut rng = self.rng.borrow_mut();
            let mut micros = rng.u64(weather.micros.0..=weather.micros.1);
            if rng.u32(..1000) < weather.late_permille {
                micros += rng.u64(..=weather.late_ms) * 1000;
            }
            (Duration::from_micros(micros), rng.u32(..1000) < weather.reset_permille)
        };
        let slow = self.slow.borrow().get(&(from, to)).copied().unwrap_or_default();
        self.pause(delay + slow).await;
        if self.is_cut(from, to) {
            self.pause(FOREVER).await;
            return false;
        }
        !lost
    }

    async fn pause(&self, time: Duration) {
        let clock = self.fabric.clock();
        clock.sleep_until(clock.now() + time).await;
    }

    async fn carry(self: Rc<Self>, letter: Letter, answer: oneshot::Sender<Answered>) {
        let (from, to) = (letter.from, letter.to);
        // Bound to the start of the host that runs now: a connection does not outlive it.
        let target = self.hosts.borrow().get(&to).cloned();
        if !self.travel(from, to).await {
            return;
        }
        let Some(target) = target.filter(|target| target.shard.is_alive()) else {
            let _ = answer.send(Err(PeerError::Unreachable));
            return;
        };
        let (done, served) = oneshot::channel();
        let Endpoint { shard, service } = target;
        shard.clone().spawn(TaskClass::Client, async move {
            let body = match &letter.body {
                Some(bytes) => {
                    let mut body = shard.pool().take(bytes.len()).await;
                    body.copy_from_slice(bytes);
                    set_sums(&mut body);
                    Some(body)
                }
                None => None,
            };
            let (priority, hop) = letter.request;
            let incoming = Incoming { head: letter.head, body, priority, hop };
            let served = service.serve(from, incoming).await;
            assert_sums(served.body.as_ref());
            let _ = done.send((served.head, served.body.map(|body| body.to_vec())));
        });
        match served.await {
            Ok(served) => {
                if self.travel(to, from).await {
                    let _ = answer.send(Ok(served));
                }
            }
            Err(_) => {
                let _ = answer.send(Err(PeerError::Closed));
            }
        }
    }
}

/// The way of one host to the others.
#[derive(Clone, Debug)]
pub(crate) struct SimPeers {
    pub(crate) net: Rc<Net>,
    pub(crate) me: NodeId,
    pub(crate) shard: MemShard,
}

impl Peers for SimPeers {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        let (sender, receiver) = oneshot::channel();
        assert_sums(request.body.as_ref());
        let letter = Letter {
            from: self.me,
            to,
            head: request.head,
            body: request.body.map(|body| body.to_vec()),
            request: (request.priority, request.hop),
        };
        self.net.fabric.spawn(TaskClass::Client, Rc::clone(&self.net).carry(letter, sender));
        let clock = self.shard.clock();
        let answered = timeout_at(clock, clock.now() + request.deadline, receiver).await;
        let (head, body) = match answered {
            Err(_) => return Err(PeerError::TimedOut),
            Ok(Err(_)) => return Err(PeerError::Closed),
            Ok(Ok(answered)) => answered?,
        };
        let body = match body {
            Some(bytes) if !bytes.is_empty() => {
                let mut body = self.shard.pool().take(bytes.len()).await;
                body.copy_from_slice(&bytes);
                set_sums(&mut body);
                Some(body)
            }
            _ => None,
        };
        Ok(Reply { head, body })
    }
}

fn sums_of(bytes: &[u8]) -> Rc<[PageSum]> {
    bytes.chunks_exact(PAGE).map(|page| PageSum(crc32fast::hash(page))).collect()
}

/// What a link does with a body that it received.
fn set_sums(body: &mut DmaBuf) {
    if body.len().is_multiple_of(PAGE) {
        let sums = sums_of(body);
        body.set_page_sums(sums);
    }
}

/// A link would send the sums that a body carries for those of its bytes.
fn assert_sums(body: Option<&SharedBuf>) {
    if let Some((body, sums)) = body.and_then(|body| body.page_sums().map(|sums| (body, sums))) {
        assert_eq!(*sums, *sums_of(body), "a body left with sums that are not those of its bytes");
    }
}

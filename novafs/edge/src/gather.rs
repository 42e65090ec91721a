//! The way in: writes wait per group, are sealed together into one message, and stay until every member has them.
//!
//! Small files would cost a message each. So while a message of a group is on its way the next writes gather, and go
//! together: up to a frame of sealed bytes, of as many blocks as there are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::sync::{oneshot, timeout_at};
use nova_device::{Clock, PeerError, Peers, Request, Shard};
use nova_units::{BlockId, FRAME_PAYLOAD_BYTES_MAX, GroupId, NodeId, Priority, TaskClass, UnitIndex};
use novafs_format::{ENTRY_UNITS_MAX, LogEntry, PAGE, SealedUnit};
use novafs_replica::{Answer, Message};

use crate::error::{MOVED_ON, answer_reason, peer_reason};
use crate::nearest::Ended;
use crate::order::Turn;
use crate::write::{Plaintext, Room};
use crate::writer::OpenBlock;
use crate::{Edge, EdgeError};

/// Sealed bytes in one message: one frame (Spec B.1).
pub const GATHER_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize;
/// Messages of one group on their way at once.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 4;
/// A further message starts beside one in flight only when this much waits; less gathers a little longer.
const BESIDE_BYTES_MIN: usize = GATHER_BYTES_MAX / 4;
/// Units sealed before other tasks get their turn: about 0.25 ms of ciphers and sums.
const SEALS_PER_TURN: usize = 4;
/// Pause before a write is sent again when nothing better is known.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause that a member may ask for: the map may change meanwhile.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Why a write ended that was not even sealed.
const NO_BUFFER: &str = "the data plane of this host has no free buffers";

/// What one unit of a write becomes.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) unit: u32,
    pub(crate) plain: Plain,
}

/// Plaintext of a unit that waits to be sealed.
#[derive(Debug)]
pub(crate) enum Plain {
    /// A part of what the program gave; copied out when it is sealed.
    OfSource { at: usize, bytes: usize },
    /// Merged with what the unit held before.
    Merged(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> usize {
        match &self.plain {
            Plain::OfSource { bytes, .. } => *bytes,
            Plain::Merged(plain) => plain.len(),
        }
    }

    pub(crate) fn padded_bytes(&self) -> usize {
        self.bytes().next_multiple_of(PAGE)
    }
}

/// Pieces of one block that wait to be sealed: at most one message of them.
pub(crate) struct Pending {
    pub(crate) block: Rc<OpenBlock>,
    pub(crate) source: Rc<dyn Plaintext>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) padded_bytes: usize,
    pub(crate) done: oneshot::Sender<Result<(), EdgeError>>,
    /// Nobody else changes these units until they are settled.
    pub(crate) turn: Rc<Turn>,
    pub(crate) room: Rc<Room>,
}

impl Pending {
    /// Gives up place and memory, and tells whoever still waits.
    fn settle(self, outcome: Result<(), EdgeError>) {
        drop((self.turn, self.room));
        // A caller that stopped waiting does not hear of it.
        drop(self.done.send(outcome));
    }
}

/// What waits for one group.
#[derive(Default)]
pub(crate) struct GroupQueue {
    pending: RefCell<VecDeque<Pending>>,
    pending_bytes: Cell<usize>,
    in_flight: Cell<usize>,
}

impl std::fmt::Debug for GroupQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupQueue")
            .field("pending", &self.pending.borrow().len())
            .field("in_flight", &self.in_flight.get())
            .finish_non_exhaustive()
    }
}

impl GroupQueue {
    /// Takes what fits one message, oldest first. A unit is in a message once: what two writers want of one block,
    /// of whom one is fenced, goes in two.
    fn take(&self) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let (mut taken, mut bytes, mut units) = (Vec::<Pending>::new(), 0, 0);
        while let Some(next) = pending.front() {
            let (more_bytes, more_units) = (next.padded_bytes, next.pieces.len());
            let other_writer =
                |one: &Pending| one.block.id == next.block.id && !Rc::ptr_eq(&one.block, &next.block);
            let full = bytes + more_bytes > GATHER_BYTES_MAX || units + more_units > ENTRY_UNITS_MAX;
            if !taken.is_empty() && (full || taken.iter().any(other_writer)) {
                break;
            }
            (bytes, units) = (bytes + more_bytes, units + more_units);
            taken.push(pending.pop_front().expect("just seen"));
        }
        self.pending_bytes.set(self.pending_bytes.get() - bytes);
        taken
    }

    fn wants_message(&self) -> bool {
        match self.in_flight.get() {
            0 => self.pending_bytes.get() > 0,
            busy => busy < MESSAGES_IN_FLIGHT_MAX && self.pending_bytes.get() >= BESIDE_BYTES_MIN,
        }
    }
}

/// Pieces that were sealed for one message.
struct Sealed {
    units: Vec<SealedUnit>,
    body: SharedBuf,
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Puts pieces into their group's queue. They are carried out whether or not somebody waits.
    pub(crate) fn enqueue(self: &Rc<Self>, pending: Pending) {
        let group = pending.block.group;
        let queue = Rc::clone(self.queues.borrow_mut().entry(group).or_default());
        queue.pending_bytes.set(queue.pending_bytes.get() + pending.padded_bytes);
        queue.pending.borrow_mut().push_back(pending);
        self.start_messages(group, &queue);
    }

    /// Starts as many messages as the queue wants.
    fn start_messages(self: &Rc<Self>, group: GroupId, queue: &Rc<GroupQueue>) {
        while queue.wants_message() {
            let taken = queue.take();
            queue.in_flight.set(queue.in_flight.get() + 1);
            let (edge, queue) = (Rc::clone(self), Rc::clone(queue));
            self.shard.spawn(TaskClass::Client, async move {
                edge.send_together(group, taken).await;
                queue.in_flight.set(queue.in_flight.get() - 1);
                edge.start_messages(group, &queue);
            });
        }
    }

    /// Seals what was taken into one body, sends it until it is settled, and tells everyone the outcome.
    async fn send_together(self: &Rc<Self>, group: GroupId, taken: Vec<Pending>) {
        let sealed = match self.seal_together(group, &taken).await {
            Ok(sealed) => sealed,
            Err(error) => {
                for pending in taken {
                    pending.settle(Err(error.clone()));
                }
                return;
            }
        };
        let Sealed { units, body } = sealed;
        let entry = LogEntry::Units(units);
        let (entry, outcome) = self.settle(group, entry, Some(body.clone())).await;
        let alone = taken.iter().all(|pending| Rc::ptr_eq(&pending.block, &taken[0].block));
        match outcome {
            // One writer that is fenced must not take the others with it: nothing of the message was ordered.
            Err(EdgeError::Fenced { .. } | EdgeError::Invalid(_)) if !alone => {
                self.send_apart(group, taken, entry.units(), &body).await;
            }
            outcome => {
                for pending in taken {
                    pending.settle(outcome.clone());
                }
            }
        }
        self.note_progress();
    }

    /// Sends what was sealed together once more, the same bytes, each write in a message of its own.
    async fn send_apart(
        self: &Rc<Self>,
        group: GroupId,
        taken: Vec<Pending>,
        mut units: &[SealedUnit],
        body: &SharedBuf,
    ) {
        let mut at = 0;
        for pending in taken {
            let (mine, others) = units.split_at(pending.pieces.len());
            let part = body.slice(at..at + pending.padded_bytes);
            (units, at) = (others, at + pending.padded_bytes);
            let outcome = self.settle(group, LogEntry::Units(mine.to_vec()), Some(part)).await.1;
            pending.settle(outcome);
        }
    }

    /// Fails when the shard has no buffer for it within the deadline of a write: what holds them may never end.
    async fn seal_together(&self, group: GroupId, taken: &[Pending]) -> Result<Sealed, EdgeError> {
        let bytes = taken.iter().map(|pending| pending.padded_bytes).sum();
        let clock = self.shard.clock();
        let limit = clock.now() + self.options.deadline;
        let Ok(mut body) = timeout_at(clock, limit, self.shard.pool().take(bytes)).await else {
            return Err(EdgeError::Unavailable { group, waited: self.options.deadline, last: NO_BUFFER });
        };
        let mut units = Vec::with_capacity(taken.iter().map(|pending| pending.pieces.len()).sum());
        let (mut scratch, mut at) = (Vec::new(), 0);
        for pending in taken {
            for piece in &pending.pieces {
                let plain = match &piece.plain {
                    Plain::Merged(plain) => plain,
                    Plain::OfSource { at, bytes } => {
                        scratch.resize(*bytes, 0);
                        pending.source.copy_out(*at, &mut scratch);
                        &scratch
                    }
                };
                let unit = UnitIndex(u16::try_from(piece.unit).expect("a block has at most 32,768 units"));
                let (block, out) = (&pending.block, &mut body[at..at + piece.padded_bytes()]);
                let sealed = block.key.seal(unit, block.take_counter(), plain, out);
                block.note(&sealed);
                units.push(sealed);
                at += sealed.padded_bytes();
                if units.len().is_multiple_of(SEALS_PER_TURN) {
                    futures_lite::future::yield_now().await;
                }
            }
        }
        body.set_page_sums(units.iter().flat_map(SealedUnit::page_sums).collect());
        self.count(|counters| counters.units_sealed += units.len() as u64);
        Ok(Sealed { units, body: body.freeze() })
    }

    /// Sends one entry to the group's primary, again and again with identical bytes, until it is settled: stored by
    /// every member, refused for good, or out of time. Gives the entry back.
    pub(crate) async fn settle(
        &self,
        group: GroupId,
        mut entry: LogEntry,
        body: Option<SharedBuf>,
    ) -> (LogEntry, Result<(), EdgeError>) {
        let begun = self.shard.clock().now();
        let block = match &entry {
            LogEntry::Units(units) => units.first().map_or(BlockId(0), |unit| unit.block),
            LogEntry::Trim { block, .. } | LogEntry::Fence { block, .. } | LogEntry::Delete { block } => {
                *block
            }
        };
        let mut last = "no map of the cluster yet";
        loop {
            let now = self.shard.clock().now();
            let waited = now.saturating_sub(begun);
            if waited >= self.options.deadline {
                return (entry, Err(EdgeError::Unavailable { group, waited, last }));
            }
            let map = self.map();
            let Some(view) = map.groups.get(&group) else {
                if map.version > 0 && !map.groups.is_empty() && waited > self.options.attempt {
                    return (entry, Err(EdgeError::UnknownGroup { group }));
                }
                self.wait_for_map(RETRY_PAUSE).await;
                continue;
            };
            let message = Message::Write { group, epoch: view.epoch, entry };
            let asked = self.ask(view.primary, &message, body.clone(), 0);
            let answer = self.within_epoch(group, view.epoch, asked).await;
            let Message::Write { entry: back, .. } = message else { unreachable!("made above") };
            entry = back;
            let Some(answer) = answer else {
                last = MOVED_ON;
                self.count(|counters| counters.retries += 1);
                continue;
            };
            let pause = match answer {
                Ok((Answer::Written { .. }, _)) => return (entry, Ok(())),
                Ok((Answer::Full, _)) => return (entry, Err(EdgeError::Full { group })),
                Ok((Answer::Fenced { generation }, _)) => {
                    return (entry, Err(EdgeError::Fenced { block, fence: generation }));
                }
                Ok((Answer::Conflict, _)) => {
                    let what = "another version was sealed under the same counter";
                    return (entry, Err(EdgeError::Invalid(what)));
                }
                Ok((answer, _)) => {
                    last = answer_reason(&answer);
                    match answer {
                        Answer::Frozen { retry_after_ms } | Answer::Busy { retry_after_ms } => {
                            Duration::from_millis(u64::from(retry_after_ms))
                                .clamp(RETRY_PAUSE, RETRY_PAUSE_MAX)
                        }
                        _ => RETRY_PAUSE,
                    }
                }
                Err(error) => {
                    last = peer_reason(&error);
                    RETRY_PAUSE
                }
            };
            self.count(|counters| counters.retries += 1);
            self.wait_for_map(pause).await;
        }
    }

    /// One attempt at one host.
    pub(crate) async fn ask(
        &self,
        host: NodeId,
        message: &Message,
        body: Option<SharedBuf>,
        reply_bytes_max: u32,
    ) -> Result<(Answer, Option<nova_buf::DmaBuf>), PeerError> {
        let is_read = matches!(message, Message::Read { .. });
        // How long a write takes says how far the slowest member is, not how near the primary.
        let mut under_way = is_read.then(|| UnderWay::begin(self, host, reply_bytes_max));
        let request = Request {
            priority: Priority::P1,
            hop: 0,
            head: message.encode(),
            body,
            reply_bytes_max,
            deadline: self.options.attempt,
            control: false,
        };
        let reply = self.peers.call(host, request).await;
        if let Some(under_way) = &mut under_way {
            under_way.ended = if reply.is_ok() { Ended::Answered } else { Ended::Failed };
        }
        drop(under_way);
        let reply = reply?;
        let answer = Answer::decode(&reply.head)
            .map_err(|error| PeerError::Refused { code: 0, reason: format!("{host}: {error}") })?;
        Ok((answer, reply.body))
    }

    /// Keeps the longest time between two settled messages while others waited.
    fn note_progress(&self) {
        let now = self.shard.clock().now();
        if let Some(last) = self.last_progress.get() {
            let stall = u64::try_from(now.saturating_sub(last).as_millis()).unwrap_or(u64::MAX);
            self.count(|counters| counters.write_stall_ms_max = counters.write_stall_ms_max.max(stall));
        }
        self.last_progress.set((self.memory.used() > 0).then_some(now));
    }
}

/// One attempt to read from one host. Also one that nobody waits for any longer has taken its time.
struct UnderWay<'e, S: Shard, P: Peers> {
    edge: &'e Edge<S, P>,
    host: NodeId,
    /// The longest answer.
    answer_bytes: u32,
    begun: Duration,
    ended: Ended,
}

impl<'e, S: Shard, P: Peers> UnderWay<'e, S, P> {
    fn begin(edge: &'e Edge<S, P>, host: NodeId, answer_bytes: u32) -> Self {
        edge.nearest.begin(host);
        Self { edge, host, answer_bytes, begun: edge.shard.clock().now(), ended: Ended::GivenUp }
    }
}

impl<S: Shard, P: Peers> Drop for UnderWay<'_, S, P> {
    fn drop(&mut self) {
        let took = self.edge.shard.clock().now().saturating_sub(self.begun);
        self.edge.nearest.end(self.host, took, self.ended, self.answer_bytes);
    }
}

//! The way in: writes wait per group, are sealed together into one message, and stay until every member has them.
//!
//! Small files would cost a message each. So while a message of a group is on its way the next writes gather, and go
//! together: up to a frame of sealed bytes, of as many blocks as there are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::sync::{Notify, oneshot};
use nova_device::{Clock, PeerError, Peers, Request, Shard};
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, FRAME_PAYLOAD_BYTES_MAX, Generation, GroupId, NodeId, Priority, TaskClass,
    UNIT_LOG2_MAX, UNIT_LOG2_MIN, UnitIndex,
};
use novafs_format::{ENTRY_UNITS_MAX, LogEntry, PAGE, SealedUnit};
use novafs_replica::{Answer, Message};

use crate::error::{answer_reason, peer_reason};
use crate::writer::{OpenBlock, WriterId};
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

/// Plaintext that may lie in memory which its owner can change at any time: it is only ever copied out.
pub trait Plaintext {
    /// How many bytes there are.
    fn bytes(&self) -> usize;
    /// Copies `out.len()` bytes from `at` on.
    ///
    /// # Panics
    /// When the range is past [`Plaintext::bytes`].
    fn copy_out(&self, at: usize, out: &mut [u8]);
}

impl Plaintext for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn copy_out(&self, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[at..at + out.len()]);
    }
}

/// One write: whole units from `first_unit` on; only the last unit of a block may be short.
#[derive(Clone)]
pub struct WriteRequest {
    /// Who writes.
    pub writer: WriterId,
    /// Group of the block.
    pub group: GroupId,
    /// The block.
    pub block: BlockId,
    /// Turn of the writer session on the block.
    pub generation: Generation,
    /// Unit size of the block, 12 to 16.
    pub unit_log2: u8,
    /// First unit written.
    pub first_unit: UnitIndex,
    /// What to write: 1 byte to 1 MiB.
    pub source: Rc<dyn Plaintext>,
}

impl std::fmt::Debug for WriteRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteRequest")
            .field("group", &self.group)
            .field("block", &self.block)
            .field("first_unit", &self.first_unit)
            .field("bytes", &self.source.bytes())
            .finish_non_exhaustive()
    }
}

impl WriteRequest {
    fn check(&self) -> Result<(), EdgeError> {
        if !(UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&self.unit_log2) {
            return Err(EdgeError::Invalid("unit_log2 is 12 to 16"));
        }
        let bytes = self.source.bytes() as u64;
        if bytes == 0 || bytes > u64::from(FRAME_PAYLOAD_BYTES_MAX) {
            return Err(EdgeError::Invalid("a write carries 1 byte to 1 MiB"));
        }
        if (u64::from(self.first_unit.0) << self.unit_log2) + bytes > BLOCK_BYTES_MAX {
            return Err(EdgeError::Invalid("the write ends past the block's 128 MiB"));
        }
        if bytes.div_ceil(1 << self.unit_log2) > ENTRY_UNITS_MAX as u64 {
            return Err(EdgeError::Invalid("a write carries at most 256 units"));
        }
        Ok(())
    }
}

/// A write that waits to be sealed.
struct Pending {
    block: Rc<OpenBlock>,
    first_unit: UnitIndex,
    source: Rc<dyn Plaintext>,
    done: oneshot::Sender<Result<(), EdgeError>>,
}

impl Pending {
    fn unit_bytes(&self) -> usize {
        1 << self.block.unit_log2
    }

    fn units(&self) -> usize {
        self.source.bytes().div_ceil(self.unit_bytes())
    }

    fn padded_bytes(&self) -> usize {
        self.source.bytes().next_multiple_of(PAGE)
    }
}

/// What waits for one group.
#[derive(Default)]
pub(crate) struct GroupQueue {
    pending: RefCell<VecDeque<Pending>>,
    pending_bytes: Cell<usize>,
    in_flight: Cell<usize>,
    fell: Notify,
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
    /// Takes what fits one message, oldest first.
    fn take(&self) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let (mut taken, mut bytes, mut units) = (Vec::new(), 0, 0);
        while let Some(next) = pending.front() {
            let (more_bytes, more_units) = (next.padded_bytes(), next.units());
            if !taken.is_empty()
                && (bytes + more_bytes > GATHER_BYTES_MAX || units + more_units > ENTRY_UNITS_MAX)
            {
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

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Writes whole units; on return every in-sync member of the group holds them durably.
    ///
    /// # Errors
    /// See [`EdgeError`]. After `Unavailable` the units may or may not be stored; writing them again is safe.
    ///
    /// # Cancel safety
    /// A dropped future no longer waits; the write is carried out all the same.
    pub async fn write(self: &Rc<Self>, request: WriteRequest) -> Result<(), EdgeError> {
        request.check()?;
        let domain = self.keys.current().ok_or(EdgeError::NoKey { domain: 0, version: 0 })?;
        let name = (request.group, request.block, request.generation);
        let block = self.writers.block(request.writer, name, request.unit_log2, domain)?;
        let bytes = request.source.bytes();
        while self.pending_bytes.get() > 0
            && self.pending_bytes.get() + bytes > self.options.pending_bytes_max
        {
            self.pending_fell.notified().await;
        }
        let (done, outcome) = oneshot::channel();
        let queue = self.queue(request.group);
        let pending = Pending { block, first_unit: request.first_unit, source: request.source, done };
        self.pending_bytes.set(self.pending_bytes.get() + bytes);
        if self.last_progress.get().is_none() {
            self.last_progress.set(Some(self.shard.clock().now()));
        }
        queue.pending_bytes.set(queue.pending_bytes.get() + pending.padded_bytes());
        queue.pending.borrow_mut().push_back(pending);
        self.start_messages(request.group, &queue);
        outcome.await.unwrap_or(Err(EdgeError::UnknownWriter))
    }

    fn queue(&self, group: GroupId) -> Rc<GroupQueue> {
        Rc::clone(self.queues.borrow_mut().entry(group).or_default())
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
                queue.fell.notify_all();
                edge.start_messages(group, &queue);
            });
        }
    }

    /// Seals what was taken into one body, sends it until it is settled, and tells everyone the outcome.
    async fn send_together(self: &Rc<Self>, group: GroupId, taken: Vec<Pending>) {
        let plain: usize = taken.iter().map(|pending| pending.source.bytes()).sum();
        let (units, body) = self.seal_together(&taken).await;
        let outcome = self.write_until_settled(group, units, body).await;
        if outcome.is_ok() {
            self.count(|counters| counters.bytes_written += plain as u64);
        }
        self.note_progress(plain);
        for pending in taken {
            // A caller that stopped waiting does not hear of it.
            drop(pending.done.send(outcome.clone()));
        }
    }

    async fn seal_together(&self, taken: &[Pending]) -> (Vec<SealedUnit>, SharedBuf) {
        let bytes = taken.iter().map(Pending::padded_bytes).sum();
        let mut body = self.shard.pool().take(bytes).await;
        let mut plain = vec![0; taken.iter().map(Pending::unit_bytes).max().unwrap_or(0)];
        let mut units = Vec::with_capacity(taken.iter().map(Pending::units).sum());
        let mut at = 0;
        for pending in taken {
            for (unit, offset) in
                (pending.first_unit.0..).zip((0..pending.source.bytes()).step_by(pending.unit_bytes()))
            {
                let count = pending.unit_bytes().min(pending.source.bytes() - offset);
                let padded = count.next_multiple_of(PAGE);
                pending.source.copy_out(offset, &mut plain[..count]);
                let (block, unit) = (&pending.block, UnitIndex(unit));
                let sealed =
                    block.key.seal(unit, block.take_counter(), &plain[..count], &mut body[at..at + padded]);
                block.note(&sealed);
                units.push(sealed);
                at += padded;
                if units.len().is_multiple_of(SEALS_PER_TURN) {
                    futures_lite::future::yield_now().await;
                }
            }
        }
        self.count(|counters| counters.units_sealed += units.len() as u64);
        (units, body.freeze())
    }

    /// Sends one entry to the group's primary, again and again with identical bytes, until it is settled: stored by
    /// every member, refused for good, or out of time.
    async fn write_until_settled(
        &self,
        group: GroupId,
        units: Vec<SealedUnit>,
        body: SharedBuf,
    ) -> Result<(), EdgeError> {
        let begun = self.shard.clock().now();
        let block = units.first().map_or(BlockId(0), |unit| unit.block);
        let mut entry = LogEntry::Units(units);
        let mut last = "no map of the cluster yet";
        loop {
            let now = self.shard.clock().now();
            let waited = now.saturating_sub(begun);
            if waited >= self.options.deadline {
                return Err(EdgeError::Unavailable { group, waited, last });
            }
            let map = self.map();
            let Some(view) = map.groups.get(&group) else {
                if map.version > 0 && !map.groups.is_empty() && waited > self.options.attempt {
                    return Err(EdgeError::UnknownGroup { group });
                }
                self.wait_for_map(RETRY_PAUSE).await;
                continue;
            };
            let message = Message::Write { group, epoch: view.epoch, entry };
            let answer = self.ask(view.primary, &message, Some(body.clone()), 0).await;
            let Message::Write { entry: back, .. } = message else { unreachable!("made above") };
            entry = back;
            let pause = match answer {
                Ok((Answer::Written { .. }, _)) => return Ok(()),
                Ok((Answer::Full, _)) => return Err(EdgeError::Full { group }),
                Ok((Answer::Fenced { generation }, _)) => {
                    return Err(EdgeError::Fenced { block, fence: generation });
                }
                Ok((Answer::Conflict, _)) => {
                    return Err(EdgeError::Invalid("another version was sealed under the same counter"));
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
        let begun = self.shard.clock().now();
        self.nearest.begin(host);
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
        self.nearest.end(host, self.shard.clock().now().saturating_sub(begun), reply.is_ok());
        let reply = reply?;
        let answer = Answer::decode(&reply.head)
            .map_err(|error| PeerError::Refused { code: 0, reason: format!("{host}: {error}") })?;
        Ok((answer, reply.body))
    }

    /// Keeps the longest time between two settled writes while others waited.
    fn note_progress(&self, plain: usize) {
        let now = self.shard.clock().now();
        let pending = self.pending_bytes.get() - plain;
        self.pending_bytes.set(pending);
        self.pending_fell.notify_all();
        if let Some(last) = self.last_progress.get() {
            let stall = u64::try_from(now.saturating_sub(last).as_millis()).unwrap_or(u64::MAX);
            self.count(|counters| counters.write_stall_ms_max = counters.write_stall_ms_max.max(stall));
        }
        self.last_progress.set((pending > 0).then_some(now));
    }
}

//! Writing any range of a block: which units it covers, what of them must be read first, and in which order.
//!
//! A unit is the atom of every write, so a unit that a range covers only partly is read, merged and sealed anew. The
//! writer alone changes the block in its generation, and the fence of that generation was committed before: what is
//! read is therefore the newest version, and what is sealed replaces it.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use nova_device::sync::{Notify, oneshot};
use nova_device::{Clock, Peers, Shard};
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, FRAME_PAYLOAD_BYTES_MAX, Generation, GroupId, UNIT_LOG2_MAX, UNIT_LOG2_MIN,
};
use novafs_format::ENTRY_UNITS_MAX;

use crate::gather::{GATHER_BYTES_MAX, Pending, Piece, Plain};
use crate::order::Turn;
use crate::read::ReadRequest;
use crate::writer::{OpenBlock, WriterId};
use crate::{Edge, EdgeError};

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

/// One write: any range of a block.
#[derive(Clone)]
pub struct WriteRequest {
    /// Who writes.
    pub writer: WriterId,
    /// Group of the block.
    pub group: GroupId,
    /// The block. One that an earlier generation wrote was fenced for this one before.
    pub block: BlockId,
    /// Turn of the writer session on the block.
    pub generation: Generation,
    /// Unit size of the block, 12 to 16.
    pub unit_log2: u8,
    /// First byte written, counted in the block.
    pub offset: u64,
    /// How far the block held data before this write, earlier ones under way included. What lies between this and
    /// `offset` becomes zeros.
    pub block_bytes: u64,
    /// What to write: 1 byte to 1 MiB.
    pub source: Rc<dyn Plaintext>,
}

impl std::fmt::Debug for WriteRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteRequest")
            .field("group", &self.group)
            .field("block", &self.block)
            .field("offset", &self.offset)
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
        let ends_within = self.offset.checked_add(bytes).is_some_and(|end| end <= BLOCK_BYTES_MAX);
        if !ends_within || self.block_bytes > BLOCK_BYTES_MAX {
            return Err(EdgeError::Invalid("the write ends past the block's 128 MiB"));
        }
        Ok(())
    }

    /// The units that the range touches.
    fn units(&self) -> Range<u32> {
        let end = self.offset + self.source.bytes() as u64;
        narrow(self.offset >> self.unit_log2)..narrow(end.div_ceil(1 << self.unit_log2))
    }

    /// What becomes of each unit when the block holds data up to `known`.
    fn parts(&self, known: u64) -> Vec<Part> {
        let size = 1_u64 << self.unit_log2;
        let end = self.offset + self.source.bytes() as u64;
        self.units()
            .map(|unit| {
                let start = u64::from(unit) << self.unit_log2;
                let (from, to) = (self.offset.max(start), end.min(start + size));
                let old = known.clamp(start, start + size);
                let reads = old > start && (from > start || to < old);
                let bytes = to.max(old) - start;
                Part { unit, start, from, to, old: if reads { old - start } else { 0 }, bytes }
            })
            .collect()
    }
}

/// What a write does to one unit.
#[derive(Clone, Copy, Debug)]
struct Part {
    unit: u32,
    /// Where the unit begins in the block.
    start: u64,
    /// What of the block is written of it.
    from: u64,
    to: u64,
    /// Bytes of the unit that must be read first; 0 for none.
    old: u64,
    /// Plaintext of the unit afterwards.
    bytes: u64,
}

/// How much plaintext is on its way.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    used: Cell<usize>,
    fell: Notify,
}

impl Memory {
    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }
}

/// Room for plaintext on its way, given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.used.set(self.memory.used.get() - self.bytes);
        self.memory.fell.notify_all();
    }
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Writes a range of a block; on return every in-sync member of the group holds it durably, and every read that
    /// begins later sees it, through this edge or another.
    ///
    /// Writes to one unit take effect in the order in which they were first polled. A range over several units is no
    /// atom: after an error any of its units may be stored.
    ///
    /// # Errors
    /// See [`EdgeError`]. After `Unavailable` the units may or may not be stored; writing them again is safe.
    ///
    /// # Cancel safety
    /// A dropped future no longer waits. Either nothing is written, or the write is carried out all the same.
    pub async fn write(self: &Rc<Self>, request: WriteRequest) -> Result<(), EdgeError> {
        request.check()?;
        let name = (request.group, request.block, request.generation);
        let block = self.writers.block(request.writer, name, request.unit_log2)?;
        let turn = Rc::new(block.order.enter(request.units()));
        turn.comes().await;
        if block.uncut.get() {
            return Err(EdgeError::Uncut { block: block.id });
        }
        let parts = request.parts(request.block_bytes.max(block.end()));
        let sealed_bytes = parts.iter().map(|part| wide(part.bytes)).sum();
        let room = Rc::new(self.room(sealed_bytes).await);
        let mut pieces = Vec::with_capacity(parts.len());
        for part in &parts {
            pieces.push(self.piece(&block, &request, part).await?);
        }
        let bytes = request.source.bytes();
        self.send_pieces(&block, &request.source, pieces, &turn, &room).await?;
        self.count(|counters| counters.bytes_written += bytes as u64);
        Ok(())
    }

    /// Waits for room. Who holds some has its turn already, so it is given back.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        let memory = &self.memory;
        while memory.used() > 0 && memory.used() + bytes > self.options.pending_bytes_max {
            memory.fell.notified().await;
        }
        memory.used.set(memory.used() + bytes);
        if self.last_progress.get().is_none() {
            self.last_progress.set(Some(self.shard.clock().now()));
        }
        Room { memory: Rc::clone(memory), bytes }
    }

    /// The plaintext of one unit after the write.
    async fn piece(
        self: &Rc<Self>,
        block: &OpenBlock,
        request: &WriteRequest,
        part: &Part,
    ) -> Result<Piece, EdgeError> {
        let unit = part.unit;
        let (bytes, at) = (wide(part.bytes), wide(part.from - request.offset));
        if part.old == 0 && part.from == part.start {
            return Ok(Piece { unit, plain: Plain::OfSource { at, bytes } });
        }
        let mut plain = vec![0; bytes];
        if part.old > 0 {
            let read = ReadRequest {
                group: block.group,
                block: block.id,
                key: block.key_name,
                unit_log2: block.unit_log2,
                block_bytes: part.start + part.old,
                offset: part.start,
                bytes: part.old,
                sparse: true,
            };
            self.read_range(&read, |offset, old| {
                plain[wide(offset)..wide(offset) + old.len()].copy_from_slice(old);
            })
            .await?;
            self.count(|counters| counters.units_merged += 1);
        }
        request.source.copy_out(at, &mut plain[wide(part.from - part.start)..wide(part.to - part.start)]);
        Ok(Piece { unit, plain: Plain::Merged(plain) })
    }

    /// Seals and sends pieces of a block; on return they are settled.
    pub(crate) async fn send_pieces(
        self: &Rc<Self>,
        block: &Rc<OpenBlock>,
        source: &Rc<dyn Plaintext>,
        pieces: Vec<Piece>,
        turn: &Rc<Turn>,
        room: &Rc<Room>,
    ) -> Result<(), EdgeError> {
        let mut outcomes = Vec::new();
        let mut pieces = pieces.into_iter().peekable();
        while pieces.peek().is_some() {
            // A range that begins within a unit touches one unit more than a message holds.
            let (mut some, mut padded) = (Vec::new(), 0);
            while let Some(piece) = pieces.next_if(|piece| {
                padded + piece.padded_bytes() <= GATHER_BYTES_MAX && some.len() < ENTRY_UNITS_MAX
            }) {
                padded += piece.padded_bytes();
                some.push(piece);
            }
            let (done, outcome) = oneshot::channel();
            outcomes.push(outcome);
            self.enqueue(Pending {
                block: Rc::clone(block),
                source: Rc::clone(source),
                pieces: some,
                padded_bytes: padded,
                done,
                turn: Rc::clone(turn),
                room: Rc::clone(room),
            });
        }
        let mut result = Ok(());
        for outcome in outcomes {
            result = result.and(outcome.await.unwrap_or(Err(EdgeError::UnknownWriter)));
        }
        result
    }
}

pub(crate) fn narrow(unit: u64) -> u32 {
    u32::try_from(unit).expect("a block has at most 32,768 units")
}

/// A length or offset within a block, as one of memory.
pub(crate) fn wide(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a block is at most 128 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(offset: u64, bytes: usize, known: u64) -> Vec<(u32, u64, u64)> {
        let request = WriteRequest {
            writer: WriterId(1),
            group: GroupId(1),
            block: BlockId(1),
            generation: Generation(1),
            unit_log2: 12,
            offset,
            block_bytes: known,
            source: Rc::new(vec![0; bytes]),
        };
        request.parts(known).iter().map(|part| (part.unit, part.old, part.bytes)).collect()
    }

    #[test]
    fn a_unit_is_read_only_when_it_holds_something_that_the_write_does_not_cover() {
        assert_eq!(parts(0, 4096, 9000), [(0, 0, 4096)], "whole");
        assert_eq!(parts(8192, 808, 9000), [(2, 0, 808)], "the last unit up to its end");
        assert_eq!(parts(8192, 807, 9000), [(2, 808, 808)], "one byte of it stays");
        assert_eq!(parts(4097, 10, 4096), [(1, 0, 11)], "behind the end there is nothing to read");
        assert_eq!(parts(4196, 10, 4100), [(1, 4, 110)], "a hole behind what is there");
        assert_eq!(parts(1, 8192, 20_000), [(0, 4096, 4096), (1, 0, 4096), (2, 4096, 4096)]);
    }
}

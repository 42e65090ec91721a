//! Taking a block over, cutting it, and letting it go.

use std::rc::Rc;

use nova_device::sync::oneshot;
use nova_device::{Peers, Shard};
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, Generation, GroupId, TaskClass, UNIT_LOG2_MAX, UNIT_LOG2_MIN, UnitIndex,
};
use novafs_format::LogEntry;

use crate::gather::{Piece, Plain};
use crate::order::Turn;
use crate::read::Units;
use crate::write::{Plaintext, narrow, wide};
use crate::writer::{OpenBlock, WriterId};
use crate::{Edge, EdgeError};

/// Where a block is to end.
#[derive(Clone, Copy, Debug)]
pub struct TrimRequest {
    /// Who cuts.
    pub writer: WriterId,
    /// Group of the block.
    pub group: GroupId,
    /// The block.
    pub block: BlockId,
    /// Turn of the writer session on the block.
    pub generation: Generation,
    /// Unit size of the block, 12 to 16.
    pub unit_log2: u8,
    /// Plaintext bytes that stay, at most 128 MiB.
    pub from_bytes: u64,
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// From its end on no generation below `generation` writes the block, and whatever one wrote before is visible.
    ///
    /// # Errors
    /// `Fenced` when a higher generation is in force. After `Unavailable` the fence may or may not be in force; asking
    /// again is safe.
    ///
    /// # Cancel safety
    /// A fence that is dropped may or may not come into force.
    pub async fn fence(
        &self,
        group: GroupId,
        block: BlockId,
        generation: Generation,
    ) -> Result<(), EdgeError> {
        self.settle(group, LogEntry::Fence { block, generation }, None).await.1
    }

    /// Cuts a block: seals the unit anew that the end falls into, when it holds more, and takes all units behind it
    /// away. Waits for the writer's earlier writes to the block; later ones wait for it.
    ///
    /// # Errors
    /// See [`EdgeError`]. After `Unavailable` the cut may still be taken, late: the block takes no write of this writer
    /// until a cut of it ended well (`Uncut`).
    ///
    /// # Cancel safety
    /// A dropped future no longer waits; the cut is made all the same.
    pub async fn trim(self: &Rc<Self>, request: TrimRequest) -> Result<(), EdgeError> {
        if !(UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&request.unit_log2) {
            return Err(EdgeError::Invalid("unit_log2 is 12 to 16"));
        }
        if request.from_bytes > BLOCK_BYTES_MAX {
            return Err(EdgeError::Invalid("a block has at most 128 MiB"));
        }
        let name = (request.group, request.block, request.generation);
        let block = self.writers.block(request.writer, name, request.unit_log2)?;
        let turn = Rc::new(block.order.enter(0..u32::MAX));
        let (sender, done) = oneshot::channel();
        let edge = Rc::clone(self);
        self.shard.spawn(TaskClass::Client, async move {
            turn.comes().await;
            let outcome = edge.cut(&block, request.from_bytes, &turn).await;
            drop(turn);
            // Who stopped waiting does not hear of it.
            drop(sender.send(outcome));
        });
        done.await.unwrap_or(Err(EdgeError::UnknownWriter))
    }

    /// Cuts a block that nobody else changes meanwhile. The cut carries the writer's count: everything it sealed before
    /// is settled or void, so that no late copy brings a unit back.
    async fn cut(
        self: &Rc<Self>,
        block: &Rc<OpenBlock>,
        bytes: u64,
        turn: &Rc<Turn>,
    ) -> Result<(), EdgeError> {
        let size = 1_u64 << block.unit_log2;
        let kept = bytes % size;
        if kept > 0 {
            self.cut_unit(block, narrow(bytes >> block.unit_log2), wide(kept), turn).await?;
        }
        let from_unit = u16::try_from(bytes.div_ceil(size)).expect("a block has at most 32,768 units");
        let from_unit = UnitIndex(from_unit);
        let entry = LogEntry::Trim { block: block.id, from_unit, cut: block.cut_now() };
        block.uncut.set(true);
        let (_, outcome) = self.settle(block.group, entry, None).await;
        // Only an answer settles it. A refusal does: nothing was ordered, and what comes later is refused as well.
        block
            .uncut
            .set(matches!(outcome, Err(EdgeError::Unavailable { .. } | EdgeError::UnknownGroup { .. })));
        if outcome.is_ok() {
            block.note_cut(bytes, from_unit);
        }
        outcome
    }

    /// Seals a unit anew with its first `kept` bytes, when it holds more.
    async fn cut_unit(
        self: &Rc<Self>,
        block: &Rc<OpenBlock>,
        unit: u32,
        kept: usize,
        turn: &Rc<Turn>,
    ) -> Result<(), EdgeError> {
        let room = Rc::new(self.room(1 << block.unit_log2).await);
        let units = Units {
            group: block.group,
            block: block.id,
            key: block.key_name,
            unit_log2: block.unit_log2,
            run: unit..unit + 1,
            dense_bytes: None,
        };
        let mut longer = None;
        self.read_units(&units, &mut |_, plain| {
            longer =
                plain.and_then(|plain| plain.get(..kept).filter(|_| plain.len() > kept)).map(<[u8]>::to_vec);
        })
        .await?;
        let Some(plain) = longer else { return Ok(()) };
        let nothing: Rc<dyn Plaintext> = Rc::new(Vec::new());
        let pieces = vec![Piece { unit, plain: Plain::Merged(plain) }];
        self.send_pieces(block, &nothing, pieces, turn, &room).await
    }

    /// Forgets a block of a writer, once its writes under way are settled. A block that is written to meanwhile stays.
    ///
    /// # Errors
    /// `UnknownWriter` when the writer or the block is not open here.
    ///
    /// # Cancel safety
    /// A dropped future forgets nothing.
    pub async fn release_block(
        &self,
        writer: WriterId,
        block: BlockId,
        generation: Generation,
    ) -> Result<(), EdgeError> {
        let found = self.writers.find(writer, block, generation)?;
        let turn = found.order.enter(0..u32::MAX);
        turn.comes().await;
        // Who waits behind this one holds the block and its order.
        if found.order.len() == 1 && !found.uncut.get() {
            self.writers.forget(writer, generation, &found);
        }
        Ok(())
    }
}

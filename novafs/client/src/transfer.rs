//! Changes of blocks on their way: several transfers in flight, sent again when that may help.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use nova_ring::abi::{Answer, ClientCommand, Status};
use nova_units::{BlockId, Generation, GroupId};

use crate::backoff::Backoff;
use crate::data::Attachment;
use crate::error::ClientError;
use crate::space::Piece;

/// Transfers of one call in flight: 8 MiB.
const IN_FLIGHT_MAX: usize = 8;

/// Bytes that go into a block. Those of one call do not overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch<'d> {
    /// Writer of the block's key.
    pub(crate) writer: u64,
    pub(crate) group: GroupId,
    pub(crate) block: BlockId,
    pub(crate) unit_log2: u8,
    /// First byte in the block.
    pub(crate) offset: u32,
    /// How far the block may hold data when this is sent in its order.
    pub(crate) block_bytes: u32,
    /// How far it may hold data when all patches of the call were sent.
    pub(crate) reach_bytes: u32,
    /// 1 byte to 1 MiB.
    pub(crate) data: &'d [u8],
}

/// A patch that was sent and not answered.
struct Sent<'a, 'd> {
    piece: Piece<'a>,
    patch: Patch<'d>,
}

struct Transfer<'a, 'd> {
    link: &'a Attachment,
    generation: Generation,
    inbox: mpsc::Sender<(u64, Option<Answer>)>,
    answers: mpsc::Receiver<(u64, Option<Answer>)>,
    sent: HashMap<u64, Sent<'a, 'd>>,
    backoff: Backoff,
}

impl<'a, 'd> Transfer<'a, 'd> {
    fn run(&mut self, patches: &[Patch<'d>]) -> Result<(), ClientError> {
        for patch in patches {
            while self.sent.len() >= IN_FLIGHT_MAX {
                self.settle_one()?;
            }
            let bytes = u64::try_from(patch.data.len()).expect("a length fits 64 bits");
            let piece = loop {
                match self.link.room_now(bytes) {
                    Some(piece) => break piece,
                    None if self.sent.is_empty() => break self.link.room(bytes)?,
                    None => self.settle_one()?,
                }
            };
            self.link.area.copy_in(piece.offset, patch.data).expect("the slab lies in the area");
            self.send(Sent { piece, patch: *patch }, patch.block_bytes)?;
        }
        while !self.sent.is_empty() {
            self.settle_one()?;
        }
        Ok(())
    }

    fn send(&mut self, sent: Sent<'a, 'd>, block_bytes: u32) -> Result<(), ClientError> {
        let Patch { writer, group, block, unit_log2, offset, data, .. } = sent.patch;
        let (generation, arena_offset) = (self.generation, sent.piece.offset);
        let request = self.link.submit(&self.inbox, |request| ClientCommand::Write {
            request,
            writer,
            group,
            block,
            generation,
            unit_log2,
            offset,
            bytes: u32::try_from(data.len()).expect("at most 1 MiB"),
            block_bytes,
            arena_offset,
        })?;
        self.sent.insert(request, sent);
        Ok(())
    }

    /// Takes one answer; sends again what may succeed later.
    fn settle_one(&mut self) -> Result<(), ClientError> {
        let answer = self.link.answer(&self.answers)?;
        let sent =
            self.sent.remove(&answer.request).ok_or(ClientError::Protocol("an answer nobody asked for"))?;
        let Patch { block, group, reach_bytes, .. } = sent.patch;
        match answer.status {
            Status::Ok => Ok(()),
            status if status.is_retryable() => {
                self.backoff.pause("write to the replicas", status)?;
                // Others of the call may have been written meanwhile: it must not be taken for the block's end.
                self.send(sent, reach_bytes)
            }
            status => Err(ClientError::Data { what: format!("write {block} to {group}"), status }),
        }
    }

    /// Pieces still in flight are in the data plane's hands: waits for their answers before others use them.
    fn drain(&mut self) {
        while !self.sent.is_empty() && !self.link.is_gone() {
            match self.link.answer(&self.answers) {
                Ok(answer) => drop(self.sent.remove(&answer.request)),
                Err(_) => return,
            }
        }
    }
}

/// Writes all patches; they are durable when it succeeds. After an error any of them may be.
///
/// # Errors
/// [`ClientError::Lost`] when the data plane went away; of the first patch that failed otherwise.
pub(crate) fn write_patches(
    link: &Attachment,
    generation: Generation,
    patches: &[Patch<'_>],
    deadline: Duration,
) -> Result<(), ClientError> {
    let (inbox, answers) = mpsc::channel();
    let sent = HashMap::new();
    let backoff = Backoff::new(deadline);
    let mut transfer = Transfer { link, generation, inbox, answers, sent, backoff };
    let written = transfer.run(patches);
    if written.is_err() {
        transfer.drain();
    }
    written
}

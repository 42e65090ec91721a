//! One file on its way in: blocks, transfers in flight, roots.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nova_api::files::Block;
use nova_ring::abi::{ClientCommand, ClosedBlock, OpenedWriter, Status};
use nova_units::{BLOCK_BYTES_MAX, BlockId, Generation, GroupId};

use crate::backoff::Backoff;
use crate::content::{Content, Next};
use crate::data::{Attachment, CHUNK_BYTES};
use crate::error::ClientError;
use crate::progress::Progress;
use crate::session::{FreshBlock, Session};
use crate::space::Piece;

/// Transfers of one file in flight.
const IN_FLIGHT_MAX: usize = 8;
/// Generation of a new block: its id was never used, and every writer has a salt of its own.
const FIRST_GENERATION: Generation = Generation(1);

/// A write that was sent and not answered.
struct Sent<'a> {
    piece: Piece<'a>,
    offset: u32,
    bytes: u32,
    at: Instant,
}

/// One block being written.
struct BlockWrite<'a> {
    link: &'a Attachment,
    writer: OpenedWriter,
    block: BlockId,
    group: GroupId,
    unit_log2: u8,
    inbox: mpsc::Sender<(u64, Option<nova_ring::abi::Answer>)>,
    answers: mpsc::Receiver<(u64, Option<nova_ring::abi::Answer>)>,
    sent: HashMap<u64, Sent<'a>>,
    backoff: Backoff,
    progress: &'a Progress,
    counted: &'a Cell<u64>,
}

impl<'a> BlockWrite<'a> {
    fn send(&mut self, write: Sent<'a>) -> Result<(), ClientError> {
        let Self { writer, block, group, unit_log2, .. } = *self;
        let (offset, bytes, arena_offset) = (write.offset, write.bytes, write.piece.offset);
        let request = self.link.submit(&self.inbox, |request| ClientCommand::Write {
            request,
            writer: writer.writer,
            group,
            block,
            generation: FIRST_GENERATION,
            unit_log2,
            offset,
            bytes,
            // Whole units, each written once: nothing before it is looked at.
            block_bytes: offset,
            arena_offset,
        })?;
        self.sent.insert(request, write);
        Ok(())
    }

    /// Takes one answer; sends again what may succeed later.
    fn settle_one(&mut self) -> Result<(), ClientError> {
        let answer = self.link.answer(&self.answers)?;
        let sent =
            self.sent.remove(&answer.request).ok_or(ClientError::Protocol("an answer nobody asked for"))?;
        match answer.status {
            Status::Ok => {
                self.progress.answered(u64::from(sent.bytes), sent.at);
                self.counted.set(self.counted.get() + u64::from(sent.bytes));
                Ok(())
            }
            status if status.is_retryable() => {
                self.backoff.pause("write to the replicas", status)?;
                self.send(sent)
            }
            status => {
                let what = format!("write {} to {}", self.block, self.group);
                Err(ClientError::Data { what, status })
            }
        }
    }
}

/// What a file became.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) blocks: Vec<Block>,
}

/// Writes `content` durably into fresh blocks of `session` for a file of `namespace`, in units of `unit_log2`; `None`: as
/// the namespace asks for. A hole has no blocks: the next begins behind it.
pub(crate) fn write_file(
    content: &mut dyn Content,
    link: &Attachment,
    session: &Session,
    namespace: &str,
    unit_log2: Option<u8>,
    deadline: Duration,
    progress: &Progress,
) -> Result<Written, ClientError> {
    let counted = Cell::new(0);
    let written = write_blocks(content, link, session, namespace, unit_log2, deadline, progress, &counted);
    if written.is_err() {
        progress.take_back(counted.get());
    }
    written
}

#[expect(clippy::too_many_arguments, reason = "what one file of a put needs, and what was counted")]
fn write_blocks(
    content: &mut dyn Content,
    link: &Attachment,
    session: &Session,
    namespace: &str,
    unit_log2: Option<u8>,
    deadline: Duration,
    progress: &Progress,
    counted: &Cell<u64>,
) -> Result<Written, ClientError> {
    let mut written = Written { bytes: 0, blocks: Vec::new() };
    let mut chunk = Vec::new();
    let mut next = content.next(&mut chunk)?;
    loop {
        match next {
            Next::End => return Ok(written),
            Next::Hole(bytes) => {
                written.bytes += bytes;
                progress.passed(bytes);
                counted.set(counted.get() + bytes);
                next = content.next(&mut chunk)?;
                continue;
            }
            Next::Data => {}
        }
        let fresh = session.next_block_of(namespace)?;
        let FreshBlock { block, group, key_domain, .. } = fresh;
        let unit_log2 = unit_log2.unwrap_or(fresh.unit_log2);
        let writer = link.writer_for_new(key_domain, deadline)?;
        let (inbox, answers) = mpsc::channel();
        let backoff = Backoff::new(deadline);
        let sent = HashMap::new();
        let mut open = BlockWrite {
            link,
            writer,
            block,
            group,
            unit_log2,
            inbox,
            answers,
            sent,
            backoff,
            progress,
            counted,
        };
        let mut plain_bytes = 0u64;
        let result = (|| {
            loop {
                let bytes = u32::try_from(chunk.len()).expect("at most 1 MiB");
                let piece = loop {
                    match link.room_now(u64::from(bytes)) {
                        Some(piece) => break piece,
                        None if open.sent.is_empty() => break link.room(u64::from(bytes))?,
                        None => open.settle_one()?,
                    }
                };
                link.area.copy_in(piece.offset, &chunk).expect("the slab lies in the area");
                let offset = u32::try_from(plain_bytes).expect("at most 128 MiB");
                open.send(Sent { piece, offset, bytes, at: Instant::now() })?;
                plain_bytes += u64::from(bytes);
                next = content.next(&mut chunk)?;
                // A transfer of less than its size may end within a unit, and a unit is written once.
                if u64::from(bytes) < CHUNK_BYTES || plain_bytes == BLOCK_BYTES_MAX || next != Next::Data {
                    break;
                }
                while open.sent.len() >= IN_FLIGHT_MAX {
                    open.settle_one()?;
                }
            }
            while !open.sent.is_empty() {
                open.settle_one()?;
            }
            Ok(())
        })();
        if let Err(error) = result {
            // Pieces still in flight are in the data plane's hands: wait for their answers before others use them.
            while !open.sent.is_empty() && !matches!(error, ClientError::Lost) {
                match link.answer(&open.answers) {
                    Ok(answer) => drop(open.sent.remove(&answer.request)),
                    Err(_) => break,
                }
            }
            return Err(error);
        }
        let closed = link.call("close a block", deadline, |request| ClientCommand::CloseBlock {
            request,
            writer: writer.writer,
            block,
            generation: FIRST_GENERATION,
            plain_bytes: u32::try_from(plain_bytes).expect("at most 128 MiB"),
        })?;
        written.blocks.push(Block {
            block: block.0,
            group: group.0,
            bytes: plain_bytes,
            generation: FIRST_GENERATION.0,
            unit_log2: u32::from(unit_log2),
            key_domain: writer.key_domain,
            key_version: writer.key_version,
            root: ClosedBlock::decode(&closed.detail).root.to_vec().into(),
            offset: written.bytes,
            ..Block::default()
        });
        written.bytes += plain_bytes;
    }
}

//! The turn of a writer: the place that metadata gives, fences before the first write, and what a restart does to it.

use std::sync::Arc;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{self as api, Block, FileOpened, response};
use nova_ring::abi::{ClientCommand, OpenedWriter, Status};
use nova_units::{BlockId, Generation, GroupId};

use crate::at::At;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::data::{Attachment, CHUNK_BYTES};
use crate::error::ClientError;
use crate::file::map::{Held, Place};
use crate::file::node::{Node, State};
use crate::session::Session;
use crate::transfer::{Patch, write_patches};

/// One turn on a file.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) session: Arc<Session>,
    pub(super) generation: u32,
    /// The attachment that its writes went over. Another has other keys and counters of seals, and needs another turn.
    link: Option<Arc<Attachment>>,
}

impl Turn {
    pub(super) fn new(session: Arc<Session>, generation: u32) -> Self {
        Self { session, generation, link: None }
    }
}

/// Asks metadata for the place of a file's writer. A session that has ended is another the next time.
pub(super) fn open_for_writing(
    client: &Client,
    at: At<'_>,
    ask: &api::OpenFile,
) -> Result<(Arc<Session>, FileOpened), ClientError> {
    let mut backoff = Backoff::new(client.deadline);
    loop {
        let session = client.files.session()?;
        let ask = api::OpenFile { session: session.id, base: at.base, path: at.path.into(), ..ask.clone() };
        match client.metadata.change(Op::OpenFile(ask)) {
            Ok(response::Result::FileOpened(opened)) => return Ok((session, opened)),
            Ok(_) => return Err(ClientError::Protocol("an open was answered with something else")),
            Err(ClientError::Refused { code: Code::Fenced, message, .. }) => {
                session.mark_ended();
                backoff.pause("open a file for writing", message)?;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Node {
    /// Makes sure that the writer's place is ours and usable.
    pub(super) fn take_turn(&self, state: &mut State) -> Result<(), ClientError> {
        if let Some(turn) = &state.turn {
            let lost = turn.link.as_ref().is_some_and(|link| link.is_gone());
            if !turn.session.has_ended() {
                if !lost {
                    return Ok(());
                }
                // What the data plane acknowledged before it went is durable: metadata is told, and the place is given
                // up, so that taking it again raises the generation.
                self.give_up_turn(state)?;
            } else if state.dirty {
                return Err(self.break_file(
                    state,
                    "the writer session ended before the last writes were committed; they may be lost",
                ));
            }
        }
        state.turn = None;
        let abandoned = self.client.files.was_abandoned(self.inode);
        let opened = (|| {
            if abandoned {
                // Metadata may still take us for the writer, and would then not raise the generation.
                self.close_place(self.client.files.session()?.id)?;
            }
            open_for_writing(&self.client, At::inode(self.inode), &api::OpenFile::default())
        })();
        let (session, opened) = opened.inspect_err(|_| {
            if abandoned {
                self.client.files.abandon(self.inode);
            }
        })?;
        self.adopt(state, opened.file.unwrap_or_default(), abandoned);
        state.turn = Some(Turn::new(session, opened.generation));
        Ok(())
    }

    fn close_place(&self, session: u64) -> Result<(), ClientError> {
        match self.client.metadata.change(Op::CloseFile(api::CloseFile { session, inode: self.inode })) {
            // It is nobody's, somebody else's, or gone with the session or the file: not ours in any case.
            Ok(_) | Err(ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Commits what is acknowledged and gives up the writer's place. What is gathered stays.
    pub(super) fn give_up_turn(&self, state: &mut State) -> Result<(), ClientError> {
        let Some(turn) = &state.turn else { return Ok(()) };
        let _leaving = self.client.files.writer_leaves(self.inode);
        // A commit says that nothing lies behind the length: the next writer need not cut the blocks. Where nothing was
        // written in this turn there is nothing to say.
        let told = turn.link.is_some() && state.map.spilled_none();
        if state.dirty || !state.trimmed.is_empty() || told {
            self.commit(state, true)?;
        } else {
            self.close_place(turn.session.id)?;
        }
        if let Some(turn) = state.turn.take() {
            self.release(state, &turn);
        }
        Ok(())
    }

    /// Gives up the writer's place without a commit. Where that fails too, the next open of this client does it.
    pub(super) fn abandon_turn(&self, state: &mut State) {
        let Some(turn) = state.turn.take() else { return };
        let _leaving = self.client.files.writer_leaves(self.inode);
        if self.close_place(turn.session.id).is_err() {
            self.client.files.abandon(self.inode);
        }
    }

    /// The edge may forget the keys of blocks that this turn wrote. Only after the place was given up: a block must not
    /// be sealed anew in the same generation by an edge that has forgotten its counter.
    fn release(&self, state: &State, turn: &Turn) {
        let Some(link) = turn.link.as_ref().filter(|link| !link.is_gone()) else { return };
        let Ok(writer) = link.writer(self.client.deadline) else { return };
        for block in state.map.ready_in(turn.generation) {
            // An edge that cannot be asked forgets them when we detach.
            let _ =
                link.call("release a block", self.client.deadline, |request| ClientCommand::ReleaseBlock {
                    request,
                    writer: writer.writer,
                    block: BlockId(block.block),
                    generation: Generation(turn.generation),
                });
        }
    }

    /// Writes a range through to its blocks, over restarts of the data plane, until it is durable.
    pub(super) fn send(&self, state: &mut State, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(self.client.deadline);
        loop {
            match self.try_send(state, offset, data) {
                Ok(()) => {
                    let end = offset + u64::try_from(data.len()).expect("a length fits 64 bits");
                    state.durable_bytes = state.durable_bytes.max(end);
                    state.bytes = state.bytes.max(end);
                    return Ok(());
                }
                Err(ClientError::Lost) => backoff.pause("write to the data plane", "it went away")?,
                // The session ended; taking the turn anew finds out whether something was lost with it.
                Err(ClientError::Refused { code: Code::Fenced, message, .. }) => {
                    backoff.pause("write under another session", message)?;
                }
                Err(ClientError::Data { status: Status::Fenced, .. }) if state.dirty => {
                    return Err(self.break_file(
                        state,
                        "another writer took it over before the last writes were committed; they may be lost",
                    ));
                }
                Err(ClientError::Data { status: Status::Fenced, .. }) => {
                    self.give_up_turn(state)?;
                    backoff.pause("write in another turn", Status::Fenced)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_send(&self, state: &mut State, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let (link, writer, generation) = self.reach(state)?;
        let mut patches = Vec::new();
        let mut places = Vec::new();
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let place = state.map.place(at);
            let count = usize::try_from(place.room).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(count);
            self.make_ready(state, &link, writer, generation, place.start)?;
            let block = &state.map.get(place.start).expect("it was just made ready").block;
            cut_patches(block, place.offset, now, &mut patches)?;
            let bytes = u64::try_from(count).expect("a length fits 64 bits");
            places.push((place, bytes));
            at += bytes;
            rest = later;
        }
        let written = write_patches(&link, writer, Generation(generation), &patches, self.client.deadline);
        for (Place { start, offset, .. }, bytes) in places {
            let held = state.map.get_mut(start).expect("a block is written once in a call");
            let end = offset + bytes;
            if written.is_err() && held.block.bytes == 0 {
                // Nothing of it is known to anyone: another block takes its place.
                state.map.remove(start);
            } else if written.is_ok() {
                let block = &mut held.block;
                *block = Block {
                    bytes: block.bytes.max(end),
                    generation,
                    sparse: true,
                    root: Default::default(),
                    ..std::mem::take(block)
                };
                held.changed = true;
                state.dirty = true;
            } else if end > held.block.bytes {
                held.spilled = true;
            }
        }
        written
    }

    /// The turn with its way into the data plane.
    fn reach(&self, state: &mut State) -> Result<(Arc<Attachment>, OpenedWriter, u32), ClientError> {
        self.take_turn(state)?;
        let link = self.client.data.attachment()?;
        let writer = link.writer(self.client.deadline)?;
        let turn = state.turn.as_mut().expect("it was just taken");
        if !Arc::ptr_eq(turn.link.get_or_insert_with(|| Arc::clone(&link)), &link) {
            return Err(ClientError::Lost);
        }
        Ok((link, writer, turn.generation))
    }

    /// The block that begins at `start`: made, or fenced for this turn, and cut at its end if that is due.
    fn make_ready(
        &self,
        state: &mut State,
        link: &Attachment,
        writer: OpenedWriter,
        generation: u32,
        start: u64,
    ) -> Result<(), ClientError> {
        let Some(held) = state.map.get_mut(start) else {
            let session = &state.turn.as_ref().expect("who writes has a turn").session;
            let fresh = session.next_block_of(self.namespace()?)?;
            let block = Block {
                block: fresh.block.0,
                group: fresh.group.0,
                generation,
                unit_log2: u32::from(fresh.unit_log2),
                key_domain: writer.key_domain,
                key_version: writer.key_version,
                offset: start,
                sparse: true,
                ..Block::default()
            };
            state.map.insert(Held { block, ready: generation, changed: true, spilled: false });
            return Ok(());
        };
        let (block, group) = (BlockId(held.block.block), GroupId(held.block.group));
        let (unit_log2, from_bytes) = shape(&held.block)?;
        let deadline = self.client.deadline;
        if held.ready != generation {
            let sealed = (held.block.key_domain, held.block.key_version);
            if sealed != (writer.key_domain, writer.key_version) {
                return Err(ClientError::Usage(format!(
                    "inode {} is sealed under version {} of key domain {}, and this host writes under another: copy \
                     the file",
                    self.inode, sealed.1, sealed.0
                )));
            }
            let generation = Generation(generation);
            link.call("fence a block", deadline, |request| ClientCommand::Fence {
                request,
                group,
                block,
                generation,
            })?;
            held.ready = generation.0;
        }
        if held.block.trim_pending || held.spilled {
            link.call("cut a block", deadline, |request| ClientCommand::Trim {
                request,
                writer: writer.writer,
                group,
                block,
                generation: Generation(generation),
                unit_log2,
                from_bytes,
            })?;
            held.spilled = false;
            if std::mem::take(&mut held.block.trim_pending) {
                state.trimmed.push(block.0);
            }
        }
        Ok(())
    }

    /// Cuts every block whose end is to be cut, so that the file can grow.
    pub(super) fn cut_all(&self, state: &mut State) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(self.client.deadline);
        while !state.map.uncut().is_empty() {
            let cut = self.reach(state).and_then(|(link, writer, generation)| {
                let mut uncut = state.map.uncut().into_iter();
                uncut.try_for_each(|start| self.make_ready(state, &link, writer, generation, start))
            });
            match cut {
                Err(ClientError::Lost) => {
                    backoff.pause("cut a block at its end", "the data plane went away")?
                }
                other => other?,
            }
        }
        Ok(())
    }
}

fn shape(block: &Block) -> Result<(u8, u32), ClientError> {
    let unit_log2 = u8::try_from(block.unit_log2).ok();
    unit_log2
        .zip(u32::try_from(block.bytes).ok())
        .ok_or(ClientError::Protocol("the file's metadata has a block that cannot be"))
}

/// Cuts what goes to one block into transfers that end at multiples of 1 MiB in it.
fn cut_patches<'d>(
    block: &Block,
    offset: u64,
    data: &'d [u8],
    patches: &mut Vec<Patch<'d>>,
) -> Result<(), ClientError> {
    let (unit_log2, held_bytes) = shape(block)?;
    let narrow = |bytes: u64| u32::try_from(bytes).expect("within a block of 128 MiB");
    let wide = |data: &[u8]| u64::try_from(data.len()).expect("a length fits 64 bits");
    let reach_bytes = narrow(offset + wide(data)).max(held_bytes);
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let count = rest.len().min(usize::try_from(CHUNK_BYTES - at % CHUNK_BYTES).expect("at most 1 MiB"));
        let (now, later) = rest.split_at(count);
        patches.push(Patch {
            group: GroupId(block.group),
            block: BlockId(block.block),
            unit_log2,
            offset: narrow(at),
            block_bytes: narrow(at).min(reach_bytes).max(held_bytes),
            reach_bytes,
            data: now,
        });
        at += wide(now);
        rest = later;
    }
    Ok(())
}

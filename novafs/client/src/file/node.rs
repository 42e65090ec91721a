//! One open inode: its blocks, what was gathered, and the turn in which it is written.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::SystemTime;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{self as api, Entry, Resolved, response};

use crate::client::Client;
use crate::error::ClientError;
use crate::file::buffer::Buffer;
use crate::file::map::Map;
use crate::file::turn::Turn;
use crate::get::Plain;
use crate::names::entry;
use crate::progress::Progress;

/// The largest length of a file: what the offsets of the system can say.
pub(super) const FILE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();

/// What this client knows better than metadata does, while it writes the file.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    writers: u32,
    bytes: u64,
    /// Time of the last write that metadata does not know.
    modified_ns: Option<u64>,
}

/// Everything that changes, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    /// As metadata last told it.
    pub(super) entry: Entry,
    /// The length, with what is gathered.
    pub(super) bytes: u64,
    /// The length without it: what metadata may be told.
    pub(super) durable_bytes: u64,
    pub(super) map: Map,
    pub(super) buffer: Buffer,
    /// The writer's place; `None`: nobody wrote yet, or it has to be taken anew.
    pub(super) turn: Option<Turn>,
    pub(super) writers: u32,
    /// Whether something is acknowledged that metadata does not know.
    pub(super) dirty: bool,
    pub(super) modified_ns: Option<u64>,
    /// Blocks that were cut, for the next commit.
    pub(super) trimmed: Vec<u64>,
    /// Why nothing of the file can be trusted any more; stays until it is closed everywhere.
    pub(super) broken: Option<String>,
}

/// One open inode, shared by all its handles in this client.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) inode: u64,
    /// Whose groups take new blocks, once that was asked; empty: the controllers' choice.
    namespace: OnceLock<String>,
    pub(super) client: Client,
    state: Mutex<State>,
    view: Mutex<View>,
}

/// A write of so many bytes is sent at once: one transfer.
const GATHERED_MAX: usize = 1 << 20;

pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Node {
    pub(super) fn new(client: &Client, inode: u64) -> Self {
        let (namespace, client) = (OnceLock::new(), client.clone());
        Self { inode, namespace, client, state: Mutex::default(), view: Mutex::default() }
    }

    /// The namespace that the file was in when this was first asked.
    pub(super) fn namespace(&self) -> Result<&str, ClientError> {
        if let Some(known) = self.namespace.get() {
            return Ok(known);
        }
        let path = match self.client.path_of(self.inode) {
            Ok(path) => path,
            // It has no name any more and can still be written.
            Err(ClientError::Refused { .. }) => String::new(),
            Err(error) => return Err(error),
        };
        let first = path.trim_start_matches('/').split_once('/').map_or("", |(first, _)| first);
        Ok(self.namespace.get_or_init(|| first.to_owned()))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("no holder of this lock panics")
    }

    /// Shows others of this client how far it is.
    pub(super) fn publish_view(&self, state: &State) {
        *self.view() = View { writers: state.writers, bytes: state.bytes, modified_ns: state.modified_ns };
    }

    /// Puts into `entry` what is newer here.
    pub(super) fn show(&self, entry: &mut Entry) {
        let view = *self.view();
        if view.writers > 0 && entry.kind() == api::entry::Kind::File {
            entry.bytes = view.bytes;
            if let Some(modified_ns) = view.modified_ns {
                entry.modified_ns = modified_ns;
                entry.modified_ms = modified_ns / 1_000_000;
                entry.changed_ns = entry.changed_ns.max(modified_ns);
            }
        }
    }

    /// What it is, with what is newer here.
    pub(super) fn entry(&self) -> Entry {
        let mut entry = self.lock().entry.clone();
        self.show(&mut entry);
        entry
    }

    /// Takes what metadata says, when nothing here is newer.
    pub(super) fn adopt(&self, state: &mut State, resolved: Resolved, spilled: bool) {
        state.entry = resolved.entry.unwrap_or_default();
        state.durable_bytes = state.entry.bytes;
        state.bytes = state.durable_bytes;
        if !state.buffer.is_empty() {
            state.bytes = state.bytes.max(state.buffer.end());
        }
        state.map = Map::new(resolved.blocks, spilled);
        self.publish_view(state);
    }

    /// What metadata says now, for a file that is only read here.
    pub(super) fn refresh(&self, state: &mut State) -> Result<(), ClientError> {
        if state.turn.is_none() && !state.dirty && state.buffer.is_empty() {
            let resolved = self.client.resolve(crate::At::inode(self.inode))?;
            self.adopt(state, resolved, false);
        }
        Ok(())
    }

    /// Refuses everything on a file that is broken.
    pub(super) fn check(&self, state: &State) -> Result<(), ClientError> {
        match &state.broken {
            None => Ok(()),
            Some(reason) => Err(ClientError::Broken { inode: self.inode, reason: reason.clone() }),
        }
    }

    /// From now on everything fails: a promise could not be kept.
    pub(super) fn break_file(&self, state: &mut State, reason: &str) -> ClientError {
        state.broken = Some(reason.to_owned());
        let gathered = state.buffer.clear();
        self.client.files.sent(gathered);
        ClientError::Broken { inode: self.inode, reason: reason.to_owned() }
    }

    /// Reads into `into` from `offset` on; answers how many bytes: fewer than asked for at the end only.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize, ClientError> {
        let mut refreshed = false;
        loop {
            let (end, blocks, gathered, shared) = {
                let mut state = self.lock();
                self.check(&state)?;
                if offset >= state.bytes && !refreshed {
                    // Somebody else may have written more.
                    self.refresh(&mut state)?;
                    refreshed = true;
                }
                let wanted = u64::try_from(into.len()).expect("a length fits 64 bits");
                let end = offset.saturating_add(wanted).min(state.bytes);
                if offset >= end {
                    return Ok(0);
                }
                (end, state.map.within(offset, end), state.buffer.part(offset, end), state.turn.is_none())
            };
            let count = usize::try_from(end - offset).expect("inside the caller's slice");
            let target = &mut into[..count];
            let name = std::path::Path::new("memory");
            let read = self.client.read_blocks(
                &blocks,
                offset..end,
                &mut Plain(&mut &mut *target),
                name,
                &Progress::default(),
            );
            match read {
                Ok(_) => {}
                // Another host may have written the file anew: its blocks are others now.
                Err(ClientError::Data { .. }) if shared && !refreshed => {
                    self.refresh(&mut self.lock())?;
                    refreshed = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            gathered.overlay(offset, target);
            return Ok(count);
        }
    }

    /// Writes `data` at `offset`, or (`None`) at the end; answers where.
    pub(super) fn write(&self, offset: Option<u64>, data: &[u8]) -> Result<u64, ClientError> {
        let mut state = self.lock();
        self.check(&state)?;
        let offset = offset.unwrap_or(state.bytes);
        let end = offset.checked_add(u64::try_from(data.len()).expect("a length fits 64 bits"));
        if end.is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(ClientError::too_large(self.inode));
        }
        if !data.is_empty() {
            let written = self.write_pieces(&mut state, offset, data);
            state.modified_ns = Some(now_ns());
            self.publish_view(&state);
            written?;
        }
        Ok(offset)
    }

    fn write_pieces(&self, state: &mut State, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            // What fills a transfer by itself is not gathered.
            if rest.len() >= GATHERED_MAX {
                self.flush(state)?;
                return self.send(state, at, rest);
            }
            let before = state.buffer.data().len();
            let taken = state.buffer.take(at, rest);
            let grown = u64::try_from(state.buffer.data().len() - before).expect("at most 1 MiB");
            let room = self.client.files.gather(grown);
            at += u64::try_from(taken).expect("at most 1 MiB");
            rest = &rest[taken..];
            state.bytes = state.bytes.max(if taken == 0 { 0 } else { at });
            if taken == 0 || state.buffer.is_full() || !room {
                self.flush(state)?;
            }
        }
        Ok(())
    }

    /// Sends what was gathered. When that fails it stays gathered, and a later flush tries again.
    pub(super) fn flush(&self, state: &mut State) -> Result<(), ClientError> {
        if state.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut state.buffer);
        let sent = self.send(state, buffer.offset(), buffer.data());
        state.buffer = buffer;
        if sent.is_ok() || state.broken.is_some() {
            let bytes = state.buffer.clear();
            self.client.files.sent(bytes);
        } else {
            state.bytes = state.bytes.max(state.buffer.end());
        }
        sent
    }

    /// Everything written so far is durable, and visible to others with its length.
    pub(super) fn sync(&self) -> Result<(), ClientError> {
        let mut state = self.lock();
        self.check(&state)?;
        self.settle(&mut state)
    }

    pub(super) fn settle(&self, state: &mut State) -> Result<(), ClientError> {
        self.flush(state)?;
        if state.dirty || !state.trimmed.is_empty() {
            self.commit(state, false)?;
        }
        Ok(())
    }

    /// Tells metadata the length and the blocks that changed.
    pub(super) fn commit(&self, state: &mut State, close: bool) -> Result<(), ClientError> {
        let turn = state.turn.as_ref().expect("who is dirty has a turn");
        let ask = api::CommitFile {
            session: turn.session.id,
            inode: self.inode,
            bytes: state.durable_bytes,
            blocks: state.map.changed(),
            modified_ns: state.modified_ns.unwrap_or_else(|| {
                // Nothing was written since the last commit: the time stays.
                if state.dirty { now_ns() } else { state.entry.modified_ns }
            }),
            trimmed: state.trimmed.clone(),
            close,
        };
        match self.client.metadata.change(Op::CommitFile(ask)) {
            Ok(answer) => {
                state.entry = entry(answer, "commit")?;
                state.map.settle();
                state.trimmed.clear();
                state.dirty = false;
                state.modified_ns = None;
                self.publish_view(state);
                Ok(())
            }
            Err(ClientError::Refused { code: Code::Fenced, .. }) => {
                turn.session.mark_ended();
                Err(self.break_file(
                    state,
                    "the writer session ended before the last writes were committed; they are lost",
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the length: what lies beyond goes, what is missing is zeros.
    pub(super) fn set_bytes(&self, bytes: u64) -> Result<(), ClientError> {
        if bytes > FILE_BYTES_MAX {
            return Err(ClientError::too_large(self.inode));
        }
        let mut state = self.lock();
        self.check(&state)?;
        if bytes == state.bytes {
            return Ok(());
        }
        self.flush(&mut state)?;
        self.take_turn(&mut state)?;
        if bytes > state.bytes {
            // A block whose end was cut must not show what lay behind it.
            self.cut_all(&mut state)?;
        }
        self.settle(&mut state)?;
        let session = state.turn.as_ref().expect("it was just taken").session.id;
        let ask = api::Truncate { session, inode: self.inode, bytes };
        let resolved = match self.client.metadata.change(Op::Truncate(ask)) {
            Ok(response::Result::Resolved(resolved)) => resolved,
            Ok(_) => return Err(ClientError::Protocol("a truncate was answered with something else")),
            Err(error) => return Err(error),
        };
        let shrinks = bytes < state.bytes;
        state.modified_ns = None;
        let old = std::mem::take(&mut state.map);
        self.adopt(&mut state, resolved, false);
        state.map.keep_ready(&old);
        if shrinks {
            // The length is metadata's; what cannot be cut now is cut before its block grows.
            let _ = self.cut_all(&mut state);
        }
        Ok(())
    }

    /// Runs `set`, which sets the time of last change, with nothing uncommitted that would set it anew later.
    pub(crate) fn settled(
        &self,
        set: impl FnOnce() -> Result<Entry, ClientError>,
    ) -> Result<Entry, ClientError> {
        let mut state = self.lock();
        if state.broken.is_none() {
            self.settle(&mut state)?;
        }
        let changed = set()?;
        state.entry = changed.clone();
        state.modified_ns = None;
        self.publish_view(&state);
        Ok(changed)
    }

    /// A handle that may write is made.
    pub(super) fn writer_enters(&self, state: &mut State) {
        state.writers += 1;
        self.publish_view(state);
    }

    /// A handle goes. The last that may write commits, and gives up the writer's place.
    pub(super) fn leave(&self, writes: bool) -> Result<(), ClientError> {
        if !writes {
            return Ok(());
        }
        let mut state = self.lock();
        if state.writers > 1 {
            state.writers -= 1;
            self.publish_view(&state);
            return Ok(());
        }
        let left = self.check(&state).and_then(|()| {
            let flushed = self.flush(&mut state);
            // What was acknowledged is committed, also when the rest found no room.
            flushed.and(self.give_up_turn(&mut state))
        });
        state.writers = 0;
        // What could not be sent until now is lost, and the caller is told.
        let gathered = state.buffer.clear();
        self.client.files.sent(gathered);
        if left.is_err() {
            self.abandon_turn(&mut state);
            (state.dirty, state.trimmed) = (false, Vec::new());
            // Handles that only read see what metadata knows.
            if state.broken.is_none() && self.refresh(&mut state).is_err() {
                state.broken = Some("its last writes could not be committed".into());
            }
        }
        self.client.files.writer_left(self.inode);
        self.publish_view(&state);
        left
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.client.files.forget(self.inode);
    }
}

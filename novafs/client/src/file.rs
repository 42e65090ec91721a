//! Open files: read, written, cut and committed at any offset, by any number of threads.

mod buffer;
mod map;
mod node;
mod registry;
mod turn;

use std::sync::Arc;

use nova_api::files::{self as api, Entry, Resolved};

use crate::at::At;
use crate::client::Client;
use crate::error::ClientError;
use crate::file::node::Node;
pub(crate) use crate::file::registry::Files;
use crate::file::turn::{Turn, open_for_writing};
use crate::names::Owner;

/// How a file is opened. [`Default`] opens what exists, for reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Whether it will be written: the client takes the place of the file's one writer.
    pub write: bool,
    /// Whether it is made when it does not exist. Needs `write`.
    pub create: bool,
    /// Whether it is an error that it exists. Needs `create`.
    pub exclusive: bool,
    /// Whether it loses what it holds. Needs `write`.
    pub truncate: bool,
    /// Permission bits of a file that is made.
    pub mode: u32,
    /// Owner of a file that is made.
    pub owner: Owner,
}

/// An open file.
///
/// Small writes are gathered, up to 1 MiB in one range; what was gathered is sent when a write does not continue it,
/// when it is full, and at [`File::sync`] and [`File::close`]. A read sees everything that this client wrote. Others
/// see it after a sync or close.
///
/// When the data plane restarts, what it acknowledged is committed and what it did not is sent again in a new turn.
/// When a write that was accepted can be lost, every call fails with [`ClientError::Broken`] from then on, the next
/// sync among them.
///
/// Dropped without [`File::close`] it commits too, but nobody hears of an error.
#[derive(Debug)]
pub struct File {
    node: Arc<Node>,
    writes: bool,
    closed: bool,
}

impl Client {
    /// Opens a file. All handles of this client on one inode see the same bytes.
    ///
    /// # Errors
    /// When metadata refuses (code Busy: another client writes it) or is away; [`ClientError::Usage`] for options that
    /// need another.
    pub fn open<'p>(&self, at: impl Into<At<'p>>, options: &OpenOptions) -> Result<File, ClientError> {
        let at = at.into();
        if (options.create || options.truncate) && !options.write || options.exclusive && !options.create {
            return Err(ClientError::Usage(format!(
                "open {at}: to make or cut a file it must be opened for writing"
            )));
        }
        if options.write { self.open_writer(at, options) } else { self.open_reader(at) }
    }

    fn open_reader(&self, at: At<'_>) -> Result<File, ClientError> {
        let (inode, resolved) = match at.only_inode() {
            Some(inode) => (inode, None),
            None => {
                let resolved = self.resolve(at)?;
                (inode_of(&resolved)?, Some(resolved))
            }
        };
        let (node, _) = self.files.enter(inode, None, || Node::new(self, inode));
        let mut state = node.lock();
        match resolved {
            // Nobody has looked at it since it was opened here.
            Some(resolved) if state.entry.inode == 0 => node.adopt(&mut state, resolved, false),
            // Asked under the lock: what one open learns is never older than what another knows already.
            _ => node.refresh(&mut state)?,
        }
        drop(state);
        Ok(File { node, writes: false, closed: false })
    }

    fn open_writer(&self, at: At<'_>, options: &OpenOptions) -> Result<File, ClientError> {
        let OpenOptions { create, exclusive, truncate, mode, owner: Owner { uid, gid }, .. } = *options;
        let ask = api::OpenFile { create, exclusive, mode, uid, gid, ..api::OpenFile::default() };
        let opening = self.files.begin_opening();
        let (session, opened) = open_for_writing(self, at, &ask)?;
        let (resolved, generation) = (opened.file.unwrap_or_default(), opened.generation);
        let inode = inode_of(&resolved)?;
        let (node, left) = self.files.enter(inode, Some(&opening), || Node::new(self, inode));
        let mut state = node.lock();
        drop(opening);
        // The place may have been given up since metadata answered; then it is taken anew.
        if state.turn.is_none() && !state.dirty && !left && !self.files.is_abandoned(inode) {
            node.adopt(&mut state, resolved, false);
            state.turn = Some(Turn::new(session, generation));
        } else {
            node.take_turn(&mut state)?;
        }
        node.writer_enters(&mut state);
        drop(state);
        let file = File { node, writes: true, closed: false };
        if truncate {
            file.set_bytes(0)?;
        }
        Ok(file)
    }
}

impl Client {
    /// What an inode is that this client has open, whether it still has a name or not; `None`: it is not open.
    #[must_use]
    pub fn entry_of_open(&self, inode: u64) -> Option<Entry> {
        self.files.find(inode).map(|node| node.entry())
    }

    /// Another handle that may write a file which this client has open for writing; `None`: it has not.
    #[must_use]
    pub fn writer_of_open(&self, inode: u64) -> Option<File> {
        let node = self.files.find(inode)?;
        let mut state = node.lock();
        if state.writers == 0 {
            return None;
        }
        node.writer_enters(&mut state);
        drop(state);
        Some(File { node, writes: true, closed: false })
    }

    /// Ends the writer session of this client's open files. Those that are open take another one when they are written.
    pub fn end_session(&self) {
        self.files.end_session();
    }
}

fn inode_of(resolved: &Resolved) -> Result<u64, ClientError> {
    match resolved.entry.as_ref() {
        Some(entry) if entry.inode != 0 => Ok(entry.inode),
        _ => Err(ClientError::Protocol("a file without an inode")),
    }
}

impl File {
    /// Number of its inode.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.node.inode
    }

    /// What it is, as last told by metadata, with what this client wrote since. Its name is not told.
    #[must_use]
    pub fn entry(&self) -> Entry {
        self.node.entry()
    }

    /// Its length, with what this client has written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.node.lock().bytes
    }

    /// Fills `into` from `offset` on; answers how many bytes that were: fewer at the end of the file only.
    ///
    /// # Errors
    /// Of the file's blocks; [`ClientError::Broken`] once a write was lost.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ClientError> {
        self.node.read(offset, into)
    }

    /// Writes all of `data` at `offset`; a gap before it is zeros.
    ///
    /// # Errors
    /// Of a file opened for reading; when what was gathered before or this cannot be sent: a part of `data` may be
    /// written then, and what was gathered is tried again by the next call.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        self.check_writes()?;
        self.node.write(Some(offset), data).map(drop)
    }

    /// Writes all of `data` at the end; answers where that was. No other write of this client comes between.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub fn append(&self, data: &[u8]) -> Result<u64, ClientError> {
        self.check_writes()?;
        self.node.write(None, data)
    }

    /// Sets the length: what lies beyond is gone, what is missing is zeros. Others see it at once, with everything
    /// that was written before.
    ///
    /// # Errors
    /// Of a file opened for reading; when metadata refuses (code TooLarge, Quota) or is away.
    pub fn set_bytes(&self, bytes: u64) -> Result<(), ClientError> {
        self.check_writes()?;
        self.node.set_bytes(bytes)
    }

    /// When it succeeds, everything written before is durable on every replica and visible to others.
    ///
    /// # Errors
    /// When that could not be done. [`ClientError::Broken`]: it never will.
    pub fn sync(&self) -> Result<(), ClientError> {
        self.node.sync()
    }

    /// Commits what this client wrote, when this was its last handle that writes the file, and gives up the writer's
    /// place.
    ///
    /// # Errors
    /// As [`File::sync`]. The file is closed in any case.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.closed = true;
        self.node.leave(self.writes)
    }

    fn check_writes(&self) -> Result<(), ClientError> {
        if self.writes {
            return Ok(());
        }
        Err(ClientError::Usage(format!("inode {} is open for reading only", self.node.inode)))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.closed {
            // Who wants to know closes.
            let _ = self.node.leave(self.writes);
        }
    }
}

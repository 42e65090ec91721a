//! Which files a client has open: one state for each inode, and one writer session for all of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use nova_api::files::{Entry, Listing};

use crate::error::ClientError;
use crate::file::node::Node;
use crate::metadata::Metadata;
use crate::session::Session;

/// Bytes gathered over all files of a client; a file that finds no more room sends what it has.
const GATHERED_BYTES_MAX: u64 = 64 << 20;
/// How many departures of writers are remembered by inode.
const RECENT_MAX: usize = 256;

#[derive(Debug, Default)]
struct Open {
    nodes: HashMap<u64, Weak<Node>>,
    /// Opens for writing that metadata may have answered and this table does not know yet.
    opening: u32,
    /// Inodes whose last writer left while an open was under way: what that open was told may be over.
    left: HashSet<u64>,
    /// Inodes whose last writer is giving up its place right now.
    leaving: HashSet<u64>,
    /// Inodes whose last writer left without success: metadata may still take this client for their writer.
    abandoned: HashSet<u64>,
    /// Writers that left so far, and the inodes of the last of them.
    departures: u64,
    recent: VecDeque<u64>,
}

/// The open files of a client.
#[derive(Debug)]
pub(crate) struct Files {
    metadata: Arc<Metadata>,
    session: Mutex<Option<Arc<Session>>>,
    open: Mutex<Open>,
    gathered: AtomicU64,
}

/// An open for writing that is under way.
pub(super) struct Opening<'f> {
    files: &'f Files,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut open = self.files.open();
        open.opening -= 1;
        if open.opening == 0 {
            open.left.clear();
        }
    }
}

/// A writer that is giving up its place.
pub(super) struct Leaving<'f> {
    files: &'f Files,
    inode: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.files.open().leaving.remove(&self.inode);
    }
}

impl Files {
    pub(crate) fn new(metadata: Arc<Metadata>) -> Self {
        Self { metadata, session: Mutex::new(None), open: Mutex::default(), gathered: AtomicU64::new(0) }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder of this lock panics")
    }

    /// The writer session of this client's open files; another one when the last has ended.
    pub(crate) fn session(&self) -> Result<Arc<Session>, ClientError> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        if let Some(found) = session.as_ref().filter(|session| !session.has_ended()) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(Session::open(&self.metadata, "")?);
        *session = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Ends the session when no file is open for writing any more.
    pub(crate) fn end_session(&self) {
        drop(self.session.lock().expect("no holder of this lock panics").take());
    }

    pub(super) fn begin_opening(&self) -> Opening<'_> {
        let mut open = self.open();
        open.opening += 1;
        // Metadata may hear of this open before it hears that they left.
        let Open { left, leaving, .. } = &mut *open;
        left.extend(&*leaving);
        drop(open);
        Opening { files: self }
    }

    /// The state of an inode, made by `make` when nobody has it open; and whether its last writer was
    /// leaving when `opening` began, or left since.
    pub(super) fn enter(
        &self,
        inode: u64,
        opening: Option<&Opening<'_>>,
        make: impl FnOnce() -> Node,
    ) -> (Arc<Node>, bool) {
        let mut open = self.open();
        let left = opening.is_some() && open.left.contains(&inode);
        if let Some(found) = open.nodes.get(&inode).and_then(Weak::upgrade) {
            return (found, left);
        }
        let made = Arc::new(make());
        open.nodes.insert(inode, Arc::downgrade(&made));
        (made, left)
    }

    /// Whether any file is open.
    pub(crate) fn any_open(&self) -> bool {
        !self.open().nodes.is_empty()
    }

    /// The state of an inode that is open.
    pub(crate) fn find(&self, inode: u64) -> Option<Arc<Node>> {
        self.open().nodes.get(&inode).and_then(Weak::upgrade)
    }

    /// A node has no owner any more.
    pub(super) fn forget(&self, inode: u64) {
        let mut open = self.open();
        if open.nodes.get(&inode).is_some_and(|node| node.strong_count() == 0) {
            open.nodes.remove(&inode);
        }
    }

    /// The last writer of an inode is about to give up its place; it has when the answer is dropped.
    pub(super) fn writer_leaves(&self, inode: u64) -> Leaving<'_> {
        let mut open = self.open();
        open.leaving.insert(inode);
        if open.opening > 0 {
            open.left.insert(inode);
        }
        drop(open);
        Leaving { files: self, inode }
    }

    /// The last writer of an inode has committed, and its own view of the file is about to end.
    pub(super) fn writer_left(&self, inode: u64) {
        let mut open = self.open();
        open.departures += 1;
        if open.recent.len() == RECENT_MAX {
            open.recent.pop_front();
        }
        open.recent.push_back(inode);
    }

    /// How many writers left so far.
    fn departures(&self) -> u64 {
        self.open().departures
    }

    fn left_since(&self, inode: u64, departures: u64) -> bool {
        let open = self.open();
        let count = usize::try_from(open.departures - departures).unwrap_or(usize::MAX);
        count > open.recent.len() || open.recent.iter().rev().take(count).any(|left| *left == inode)
    }

    /// The place of an inode's writer could not be given up.
    pub(super) fn abandon(&self, inode: u64) {
        self.open().abandoned.insert(inode);
    }

    /// Whether the place of an inode's writer was left without success; asked once.
    pub(super) fn was_abandoned(&self, inode: u64) -> bool {
        self.open().abandoned.remove(&inode)
    }

    /// As [`Files::was_abandoned`], and it stays so.
    pub(super) fn is_abandoned(&self, inode: u64) -> bool {
        self.open().abandoned.contains(&inode)
    }

    /// Asks for room for `bytes` more to be gathered. It is always given; `false`: there was not enough, so send soon.
    pub(super) fn gather(&self, bytes: u64) -> bool {
        self.gathered.fetch_add(bytes, Ordering::Relaxed) + bytes <= GATHERED_BYTES_MAX
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.gathered.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An entry as this client sees it: with what it wrote and has not committed.
    ///
    /// A writer that leaves takes its view with it. An entry that was read before it committed is read again, so that
    /// nobody sees a file shorter than it was.
    pub(crate) fn own_view(
        &self,
        read: impl Fn() -> Result<Entry, ClientError>,
    ) -> Result<Entry, ClientError> {
        loop {
            let departures = self.departures();
            let mut entry = read()?;
            self.show_own(&mut entry);
            if !self.left_since(entry.inode, departures) {
                return Ok(entry);
            }
        }
    }

    /// As [`Files::own_view`], for many entries that were read at once; `again` reads one of them.
    pub(crate) fn own_views(
        &self,
        entries: impl FnOnce() -> Result<Listing, ClientError>,
        again: impl Fn(u64) -> Result<Entry, ClientError>,
    ) -> Result<Listing, ClientError> {
        let departures = self.departures();
        let mut listing = entries()?;
        for entry in &mut listing.entries {
            self.show_own(entry);
            if self.left_since(entry.inode, departures)
                && let Ok(newer) = again(entry.inode)
            {
                *entry = Entry { name: entry.name.clone(), cookie: entry.cookie, ..newer };
            }
        }
        Ok(listing)
    }

    fn show_own(&self, entry: &mut Entry) {
        if let Some(node) = self.find(entry.inode) {
            node.show(entry);
        }
    }
}

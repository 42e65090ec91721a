//! A namespace with a log, and checks that hold after every command.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, GroupId, InodeId};
use novafs_namespace::{
    Answer, Block, Code, Command, EntryView, Inode, Kind, ListAsk, Namespace, NewFile, Node, Op, OpenFile,
    OpenSession, Opened, Outcome, Publish, Purge, PurgeTrash, ROOT, Remove, Rename, Reply, ReserveBlocks,
    Sweep, Totals,
};

/// Applies commands at rising indexes.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) namespace: Namespace,
    pub(crate) index: u64,
    /// What the clock of the leader shows besides a millisecond a command.
    pub(crate) at_ms: u64,
}

impl Log {
    pub(crate) fn apply(&mut self, op: Op) -> Answer {
        self.apply_from(0, 0, op)
    }

    /// The refusal, if it is one.
    pub(crate) fn try_apply(&mut self, op: Op) -> Result<(), Code> {
        done(&self.apply(op))
    }

    pub(crate) fn apply_from(&mut self, client: u64, sequence: u64, op: Op) -> Answer {
        self.index += 1;
        let at_ms = 1000 + self.at_ms + self.index;
        self.namespace.apply(self.index, &Command { client, sequence, at_ms, op: Some(op) })
    }

    pub(crate) fn open(&mut self) -> u64 {
        match self.apply(Op::OpenSession(OpenSession { lease_ms: 0 })).result {
            Some(Reply::SessionOpened(opened)) => opened.session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reserve(&mut self, session: u64, count: u32) -> u64 {
        match self.apply(Op::ReserveBlocks(ReserveBlocks { session, count, groups: vec![1, 2] })).result {
            Some(Reply::BlocksReserved(reserved)) => reserved.first_block,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, session: u64, files: Vec<NewFile>, replace: bool) -> Vec<Outcome> {
        let publish = Publish { session, files, make_parents: true, replace };
        match self.apply(Op::Publish(publish)).result {
            Some(Reply::Published(published)) => published.outcomes,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes a file of one block, in a session of its own.
    pub(crate) fn put(&mut self, path: &str, bytes: u64) -> InodeId {
        let session = self.open();
        let block = self.reserve(session, 1);
        let outcome = self.publish(session, vec![file(path, block, bytes)], true).remove(0);
        assert_eq!(outcome.failure, None);
        InodeId(outcome.inode)
    }

    /// Opens a file for writing, made when it is not there.
    pub(crate) fn open_file(&mut self, session: u64, path: &str) -> Result<Opened, Code> {
        let open = OpenFile { session, path: path.into(), create: true, mode: 0o640, ..OpenFile::default() };
        let answer = self.apply(Op::OpenFile(open));
        match answer.result {
            Some(Reply::Opened(opened)) => Ok(opened),
            _ => Err(done(&answer).unwrap_err()),
        }
    }

    pub(crate) fn rename(&mut self, source: &str, target: &str, replace: bool) -> Result<(), Code> {
        let rename = Rename { source: source.into(), target: target.into(), replace, ..Rename::default() };
        self.try_apply(Op::Rename(rename))
    }

    pub(crate) fn remove(&mut self, path: &str, recursive: bool) -> Result<(), Code> {
        self.try_apply(Op::Remove(Remove { path: path.into(), recursive, ..Remove::default() }))
    }

    /// Empties the trash and takes everything apart.
    pub(crate) fn empty_trash(&mut self) {
        self.try_apply(Op::PurgeTrash(PurgeTrash { id: 0 })).unwrap();
        self.apply(Op::Purge(Purge { limit: 1000, now_ms: 0, early: false }));
        while self.namespace.has_sweep() {
            self.apply(Op::Sweep(Sweep { limit: 100 }));
        }
    }

    pub(crate) fn stat(&self, path: &str) -> EntryView {
        self.namespace.stat(0, path).unwrap()
    }
}

/// A refusal's code, or nothing.
pub(crate) fn done(answer: &Answer) -> Result<(), Code> {
    answer.failure().map_or(Ok(()), |failure| Err(failure.code()))
}

/// A file of one block, or of none when `bytes` is 0.
pub(crate) fn file(path: &str, block: u64, bytes: u64) -> NewFile {
    let blocks = if bytes == 0 { vec![] } else { vec![self::block(block, 0, bytes)] };
    NewFile {
        path: path.into(),
        mode: 0o644,
        modified_ms: 5,
        bytes,
        blocks,
        sha256: vec![7; 32],
        ..NewFile::default()
    }
}

pub(crate) fn block(block: u64, offset: u64, bytes: u64) -> Block {
    Block {
        block,
        group: 1,
        bytes,
        generation: 1,
        unit_log2: 16,
        key_domain: 1,
        key_version: 1,
        root: vec![9; 32],
        offset,
        ..Block::default()
    }
}

/// Where every block id is: exactly one place has it.
pub(crate) fn places(namespace: &Namespace) -> BTreeMap<BlockId, &'static str> {
    let mut places = BTreeMap::new();
    let mut put = |block, place| {
        let other = places.insert(block, place);
        assert_eq!(other, None, "{block} is in {place} and elsewhere");
    };
    for (first, orphan) in namespace.orphans() {
        (0..u64::from(orphan.count)).for_each(|number| put(BlockId(first.0 + number), "an orphan"));
    }
    for (_, session) in namespace.sessions() {
        let mut outstanding = 0;
        for (first, run) in &session.reserved {
            outstanding += run.count;
            (0..u64::from(run.count)).for_each(|number| put(BlockId(first.0 + number), "a reservation"));
        }
        assert_eq!(outstanding, session.outstanding, "a session counts its blocks");
    }
    for file in namespace.inodes().filter_map(|(_, inode)| inode.file()) {
        for block in &file.blocks {
            assert!([GroupId(1), GroupId(2)].contains(&block.group));
            assert!(!(block.sparse && block.root.is_some()), "a sparse block has no root");
            put(block.block, "a file");
        }
    }
    places
}

/// What must hold in every state.
pub(crate) fn check(namespace: &Namespace) {
    places(namespace);
    let inodes: BTreeMap<InodeId, &Inode> = namespace.inodes().collect();
    let mut names: BTreeMap<InodeId, BTreeMap<String, InodeId>> = BTreeMap::new();
    let mut totals: BTreeMap<InodeId, Totals> = BTreeMap::new();
    for (id, inode) in inodes.iter().filter(|(id, _)| **id != ROOT) {
        let first = (inode.parent != InodeId(0)).then_some((inode.parent, &inode.name, true));
        let others = inode.other_names().iter().map(|other| (other.parent, &other.name, false));
        for (parent, name, first) in first.into_iter().chain(others) {
            let taken = names.entry(parent).or_default().insert(name.to_string(), *id);
            assert_eq!(taken, None, "a name is taken once");
            let file = inode.file().filter(|_| first);
            let mut at = parent;
            loop {
                let sum = totals.entry(at).or_default();
                match inode.kind() {
                    Kind::Directory => sum.directories += 1,
                    Kind::File | Kind::Symlink => sum.files += 1,
                }
                sum.bytes += file.map_or(0, |file| file.stored_bytes());
                sum.blocks += file.map_or(0, |file| file.blocks.len() as u64);
                let above = inodes[&at].parent;
                if at == ROOT || above == InodeId(0) {
                    break;
                }
                at = above;
            }
        }
    }
    for (id, inode) in &inodes {
        if let Node::Directory(directory) = &inode.node {
            let names = names.remove(id).unwrap_or_default();
            assert_eq!(directory.children, names.len() as u64, "{id} counts its entries");
            assert_eq!(directory.totals, totals.remove(id).unwrap_or_default(), "sums of {id}");
            check_listing(namespace, *id, &names);
        }
    }
    assert!(names.is_empty(), "every name lies in a directory");
    let writers: BTreeMap<InodeId, _> = namespace
        .sessions()
        .flat_map(|(session, body)| body.writing.keys().map(move |file| (*file, session)))
        .collect();
    for (file, session) in &writers {
        assert_eq!(namespace.writer(*file), Some(*session));
        assert!(inodes[file].file().is_some());
    }
    assert_eq!(
        writers.len(),
        inodes.keys().filter(|id| namespace.writer(**id).is_some()).count(),
        "both know the same writers"
    );
}

/// Both orders give all names once, in pages.
fn check_listing(namespace: &Namespace, directory: InodeId, names: &BTreeMap<String, InodeId>) {
    let (mut after, mut after_cookie) = (String::new(), 0);
    let (mut by_name, mut by_cookie) = (Vec::new(), BTreeSet::new());
    // Small pages, so that it goes on from a name and from a cookie.
    let ask = ListAsk { base: directory.0, limit: 3, ..ListAsk::default() };
    loop {
        let page = namespace.list(&ListAsk { after: &after, ..ask }).unwrap();
        for entry in &page.entries {
            assert!(after.as_str() < &*entry.name, "names come in order");
            after = entry.name.to_string();
            by_name.push((after.clone(), entry.inode));
            assert_eq!(&namespace.stat(directory.0, &after).unwrap(), entry);
        }
        if !page.more {
            break;
        }
    }
    loop {
        let page = namespace.list(&ListAsk { after_cookie: Some(after_cookie), ..ask }).unwrap();
        for entry in &page.entries {
            assert!(after_cookie < entry.cookie, "cookies come in order");
            after_cookie = entry.cookie;
            by_cookie.insert((entry.name.to_string(), entry.inode));
        }
        if !page.more {
            break;
        }
    }
    let expected: Vec<(String, InodeId)> = names.iter().map(|(name, id)| (name.clone(), *id)).collect();
    assert_eq!(by_name, expected);
    assert_eq!(by_cookie.into_iter().collect::<Vec<_>>(), expected);
}

//! What the file metadata must hold, kept by other means: whole paths as text, one command after the other in the
//! order of the log. It foresees which commands succeed and says what a wrong answer would mean.

mod judge;
mod trash;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use novafs_namespace::{Answer, Code, EndSession, MakeDirectory, NewFile, Op, Publish, Reply, ReserveBlocks};
use trash::{Item, Policy};

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
    /// Ids and groups.
    pub(crate) blocks: Vec<(u64, u32)>,
    /// When it came, or was last changed as its client said, whichever is later.
    changed_ms: u64,
}

/// What became of a block id that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Reserved {
        session: u64,
    },
    /// Of a file that is in the tree or in the trash.
    Published,
    /// Its file is gone, or its session ended before it was published.
    Gone,
}

#[derive(Clone, Debug)]
struct Given {
    groups: Rc<[u32]>,
    now: Use,
}

/// The tree, the sessions and the block ids.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    files: BTreeMap<String, Row>,
    /// Without the root.
    directories: BTreeSet<String>,
    inodes: BTreeSet<u64>,
    sessions: BTreeSet<u64>,
    newest_session: u64,
    blocks: BTreeMap<u64, Given>,
    /// Policies of namespaces, by path.
    policies: BTreeMap<String, Policy>,
    trash: BTreeMap<u64, Item>,
    last_trashed: u64,
    /// What has a lower number in the trash cannot be had back.
    purge_below: u64,
    /// Time of the latest command, in ms.
    clock: u64,
    /// Paths that came or went, in order.
    touched: Vec<String>,
}

/// The path of the directory in which `path` lies; empty for the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

fn depth(path: &str) -> usize {
    path.matches('/').count()
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}

/// A command was answered as foreseen, or what is wrong.
fn settle(what: &str, fits: bool, answer: &Answer) -> Result<(), String> {
    match (fits, answer.failure()) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(failure)) => Err(format!("refused without a reason: {what}: {failure:?}")),
        (false, None) => Err(format!("done although it must be refused: {what}")),
    }
}

impl Expected {
    /// What a new namespace holds.
    pub(crate) fn new() -> Self {
        let policies = trash::standard_policies();
        Self { directories: policies.keys().cloned().collect(), policies, ..Self::default() }
    }

    /// The time of a command that is applied, also of one that was applied before.
    pub(crate) fn tick(&mut self, at_ms: u64) {
        self.clock = self.clock.max(at_ms);
    }

    pub(crate) fn files(&self) -> &BTreeMap<String, Row> {
        &self.files
    }

    pub(crate) fn directories(&self) -> &BTreeSet<String> {
        &self.directories
    }

    pub(crate) fn sessions(&self) -> &BTreeSet<u64> {
        &self.sessions
    }

    pub(crate) fn has_inode(&self, inode: u64) -> bool {
        self.files.values().any(|row| row.inode == inode)
    }

    /// The block ids that a session holds.
    pub(crate) fn reserved(&self, session: u64) -> BTreeSet<u64> {
        let of = |given: &Given| given.now == Use::Reserved { session };
        self.blocks.iter().filter(|(_, given)| of(given)).map(|(id, _)| *id).collect()
    }

    /// The block ids that are of no use to anybody.
    pub(crate) fn gone(&self) -> BTreeSet<u64> {
        self.blocks.iter().filter(|(_, given)| given.now == Use::Gone).map(|(id, _)| *id).collect()
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.directories.contains(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.is_directory(path) || self.files.contains_key(path)
    }

    fn is_empty(&self, directory: &str) -> bool {
        self.entries(directory).is_empty()
    }

    /// The entries of a directory by name; `None` for a directory.
    pub(crate) fn entries(&self, directory: &str) -> BTreeMap<&str, Option<&Row>> {
        let from = format!("{directory}/");
        let name = |path: &'_ str| -> Option<usize> {
            path.strip_prefix(&from).filter(|name| !name.contains('/')).map(|_| from.len())
        };
        let files = self.files.range(from.clone()..).take_while(|(path, _)| path.starts_with(&from));
        let directories = self.directories.range(from.clone()..).take_while(|path| path.starts_with(&from));
        let files = files.filter_map(|(path, row)| name(path).map(|at| (&path[at..], Some(row))));
        files.chain(directories.filter_map(|path| name(path).map(|at| (&path[at..], None)))).collect()
    }

    /// Where the list of touched paths ends now.
    pub(crate) fn mark(&self) -> usize {
        self.touched.len()
    }

    fn touch(&mut self, path: &str) {
        self.touched.push(path.to_owned());
    }

    /// Takes a command that was applied for the first time.
    ///
    /// # Errors
    /// What its answer means that it must not mean.
    pub(crate) fn take(&mut self, op: &Op, answer: &Answer) -> Result<(), String> {
        match op {
            Op::OpenSession(_) => self.take_open(answer),
            Op::EndSession(end) => self.take_end(*end, answer),
            Op::ReserveBlocks(reserve) => self.take_reserve(reserve, answer),
            Op::Publish(publish) => self.take_publish(publish, answer),
            Op::MakeDirectory(make) => self.take_make(make, answer),
            Op::Rename(rename) => self.take_rename(rename, answer),
            Op::Remove(remove) => self.take_remove(remove, answer),
            Op::SetSpace(set) => self.take_policy(set, answer),
            Op::Undelete(undelete) => self.take_undelete(undelete, answer),
            Op::PurgeTrash(purge) => self.take_purge_trash(*purge, answer),
            Op::Purge(purge) => self.take_purge(*purge, answer),
            Op::Expire(expire) => self.take_expire(expire, answer),
            Op::Sweep(_) => settle("to sweep", true, answer),
            other => Err(format!("no program asks this: {other:?}")),
        }
    }

    fn take_open(&mut self, answer: &Answer) -> Result<(), String> {
        let Some(Reply::SessionOpened(opened)) = &answer.result else {
            return Err(format!("no session was opened: {answer:?}"));
        };
        if opened.session <= self.newest_session {
            return Err(format!("a session id was given twice: {}", opened.session));
        }
        self.newest_session = opened.session;
        self.sessions.insert(opened.session);
        Ok(())
    }

    /// Whether the session is open; a command of one that is not must be refused as fenced.
    fn is_open(&self, session: u64, answer: &Answer) -> Result<bool, String> {
        if self.sessions.contains(&session) {
            return Ok(true);
        }
        match answer.failure().map(novafs_namespace::Failure::code) {
            Some(Code::Fenced) => Ok(false),
            _ => Err(format!("a fenced session succeeded: {session} was answered {answer:?}")),
        }
    }

    fn take_end(&mut self, end: EndSession, answer: &Answer) -> Result<(), String> {
        if !self.is_open(end.session, answer)? {
            return Ok(());
        }
        self.sessions.remove(&end.session);
        for id in self.reserved(end.session) {
            self.set(id, Use::Gone);
        }
        settle("to end a session", true, answer)
    }

    fn set(&mut self, id: u64, now: Use) {
        self.blocks.get_mut(&id).expect("it was found in this map").now = now;
    }

    fn take_reserve(&mut self, reserve: &ReserveBlocks, answer: &Answer) -> Result<(), String> {
        if !self.is_open(reserve.session, answer)? {
            return Ok(());
        }
        if reserve.groups.is_empty() {
            return settle("to reserve blocks in no group", false, answer);
        }
        let Some(Reply::BlocksReserved(reserved)) = &answer.result else {
            return Err(format!("no blocks were reserved: {answer:?}"));
        };
        if (reserved.count, &reserved.groups) != (reserve.count, &reserve.groups) {
            return Err(format!("other blocks were reserved than asked for: {answer:?}"));
        }
        let groups: Rc<[u32]> = reserved.groups.clone().into();
        for id in reserved.first_block..reserved.first_block + u64::from(reserved.count) {
            let now = Use::Reserved { session: reserve.session };
            if self.blocks.insert(id, Given { groups: Rc::clone(&groups), now }).is_some() {
                return Err(format!("a block id was given twice: {id}"));
            }
        }
        Ok(())
    }

    fn take_publish(&mut self, publish: &Publish, answer: &Answer) -> Result<(), String> {
        if !self.is_open(publish.session, answer)? {
            return Ok(());
        }
        let Some(Reply::Published(published)) = &answer.result else {
            return Err(format!("a publish of an open session was answered {answer:?}"));
        };
        if published.outcomes.len() != publish.files.len() {
            return Err(format!("{} files were published with {answer:?}", publish.files.len()));
        }
        for (file, outcome) in publish.files.iter().zip(&published.outcomes) {
            let fits = self.may_publish(publish, file);
            let part = match &outcome.failure {
                Some(failure) => failure.clone().into(),
                None => novafs_namespace::Done {}.into(),
            };
            settle(&format!("to publish {}", file.path), fits, &part)?;
            if fits {
                self.publish(file, outcome.inode)?;
            }
        }
        Ok(())
    }

    fn may_publish(&self, publish: &Publish, file: &NewFile) -> bool {
        let reserved = file.blocks.iter().all(|block| {
            self.blocks.get(&block.block).is_some_and(|given| {
                given.now == Use::Reserved { session: publish.session } && given.groups.contains(&block.group)
            })
        });
        let parent = parent(&file.path);
        let has_parent = if publish.make_parents { self.may_make(parent) } else { self.is_directory(parent) };
        let has_space = self.is_directory(&file.path[..1 + file.path[1..].find('/').unwrap_or(0)]);
        let free =
            !self.is_directory(&file.path) && (publish.replace || !self.files.contains_key(&file.path));
        reserved && has_parent && has_space && depth(&file.path) > 1 && free
    }

    /// No file stands in the way of making `directory`.
    fn may_make(&self, directory: &str) -> bool {
        let mut at = directory;
        while !at.is_empty() {
            if self.files.contains_key(at) {
                return false;
            }
            at = parent(at);
        }
        true
    }

    fn make(&mut self, directory: &str) {
        let mut at = directory;
        while !self.is_directory(at) {
            if depth(at) == 1 {
                self.policies.insert(at.to_owned(), Policy::default());
            }
            self.directories.insert(at.to_owned());
            self.touched.push(at.to_owned());
            at = parent(at);
        }
    }

    fn publish(&mut self, file: &NewFile, inode: u64) -> Result<(), String> {
        self.make(parent(&file.path));
        if self.files.contains_key(&file.path) {
            self.discard(&file.path);
        }
        for block in &file.blocks {
            self.set(block.block, Use::Published);
        }
        let row = Row {
            inode,
            bytes: file.bytes,
            sha256: digest(&file.sha256),
            blocks: file.blocks.iter().map(|block| (block.block, block.group)).collect(),
            changed_ms: self.clock.max(file.modified_ms),
        };
        self.files.insert(file.path.clone(), row);
        self.touch(&file.path);
        if inode == 0 || !self.inodes.insert(inode) {
            return Err(format!("an inode was given twice: {inode} to {}", file.path));
        }
        Ok(())
    }

    fn take_make(&mut self, make: &MakeDirectory, answer: &Answer) -> Result<(), String> {
        let fits = if make.parents {
            self.may_make(&make.path)
        } else {
            self.is_directory(parent(&make.path)) && !self.exists(&make.path)
        };
        if fits {
            self.make(&make.path);
        }
        settle(&format!("to make {}", make.path), fits, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novafs_namespace::{
        BlocksReserved, Done, Failure, OpenSession, Outcome, Published, Remove, Rename, SessionOpened,
        Undelete,
    };

    fn done() -> Answer {
        Done {}.into()
    }

    fn opened(expected: &mut Expected, session: u64) {
        let answer = Reply::SessionOpened(SessionOpened { session, lease_ms: 1, era: 2 }).into();
        expected.take(&Op::OpenSession(OpenSession { lease_ms: 1 }), &answer).unwrap();
    }

    fn publish(expected: &mut Expected, session: u64, path: &str, inode: u64) -> Result<(), String> {
        let file = NewFile { path: path.into(), ..NewFile::default() };
        let publish = Publish { session, files: vec![file], make_parents: true, replace: false };
        let answer = Reply::Published(Published { outcomes: vec![Outcome { inode, failure: None }] }).into();
        expected.take(&Op::Publish(publish), &answer)
    }

    #[test]
    fn what_a_fenced_session_publishes_is_found() {
        let mut expected = Expected::new();
        opened(&mut expected, 1);
        assert_eq!(publish(&mut expected, 1, "/hot/a/b", 7), Ok(()));
        expected.take(&Op::EndSession(EndSession { session: 1 }), &done()).unwrap();
        assert!(publish(&mut expected, 1, "/hot/c", 8).unwrap_err().contains("a fenced session succeeded"));
        let refused = Failure::new(Code::Fenced, "", "").into();
        assert_eq!(expected.take(&Op::EndSession(EndSession { session: 1 }), &refused), Ok(()));
    }

    #[test]
    fn a_block_id_that_is_given_again_is_found() {
        let mut expected = Expected::new();
        opened(&mut expected, 1);
        let mut reserve = |first_block| {
            let reserve = ReserveBlocks { session: 1, count: 4, groups: vec![1] };
            let reserved = BlocksReserved { first_block, count: 4, groups: vec![1] };
            expected.take(&Op::ReserveBlocks(reserve), &Reply::BlocksReserved(reserved).into())
        };
        assert_eq!(reserve(10), Ok(()));
        assert!(reserve(13).unwrap_err().contains("given twice"));
    }

    #[test]
    fn what_comes_back_from_the_trash_has_its_inode_and_what_was_purged_does_not_come() {
        let mut expected = Expected::new();
        opened(&mut expected, 1);
        publish(&mut expected, 1, "/hot/a/x", 7).unwrap();
        expected
            .take(
                &Op::Remove(Remove { path: "/hot/a".into(), recursive: true, ..Remove::default() }),
                &done(),
            )
            .unwrap();
        assert!(expected.files().is_empty());
        let back = |id| Op::Undelete(Undelete { id, target: "/warm/b".into() });
        expected.take(&back(1), &done()).unwrap();
        assert_eq!(expected.files()["/warm/b/x"].inode, 7);
        assert!(expected.take(&back(1), &done()).is_err(), "it is not in the trash any more");
    }

    #[test]
    fn a_tree_moves_whole_and_a_listing_must_show_what_stayed() {
        let mut expected = Expected::new();
        opened(&mut expected, 1);
        for (inode, path) in (7..).zip(["/hot/a/x", "/hot/a/b/y", "/hot/ab"]) {
            publish(&mut expected, 1, path, inode).unwrap();
        }
        let mark = expected.mark();
        let rename = Rename { source: "/hot/a".into(), target: "/warm/c".into(), ..Rename::default() };
        expected.take(&Op::Rename(rename.clone()), &done()).unwrap();
        let files: Vec<_> = expected.files().keys().map(String::as_str).collect();
        assert_eq!(files, ["/hot/ab", "/warm/c/b/y", "/warm/c/x"]);
        assert!(expected.take(&Op::Rename(rename), &done()).is_err(), "its source is gone");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            expected.judge_listing(mark, "/hot", &names(&["a", "ab"])),
            Ok(()),
            "seen before it moved"
        );
        assert!(expected.judge_listing(mark, "/hot", &names(&["a"])).is_err(), "ab was there all the time");
        assert!(expected.judge_listing(mark, "/hot", &names(&["ab", "z"])).is_err(), "z never was");
    }
}

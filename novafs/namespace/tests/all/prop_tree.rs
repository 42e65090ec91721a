//! Any commands in any order keep the tree whole, and what a simple model says is there is there.

use std::collections::BTreeMap;

use nova_units::InodeId;
use novafs_namespace::{
    Block, CloseFile, Code, CommitFile, EndSession, Kind, Link, ListAsk, MakeDirectory, MakeSymlink,
    Namespace, NewFile, Op, OpenFile, OpenSession, Publish, Purge, PurgeTrash, Remove, Rename, Reply,
    ReserveBlocks, SetQuota, Sweep, Truncate, Undelete,
};
use proptest::prelude::*;

use crate::kit::{Log, block, check, places};

#[derive(Clone, Debug)]
enum Step {
    Open,
    End(u64),
    Reserve(u64, u32),
    Publish { session: u64, paths: Vec<String>, first_block: u64, replace: bool },
    Make(String, bool),
    Rename { source: String, target: String, replace: bool, exchange: bool },
    Remove(String, bool),
    Link(String, String),
    Symlink(String),
    OpenFile { session: u64, path: String, truncate: bool },
    Commit { session: u64, path: String, blocks: u64, bytes: u64, trim: bool, close: bool },
    Close(u64, String),
    Truncate { session: u64, path: String, bytes: u64 },
    Quota(String, u64, u64),
    Undelete(u64, String),
    PurgeTrash(u64),
    Purge,
    Sweep(u32),
}

fn path() -> impl Strategy<Value = String> {
    let space = prop_oneof![4 => Just("hot"), 2 => Just("warm"), 1 => Just("mine"), 1 => Just("..")];
    (space, prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..4)).prop_map(
        |(space, names)| names.iter().fold(format!("/{space}"), |path, name| format!("{path}/{name}")),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 1..4_u64;
    let changes = prop_oneof![
        1 => Just(Step::Open),
        1 => session().prop_map(Step::End),
        3 => (session(), 0..6_u32).prop_map(|(session, count)| Step::Reserve(session, count)),
        8 => (session(), prop::collection::vec(path(), 0..4), 0..30_u64, any::<bool>()).prop_map(
            |(session, paths, first_block, replace)| Step::Publish { session, paths, first_block, replace }
        ),
        4 => (path(), any::<bool>()).prop_map(|(path, parents)| Step::Make(path, parents)),
        6 => (path(), path(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(source, target, replace, exchange)| Step::Rename { source, target, replace, exchange }
        ),
        4 => (path(), any::<bool>()).prop_map(|(path, recursive)| Step::Remove(path, recursive)),
        5 => (path(), path()).prop_map(|(source, target)| Step::Link(source, target)),
        1 => path().prop_map(Step::Symlink),
    ];
    let writes = prop_oneof![
        5 => (session(), path(), prop::bool::weighted(0.2)).prop_map(
            |(session, path, truncate)| Step::OpenFile { session, path, truncate }
        ),
        6 => (session(), path(), 0..3_u64, 0..40_u64, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(session, path, blocks, bytes, trim, close)| Step::Commit { session, path, blocks, bytes, trim, close }
        ),
        1 => (session(), path()).prop_map(|(session, path)| Step::Close(session, path)),
        2 => (session(), path(), 0..60_u64).prop_map(
            |(session, path, bytes)| Step::Truncate { session, path, bytes }
        ),
    ];
    let upkeep = prop_oneof![
        2 => (path(), 0..80_u64, 0..9_u64).prop_map(|(path, bytes, files)| Step::Quota(path, bytes, files)),
        2 => (0..8_u64, path()).prop_map(|(id, path)| Step::Undelete(id, path)),
        1 => (0..8_u64).prop_map(Step::PurgeTrash),
        1 => Just(Step::Purge),
        2 => (0..4_u32).prop_map(Step::Sweep),
    ];
    prop_oneof![6 => changes, 3 => writes, 1 => upkeep]
}

/// Blocks of this test lie at multiples of this, so that a few bytes make holes.
const GAP: u64 = 25;

fn op(step: &Step, log: &Log) -> Op {
    let inode = |path: &str| log.namespace.stat(0, path).map_or(0, |view| view.inode.0);
    match step.clone() {
        Step::Open => Op::OpenSession(OpenSession { lease_ms: 0 }),
        Step::End(session) => Op::EndSession(EndSession { session }),
        Step::Reserve(session, count) => {
            Op::ReserveBlocks(ReserveBlocks { session, count, groups: vec![1, 2] })
        }
        Step::Publish { session, paths, first_block, replace } => {
            let first = (1 << 48) + first_block;
            let files = (first..)
                .zip(paths)
                .map(|(id, path)| NewFile {
                    bytes: 10,
                    blocks: vec![block(id, 0, 10)],
                    ..crate::kit::file(&path, 0, 0)
                })
                .collect();
            Op::Publish(Publish { session, files, make_parents: true, replace })
        }
        Step::Make(path, parents) => {
            Op::MakeDirectory(MakeDirectory { path, parents, ..MakeDirectory::default() })
        }
        Step::Rename { source, target, replace, exchange } => {
            Op::Rename(Rename { source, target, replace, exchange, ..Rename::default() })
        }
        Step::Remove(path, recursive) => Op::Remove(Remove { path, recursive, ..Remove::default() }),
        Step::Link(source, target) => Op::Link(Link { source, target, ..Link::default() }),
        Step::Symlink(path) => {
            Op::MakeSymlink(MakeSymlink { path, target: "x".into(), ..MakeSymlink::default() })
        }
        Step::OpenFile { session, path, truncate } => {
            Op::OpenFile(OpenFile { session, path, truncate, create: true, ..OpenFile::default() })
        }
        Step::Commit { session, path, blocks, bytes, trim, close } => {
            commit(log, session, &path, (blocks, bytes), trim, close)
        }
        Step::Close(session, path) => Op::CloseFile(CloseFile { session, inode: inode(&path) }),
        Step::Truncate { session, path, bytes } => {
            Op::Truncate(Truncate { session, inode: inode(&path), bytes })
        }
        Step::Quota(path, bytes_max, files_max) => {
            Op::SetQuota(SetQuota { path, bytes_max, files_max, ..SetQuota::default() })
        }
        Step::Undelete(id, target) => Op::Undelete(Undelete { id, target }),
        Step::PurgeTrash(id) => Op::PurgeTrash(PurgeTrash { id }),
        Step::Purge => Op::Purge(Purge { limit: 2, now_ms: 0, early: true }),
        Step::Sweep(limit) => Op::Sweep(Sweep { limit }),
    }
}

/// What a writer would commit: the first blocks of the file with `bytes` bytes each, new ones out of the reservation.
fn commit(log: &Log, session: u64, path: &str, (blocks, bytes): (u64, u64), trim: bool, close: bool) -> Op {
    let mut commit = CommitFile { session, close, ..CommitFile::default() };
    if let Ok((inode, view)) = log.namespace.open(0, path) {
        let held = &inode.file().unwrap().blocks;
        commit.inode = view.inode.0;
        commit.bytes = view.bytes;
        commit.trimmed = held.iter().filter(|_| trim).map(|block| block.block.0).collect();
        let reserved = log.namespace.session(nova_units::SessionId(session)).into_iter();
        let mut fresh = reserved.flat_map(|session| session.reserved.keys().copied());
        for number in 0..blocks {
            let offset = number * GAP;
            let old = held.iter().find(|block| block.offset == offset).map(|block| block.block);
            let Some(id) = old.or_else(|| fresh.next()) else { break };
            let given = Block { generation: inode.turn.0, ..block(id.0, offset, bytes.clamp(1, GAP)) };
            commit.bytes = commit.bytes.max(offset + given.bytes);
            commit.blocks.push(given);
        }
    }
    Op::CommitFile(commit)
}

/// Paths and what they name: as simple as it can be said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    names: BTreeMap<String, u64>,
    /// Kind and length.
    inodes: BTreeMap<u64, (Kind, u64)>,
}

impl Model {
    fn is_below(path: &str, above: &str) -> bool {
        path == above || path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
    }

    fn drop_tree(&mut self, path: &str) {
        self.names.retain(|name, _| !Self::is_below(name, path));
    }

    fn move_tree(&mut self, source: &str, target: &str) {
        let moved: Vec<_> = self
            .names
            .iter()
            .filter(|(name, _)| Self::is_below(name, source))
            .map(|(n, i)| (n.clone(), *i))
            .collect();
        self.drop_tree(source);
        self.names.extend(
            moved.into_iter().map(|(name, inode)| (format!("{target}{}", &name[source.len()..]), inode)),
        );
    }

    fn add(&mut self, path: &str, inode: u64, kind: Kind, bytes: u64) {
        self.names.insert(path.to_owned(), inode);
        self.inodes.insert(inode, (kind, bytes));
    }

    /// Directories on the way to `path` that are missing; their inodes are taken from what is there.
    fn add_parents(&mut self, path: &str, namespace: &Namespace) {
        for (at, _) in path.match_indices('/').skip(1) {
            let parent = &path[..at];
            if !self.names.contains_key(parent) {
                self.add(parent, namespace.stat(0, parent).unwrap().inode.0, Kind::Directory, 0);
            }
        }
    }

    /// What a command that was carried out does.
    fn apply(&mut self, op: &Op, reply: &Reply, namespace: &Namespace) {
        match (op, reply) {
            (Op::Publish(publish), Reply::Published(published)) => {
                for (file, outcome) in publish.files.iter().zip(&published.outcomes) {
                    if outcome.failure.is_none() {
                        self.add_parents(&file.path, namespace);
                        self.add(&file.path, outcome.inode, Kind::File, file.bytes);
                    }
                }
            }
            (Op::MakeDirectory(make), _) if make.path != "/" => {
                self.add_parents(&format!("{}/", make.path), namespace);
            }
            (Op::Rename(rename), _) if rename.source != rename.target => {
                let (source, target) = (self.names[&rename.source], self.names.get(&rename.target));
                if rename.exchange && target != Some(&source) {
                    self.move_tree(&rename.source, "/aside");
                    self.move_tree(&rename.target, &rename.source);
                    self.move_tree("/aside", &rename.target);
                } else if target != Some(&source) {
                    self.drop_tree(&rename.target);
                    self.move_tree(&rename.source, &rename.target);
                }
            }
            (Op::Remove(remove), _) => self.drop_tree(&remove.path),
            (Op::Link(link), Reply::Touched(touched)) => {
                self.names.insert(link.target.clone(), touched.inode);
            }
            (Op::MakeSymlink(make), Reply::Touched(touched)) => {
                self.add(&make.path, touched.inode, Kind::Symlink, make.target.len() as u64);
            }
            (Op::OpenFile(open), Reply::Opened(opened)) if opened.created || open.truncate => {
                self.add(&open.path, opened.inode, Kind::File, 0);
            }
            (Op::CommitFile(commit), _) => {
                self.inodes.insert(commit.inode, (Kind::File, commit.bytes));
            }
            (Op::Truncate(truncate), _) => {
                self.inodes.insert(truncate.inode, (Kind::File, truncate.bytes));
            }
            // What comes back is as it is found; what is checked is that nothing else changed.
            (Op::Undelete(undelete), _) => {
                self.add_parents(&undelete.target, namespace);
                let mut found = Self::default();
                found.read(namespace, &undelete.target);
                let view = namespace.stat(0, &undelete.target).unwrap();
                self.add(
                    &undelete.target,
                    view.inode.0,
                    view.kind,
                    if view.kind == Kind::Directory { 0 } else { view.bytes },
                );
                self.names.extend(found.names);
                self.inodes.extend(found.inodes);
            }
            _ => {}
        }
    }

    /// What is below `path`.
    fn read(&mut self, namespace: &Namespace, path: &str) {
        let Ok(page) = namespace.list(&ListAsk { path, ..ListAsk::default() }) else { return };
        for entry in page.entries {
            let below = format!("{}/{}", path.trim_end_matches('/'), entry.name);
            let bytes = if entry.kind == Kind::Directory { 0 } else { entry.bytes };
            self.add(&below, entry.inode.0, entry.kind, bytes);
            self.read(namespace, &below);
        }
    }

    /// Forgets inodes without names.
    fn tidy(mut self) -> Self {
        let named: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        self
    }
}

/// A command that only adds was carried out: no quota above is exceeded that it brought nearer.
fn check_quotas(op: &Op, before: &Namespace, after: &Namespace) {
    let adds = match op {
        Op::Publish(publish) => !publish.replace,
        Op::MakeDirectory(_) | Op::Link(_) | Op::CommitFile(_) | Op::Undelete(_) | Op::MakeSymlink(_) => true,
        Op::OpenFile(open) => !open.truncate,
        _ => false,
    };
    if !adds {
        return;
    }
    for (id, inode) in after.inodes() {
        let Some(now) = inode.as_directory() else { continue };
        let was = before.usage(id.0, "").map(|(totals, _)| totals).unwrap_or_default();
        let over = |held: u64, held_before: u64, max: u64| max != 0 && held > max && held > held_before;
        assert!(!over(now.totals.bytes, was.bytes, now.quota.bytes_max), "bytes of {id} after {op:?}");
        assert!(!over(now.totals.names(), was.names(), now.quota.files_max), "files of {id} after {op:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_the_tree_whole(steps in prop::collection::vec((step(), 0..3_u64), 0..60)) {
        let mut log = Log::default();
        log.open();
        log.open();
        log.reserve(1, 8);
        log.reserve(2, 8);
        let mut twin = log.clone();
        let mut model = Model::default();
        model.read(&log.namespace, "/");
        for (number, (step, client)) in steps.iter().enumerate() {
            let sequence = number as u64 / 2;
            let before = log.namespace.clone();
            let op = op(step, &log);
            let repeated = *client != 0 && before.remembered(*client, sequence).is_some();
            let answer = log.apply_from(*client, sequence, op.clone());
            prop_assert_eq!(&twin.apply_from(*client, sequence, op.clone()), &answer, "apply is deterministic");
            if answer.failure().is_some_and(|failure| failure.code() != Code::Unspecified) || repeated {
                prop_assert_eq!(before.inodes().collect::<Vec<_>>(), log.namespace.inodes().collect::<Vec<_>>(),
                    "a refused command changes nothing");
            } else {
                model.apply(&op, answer.result.as_ref().unwrap(), &log.namespace);
                check_quotas(&op, &before, &log.namespace);
            }
            check(&log.namespace);
            let mut found = Model::default();
            found.read(&log.namespace, "/");
            model = model.tidy();
            prop_assert_eq!(&found, &model);
        }
        prop_assert_eq!(&twin.namespace, &log.namespace);
        let mut bytes = Vec::new();
        log.namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
        prop_assert_eq!(&Namespace::decode(&bytes).unwrap(), &log.namespace);
        let known: Vec<_> = places(&log.namespace).into_keys().collect();
        log.empty_trash();
        for _ in 0..100 {
            log.apply(Op::Sweep(Sweep { limit: 2 }));
        }
        prop_assert!(!log.namespace.has_sweep());
        check(&log.namespace);
        prop_assert_eq!(known, places(&log.namespace).into_keys().collect::<Vec<_>>(), "no block is lost");
        let unnamed = |(id, inode): &(InodeId, &novafs_namespace::Inode)| inode.parent == InodeId(0) && id.0 != 1;
        prop_assert_eq!(log.namespace.inodes().filter(unnamed).count(), 0);
    }
}

//! Hosts of programs that keep files: each has the real edge, a client of the file metadata, and programs that put and
//! browse. They are killed and started again, and cut off.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{KillMode, MemShard, World};
use nova_device::{Clock, Shard};
use nova_units::{BlockId, BootId, NodeId, TaskClass};
use novafs_edge::{Edge, EdgeError, EdgeOptions, Keyring, ReadRequest};
use novafs_format::SealedUnit;
use novafs_format::seal::{CipherKind, DomainKey};
use novafs_namespace::{EntryView, Inode, StoredBlock};
use sha2::{Digest, Sha256};

use crate::cluster::bare_host;
use crate::controller::{CONTROLLER, Controller};
use crate::files_group::FilesGroup;
use crate::history::History;
use crate::metadata::Metadata;
use crate::net::{Net, SimPeers};
use crate::rest::Held;

pub(crate) type RealEdge = Edge<MemShard, SimPeers>;

/// Hosts of programs, and the number of the first.
const HOSTS: u64 = 2;
const FIRST_HOST: u64 = 111;
const POOL_BYTES: u64 = 16 << 20;
/// How often a host looks for a new map.
const MAP_EVERY: Duration = Duration::from_millis(40);
/// Files that are put in a run, apart from the last ones of each program.
const FILES_MAX: u64 = 60;

/// What all hosts of programs share.
#[derive(Debug)]
pub(crate) struct Files {
    net: Rc<Net>,
    controller: Rc<Controller>,
    pub(crate) group: Rc<FilesGroup>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) stopping: Rc<Cell<bool>>,
    /// Longest file, in bytes.
    pub(crate) bytes_max: u64,
    drift_ppm: i32,
    shared: Shared,
}

/// What comes up while programs run.
#[derive(Debug)]
struct Shared {
    /// Every content that was ever made, by its digest.
    contents: RefCell<BTreeMap<[u8; 32], Rc<Vec<u8>>>>,
    /// The host and the session that wrote a block.
    writers: RefCell<BTreeMap<BlockId, (NodeId, u64)>>,
    files_left: Cell<u64>,
    /// Programs that have not ended, by number.
    programs: RefCell<BTreeMap<u64, String>>,
    programs_begun: Cell<u64>,
    up: RefCell<BTreeMap<NodeId, Rc<FileHost>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            contents: RefCell::default(),
            writers: RefCell::default(),
            files_left: Cell::new(FILES_MAX),
            programs: RefCell::default(),
            programs_begun: Cell::new(0),
            up: RefCell::default(),
        }
    }
}

/// A host of programs in one of its lives.
#[derive(Debug)]
pub(crate) struct FileHost {
    pub(crate) node: NodeId,
    pub(crate) shard: MemShard,
    pub(crate) edge: Rc<RealEdge>,
    pub(crate) metadata: Metadata,
    pub(crate) files: Rc<Files>,
}

/// A program that runs; it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    files: Rc<Files>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.files.shared.programs.borrow_mut().remove(&self.number);
    }
}

impl Files {
    /// Before any host is started.
    pub(crate) fn new(
        (net, controller, group): (&Rc<Net>, &Rc<Controller>, &Rc<FilesGroup>),
        history: &Rc<RefCell<History>>,
        stopping: &Rc<Cell<bool>>,
        bytes_max: u64,
        drift_ppm: i32,
    ) -> Rc<Self> {
        Rc::new(Self {
            net: Rc::clone(net),
            controller: Rc::clone(controller),
            group: Rc::clone(group),
            history: Rc::clone(history),
            stopping: Rc::clone(stopping),
            bytes_max,
            drift_ppm,
            shared: Shared::default(),
        })
    }

    /// The hosts of programs.
    pub(crate) fn nodes() -> impl Iterator<Item = NodeId> {
        (FIRST_HOST..FIRST_HOST + HOSTS).map(NodeId)
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.shared.up.borrow().contains_key(&node)
    }

    /// Starts a host that is down, as one that nobody knows.
    pub(crate) fn start(self: &Rc<Self>, world: &World, node: NodeId) {
        if self.is_up(node) {
            return;
        }
        let shard = bare_host(world, node, self.drift_ppm, POOL_BYTES);
        let peers = SimPeers { net: Rc::clone(&self.net), me: node, shard: shard.clone() };
        // Each host has another cipher: one opens what the other sealed.
        let cipher = if node.0 == FIRST_HOST { CipherKind::AwsLc } else { CipherKind::AesGcm };
        let keys = Keyring::of(DomainKey::new(1, 1, [9; 32]).with_cipher(cipher));
        let options = EdgeOptions {
            deadline: Duration::from_secs(8),
            attempt: Duration::from_millis(1_200),
            ..EdgeOptions::default()
        };
        let host = Rc::new(FileHost {
            node,
            edge: Edge::new(shard.clone(), peers, keys, options),
            metadata: Metadata::new(node, &shard, &self.group),
            files: Rc::clone(self),
            shard: shard.clone(),
        });
        shard.spawn(TaskClass::Control, Rc::clone(&host).follow_map());
        shard.spawn(TaskClass::Client, Rc::clone(&host).run_put(self.begin(node, "puts")));
        shard.spawn(TaskClass::Client, Rc::clone(&host).run_browse(self.begin(node, "browses")));
        self.shared.up.borrow_mut().insert(node, host);
    }

    /// Ends a host at once: what it had written and not published is nobody's.
    pub(crate) fn kill(&self, world: &World, node: NodeId) {
        let host = self.shared.up.borrow_mut().remove(&node);
        if let Some(host) = host {
            world.kill(&host.shard, KillMode::Process);
        }
    }

    /// Stops a host of programs that runs.
    pub(crate) fn stop(&self, world: &World, node: NodeId) {
        if let Some(host) = self.shared.up.borrow().get(&node) {
            world.stop(&host.shard);
        }
    }

    /// Lets it go on, if it was not killed meanwhile.
    pub(crate) fn resume(&self, world: &World, node: NodeId) {
        if let Some(host) = self.shared.up.borrow().get(&node) {
            world.resume(&host.shard);
        }
    }

    /// Parts everything that knows each other, so that it is freed.
    pub(crate) fn end(&self, world: &World) {
        for node in Self::nodes() {
            self.kill(world, node);
        }
    }

    fn begin(self: &Rc<Self>, node: NodeId, what: &str) -> Running {
        let number = self.shared.programs_begun.get();
        self.shared.programs_begun.set(number + 1);
        self.shared.programs.borrow_mut().insert(number, format!("{node} {what}"));
        Running { files: Rc::clone(self), number }
    }

    /// Programs that have not ended.
    pub(crate) fn running(&self) -> Vec<String> {
        self.shared.programs.borrow().values().cloned().collect()
    }

    /// Whether another file may be put before the end; it is counted.
    pub(crate) fn take_file(&self) -> bool {
        let left = self.shared.files_left.get();
        self.shared.files_left.set(left.saturating_sub(1));
        left > 0
    }

    pub(crate) fn violation(&self, what: String) {
        self.history.borrow_mut().violation(what);
    }

    /// Notes a content that may be published; its digest.
    pub(crate) fn note_content(&self, content: Vec<u8>) -> ([u8; 32], Rc<Vec<u8>>) {
        let digest: [u8; 32] = Sha256::digest(&content).into();
        let content = Rc::new(content);
        self.shared.contents.borrow_mut().insert(digest, Rc::clone(&content));
        (digest, content)
    }

    /// Notes who writes a block.
    pub(crate) fn note_writer(&self, block: BlockId, node: NodeId, session: u64) {
        self.shared.writers.borrow_mut().insert(block, (node, session));
    }

    /// Keys come from salts: no two sessions may have sealed under the same; what is wrong.
    pub(crate) fn check_salts(&self, held: &Held) -> Vec<String> {
        let writers = self.shared.writers.borrow();
        let mut owners: BTreeMap<[u8; 16], u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (_, (_, encoded, _)) in held.values().flatten().flat_map(|(_, copies)| copies) {
            let Ok(unit) = SealedUnit::decode(encoded) else { continue };
            let Some((_, session)) = writers.get(&unit.block) else { continue };
            if *owners.entry(unit.salt).or_insert(*session) != *session {
                wrong.push(format!("a salt was used by two sessions: {:?}", unit.salt));
            }
        }
        wrong
    }

    /// Reads every file through the edge of another host than wrote it; what is wrong.
    pub(crate) fn read_all(&self, world: &World) -> Vec<String> {
        let namespace = self.group.namespace();
        let paths: Vec<String> = self.group.expected().files().keys().cloned().collect();
        let mut wrong = Vec::new();
        for path in paths {
            let (inode, entry) = match namespace.open(0, &path) {
                Ok(found) => found,
                Err(failure) => {
                    wrong.push(format!("{path} cannot be opened at rest: {failure:?}"));
                    continue;
                }
            };
            let writer =
                blocks_of(&inode).first().and_then(|it| self.shared.writers.borrow().get(&it.block).copied());
            let writer = writer.map(|(node, _)| node);
            let reader = self.shared.up.borrow().values().find(|host| Some(host.node) != writer).cloned();
            let Some(reader) = reader else {
                wrong.push(format!("no other host than {writer:?} runs at rest"));
                continue;
            };
            let (shard, of) = (reader.shard.clone(), path.clone());
            let read = world.run(&shard, async move { reader.read_file(&of, &entry, &inode).await });
            if let Err(error) = read {
                wrong.push(format!("{path} cannot be read at rest: {error}"));
            }
        }
        wrong
    }
}

/// The blocks of a file.
pub(crate) fn blocks_of(inode: &Inode) -> &[StoredBlock] {
    inode.file().map_or(&[], |file| &file.blocks)
}

impl FileHost {
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.shard.random() % bound.max(1)
    }

    /// One time in `n`.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) async fn pause_ms(&self, most: u64) {
        let clock = self.shard.clock();
        clock.sleep_until(clock.now() + Duration::from_millis(self.below(most))).await;
    }

    async fn follow_map(self: Rc<Self>) {
        let clock = self.shard.clock();
        let controller = &self.files.controller;
        let mut known = 0;
        loop {
            let version = controller.version.get();
            if version != known && self.files.net.travel(CONTROLLER, self.node).await {
                // The map as it is now may be newer than the version that was seen.
                let map = controller.configuration(self.node, BootId(0), Duration::ZERO);
                self.edge.configure(Rc::new(map));
                known = version;
            }
            clock.sleep_until(clock.now() + MAP_EVERY).await;
        }
    }

    /// Reads a file whole and compares it with what was published.
    ///
    /// # Errors
    /// When some block could not be read; wrong bytes are a violation.
    pub(crate) async fn read_file(
        &self,
        path: &str,
        entry: &EntryView,
        inode: &Inode,
    ) -> Result<(), EdgeError> {
        let mut content = vec![0; usize::try_from(entry.bytes).expect("files are small here")];
        for block in blocks_of(inode) {
            let at = usize::try_from(block.offset).expect("files are small here");
            let part = &mut content[at..at + block.bytes as usize];
            if let Err(error) = self.read_block(block, part).await {
                if matches!(error, EdgeError::Missing { .. } | EdgeError::Corrupt { .. }) {
                    self.files.violation(format!("{path} of {}: {error}", entry.inode));
                }
                return Err(error);
            }
        }
        let published = entry.sha256.and_then(|sha| self.files.shared.contents.borrow().get(&sha).cloned());
        match published {
            Some(published) if *published == content => {}
            Some(_) => self.files.violation(format!("{path} was read with other bytes than were published")),
            None => self.files.violation(format!("{path} has a content that nobody made")),
        }
        self.files.history.borrow_mut().counts.files_read += 1;
        Ok(())
    }

    async fn read_block(&self, block: &StoredBlock, into: &mut [u8]) -> Result<(), EdgeError> {
        let request = ReadRequest {
            group: block.group,
            block: block.block,
            key: (block.key_domain, block.key_version),
            unit_log2: block.unit_log2,
            block_bytes: block.bytes.into(),
            offset: 0,
            bytes: block.bytes.into(),
            sparse: block.sparse,
        };
        let give = |at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).expect("blocks are small here");
            into[at..at + bytes.len()].copy_from_slice(bytes);
        };
        self.edge.read(&request, give).await
    }
}

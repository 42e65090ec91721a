//! Files through the real edge: written once, closed, and read back by another edge, during the faults and at rest.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::MemShard;
use nova_device::{Clock, Shard};
use nova_units::{BlockId, Generation, GroupId};
use novafs_edge::{Edge, EdgeError, ReadRequest, WriteRequest};

use crate::edge::SimEdge;
use crate::net::SimPeers;

pub(crate) type RealEdge = Edge<MemShard, SimPeers>;

/// Files that are made in a run.
const FILES_MAX: u64 = 40;
const GENERATION: Generation = Generation(1);

/// A file that was closed: every byte of it was acknowledged.
#[derive(Clone, Debug)]
struct File {
    request: ReadRequest,
    content: Rc<Vec<u8>>,
}

/// Writes and reads files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) writer: Rc<RealEdge>,
    pub(crate) reader: Rc<RealEdge>,
    /// Whose map and history they share.
    pub(crate) host: Rc<SimEdge>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) bytes_max: u64,
    closed: RefCell<Vec<File>>,
}

impl Files {
    pub(crate) fn new(
        writer: Rc<RealEdge>,
        reader: Rc<RealEdge>,
        host: Rc<SimEdge>,
        groups: Vec<GroupId>,
        bytes_max: u64,
    ) -> Self {
        Self { writer, reader, host, groups, bytes_max, closed: RefCell::default() }
    }

    fn below(&self, bound: u64) -> u64 {
        self.host.shard.random() % bound.max(1)
    }

    fn violation(&self, what: String) {
        self.host.history.borrow_mut().violation(what);
    }

    /// Makes files until the run ends, and reads some file after each.
    pub(crate) async fn run(self: Rc<Self>) {
        let clock = self.host.shard.clock();
        for number in 0..FILES_MAX {
            if self.host.stopping.get() {
                return;
            }
            self.make(BlockId::new(2, number)).await;
            let count = self.closed.borrow().len() as u64;
            let chosen = usize::try_from(self.below(count)).expect("few files");
            let file = self.closed.borrow().get(chosen).cloned();
            if let Some(file) = file {
                // During faults it may not be readable; what is read is judged.
                let _ = self.read(&file).await;
            }
            clock.sleep_until(clock.now() + Duration::from_millis(self.below(400))).await;
        }
    }

    /// Writes a file and closes it. A write that fails leaves a file nobody may rely on, as a program would.
    async fn make(&self, block: BlockId) {
        let index = usize::try_from(self.below(self.groups.len() as u64)).expect("few groups");
        let group = self.groups[index];
        let unit_log2 = 12 + u8::try_from(self.below(5)).expect("small");
        let bytes = usize::try_from(1 + self.below(self.bytes_max)).expect("small");
        let mut content = vec![0; bytes];
        fastrand::Rng::with_seed(self.host.shard.random()).fill(&mut content);
        let Ok(opened) = self.writer.open_writer() else { return };
        let step = 4_usize << unit_log2;
        let mut written = Ok(());
        for (index, part) in content.chunks(step).enumerate() {
            let request = WriteRequest {
                writer: opened.writer,
                group,
                block,
                generation: GENERATION,
                unit_log2,
                offset: (index * step) as u64,
                block_bytes: (index * step) as u64,
                source: Rc::new(part.to_vec()),
            };
            written = self.writer.write(request).await;
            if written.is_err() {
                break;
            }
        }
        if written.is_ok()
            && let Ok(summary) = self.writer.close_block(opened.writer, block, GENERATION, bytes as u64)
        {
            let request = ReadRequest {
                group,
                block,
                key: summary.key,
                unit_log2,
                block_bytes: bytes as u64,
                offset: 0,
                bytes: bytes as u64,
                sparse: false,
            };
            self.host.history.borrow_mut().counts.files += 1;
            self.closed.borrow_mut().push(File { request, content: Rc::new(content) });
        }
        self.writer.close_writer(opened.writer);
    }

    /// Whether the file was read; its bytes are compared.
    async fn read(&self, file: &File) -> Result<(), EdgeError> {
        let mut content = vec![0; file.content.len()];
        let read = self
            .reader
            .read(&file.request, |at, bytes| {
                let at = usize::try_from(at).expect("a small file");
                content[at..at + bytes.len()].copy_from_slice(bytes);
            })
            .await;
        match &read {
            Ok(()) if content != *file.content => {
                self.violation(format!("{} was read with other bytes than were written", file.request.block));
            }
            Err(EdgeError::Missing { .. } | EdgeError::Corrupt { .. }) => {
                self.violation(format!("{} {:?}", file.request.block, read));
            }
            _ => {}
        }
        read
    }

    /// Reads every file there is; what cannot be read.
    pub(crate) async fn read_all(self: Rc<Self>) -> Vec<String> {
        let files = self.closed.borrow().clone();
        let mut wrong = Vec::new();
        for file in &files {
            if let Err(error) = self.read(file).await {
                wrong.push(format!("{} cannot be read at rest: {error}", file.request.block));
            }
        }
        wrong
    }
}

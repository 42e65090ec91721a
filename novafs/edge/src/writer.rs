//! Writers and the blocks they have open: the counts that keep nonces unique, and the digests of the units.
//!
//! A nonce must not meet the same key twice. The key comes from (salt, block, generation), the nonce from (unit,
//! counter). A salt belongs to one writer, in memory only, and a writer has **one** count for everything that it seals:
//! it only grows, whatever is closed, forgotten and opened again. So no two seals of a salt share a counter.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use nova_units::{BlockId, Generation, GroupId, UnitIndex};
use novafs_format::digest::{BlockDigest, BlockHeader};
use novafs_format::seal::{BlockKey, SUITE_AES256GCM_SHA256_CRC32};
use novafs_format::{Cut, SealedUnit};

use crate::order::Order;
use crate::{EdgeError, HeldKey};

/// Most writers of an edge at once, of all programs together.
pub const WRITERS_MAX: usize = 16_384;

/// A writer of this edge; the number is not used again while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u64);

/// What a program needs to write and, later, to publish what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOpened {
    /// Names the writer in every write.
    pub writer: WriterId,
    /// Domain and version of the key that everything of it is sealed with.
    pub key: (u32, u32),
}

/// The sums of a closed block, for its file's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// SHA-256 over the block's header and the digests of its segments (Spec C.1, 3.7).
    pub root: [u8; 32],
    /// How many units it holds.
    pub units: usize,
    /// Domain and version of the key that sealed it.
    pub key: (u32, u32),
}

/// A block while it is written.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    pub(crate) id: BlockId,
    pub(crate) group: GroupId,
    generation: Generation,
    salt: [u8; 16],
    pub(crate) unit_log2: u8,
    pub(crate) key: BlockKey,
    pub(crate) key_name: (u32, u32),
    /// Of the writer: one count for all of its blocks.
    next_counter: Rc<Cell<u64>>,
    pub(crate) order: Rc<Order>,
    /// A cut was sent, and nobody knows whether it was taken: it could still take away what is written now.
    pub(crate) uncut: Cell<bool>,
    digest: RefCell<BlockDigest>,
    end: Cell<u64>,
}

impl OpenBlock {
    /// The next seal's counter. Never given out twice for a salt, whatever becomes of the write.
    pub(crate) fn take_counter(&self) -> u64 {
        let counter = self.next_counter.get();
        self.next_counter.set(counter.checked_add(1).expect("2^64 seals of one writer"));
        counter
    }

    /// Now, in the count of this writer.
    pub(crate) fn cut_now(&self) -> Cut {
        Cut { generation: self.generation, counter: self.take_counter(), salt: self.salt }
    }

    /// How far this writer has sealed the block.
    pub(crate) fn end(&self) -> u64 {
        self.end.get()
    }

    /// The block ends at `bytes`; units from `from` on are gone.
    pub(crate) fn note_cut(&self, bytes: u64, from: UnitIndex) {
        self.digest.borrow_mut().truncate(from);
        self.end.set(self.end.get().min(bytes));
    }

    /// Notes the digest of a sealed unit, and how far the block reaches with it.
    pub(crate) fn note(&self, sealed: &SealedUnit) {
        self.digest.borrow_mut().set(sealed.unit, sealed.digest);
        let end = (u64::from(sealed.unit.0) << self.unit_log2) + u64::from(sealed.plain_bytes);
        self.end.set(self.end.get().max(end));
    }
}

#[derive(Debug)]
struct Writer {
    salt: [u8; 16],
    /// Of all its blocks: a rotation changes nothing for a writer that is open. Or why it is not here any more.
    key: Result<Rc<HeldKey>, EdgeError>,
    next_counter: Rc<Cell<u64>>,
    blocks: HashMap<(BlockId, Generation), Rc<OpenBlock>>,
}

/// All writers of the edge.
#[derive(Debug)]
pub(crate) struct Writers {
    next: Cell<u64>,
    open: RefCell<HashMap<WriterId, Writer>>,
    blocks: Cell<usize>,
    blocks_max: usize,
}

impl Writers {
    pub(crate) fn new(blocks_max: usize) -> Self {
        Self { next: Cell::new(1), open: RefCell::default(), blocks: Cell::new(0), blocks_max }
    }

    pub(crate) fn open(&self, salt: [u8; 16], key: Rc<HeldKey>) -> Result<WriterOpened, EdgeError> {
        let open = self.open.borrow().len();
        if open >= WRITERS_MAX {
            return Err(EdgeError::TooManyWriters { open });
        }
        let name = (key.domain(), key.version());
        let writer = WriterId(self.next.get());
        self.next.set(writer.0 + 1);
        let opened =
            Writer { salt, key: Ok(key), next_counter: Rc::new(Cell::new(1)), blocks: HashMap::new() };
        self.open.borrow_mut().insert(writer, opened);
        Ok(WriterOpened { writer, key: name })
    }

    pub(crate) fn close(&self, writer: WriterId) {
        if let Some(writer) = self.open.borrow_mut().remove(&writer) {
            self.blocks.set(self.blocks.get() - writer.blocks.len());
        }
    }

    /// Forgets keys, and all that writers have open under them; `gone` says why of a domain and version.
    pub(crate) fn forget_keys(&self, gone: impl Fn(u32, u32) -> Option<EdgeError>) {
        for writer in self.open.borrow_mut().values_mut() {
            let why = writer.key.as_ref().ok().and_then(|key| gone(key.domain(), key.version()));
            if let Some(why) = why {
                writer.key = Err(why);
                self.blocks.set(self.blocks.get() - writer.blocks.len());
                writer.blocks.clear();
            }
        }
    }

    /// The block's state, made at its first write: that is when its key is derived.
    pub(crate) fn block(
        &self,
        writer: WriterId,
        (group, block, generation): (GroupId, BlockId, Generation),
        unit_log2: u8,
    ) -> Result<Rc<OpenBlock>, EdgeError> {
        let mut open = self.open.borrow_mut();
        let writer = open.get_mut(&writer).ok_or(EdgeError::UnknownWriter)?;
        if let Some(found) = writer.blocks.get(&(block, generation)) {
            if (found.unit_log2, found.group) != (unit_log2, group) {
                return Err(EdgeError::Invalid("the unit size and group of an open block cannot change"));
            }
            return Ok(Rc::clone(found));
        }
        if self.blocks.get() >= self.blocks_max {
            return Err(EdgeError::TooManyBlocks { open: self.blocks.get() });
        }
        let domain = writer.key.as_ref().map_err(Clone::clone)?;
        let made = Rc::new(OpenBlock {
            id: block,
            group,
            generation,
            salt: writer.salt,
            unit_log2,
            key: BlockKey::derive(domain, &writer.salt, block, generation).with_unit_log2(unit_log2),
            key_name: (domain.domain(), domain.version()),
            next_counter: Rc::clone(&writer.next_counter),
            order: Rc::default(),
            uncut: Cell::new(false),
            digest: RefCell::new(BlockDigest::new(BlockHeader {
                block,
                group,
                domain: domain.domain(),
                version: domain.version(),
                unit_log2,
                suite: SUITE_AES256GCM_SHA256_CRC32,
            })),
            end: Cell::new(0),
        });
        writer.blocks.insert((block, generation), Rc::clone(&made));
        self.blocks.set(self.blocks.get() + 1);
        Ok(made)
    }

    pub(crate) fn close_block(
        &self,
        writer: WriterId,
        block: BlockId,
        generation: Generation,
        plain_bytes: u64,
    ) -> Result<BlockSummary, EdgeError> {
        let mut open = self.open.borrow_mut();
        let writer = open.get_mut(&writer).ok_or(EdgeError::UnknownWriter)?;
        let found = writer.blocks.get(&(block, generation)).ok_or(EdgeError::UnknownWriter)?;
        if found.order.len() > 0 {
            return Err(EdgeError::Invalid("writes of the block are still under way"));
        }
        let units = plain_bytes.div_ceil(1 << found.unit_log2);
        if found.end.get() != plain_bytes || found.digest.borrow().units() as u64 != units {
            return Err(EdgeError::Invalid("the block was not written whole up to this length"));
        }
        let closed = writer.blocks.remove(&(block, generation)).ok_or(EdgeError::UnknownWriter)?;
        self.blocks.set(self.blocks.get() - 1);
        let digest = closed.digest.borrow();
        Ok(BlockSummary { root: digest.root(), units: digest.units(), key: closed.key_name })
    }

    /// The block as this writer has it open.
    pub(crate) fn find(
        &self,
        writer: WriterId,
        block: BlockId,
        generation: Generation,
    ) -> Result<Rc<OpenBlock>, EdgeError> {
        let open = self.open.borrow();
        let writer = open.get(&writer).ok_or(EdgeError::UnknownWriter)?;
        writer.blocks.get(&(block, generation)).cloned().ok_or(EdgeError::UnknownWriter)
    }

    /// Forgets the block, unless it was opened anew meanwhile.
    pub(crate) fn forget(&self, writer: WriterId, generation: Generation, block: &Rc<OpenBlock>) {
        let mut open = self.open.borrow_mut();
        let Some(writer) = open.get_mut(&writer) else { return };
        let name = (block.id, generation);
        if writer.blocks.get(&name).is_some_and(|found| Rc::ptr_eq(found, block)) {
            writer.blocks.remove(&name);
            self.blocks.set(self.blocks.get() - 1);
        }
    }
}

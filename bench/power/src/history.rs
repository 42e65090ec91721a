//! What the writer does, as a function of its seed alone, so that the check knows it without having been there.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::{Codec, Cut, LogEntry, SealedUnit, UNIT_PAGES_MAX};

/// Blocks that are alive at once; a deleted one makes room for a new one.
const BLOCKS: usize = 24;
/// Units of a block.
const UNITS: u16 = 16;
/// Bytes of a whole unit.
const UNIT_BYTES: u32 = 64 << 10;
/// The writer's one session.
const SALT: [u8; 16] = [9; 16];
const GENERATION: Generation = Generation(1);

/// An entry of the log and the bytes that go with it.
pub(crate) struct Step {
    pub(crate) entry: LogEntry,
    /// None for entries without a body.
    pub(crate) body: Option<Vec<u8>>,
}

/// The units of a block that are there, each with the counter and the size of its last version.
pub(crate) type Units = BTreeMap<(BlockId, UnitIndex), (u64, u32)>;

/// Entry after entry, and what there is when all of them are committed.
pub(crate) struct History {
    seed: u64,
    rng: fastrand::Rng,
    counter: u64,
    next_block: u64,
    alive: Vec<BlockId>,
    units: Units,
    deleted: BTreeSet<BlockId>,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let alive = (1..=BLOCKS as u64).map(BlockId).collect();
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            counter: 0,
            next_block: BLOCKS as u64 + 1,
            alive,
            units: Units::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// The next entry.
    pub(crate) fn step(&mut self) -> Step {
        let place = self.rng.usize(..self.alive.len());
        let block = self.alive[place];
        match self.rng.u8(..20) {
            0 => {
                self.counter += 1;
                let from_unit = UnitIndex(self.rng.u16(..UNITS));
                self.units.retain(|(of, unit), _| *of != block || *unit < from_unit);
                let cut = Cut { generation: GENERATION, counter: self.counter, salt: SALT };
                Step { entry: LogEntry::Trim { block, from_unit, cut }, body: None }
            }
            1 => {
                self.units.retain(|(of, _), _| *of != block);
                self.deleted.insert(block);
                self.alive[place] = BlockId(self.next_block);
                self.next_block += 1;
                Step { entry: LogEntry::Delete { block }, body: None }
            }
            2 => Step { entry: LogEntry::Fence { block, generation: GENERATION }, body: None },
            _ => self.write(block),
        }
    }

    /// New versions of neighbouring units; every third entry is small.
    fn write(&mut self, block: BlockId) -> Step {
        let small = self.rng.u8(..3) == 0;
        let first = self.rng.u16(..UNITS);
        let units = if small { 1 } else { self.rng.u16(1..=UNITS - first) };
        self.counter += 1;
        let (mut sealed, mut body) = (Vec::new(), Vec::new());
        for unit in (first..first + units).map(UnitIndex) {
            let bytes = if small { self.rng.u32(1..=8192) } else { UNIT_BYTES };
            let (one, stored) = version(self.seed, block, unit, self.counter, bytes);
            self.units.insert((block, unit), (self.counter, bytes));
            sealed.push(one);
            body.extend_from_slice(&stored);
        }
        Step { entry: LogEntry::Units(sealed), body: Some(body) }
    }

    /// Every unit there is.
    pub(crate) fn units(&self) -> &Units {
        &self.units
    }

    /// Every block that was deleted.
    pub(crate) fn deleted(&self) -> &BTreeSet<BlockId> {
        &self.deleted
    }

    /// Every unit that any block that ever was could have.
    pub(crate) fn names(&self) -> impl Iterator<Item = (BlockId, UnitIndex)> {
        (1..self.next_block).flat_map(|block| (0..UNITS).map(move |unit| (BlockId(block), UnitIndex(unit))))
    }
}

/// A version of a unit; its bytes depend on all that names it. Not encrypted: the store cannot tell.
pub(crate) fn version(
    seed: u64,
    block: BlockId,
    unit: UnitIndex,
    counter: u64,
    bytes: u32,
) -> (SealedUnit, Vec<u8>) {
    let mut sealed = SealedUnit {
        block,
        unit,
        generation: GENERATION,
        counter,
        plain_bytes: bytes,
        stored_bytes: bytes,
        codec: Codec::Raw,
        unit_log2: 16,
        tag: [0; 16],
        salt: SALT,
        digest: [0; 32],
        page_crc: [0; UNIT_PAGES_MAX],
    };
    let mut rng = fastrand::Rng::with_seed(seed ^ block.0 << 40 ^ u64::from(unit.0) << 32 ^ counter);
    let mut stored = vec![0; sealed.padded_bytes()];
    rng.fill(&mut stored[..bytes as usize]);
    sealed.page_crc = sealed.compute_page_crcs(&stored);
    sealed.digest = sealed.compute_digest(&stored);
    (sealed, stored)
}

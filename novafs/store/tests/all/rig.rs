//! A host with one disk, and units whose bytes follow from their names.

use nova_buf::SharedBuf;
use nova_device::mem::{DiskImage, HostOptions, KillMode, MemDisk, MemShard, World};
use nova_device::{Durability, Shard as _};
use nova_units::{
    BlockId, CommitPoint, DeviceId, DiskIndex, Epoch, Generation, GroupId, IoClass, Seq, UnitIndex,
};
use novafs_format::{Codec, Cut, LogEntry, SealedUnit, UNIT_PAGES_MAX};
use novafs_store::{FormatOptions, OpenOptions, Opened, Store, StoreError};
use std::rc::Rc;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GROUP: GroupId = GroupId(7);

pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) disk: MemDisk,
    pub(crate) shard: MemShard,
    pub(crate) options: OpenOptions,
}

impl Rig {
    /// A formatted disk.
    pub(crate) fn new(seed: u64, bytes: u64) -> Self {
        let world = World::new(seed);
        let disk = MemDisk::new(&world, bytes);
        let shard = host(&world, &disk);
        let rig = Self { world, disk, shard, options: riding() };
        let shard = rig.shard.clone();
        rig.run(async move { Store::format(&shard, DiskIndex(0), FormatOptions::new(DeviceId(42))).await })
            .unwrap();
        rig
    }

    /// A disk with this content.
    pub(crate) fn with_image(seed: u64, image: DiskImage) -> Self {
        let world = World::new(seed);
        let disk = MemDisk::from_image(&world, image);
        let shard = host(&world, &disk);
        Self { world, disk, shard, options: riding() }
    }

    /// Every body goes to its cell at once.
    pub(crate) fn by_reference(mut self) -> Self {
        self.options.inline_unit_bytes_max = 0;
        self
    }

    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.world.run(&self.shard, future)
    }

    pub(crate) fn try_open(&self) -> Result<Opened<MemShard>, StoreError> {
        let (shard, options) = (self.shard.clone(), self.options);
        self.run(async move { Store::open(shard, DiskIndex(0), options).await })
    }

    pub(crate) fn open(&self) -> Rc<Store<MemShard>> {
        let opened = self.try_open().unwrap();
        assert_eq!(opened.suspects, []);
        opened.store
    }

    /// The host dies and starts again with the same disk.
    pub(crate) fn restart(&mut self, mode: KillMode) {
        self.world.kill(&self.shard, mode);
        self.shard = host(&self.world, &self.disk);
    }
}

/// Longer bodies ride than by default, so that a short history meets both ways.
fn riding() -> OpenOptions {
    OpenOptions { inline_unit_bytes_max: 32 << 10, ..OpenOptions::default() }
}

fn host(world: &World, disk: &MemDisk) -> MemShard {
    world.add_host(HostOptions { disks: vec![disk.clone()], pool_bytes: 8 << 20, ..HostOptions::default() })
}

pub(crate) fn body(shard: &MemShard, bytes: &[u8]) -> SharedBuf {
    let mut buffer = shard.pool().try_take(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    buffer.freeze()
}

/// A cut by the writer of [`unit`]'s units.
pub(crate) fn cut(counter: u64) -> Cut {
    Cut { generation: Generation(1), counter, salt: [1; 16] }
}

/// A unit of `bytes` bytes that depend on everything it is named by. Not encrypted: the store cannot tell.
pub(crate) fn unit(block: u64, unit: u16, counter: u64, bytes: u32) -> (SealedUnit, Vec<u8>) {
    let mut sealed = SealedUnit {
        block: BlockId(block),
        unit: UnitIndex(unit),
        generation: Generation(1),
        counter,
        plain_bytes: bytes,
        stored_bytes: bytes,
        codec: Codec::Raw,
        unit_log2: 16,
        tag: [0; 16],
        salt: [1; 16],
        digest: [0; 32],
        page_crc: [0; UNIT_PAGES_MAX],
    };
    let mut rng = fastrand::Rng::with_seed(block << 32 ^ u64::from(unit) << 16 ^ counter);
    let mut stored = vec![0; sealed.padded_bytes()];
    rng.fill(&mut stored[..usize::try_from(bytes).unwrap()]);
    sealed.page_crc = sealed.compute_page_crcs(&stored);
    sealed.digest = sealed.compute_digest(&stored);
    (sealed, stored)
}

/// An entry of several units and its body.
pub(crate) fn entry(units: &[(u64, u16, u64, u32)]) -> (LogEntry, Vec<u8>) {
    let made: Vec<_> =
        units.iter().map(|(block, index, counter, bytes)| unit(*block, *index, *counter, *bytes)).collect();
    let body = made.iter().flat_map(|(_, stored)| stored.iter().copied()).collect();
    (LogEntry::Units(made.into_iter().map(|(sealed, _)| sealed).collect()), body)
}

pub(crate) fn at(seq: u64) -> CommitPoint {
    CommitPoint { epoch: Epoch(1), seq: Seq(seq) }
}

pub(crate) async fn append(
    store: &Store<MemShard>,
    shard: &MemShard,
    group: GroupId,
    point: CommitPoint,
    units: &[(u64, u16, u64, u32)],
) -> Result<(), StoreError> {
    let (entry, stored) = entry(units);
    store.append(group, point, &entry, Some(body(shard, &stored)), Durability::Synced).await
}

/// Asserts that the committed version of a unit is this one, byte for byte.
pub(crate) async fn expect_unit(store: &Store<MemShard>, group: GroupId, name: (u64, u16, u64, u32)) {
    let (sealed, stored) = unit(name.0, name.1, name.2, name.3);
    let found = store.read(group, BlockId(name.0), UnitIndex(name.1), IoClass::Client).await.unwrap();
    let found = found.unwrap_or_else(|| panic!("{name:?} is not there"));
    assert_eq!(found.record.sealed, sealed, "{name:?}");
    assert!(*found.body == *stored, "{name:?} has other bytes");
    // A run of one unit is looked up in a way of its own.
    let units = name.1..name.1 + 1;
    let run = store.read_run(group, BlockId(name.0), units, IoClass::Client).await.unwrap();
    assert_eq!((run.records, run.newer_prepared), (vec![found.record], found.newer_prepared), "{name:?}");
    assert!(*run.body == *stored, "{name:?} has other bytes");
}

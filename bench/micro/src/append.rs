//! Durable appends to a real device file, eight at a time: new units all the while, and the same units again and again.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nova_buf::SharedBuf;
use nova_device::sync::join_all;
use nova_device::uring::{CreateOptions, create_disk};
use nova_device::{Durability, Shard};
use nova_shard::{RealShard, ShardOptions};
use nova_units::{
    BlockId, CommitPoint, DeviceId, DiskIndex, Epoch, Generation, GroupId, MIB, Seq, UnitIndex,
};
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_format::{LogEntry, SealedUnit};
use novafs_store::{FormatOptions, OpenOptions, Store};

use crate::report::Report;

const DEVICE_BYTES: u64 = 256 * MIB;
const DISK: DiskIndex = DiskIndex(0);
/// Appends on their way at once, each to a group of its own: one group takes its entries in order.
const TOGETHER: u32 = 8;
const UNIT: usize = 64 << 10;
/// Bytes of units that the rows with new units go round in, over all groups: never written twice between two
/// checkpoints, and less than the device.
const NEW_BYTES: u64 = 96 * MIB;

struct Row {
    bench: &'static str,
    bytes: usize,
    /// Whether each append of a group writes other units than the one before.
    new_units: bool,
    /// Whether its bodies ride in the log, where a body may.
    rides: bool,
}

const ROWS: [Row; 17] = [
    Row { bench: "append 4 KiB, durable", bytes: 4 << 10, new_units: true, rides: true },
    Row { bench: "append 4 KiB to cells, durable", bytes: 4 << 10, new_units: true, rides: false },
    Row { bench: "append 4 KiB again, durable", bytes: 4 << 10, new_units: false, rides: true },
    Row { bench: "append 4 KiB again to cells, durable", bytes: 4 << 10, new_units: false, rides: false },
    Row { bench: "append 8 KiB, durable", bytes: 8 << 10, new_units: true, rides: true },
    Row { bench: "append 8 KiB to cells, durable", bytes: 8 << 10, new_units: true, rides: false },
    Row { bench: "append 8 KiB again, durable", bytes: 8 << 10, new_units: false, rides: true },
    Row { bench: "append 8 KiB again to cells, durable", bytes: 8 << 10, new_units: false, rides: false },
    Row { bench: "append 16 KiB, durable", bytes: 16 << 10, new_units: true, rides: true },
    Row { bench: "append 16 KiB to cells, durable", bytes: 16 << 10, new_units: true, rides: false },
    Row { bench: "append 16 KiB again, durable", bytes: 16 << 10, new_units: false, rides: true },
    Row { bench: "append 16 KiB again to cells, durable", bytes: 16 << 10, new_units: false, rides: false },
    Row { bench: "append 32 KiB, durable", bytes: 32 << 10, new_units: true, rides: true },
    Row { bench: "append 32 KiB to cells, durable", bytes: 32 << 10, new_units: true, rides: false },
    Row { bench: "append 32 KiB again, durable", bytes: 32 << 10, new_units: false, rides: true },
    Row { bench: "append 32 KiB again to cells, durable", bytes: 32 << 10, new_units: false, rides: false },
    Row { bench: "append 1 MiB, durable", bytes: 1 << 20, new_units: false, rides: false },
];

pub(crate) fn run(report: &mut Report, slice: Duration, folder: &Path, log_bytes: u64) -> anyhow::Result<()> {
    let path = folder.join(format!("nova-micro-{}.device", std::process::id()));
    create_disk(&path, CreateOptions { bytes: DEVICE_BYTES }, |_| {}).context("make a device file")?;
    let shared = RefCell::new(report);
    let options = ShardOptions { disks: vec![path.clone()], ..ShardOptions::default() };
    let ended = nova_shard::run(options, async |shard| -> anyhow::Result<()> {
        let format = FormatOptions { wal_bytes: Some(log_bytes), ..FormatOptions::new(DeviceId(1)) };
        for row in &ROWS {
            Store::format(&shard, DISK, format).await?;
            let inline_unit_bytes_max = if row.rides { row.bytes } else { 0 };
            let options = OpenOptions { inline_unit_bytes_max, ..OpenOptions::default() };
            let opened = Store::open(shard.clone(), DISK, options).await?;
            let entries = entries_of(&shard, row).await;
            let before = Spent::until_now()?;
            let until = Instant::now() + slice / 2;
            let group = |number| append(&opened.store, &shared, row, number, &entries, until);
            for outcome in join_all((1..=TOGETHER).map(group)).await {
                outcome?;
            }
            // What was put off is part of the price.
            opened.store.close().await?;
            let spent = Spent::until_now()?;
            shared.borrow_mut().account(row.bench, spent.cpu - before.cpu, spent.written - before.written);
        }
        Ok(())
    });
    std::fs::remove_file(&path).context("remove the device file")?;
    ended.context("run a shard")?
}

/// What this process has used up.
struct Spent {
    cpu: Duration,
    /// Bytes it had the kernel write to devices.
    written: u64,
}

impl Spent {
    fn until_now() -> anyhow::Result<Self> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let io = std::fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written = written.context("/proc/self/io has no write_bytes")?.parse()?;
        Ok(Self { cpu: Duration::try_from(cpu)?, written })
    }
}

/// Appends one entry after another until the time is up, going round in few units, so that the device never fills.
async fn append(
    store: &Rc<Store<RealShard>>,
    report: &RefCell<&mut Report>,
    row: &Row,
    group: u32,
    entries: &[(LogEntry, SharedBuf)],
    until: Instant,
) -> anyhow::Result<()> {
    let group = GroupId(group);
    let mut seq = Seq(0);
    for (entry, body) in entries.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        seq = seq.next();
        let at = CommitPoint { epoch: Epoch(1), seq };
        let begun = Instant::now();
        store.append(group, at, entry, Some(body.clone()), Durability::Synced).await?;
        let bytes = body.len() as u64;
        report.borrow_mut().note(
            row.bench,
            bytes,
            "direct writes of the same size with a flush each",
            begun.elapsed(),
        );
        store.commit(group, seq);
    }
    Ok(())
}

/// The entries that a group goes round in. They share a body: the store opens none.
async fn entries_of(shard: &RealShard, row: &Row) -> Vec<(LogEntry, SharedBuf)> {
    let key = BlockKey::derive(&DomainKey::new(1, 1, [3; 32]), &[5; 16], BlockId(1), Generation(1));
    let mut body = shard.pool().take(row.bytes).await;
    let plain = vec![7; UNIT];
    let units: Vec<_> = body
        .chunks_mut(UNIT)
        .zip(0..)
        .map(|(stored, unit)| key.seal(UnitIndex(unit), 1, &plain[..stored.len()], stored))
        .collect();
    let body = body.freeze();
    let count = if row.new_units { NEW_BYTES / u64::from(TOGETHER) / row.bytes as u64 } else { 1 };
    let entry = |number| {
        let of = |(unit, stored): (&SealedUnit, &[u8])| {
            let mut unit = SealedUnit { block: BlockId(1 + number), ..*unit };
            unit.page_crc = unit.compute_page_crcs(stored);
            unit
        };
        (LogEntry::Units(units.iter().zip(body.chunks(UNIT)).map(of).collect()), body.clone())
    };
    (0..count).map(entry).collect()
}

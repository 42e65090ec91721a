//! Durable appends to a real device file: cells, log record and one flush, 4 KiB and 1 MiB, eight at a time.

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
use novafs_format::LogEntry;
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_store::{FormatOptions, OpenOptions, Store};

use crate::report::Report;

const DEVICE_BYTES: u64 = 256 * MIB;
const DISK: DiskIndex = DiskIndex(0);
/// Appends on their way at once, each to a group of its own: one group takes its entries in order.
const TOGETHER: u32 = 8;
const UNIT: usize = 64 << 10;

pub(crate) fn run(report: &mut Report, slice: Duration, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(format!("nova-micro-{}.device", std::process::id()));
    create_disk(&path, CreateOptions { bytes: DEVICE_BYTES }, |_| {}).context("make a device file")?;
    let shared = RefCell::new(report);
    let options = ShardOptions { disks: vec![path.clone()], ..ShardOptions::default() };
    let ended = nova_shard::run(options, async |shard| -> anyhow::Result<()> {
        for (bench, bytes) in [("append 4 KiB, durable", 4096), ("append 1 MiB, durable", 1 << 20)] {
            Store::format(&shard, DISK, FormatOptions::new(DeviceId(1))).await?;
            let opened = Store::open(shard.clone(), DISK, OpenOptions::default()).await?;
            let (entry, body) = entry_of(&shard, bytes).await;
            let until = Instant::now() + slice / 2;
            let group = |number| append(&opened.store, &shared, bench, number, &entry, &body, until);
            for outcome in join_all((1..=TOGETHER).map(group)).await {
                outcome?;
            }
            opened.store.close().await?;
        }
        Ok(())
    });
    std::fs::remove_file(&path).context("remove the device file")?;
    ended.context("run a shard")?
}

/// Appends one entry after another until the time is up, overwriting the same units, so that the device never fills.
async fn append(
    store: &Rc<Store<RealShard>>,
    report: &RefCell<&mut Report>,
    bench: &'static str,
    group: u32,
    entry: &LogEntry,
    body: &SharedBuf,
    until: Instant,
) -> anyhow::Result<()> {
    let group = GroupId(group);
    let mut seq = Seq(0);
    while Instant::now() < until {
        seq = seq.next();
        let at = CommitPoint { epoch: Epoch(1), seq };
        let begun = Instant::now();
        store.append(group, at, entry, Some(body.clone()), Durability::Synced).await?;
        let bytes = body.len() as u64;
        report.borrow_mut().note(
            bench,
            bytes,
            "direct writes of the same size with a flush each",
            begun.elapsed(),
        );
        store.commit(group, seq);
    }
    Ok(())
}

async fn entry_of(shard: &RealShard, bytes: usize) -> (LogEntry, SharedBuf) {
    let key = BlockKey::derive(&DomainKey::new(1, 1, [3; 32]), &[5; 16], BlockId(1), Generation(1));
    let mut body = shard.pool().take(bytes).await;
    let plain = vec![7; UNIT];
    let units = body
        .chunks_mut(UNIT)
        .zip(0..)
        .map(|(stored, unit)| key.seal(UnitIndex(unit), 1, &plain[..stored.len()], stored))
        .collect();
    (LogEntry::Units(units), body.freeze())
}

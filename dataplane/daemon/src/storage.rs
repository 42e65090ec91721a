//! The devices of a storage host: made, laid out, opened. One that cannot be is reported, and the others serve.

use std::path::PathBuf;

use anyhow::Context as _;
use nova_device::uring::{CreateOptions, Filled, create_disk};
use nova_device::{Disk, Position, Shard};
use nova_shard::RealShard;
use nova_units::{DeviceId, DiskIndex, Incarnation, IoClass};
use novafs_store::{FormatOptions, OpenOptions, Opened, Store, StoreError};

use crate::config::DeviceConfig;
use crate::roster::{COPY, Found, Mounted, Roster};
use crate::switchboard::Expected;

/// How much of a device must be zeros for it to count as never used.
const BLANK_BYTES: usize = 64 << 10;

/// Makes the device's file when it is missing and the configuration says how large it is to be.
pub(crate) fn create_missing(device: &DeviceConfig) -> anyhow::Result<()> {
    if device.path.exists() {
        return Ok(());
    }
    let Some(bytes) = device.create_bytes() else {
        anyhow::bail!(
            "{} is not there: check the path, or set its create_mib to have it made",
            device.path.display()
        );
    };
    tracing::info!(path = %device.path.display(), mib = bytes >> 20, "making the device's file");
    let begun = std::time::Instant::now();
    let mut tenth = 0;
    let filled = create_disk(&device.path, CreateOptions { bytes }, |progress| {
        let now = progress.bytes_done * 10 / progress.bytes_total.max(1);
        if now > tenth {
            tenth = now;
            tracing::info!("{}0 % written", tenth);
        }
    })
    .context("make the device's file")?;
    let how = match filled {
        Filled::ByDevice => "zeros by the device itself",
        Filled::ByWriting => "zeros written once",
    };
    tracing::info!(seconds = begun.elapsed().as_secs_f32(), how, "the device's file is there");
    Ok(())
}

/// A device that a shard has opened.
pub(crate) struct Placed {
    /// Its place in the configuration.
    pub(crate) place: u8,
    /// Which of the disks of its shard it is.
    pub(crate) disk: DiskIndex,
    pub(crate) opened: Opened<RealShard>,
}

/// Opens the disks of the shard, which are the devices of the configuration at `places`. Which of them serve is known
/// when all shards have looked.
pub(crate) async fn open_all(shard: &RealShard, places: &[u8]) -> (Vec<Placed>, Found) {
    let (mut devices, mut found) = (Vec::new(), Found::default());
    for (index, (place, disk)) in (0..).zip(places.iter().zip(shard.disks())) {
        let index = DiskIndex(index);
        let opened = match disk {
            Ok(_) => open(shard, index).await,
            Err(error) => Err(anyhow::anyhow!("{error}")),
        };
        match opened {
            Ok(opened) => {
                found.mounted.push(mounted(*place, &opened));
                devices.push(Placed { place: *place, disk: index, opened });
            }
            Err(error) => {
                tracing::error!(place, "a device does not serve: {error:#}");
                found.broken.push((*place, format!("{error:#}")));
            }
        }
    }
    (devices, found)
}

/// Those of the devices that the roster has.
pub(crate) fn serving(devices: Vec<Placed>, roster: &Roster) -> Vec<Placed> {
    let (serving, copies): (Vec<_>, Vec<_>) = devices.into_iter().partition(|it| roster.serves(it.place));
    for Placed { place, opened, .. } in copies {
        let device = opened.device;
        tracing::error!(place, %device, "{COPY}");
    }
    serving
}

/// Opens one more device while the host runs. One that is in use elsewhere, for all that its superblock says, is left as it is.
pub(crate) async fn open_one_more(
    shard: &RealShard,
    place: u8,
    path: PathBuf,
    roster: &Roster,
    expected: &[Expected],
) -> anyhow::Result<Placed> {
    let disk = shard.open_disk(path).await?;
    let opened = match check(shard, disk, roster, expected).await {
        Ok(()) => open(shard, disk).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => Ok(Placed { place, disk, opened }),
        Err(error) => {
            shard.close_disk(disk);
            Err(error)
        }
    }
}

/// Whether the device may be opened here, by what its superblock says.
async fn check(
    shard: &RealShard,
    disk: DiskIndex,
    roster: &Roster,
    expected: &[Expected],
) -> anyhow::Result<()> {
    // One that is blank or damaged is told when it is opened.
    let Ok(found) = Store::look(shard, disk).await else { return Ok(()) };
    let known = expected.iter().find(|it| it.device == found.device);
    anyhow::ensure!(roster.shard_of(found.device).is_none(), "{COPY}");
    anyhow::ensure!(
        !known.is_some_and(|it| it.failed),
        "the device {:032x} failed before, and is never trusted again: put another in its place, or erase its first and last \
         MiB to use it as a new one",
        found.device.0
    );
    anyhow::ensure!(
        known.is_some() || found.incarnation == Incarnation(0),
        "the device {:032x} holds data of another host or region: open it there, or erase its first and last MiB to use it as \
         a new one here",
        found.device.0
    );
    Ok(())
}

pub(crate) fn mounted(place: u8, opened: &Opened<RealShard>) -> Mounted {
    Mounted {
        place,
        id: opened.device,
        mount_counter: opened.mount_counter,
        incarnation: opened.incarnation,
        bytes_total: opened.store.usage().bytes_total,
        trail: opened.trail,
    }
}

/// Opens a device; a blank one is laid out first. A device that is neither blank nor ours is left alone.
async fn open(shard: &RealShard, disk: DiskIndex) -> anyhow::Result<Opened<RealShard>> {
    let opened = match Store::open(shard.clone(), disk, OpenOptions::default()).await {
        Err(StoreError::NoSuperblock { .. }) if is_blank(shard, disk).await? => {
            let mut id = [0; 16];
            shard.fill_secret(&mut id);
            let device = DeviceId(u128::from_le_bytes(id));
            tracing::info!(%device, "laying out a blank device");
            Store::format(shard, disk, FormatOptions::new(device)).await.context("lay out the device")?;
            Store::open(shard.clone(), disk, OpenOptions::default()).await
        }
        opened => opened,
    }
    .context("open the device")?;
    let usage = opened.store.usage();
    tracing::info!(
        disk = disk.0,
        device = %opened.device,
        mount = opened.mount_counter,
        incarnation = %opened.incarnation,
        mib_total = usage.bytes_total >> 20,
        mib_free = usage.bytes_free >> 20,
        suspects = opened.suspects.len(),
        "opened the device"
    );
    Ok(opened)
}

/// Whether nothing was ever written where the first superblocks would be.
async fn is_blank(shard: &RealShard, disk: DiskIndex) -> anyhow::Result<bool> {
    let first = shard.pool().take(BLANK_BYTES).await;
    let (read, first) = shard.disk(disk).read(IoClass::Client, Position(0), first).await;
    read.context("read the begin of the device")?;
    Ok(first.iter().all(|byte| *byte == 0))
}

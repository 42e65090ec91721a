//! The rows of ours as a program does them on a mount.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nova_path::aligned::AlignedBytes;
use nova_path::raw;
use rustix::fs::{Advice, fadvise};

use super::Row;
use crate::rows::{CREATE, LARGE_FILES, RANDOM, READ, SMALL_BYTES, Stage, WRITE};

/// Bytes of one read or write of a large file.
const CHUNK_BYTES: usize = 1 << 20;
/// Files that are created at once.
const CREATORS: usize = 8;

/// In the order in which a round takes them: what one writes the next reads.
pub(crate) const ROWS: [Row; 4] = [
    Row { beside: WRITE, run: write_large },
    Row { beside: READ, run: read_large },
    Row { beside: RANDOM, run: read_random },
    Row { beside: CREATE, run: create_small },
];

fn large(folder: &Path, round: u32, file: usize) -> PathBuf {
    folder.join(format!("large-{round}-{file}"))
}

/// Does `work` for each of `0..count` at once; the first error.
fn at_once(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn({
                    let work = &work;
                    move || work(number)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of a row does not panic"))
    })
}

fn write_large(folder: &Path, stage: &Stage, round: u32) -> Result<(u64, u64)> {
    at_once(stage.large.len(), |file| {
        let mut source = File::open(&stage.large[file])?;
        let mut target = File::create(large(folder, round, file))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk)? {
                0 => break,
                count => target.write_all(&chunk[..count])?,
            }
        }
        target.sync_all().context("flush a large file")
    })?;
    Ok((stage.large_bytes * LARGE_FILES, LARGE_FILES))
}

fn read_large(folder: &Path, stage: &Stage, round: u32) -> Result<(u64, u64)> {
    let total = AtomicU64::new(0);
    at_once(stage.large.len(), |file| {
        let mut source = File::open(large(folder, round, file))?;
        fadvise(&source, 0, None, Advice::DontNeed)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk)? {
                0 => return Ok(()),
                count => total.fetch_add(count as u64, Ordering::Relaxed),
            };
        }
    })?;
    let bytes = total.into_inner();
    ensure!(bytes == stage.large_bytes * LARGE_FILES, "{bytes} bytes came back");
    Ok((bytes, bytes >> 20))
}

fn read_random(folder: &Path, stage: &Stage, round: u32) -> Result<(u64, u64)> {
    let file = raw::direct(&large(folder, round, 0), false).context("open a large file for direct I/O")?;
    let slots = stage.large_bytes / SMALL_BYTES;
    let (done, until) = (AtomicU64::new(0), Instant::now() + Duration::from_secs(stage.seconds));
    at_once(usize::try_from(stage.readers).context("readers")?, |reader| {
        let mut rng = fastrand::Rng::with_seed(u64::from(round) * stage.readers + reader as u64);
        let mut page = AlignedBytes::zeroed(usize::try_from(SMALL_BYTES).context("a page")?);
        while Instant::now() < until {
            file.read_exact_at(&mut page, rng.u64(..slots) * SMALL_BYTES)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let done = done.into_inner();
    Ok((done * SMALL_BYTES, done))
}

fn create_small(folder: &Path, stage: &Stage, round: u32) -> Result<(u64, u64)> {
    let folder = folder.join(format!("small-{round}"));
    fs::create_dir(&folder)?;
    let next = AtomicUsize::new(0);
    at_once(CREATORS, |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = stage.small.get(number) else { return Ok(()) };
            let mut target = File::create_new(folder.join(format!("small-{number}")))?;
            io::copy(&mut File::open(source)?, &mut target)?;
            target.sync_all().context("flush a small file")?;
        }
    })?;
    let files = stage.small.len() as u64;
    Ok((files * SMALL_BYTES, files))
}

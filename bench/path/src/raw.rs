//! What the disk below gives without us: direct, sequential, several threads, flushed at the end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::aligned::AlignedBytes;
use crate::interrupt::Interrupt;

/// Bytes of one write or read.
const CHUNK_BYTES: usize = 1 << 20;
/// Writers and readers, each in a range of its own.
const THREADS: u64 = 4;

/// One measurement of a disk, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RawRates {
    /// Written and flushed.
    pub write: f64,
    /// Read.
    pub read: f64,
}

impl RawRates {
    /// The mean of two measurements, taken before and after what they are compared with.
    #[must_use]
    pub fn mean(self, other: Self) -> Self {
        Self { write: self.write.midpoint(other.write), read: self.read.midpoint(other.read) }
    }
}

/// Removes the file however the measurement ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes about `bytes` to a new preallocated file in `folder`, flushes it, reads it back, and removes it.
///
/// # Errors
/// When the file system refuses direct I/O or has no room.
pub fn measure(folder: &Path, bytes: u64, interrupt: &Interrupt) -> Result<RawRates> {
    let scratch = Scratch(folder.join("raw-disk"));
    let path = &scratch.0;
    let chunk = CHUNK_BYTES as u64;
    let chunks_each = (bytes / chunk / THREADS).max(1);
    let bytes = chunks_each * chunk * THREADS;
    let file = direct(path, true).with_context(|| format!("open {} for direct I/O", path.display()))?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)
        .with_context(|| format!("preallocate {}", path.display()))?;
    file.sync_all().context("flush the preallocated file")?;

    let begun = Instant::now();
    each_thread(|thread| {
        let mut buffer = AlignedBytes::zeroed(CHUNK_BYTES);
        fill(&mut buffer, thread + 1);
        for chunk_index in 0..chunks_each {
            interrupt.check()?;
            file.write_all_at(&buffer, (thread * chunks_each + chunk_index) * chunk)
                .context("write to the disk")?;
        }
        Ok(())
    })?;
    file.sync_all().context("flush the disk")?;
    let write = rate(bytes, begun.elapsed());

    let file = direct(path, false).with_context(|| format!("open {} for direct I/O", path.display()))?;
    let begun = Instant::now();
    each_thread(|thread| {
        let mut buffer = AlignedBytes::zeroed(CHUNK_BYTES);
        for chunk_index in 0..chunks_each {
            interrupt.check()?;
            file.read_exact_at(&mut buffer, (thread * chunks_each + chunk_index) * chunk)
                .context("read from the disk")?;
        }
        Ok(())
    })?;
    Ok(RawRates { write, read: rate(bytes, begun.elapsed()) })
}

fn each_thread(work: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("measuring does not panic"))
    })
}

/// Opens a file without the page cache.
///
/// # Errors
/// When there is no such file, or its file system has no direct I/O.
pub fn direct(path: &Path, create: bool) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).expect("open flags fit into an int");
    OpenOptions::new().read(true).write(true).create(create).truncate(create).custom_flags(flags).open(path)
}

/// Bytes no layer below can compress or share.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Bytes per second.
#[must_use]
pub fn rate(bytes: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people; 53 bits are plenty")]
    let bytes = bytes as f64;
    bytes / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_left_clean() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let rates = measure(folder.path(), 8 << 20, &Interrupt::default()).unwrap();
        assert!(rates.write > 0.0 && rates.read > 0.0, "{rates:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mean_lies_between_two_measurements() {
        let before = RawRates { write: 1.0, read: 10.0 };
        assert_eq!(before.mean(RawRates { write: 3.0, read: 20.0 }), RawRates { write: 2.0, read: 15.0 });
    }
}

//! How much room the demo needs, and whether it is there.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::input::SourceFile;

const MIB: u64 = 1 << 20;
/// A file takes whole pages on a device, and one more for what describes it.
const PAGE_BYTES: u64 = 4096;
/// Log, tree and slack of a device, whatever it holds.
const DEVICE_MARGIN_BYTES: u64 = 1 << 30;
/// Logs and snapshots of the controllers, and logs of all processes.
const CONTROL_BYTES: u64 = 512 * MIB;

/// What the demo will take of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Each storage host's device; whole MiB.
    pub device_bytes: u64,
    /// The copy that is read back.
    pub copy_bytes: u64,
    /// The file the raw disk is measured with.
    pub raw_bytes: u64,
}

impl Room {
    /// Room for two and a half times `files`, and for a copy of `read_back_bytes`.
    #[must_use]
    pub fn plan(files: &[SourceFile], read_back_bytes: u64, raw_bytes: u64) -> Self {
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let pages: u64 = files.iter().map(|file| file.bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES).sum();
        let device = (bytes * 5 / 2).max(pages * 2) + DEVICE_MARGIN_BYTES;
        let copied_pages = PAGE_BYTES * 2 * u64::try_from(files.len()).expect("files fit into memory");
        Self {
            device_bytes: device.next_multiple_of(MIB),
            copy_bytes: read_back_bytes + copied_pages,
            raw_bytes,
        }
    }

    /// All of it, with `devices` storage hosts.
    #[must_use]
    pub fn total_bytes(&self, devices: u64) -> u64 {
        // The raw file is gone before the copy is written.
        self.device_bytes * devices + self.copy_bytes.max(self.raw_bytes) + CONTROL_BYTES
    }

    /// Checks that the file system of `folder` has room for all of it.
    ///
    /// # Errors
    /// When it has not, with the numbers.
    pub fn check(&self, folder: &Path, devices: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(folder).with_context(|| format!("look at {}", folder.display()))?;
        self.check_free(stat.f_bavail * stat.f_frsize, folder, devices)
    }

    fn check_free(&self, free: u64, folder: &Path, devices: u64) -> Result<()> {
        let needed = self.total_bytes(devices);
        if free < needed {
            bail!(
                "{} has {} MiB free and this needs {} MiB: {devices} devices of {} MiB, {} MiB for the copy that is \
                 read back, {} MiB for the rest. Take less with --bytes N, or another place with --folder DIR",
                folder.display(),
                free / MIB,
                needed.div_ceil(MIB),
                self.device_bytes / MIB,
                self.copy_bytes.max(self.raw_bytes).div_ceil(MIB),
                CONTROL_BYTES / MIB,
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: usize, bytes: u64) -> Vec<SourceFile> {
        (0..count).map(|index| SourceFile { name: index.to_string(), bytes }).collect()
    }

    #[test]
    fn small_files_need_room_for_their_pages() {
        let large = Room::plan(&files(1, 1 << 30), 0, 0);
        assert_eq!(large.device_bytes, (5 << 29) + DEVICE_MARGIN_BYTES);
        let small = Room::plan(&files(100_000, 1), 0, 0);
        assert!(small.device_bytes >= DEVICE_MARGIN_BYTES + 100_000 * 4 * PAGE_BYTES, "{small:?}");
        assert_eq!(small.device_bytes % MIB, 0);
    }

    #[test]
    fn a_full_disk_is_refused_with_numbers() {
        let room = Room { device_bytes: 100 * MIB, copy_bytes: 50 * MIB, raw_bytes: 10 * MIB };
        assert_eq!(room.total_bytes(3), 350 * MIB + CONTROL_BYTES);
        let error = room.check_free(400 * MIB, Path::new("/x"), 3).unwrap_err().to_string();
        assert!(error.contains("400 MiB free") && error.contains("needs 862 MiB"), "{error}");
        assert!(room.check_free(862 * MIB, Path::new("/x"), 3).is_ok());
    }
}

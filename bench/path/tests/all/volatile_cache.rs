//! The cache of a disk that loses its power: what was written since the last flush may be gone, piece by piece.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What a disk writes at once, whatever happens.
const SECTOR_BYTES: usize = 512;
/// Many disks write so much at once.
const PAGE_SECTORS: u64 = 8;

type Sector = [u8; SECTOR_BYTES];

/// Which sectors of a file are in the cache only, with what the medium has in their place.
#[derive(Debug, Default)]
pub(super) struct VolatileCache {
    medium: BTreeMap<u64, Box<Sector>>,
}

/// What a loss of power did to the cache of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Sectors that were in the cache only.
    pub(crate) sectors: usize,
    /// How many of them are gone: the medium has what it had before.
    pub(crate) gone: usize,
}

impl VolatileCache {
    /// Writes whole sectors; the medium does not have them yet.
    pub(super) fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let sector_bytes = SECTOR_BYTES as u64;
        if !offset.is_multiple_of(sector_bytes) || !data.len().is_multiple_of(SECTOR_BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no whole sectors"));
        }
        let first = offset / sector_bytes;
        for sector in first..first + data.len() as u64 / sector_bytes {
            if let std::collections::btree_map::Entry::Vacant(place) = self.medium.entry(sector) {
                let mut before = Box::new([0; SECTOR_BYTES]);
                file.read_exact_at(&mut before[..], sector * sector_bytes)?;
                place.insert(before);
            }
        }
        file.write_all_at(data, offset)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.medium.is_empty()
    }

    /// The medium has everything.
    pub(super) fn flush(&mut self) {
        self.medium.clear();
    }

    /// The power fails: of what the medium did not have, `kept_percent` of all pieces got there. A piece is a sector or
    /// a page of eight.
    pub(super) fn lose_power(
        &mut self,
        file: &File,
        random: &mut fastrand::Rng,
        kept_percent: u8,
    ) -> io::Result<Lost> {
        let piece_sectors = if random.bool() { 1 } else { PAGE_SECTORS };
        let mut lost = Lost::default();
        let mut drawn: Option<(u64, bool)> = None;
        for (sector, before) in std::mem::take(&mut self.medium) {
            let piece = sector / piece_sectors;
            let kept = match drawn {
                Some((of, kept)) if of == piece => kept,
                _ => random.u8(0..100) < kept_percent,
            };
            drawn = Some((piece, kept));
            lost.sectors += 1;
            if !kept {
                file.write_all_at(&before[..], sector * SECTOR_BYTES as u64)?;
                lost.gone += 1;
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector_of(file: &File, sector: u64) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, sector * SECTOR_BYTES as u64 + 100).unwrap();
        byte[0]
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_goes_piece_by_piece() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let mut cache = VolatileCache::default();
        cache.write(&file, 0, &[1; 64 * SECTOR_BYTES]).unwrap();
        cache.flush();
        for byte in [2, 3] {
            cache.write(&file, 0, &vec![byte; 32 * SECTOR_BYTES]).unwrap();
        }
        assert_eq!(sector_of(&file, 31), 3, "it reads what it was given");
        let lost = cache.lose_power(&file, &mut random, 50).unwrap();
        let left = |wanted: u8| (0..32).filter(|sector| sector_of(&file, *sector) == wanted).count();
        assert_eq!((lost.sectors, lost.gone), (32, left(1)));
        assert!(left(1) > 0 && left(3) > 0 && left(1) + left(3) == 32, "{lost:?}");
        assert!((32..64).all(|sector| sector_of(&file, sector) == 1));
        cache.write(&file, 0, &[4; 512]).unwrap();
        assert_eq!(cache.lose_power(&file, &mut random, 0).unwrap(), Lost { sectors: 1, gone: 1 });
        assert_eq!(cache.lose_power(&file, &mut random, 0).unwrap(), Lost::default());
    }
}

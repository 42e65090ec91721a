//! Damage on disk: some bytes of a replica, flipped beneath the running region, and looked at again later.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::aligned::{ALIGNMENT, AlignedBytes};
use crate::answer::{Located, LocatedUnit};
use crate::raw::direct;

/// How many bytes are flipped in one replica, when its cell has so many.
pub const FLIP_BYTES: u64 = 16;
/// In how many of the three replicas of a unit.
pub const REPLICAS_FLIPPED: usize = 2;

/// Bytes of one replica that shall be damaged.
#[derive(Clone, Debug)]
pub struct Target {
    /// The file.
    pub path: String,
    /// The block, as `nova fs locate` names it.
    pub block: Value,
    /// Index of the unit in the block.
    pub unit: u64,
    /// The group, as `nova fs locate` names it.
    pub group: Value,
    /// Name of the host.
    pub host: String,
    /// Its device.
    pub device: PathBuf,
    /// Where the cell begins on the device.
    pub position: u64,
    /// Where the bytes begin in the cell.
    pub offset: u64,
    /// How many; they never cross a page.
    pub bytes: u64,
}

/// Chooses `units` units of different files, of as many groups as there are, and two replicas of each.
#[must_use]
pub fn plan(located: &[Located], units: usize, seed: u64) -> Vec<Target> {
    let mut state = seed;
    let mut candidates: Vec<(&Located, &LocatedUnit)> = Vec::new();
    for file in located {
        let usable: Vec<_> = file.units.iter().filter(|unit| is_usable(unit)).collect();
        if !usable.is_empty() {
            candidates.push((file, usable[below(&mut state, usable.len())]));
        }
    }
    // Groups that were not hit yet come first; within that, the order of the files.
    let mut chosen = Vec::new();
    while chosen.len() < units && !candidates.is_empty() {
        let mut groups = BTreeSet::new();
        let mut later = Vec::new();
        for candidate in candidates {
            if chosen.len() < units && groups.insert(candidate.1.group.to_string()) {
                chosen.push(candidate);
            } else {
                later.push(candidate);
            }
        }
        candidates = later;
    }
    let mut targets = Vec::new();
    for (index, (file, unit)) in chosen.into_iter().enumerate() {
        for step in 0..REPLICAS_FLIPPED {
            let replica = &unit.replicas[(index + step) % unit.replicas.len()];
            let device = replica.device_path.clone().expect("usable units have a device each");
            let wanted = below(&mut state, usize::try_from(replica.stored_bytes).unwrap_or(usize::MAX));
            let (offset, bytes) = inside_page(replica.position, replica.stored_bytes, wanted as u64);
            targets.push(Target {
                path: file.path.clone(),
                block: unit.block.clone(),
                unit: unit.unit,
                group: unit.group.clone(),
                host: replica.host.clone(),
                device,
                position: replica.position,
                offset,
                bytes,
            });
        }
    }
    targets
}

fn is_usable(unit: &LocatedUnit) -> bool {
    unit.replicas.len() > REPLICAS_FLIPPED
        && unit.replicas.iter().all(|replica| replica.stored_bytes > 0 && replica.device_path.is_some())
}

/// Up to [`FLIP_BYTES`] at or before `wanted`, within the cell and within one page.
fn inside_page(position: u64, stored_bytes: u64, wanted: u64) -> (u64, u64) {
    let page = ALIGNMENT as u64;
    let page_begin = ((position + wanted) / page * page).max(position);
    let page_end = (page_begin / page * page + page).min(position + stored_bytes);
    let bytes = FLIP_BYTES.min(page_end - page_begin);
    let begin = (position + wanted).min(page_end - bytes);
    (begin - position, bytes)
}

/// A number below `bound`, by splitmix64.
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).expect("below a usize")
}

/// Damage that was done.
#[derive(Clone, Debug)]
pub struct Flip {
    /// Where.
    pub target: Target,
    /// The bytes before.
    original: Vec<u8>,
}

/// How damaged bytes look later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// As they were flipped, or otherwise not as they should be.
    Damaged,
    /// As they were before, in the same place.
    RepairedInPlace,
    /// As they were before, in another cell.
    RepairedElsewhere,
}

impl Flip {
    /// Flips every bit of the bytes, durably, and checks that they are flipped.
    ///
    /// # Errors
    /// When the device cannot be read or written.
    pub fn apply(target: Target) -> Result<Self> {
        let at = target.position + target.offset;
        let (page_at, range) = page_of(at, target.bytes);
        let file =
            direct(&target.device, false).with_context(|| format!("open {}", target.device.display()))?;
        let mut page = AlignedBytes::zeroed(ALIGNMENT);
        file.read_exact_at(&mut page, page_at)
            .with_context(|| format!("read {}", target.device.display()))?;
        let original = page[range.clone()].to_vec();
        for byte in &mut page[range.clone()] {
            *byte = !*byte;
        }
        file.write_all_at(&page, page_at).with_context(|| format!("write {}", target.device.display()))?;
        file.sync_all().context("flush the flipped bytes")?;
        let flip = Self { target, original };
        ensure!(
            flip.look(flip.target.position)? != flip.original,
            "flipped bytes did not stay on the device"
        );
        Ok(flip)
    }

    /// Looks at the replica again, wherever `located` says it is now.
    ///
    /// # Errors
    /// When the replica is not listed any more, or its device cannot be read.
    pub fn find(&self, located: &Located) -> Result<Found> {
        let target = &self.target;
        let unit = located.units.iter().find(|unit| unit.block == target.block && unit.unit == target.unit);
        let replica = unit.and_then(|unit| unit.replicas.iter().find(|replica| replica.host == target.host));
        let Some(replica) = replica else {
            bail!("{} no longer has a replica of unit {} on {}", target.path, target.unit, target.host);
        };
        if self.look(replica.position)? != self.original {
            return Ok(Found::Damaged);
        }
        let same = replica.position == target.position;
        Ok(if same { Found::RepairedInPlace } else { Found::RepairedElsewhere })
    }

    fn look(&self, position: u64) -> Result<Vec<u8>> {
        read_bytes(&self.target.device, position + self.target.offset, self.original.len() as u64)
    }
}

/// The page that holds `bytes` at `at`, and where they are in it.
fn page_of(at: u64, bytes: u64) -> (u64, std::ops::Range<usize>) {
    let page = ALIGNMENT as u64;
    let begin = usize::try_from(at % page).expect("below a page");
    let end = begin + usize::try_from(bytes).expect("a few bytes");
    (at / page * page, begin..end)
}

/// Reads past the page cache what is on the device now; the bytes may cross one page when a cell has moved.
fn read_bytes(device: &Path, at: u64, bytes: u64) -> Result<Vec<u8>> {
    let file = direct(device, false).with_context(|| format!("open {}", device.display()))?;
    let (page_at, range) = page_of(at, bytes);
    let mut pages = AlignedBytes::zeroed(2 * ALIGNMENT);
    let count = if range.end > ALIGNMENT { 2 * ALIGNMENT } else { ALIGNMENT };
    file.read_exact_at(&mut pages[..count], page_at).with_context(|| format!("read {}", device.display()))?;
    Ok(pages[range].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Replica;

    fn located(path: &str, group: u64, device: &Path, stored_bytes: u64) -> Located {
        let replica = |host: u64| Replica {
            host: format!("storage-{host}"),
            device_path: Some(device.to_owned()),
            position: 8192 * host,
            stored_bytes,
        };
        let unit = LocatedUnit {
            block: Value::from(path),
            unit: 0,
            group: Value::from(group),
            replicas_wanted: 3,
            replicas: (1..=3).map(replica).collect(),
        };
        Located { path: path.to_owned(), units: vec![unit] }
    }

    #[test]
    fn the_plan_spreads_over_groups_and_takes_two_replicas_of_each_unit() {
        let files: Vec<_> = [(1, "/a"), (1, "/b"), (2, "/c"), (3, "/d")]
            .map(|(group, path)| located(path, group, Path::new("/x"), 5000))
            .into();
        let plan = plan(&files, 3, 7);
        let paths: Vec<_> = plan.iter().map(|target| target.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/a", "/c", "/c", "/d", "/d"]);
        for pair in plan.chunks(2) {
            assert_ne!(pair[0].host, pair[1].host);
        }
        assert_eq!(super::plan(&files, 9, 7).len(), 8, "every file once, however many are wanted");
    }

    #[test]
    fn units_with_too_few_replicas_or_no_bytes_are_left_alone() {
        let mut lone = located("/a", 1, Path::new("/x"), 100);
        lone.units[0].replicas.truncate(2);
        let empty = located("/b", 1, Path::new("/x"), 0);
        assert!(plan(&[lone, empty], 4, 1).is_empty());
    }

    #[test]
    fn flips_stay_inside_the_cell_and_inside_a_page() {
        for position in [0, 4096, 512] {
            for stored in [1, 15, 16, 17, 4096, 4097, 65536] {
                for wanted in [0, 1, 4090, 4096, 65535] {
                    let wanted = wanted.min(stored - 1);
                    let (offset, bytes) = inside_page(position, stored, wanted);
                    assert!(bytes >= 1 && offset + bytes <= stored, "{position} {stored} {wanted}");
                    assert_eq!((position + offset) / 4096, (position + offset + bytes - 1) / 4096);
                }
            }
        }
    }

    #[test]
    fn a_flip_is_seen_until_the_bytes_are_back() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let device = folder.path().join("device");
        let content: Vec<u8> = (0..65536_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        std::fs::write(&device, &content).unwrap();
        let mut file = located("/a", 1, &device, 5000);
        let flip = Flip::apply(plan(std::slice::from_ref(&file), 1, 3).remove(0)).unwrap();
        assert_eq!(flip.find(&file).unwrap(), Found::Damaged);
        let damaged = std::fs::read(&device).unwrap();
        let changed = damaged.iter().zip(&content).filter(|(a, b)| a != b).count();
        assert_eq!(changed as u64, FLIP_BYTES);

        std::fs::write(&device, &content).unwrap();
        assert_eq!(flip.find(&file).unwrap(), Found::RepairedInPlace);

        // The same cell, written elsewhere.
        let (from, to) = (usize::try_from(flip.target.position).unwrap(), 40960);
        let mut moved = damaged;
        moved.copy_within(from..from + 8192, to);
        moved[to..to + 8192].copy_from_slice(&content[from..from + 8192]);
        std::fs::write(&device, &moved).unwrap();
        for replica in &mut file.units[0].replicas {
            if replica.host == flip.target.host {
                replica.position = to as u64;
            }
        }
        assert_eq!(flip.find(&file).unwrap(), Found::RepairedElsewhere);
        file.units.clear();
        assert!(flip.find(&file).is_err());
    }
}

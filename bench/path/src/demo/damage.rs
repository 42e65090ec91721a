//! Damage on disk, and its repair.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Demo, TARGET};
use crate::answer::{Located, Status};
use crate::flip::{self, Flip, Found, REPLICAS_FLIPPED};
use crate::nova::Nova;

/// Units of which two replicas are damaged.
const UNITS: usize = 8;
/// Files that are looked at to find units of many groups.
const CANDIDATES: usize = 3 * UNITS;
/// Larger files are left alone: each is read many times.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where in the units bytes are flipped follows from this.
const SEED: u64 = 0x6e6f_7661;
/// Every damaged replica has been met by a read within this time.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Reads of each damaged file between two looks at the disk.
const READS_PER_LOOK: usize = 16;
/// Counters reach the controllers within this time.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(10);

/// What was damaged.
#[derive(Debug)]
pub(super) struct Flips {
    flips: Vec<Flip>,
    /// What the hosts had counted before.
    repaired_before: u64,
}

impl Demo {
    /// Flips bytes in two of three replicas of some units.
    pub(super) fn damage_replicas(&mut self) -> Result<Flips> {
        let tree = self.trees.first().expect("the tree was put before");
        let usable: Vec<_> =
            tree.files.iter().filter(|file| (1..=FILE_BYTES_MAX).contains(&file.bytes)).collect();
        let step = (usable.len() / CANDIDATES).max(1);
        let mut located = Vec::new();
        for file in usable.into_iter().step_by(step).take(CANDIDATES) {
            located.push(locate(self.region.nova(), &format!("{TARGET}/{}", tree.name(file)))?);
        }
        let repaired_before = self.region.status()?.pages_repaired();
        let targets = flip::plan(&located, UNITS, SEED);
        ensure!(!targets.is_empty(), "no unit has three replicas on devices of this machine");
        let flips = targets.into_iter().map(Flip::apply).collect::<Result<Vec<_>>>()?;
        let groups: BTreeSet<_> = flips.iter().map(|flip| flip.target.group.to_string()).collect();
        println!(
            "flipped bytes in {} replicas of {} units of {} groups",
            flips.len(),
            flips.len() / REPLICAS_FLIPPED,
            groups.len(),
        );
        self.figures.damaged = Some(flips.len() as u64);
        Ok(Flips { flips, repaired_before })
    }

    /// Reads the damaged files until every replica is right on disk, and looks at what the hosts counted.
    ///
    /// A read goes to one replica, now and then to another one, so damage is met after some reads.
    pub(super) fn see_repairs(&mut self, flips: &Flips) -> Result<()> {
        let begun = Instant::now();
        let mut open: Vec<&Flip> = flips.flips.iter().collect();
        let mut elsewhere = 0;
        let mut reads = 0;
        loop {
            let mut damaged = Vec::new();
            for flip in open {
                match flip.find(&locate(self.region.nova(), &flip.target.path)?)? {
                    Found::Damaged => damaged.push(flip),
                    Found::RepairedInPlace => {}
                    Found::RepairedElsewhere => elsewhere += 1,
                }
            }
            open = damaged;
            if open.is_empty() || begun.elapsed() > REPAIR_TIMEOUT {
                break;
            }
            let paths: BTreeSet<_> = open.iter().map(|flip| flip.target.path.as_str()).collect();
            reads += read_often(self.region.nova(), &paths)?;
        }
        let restored = flips.flips.len() - open.len();
        println!(
            "{restored} of {} damaged replicas are right again on disk, {elsewhere} of them in a new cell, after {reads} \
             more reads in {:.1} s",
            flips.flips.len(),
            begun.elapsed().as_secs_f64(),
        );
        self.figures.restored = Some(restored as u64);
        if let Some(flip) = open.first() {
            let target = &flip.target;
            let first = format!("unit {} of {} on {}", target.unit, target.path, target.host);
            self.wrong(format!("{} damaged replicas were not repaired, such as {first}", open.len()));
        }
        let wanted = flips.flips.len() as u64;
        let repaired = self.wait_for_counters(flips.repaired_before, wanted)?;
        println!("the hosts count {repaired} repaired pages");
        self.figures.pages_repaired = Some(repaired);
        if repaired < wanted {
            self.wrong(format!("the hosts count {repaired} repaired pages; {wanted} were damaged"));
        }
        Ok(())
    }

    fn wait_for_counters(&self, before: u64, wanted: u64) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let repaired =
                self.region.status().map(|status: Status| status.pages_repaired())?.saturating_sub(before);
            if repaired >= wanted || begun.elapsed() > COUNTERS_TIMEOUT {
                return Ok(repaired);
            }
            thread::sleep(Duration::from_millis(250));
        }
    }
}

fn locate(nova: &Nova, path: &str) -> Result<Located> {
    nova.call(["fs", "locate", path]).answer()
}

/// Reads every path [`READS_PER_LOOK`] times; answers how many reads that were.
fn read_often(nova: &Nova, paths: &BTreeSet<&str>) -> Result<usize> {
    let reads = paths.len() * READS_PER_LOOK;
    let all = paths.iter().copied().cycle().take(reads);
    nova.call(["fs", "cat"].into_iter().chain(all)).sink().run()?;
    Ok(reads)
}

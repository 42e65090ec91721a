//! One failure at a time: it happens on a good day, and what defends against it is watched at work.
//!
//! `docs/failures.md` names the failures and the tests that begin these drills.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{Chance, DiskCounters, DiskFaults, KillMode};
use nova_groups::COLD_START_WAIT_MAX;
use nova_units::{BlockId, CommitPoint, GroupId, NodeId, UnitIndex};

use crate::rest;
use crate::scenario::Scenario;
use crate::stage::{SETTLE, Stage};

/// How long clients write before something happens, and while it does.
const WRITES: Duration = Duration::from_secs(3);
/// The scrub finds and mends what one device lied about within this virtual time.
const MENDED_WITHIN: Duration = Duration::from_secs(60);
/// The host whose device lies. Its peers never do: the last good copy is never taken.
const VICTIM: NodeId = NodeId(2);

/// What a device does that it does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Writes that it acknowledges and never stores.
    LostWrites,
    /// Flushes that it acknowledges and that make nothing durable; then the power fails.
    LostFlushes,
    /// Writes that it stores elsewhere.
    MisdirectedWrites,
    /// Reads that bring what is stored elsewhere.
    MisdirectedReads,
    /// Bits that flip in memory, behind the check of what was received and before the device has it.
    FlippedWrites,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug)]
pub struct Lied {
    /// How often the device lied.
    pub lies: u64,
    /// Bad copies written anew, units and fences taken from peers.
    pub mended: u64,
    /// Devices replaced because they were of no use any more.
    pub replaced: u64,
    /// Reads of clients, all of which were right or refused.
    pub reads: u64,
    /// Virtual time from the last lie until all copies were alike and sound.
    pub took: Duration,
}

impl Lie {
    fn faults(self) -> DiskFaults {
        let one_in = |parts: u32| Chance::per_million(1_000_000 / parts);
        match self {
            Self::LostWrites => DiskFaults { lost_write: one_in(50), ..DiskFaults::NONE },
            Self::LostFlushes => {
                DiskFaults { lost_flush: Chance::ALWAYS, sector_survives: Chance::NEVER, ..DiskFaults::NONE }
            }
            Self::MisdirectedWrites => DiskFaults { misdirected_write: one_in(100), ..DiskFaults::NONE },
            Self::MisdirectedReads => DiskFaults { misdirected_read: one_in(10), ..DiskFaults::NONE },
            Self::FlippedWrites => DiskFaults { write_flip: one_in(20), ..DiskFaults::NONE },
        }
    }

    fn count(self, counters: &DiskCounters) -> u64 {
        match self {
            Self::LostWrites => counters.lost_writes,
            Self::LostFlushes => counters.lost_flushes,
            Self::MisdirectedWrites => counters.misdirected_writes,
            Self::MisdirectedReads => counters.misdirected_reads,
            Self::FlippedWrites => counters.flipped_writes,
        }
    }
}

/// One device lies while clients write and read; then they leave, and the scrub finds what it can.
///
/// # Errors
/// What is wrong: an acknowledged write that is lost, a wrong byte that was served, copies that stay different.
pub fn lie(seed: u64, lie: Lie) -> Result<Lied, String> {
    let stage = Stage::new(seed, &Scenario::calm(seed))?;
    let mended = || -> u64 {
        let members = stage.cluster.members().into_iter();
        members
            .map(|(_, member)| member.counters())
            .map(|it| it.units_repaired + it.differences_settled)
            .sum()
    };
    stage.run_for(WRITES);
    stage.cluster.set_disk_faults(VICTIM, lie.faults());
    let mut replaced = stage.run_and_replace(WRITES);
    let counters = stage.cluster.disk_counters(VICTIM);
    if lie == Lie::LostFlushes {
        stage.cluster.kill(VICTIM, KillMode::Power);
        stage.run_for(Duration::from_millis(300));
        stage.cluster.set_disk_faults(VICTIM, DiskFaults::NONE);
        stage.cluster.start(VICTIM);
    } else {
        stage.cluster.set_disk_faults(VICTIM, DiskFaults::NONE);
    }
    replaced += stage.run_and_replace(WRITES);
    stage.stop_clients();
    stage.until_whole()?;
    let took = stage.until_alike(MENDED_WITHIN)?;
    let reads = stage.history.borrow().counts.reads;
    let mended = mended();
    stage.check()?;
    Ok(Lied { lies: lie.count(&counters), mended, replaced, reads, took })
}

/// More than a start takes that ends before a controller answers.
const UNHEARD_START: Duration = Duration::from_secs(2);

/// When the image was made that a device is restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Before the last mount: the trail of mounts tells.
    OfAnEarlierMount,
    /// The same, and the host dies and starts again with it, so many times, while no controller answers.
    OfAnEarlierMountUnheard(u32),
    /// Within the last mount and the same epoch: the trail does not tell.
    OfTheSameMount,
    /// The same, and all other hosts are restarted with it.
    OfTheSameMountWithAll,
}

/// How a drill with an old image ended.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// Units that the device held and that the image lacked or had older.
    pub rolled_back: usize,
    /// The device began another life: it was emptied and filled anew.
    pub noticed: bool,
}

/// A device is set back to an old image while its peers live.
///
/// # Errors
/// What is wrong: an acknowledged write that is lost or read in an older version.
pub fn restore(seed: u64, image: Image) -> Result<Restored, String> {
    let stage = Stage::new(seed, &Scenario::calm(seed))?;
    stage.run_for(WRITES);
    let old = stage.cluster.disk_image(VICTIM);
    if matches!(image, Image::OfAnEarlierMount | Image::OfAnEarlierMountUnheard(_)) {
        stage.cluster.kill(VICTIM, KillMode::Process);
        stage.run_for(Duration::from_secs(2));
        stage.cluster.start(VICTIM);
        stage.until_whole()?;
    }
    stage.run_for(WRITES);
    let life = stage.controller.life(VICTIM);
    let before = held(&stage);
    let with = |node: NodeId| node == VICTIM || image == Image::OfTheSameMountWithAll;
    for &node in stage.cluster.hosts.keys().filter(|node| with(**node)) {
        stage.cluster.kill(node, KillMode::Process);
    }
    stage.cluster.restore_disk(VICTIM, old);
    stage.run_for(Duration::from_millis(300));
    let up = || stage.cluster.hosts[&VICTIM].member.borrow().is_some();
    if let Image::OfAnEarlierMountUnheard(starts) = image {
        let controller = &stage.controller;
        controller.away_until.set(stage.cluster.world.now() + UNHEARD_START * (starts + 1));
        for _ in 0..starts {
            stage.cluster.start(VICTIM);
            if !stage.cluster.world.run_until(WRITES, up) {
                return Err("the host does not start from the image".to_owned());
            }
            stage.cluster.kill(VICTIM, KillMode::Process);
            stage.run_for(Duration::from_millis(300));
        }
        if controller.life(VICTIM) != life {
            return Err("somebody heard of the image".to_owned());
        }
    }
    for &node in stage.cluster.hosts.keys() {
        stage.cluster.start(node);
    }
    // Before anybody tells the host what it lacks.
    if !stage.cluster.world.run_until(WRITES, up) {
        return Err("the host does not start from the image".to_owned());
    }
    let after = held(&stage);
    let rolled_back = before.iter().filter(|(place, commit)| after.get(place) != Some(commit)).count();
    stage.until_whole()?;
    let noticed = stage.controller.life(VICTIM) != life;
    stage.stop_clients();
    stage.until_whole()?;
    stage.until_alike(MENDED_WITHIN)?;
    stage.check()?;
    Ok(Restored { rolled_back, noticed })
}

/// All hosts stop, and only one starts again, from an image of its last mount. Answers how many reads brought something
/// older than was acknowledged.
///
/// # Errors
/// The host does not serve alone.
pub fn restore_alone(seed: u64) -> Result<usize, String> {
    let stage = Stage::new(seed, &Scenario::calm(seed))?;
    stage.run_for(WRITES);
    let old = stage.cluster.disk_image(VICTIM);
    stage.run_for(WRITES);
    stage.stop_clients();
    for &node in stage.cluster.hosts.keys() {
        stage.cluster.kill(node, KillMode::Process);
    }
    stage.cluster.restore_disk(VICTIM, old);
    // Until the controllers know that the others are gone: a host that restarts beside others joins anew.
    stage.run_for(Duration::from_secs(5));
    stage.cluster.start(VICTIM);
    stage.run_for(COLD_START_WAIT_MAX + SETTLE);
    let (mut answered, mut last) = (false, String::new());
    for block in stage.blocks.iter() {
        for unit in 0..block.units {
            let (edge, block) = (Rc::clone(&stage.edges[0]), Rc::clone(block));
            let read = async move { edge.try_read(&block, unit, 1, None).await };
            match stage.cluster.world.run(&stage.edges[0].shard, read) {
                Ok(()) => answered = true,
                Err(why) => last = why,
            }
        }
    }
    let stale = stage.history.borrow_mut().violations.drain(..).filter(|it| it.starts_with("stale")).count();
    if answered {
        Ok(stale)
    } else {
        let log = stage.controller.log.borrow();
        let decided: Vec<_> = log.iter().map(|(at, what)| format!("{at:?} {what}")).collect();
        Err(format!("the host does not serve alone: {last}\n{}", decided.join("\n")))
    }
}

/// The versions of all units that the victim holds.
fn held(stage: &Stage) -> BTreeMap<(GroupId, BlockId, UnitIndex), CommitPoint> {
    let groups = stage.controller.members().into_keys();
    let of = |group| {
        rest::copies(&stage.cluster, VICTIM, group).into_iter().map(move |(at, copy)| (group, at, copy))
    };
    groups.flat_map(of).map(|(group, (block, unit), copy)| ((group, block, unit), copy.0)).collect()
}

/// A flush fails once, and afterwards the device answers as if nothing had been.
///
/// # Errors
/// What is wrong: the device is trusted again, or an acknowledged write is lost.
pub fn forgiven_error(seed: u64) -> Result<u64, String> {
    let stage = Stage::new(seed, &Scenario::calm(seed))?;
    stage.run_for(WRITES);
    let device = stage.cluster.device(VICTIM);
    let faults = DiskFaults {
        flush_error: Chance::ALWAYS,
        forgives: true,
        sector_survives: Chance::NEVER,
        ..DiskFaults::NONE
    };
    stage.cluster.set_disk_faults(VICTIM, faults);
    let failing = || stage.cluster.disk_counters(VICTIM).errors;
    if !stage.cluster.world.run_until(WRITES, || failing() > 0) {
        return Err("no flush was asked for".to_owned());
    }
    stage.cluster.set_disk_faults(VICTIM, DiskFaults { sector_survives: Chance::NEVER, ..DiskFaults::NONE });
    let errors = failing();
    // Its host runs on and would have the device; it must not use it, and neither may its next starts.
    for _ in 0..3 {
        stage.run_for(Duration::from_secs(2));
        if stage.controller.serves(device) {
            return Err("the device is trusted again".to_owned());
        }
        stage.cluster.kill(VICTIM, KillMode::Power);
        stage.run_for(Duration::from_millis(200));
        stage.cluster.start(VICTIM);
    }
    stage.until_whole()?;
    stage.stop_clients();
    stage.until_alike(MENDED_WITHIN)?;
    stage.check()?;
    Ok(errors)
}

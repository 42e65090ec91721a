//! The power of a whole region fails: every process dies at the same moment, and what a disk had not flushed is gone, piece
//! by piece. What was acknowledged is there when it comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::process;
use nova_path::region::Size;
use rustix::process::{Pid, Signal, kill_process};

use super::faulty_disk::{FaultyDisk, Mood, cannot_make_disks};
use super::registers::{Registers, Stops};
use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};
use super::volatile_cache::Lost;

const STORAGE: [&str; 3] = ["storage-1", "storage-2", "storage-3"];
const REGISTERS: usize = 6;
/// Losses of power.
const CUTS: usize = 3;
/// A write is acknowledged again this long after the region serves.
const WRITABLE_AGAIN_WITHIN: Duration = Duration::from_secs(30);
/// A killed process is gone when its disk has answered.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Trees that are put meanwhile, at most: some 10 MB each.
const PUTS_MAX: u64 = 20;
/// How long disks lie.
const LIES_FOR: Duration = Duration::from_secs(4);

/// A region on disks whose power can fail.
struct Scene {
    /// Before the disks: they are given back when nothing uses them.
    rig: Rig,
    disks: Vec<FaultyDisk>,
    random: fastrand::Rng,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed left them as they were; nothing ends in order while they hang.
        self.disks.iter().for_each(|disk| disk.set(Mood::Works));
    }
}

impl Scene {
    fn set(name: &str) -> Self {
        let seed = std::env::var("NOVA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let mut rig = Rig::start_of(name, Size::standard(512));
        for host in STORAGE {
            rig.region.kill(host).unwrap();
        }
        let device =
            |host: &&str| FaultyDisk::take_over(&rig.region.processes().host(host).unwrap().devices[0]);
        let disks = STORAGE.iter().map(device).collect();
        for host in STORAGE {
            rig.region.restart(host).unwrap();
        }
        rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        Self { rig, disks, random: fastrand::Rng::with_seed(seed) }
    }

    /// Waits until some disk has something that it would lose.
    fn wait_unflushed(&self) {
        let begun = Instant::now();
        while !self.disks.iter().any(FaultyDisk::has_unflushed) {
            assert!(begun.elapsed() < WRITABLE_AGAIN_WITHIN, "nothing is written any more");
            thread::yield_now();
        }
    }

    /// The power fails. Of what was not flushed, `kept_percent` of all pieces are there afterwards.
    fn cut(&mut self, kept_percent: u8) -> Vec<Lost> {
        let processes = self.rig.region.refresh().unwrap().processes();
        // From here on nothing is written and nothing answered, so nobody learns anything before it dies.
        self.disks.iter().for_each(|disk| disk.set(Mood::Hangs));
        for (_, id) in &processes {
            kill_process(Pid::from_raw(*id).unwrap(), Signal::KILL).unwrap();
        }
        // A process that has requests under way is gone when they are answered.
        self.disks.iter().for_each(|disk| disk.set(Mood::Fails));
        let begun = Instant::now();
        while let Some((name, id)) = processes.iter().find(|(_, id)| process::is_alive(*id)) {
            assert!(begun.elapsed() < GONE_WITHIN, "{name} (process {id}) does not die");
            thread::sleep(Duration::from_millis(10));
        }
        let lost = self.disks.iter().map(|disk| disk.lose_power(&mut self.random, kept_percent)).collect();
        self.disks.iter().for_each(|disk| disk.set(Mood::Works));
        lost
    }
}

#[test]
fn a_region_that_loses_its_power_has_everything_that_was_acknowledged() {
    if cannot_make_disks().is_some() {
        return;
    }
    let mut scene = Scene::set("power");
    let tree = Tree::make(scene.rig.local("before"), 40, 2_500_000, 1);
    tree.put(scene.rig.nova(), "/kept/before").success().unwrap();
    let nova = scene.rig.nova().clone();
    let registers = Registers::make(&nova, "/registers", scene.rig.local("registers"), REGISTERS);
    let (stop, sources) = (AtomicBool::new(false), scene.rig.local("sources"));
    // Large files beside the small ones of the registers; those that were acknowledged are kept.
    let put = || {
        let mut kept = Vec::new();
        for index in 0..PUTS_MAX {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let tree = Tree::make(sources.join(index.to_string()), 8, 8 << 20, index);
            let put = tree.try_put(&nova, &format!("/put/{index}"));
            if put.is_ok_and(|finished| finished.code == Some(0)) {
                kept.push((index, tree));
            }
        }
        kept
    };
    let mut unflushed = 0;
    let kept = thread::scope(|scope| {
        let putting = scope.spawn(put);
        registers.in_use(|| {
            let _stops = Stops(&stop);
            for _ in 0..CUTS {
                registers.wait_writable(WRITABLE_AGAIN_WITHIN);
                thread::sleep(Duration::from_millis(scene.random.u64(0..1_000)));
                scene.wait_unflushed();
                let kept_percent = scene.random.u8(0..100);
                let lost = scene.cut(kept_percent);
                println!("{kept_percent} % of what was not flushed is kept: {lost:?}");
                unflushed += lost.iter().map(|lost| lost.sectors).sum::<usize>();
                scene.rig.region.start_again().unwrap();
            }
            registers.wait_writable(WRITABLE_AGAIN_WITHIN);
        });
        putting.join().unwrap()
    });
    scene.rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    println!("{:?}, {} trees", registers.settle(), kept.len());
    scene.rig.assert_intact("/kept/before", &tree);
    for (index, tree) in &kept {
        scene.rig.assert_intact(&format!("/put/{index}"), tree);
    }
    scene.rig.assert_no_findings();
    assert!(unflushed > 0, "nothing was ever on its way when the power failed");
}

/// What shows that the test above would find something.
#[test]
fn disks_that_lie_about_flushes_lose_what_was_acknowledged_with_their_power() {
    if cannot_make_disks().is_some() {
        return;
    }
    let mut scene = Scene::set("power_lies");
    let nova = scene.rig.nova().clone();
    let registers = Registers::make(&nova, "/registers", scene.rig.local("registers"), REGISTERS);
    registers.in_use(|| {
        registers.wait_writable(WRITABLE_AGAIN_WITHIN);
        scene.disks.iter().for_each(FaultyDisk::lie_about_flushes);
        thread::sleep(LIES_FOR);
        registers.wait_writable(WRITABLE_AGAIN_WITHIN);
        println!("{:?}", scene.cut(0));
    });
    let judged =
        scene.rig.region.start_again().map_err(|error| format!("{error:#}")).and_then(|()| registers.judge());
    let wrong = judged.expect_err("what was acknowledged is there though no disk kept it");
    println!("found: {wrong}");
}

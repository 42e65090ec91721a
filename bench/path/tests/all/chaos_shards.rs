//! One device or one shard of a host that runs goes bad under load: what it has loses a member, and nothing else does.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::{DeviceStatus, Health, Hosts, Status};
use nova_path::region::Size;

use super::chaos_devices::{devices, wait_for_devices};
use super::faulty_disk::{FaultyDisk, Mood, cannot_make_disks};
use super::frozen_thread::{FrozenThread, cannot_freeze};
use super::load::{Load, groups_on};
use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};
use super::skip::skip;

/// The host that has what goes bad, and two others.
const VICTIM: &str = "storage-2";
/// The first shard drives the devices at places 0 and 2, the second one that at place 1.
const SHARDS: u32 = 2;
const DEVICES: u32 = 3;
/// The device that goes bad: its shard has another one, which goes on.
const BAD: usize = 2;
/// Whoever has nothing on the bad device waits no longer for anything.
const SPARED_MAX: Duration = Duration::from_secs(2);
/// Whoever has waits for the others to notice, to decide and to go on; a machine that is busy with other things adds to it.
const HIT_MAX: Duration = Duration::from_secs(8);
/// The region runs as ever for so long before, and after.
const QUIET: Duration = Duration::from_secs(2);
/// A host that was dropped twice in ten minutes waits a minute before it joins again.
const REJOINED_WITHIN: Duration = Duration::from_secs(150);
/// How long something hangs: far longer than it takes to be dropped.
const HANGS_FOR: Duration = Duration::from_secs(20);

/// A region with data in it, and a load.
struct Scene {
    rig: Rig,
    disk: Option<FaultyDisk>,
    load: Load,
    tree: Tree,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed left it as it was; nothing ends in order while it hangs.
        if let Some(disk) = &self.disk {
            disk.set(Mood::Works);
        }
    }
}

impl Scene {
    fn set(name: &str, with_disk: bool) -> Self {
        let size = Size { devices: DEVICES, shards: Some(SHARDS), ..Size::standard(512) };
        let mut rig = Rig::start_of(name, size);
        let disk = with_disk.then(|| {
            rig.region.kill(VICTIM).unwrap();
            let disk = FaultyDisk::take_over(&rig.region.processes().host(VICTIM).unwrap().devices[BAD]);
            rig.region.restart(VICTIM).unwrap();
            disk
        });
        wait_for_devices(&rig, VICTIM, &["serving", "serving", "serving"], &[]);
        rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        let tree = Tree::make(rig.local("before"), 40, 2_500_000, 1);
        tree.put(rig.nova(), "/kept/before").success().unwrap();
        let load = Load::prepare(&rig);
        Self { rig, disk, load, tree }
    }

    fn mood(&self, mood: Mood) {
        self.disk.as_ref().unwrap().set(mood);
    }

    /// Under load: `strikes` at a moment, and `settles` when what happened is over.
    fn under_load<T>(
        &self,
        hit: &BTreeSet<u64>,
        strikes: impl FnOnce() -> T,
        settles: impl FnOnce(&Status, T),
    ) {
        let before = self.rig.region.status().unwrap();
        let struck = self.load.run(&self.rig, || {
            thread::sleep(QUIET);
            let struck = Instant::now();
            settles(&before, strikes());
            thread::sleep(QUIET);
            struck
        });
        let after = self.rig.region.status().unwrap();
        assert_eq!(epochs(&after, hit), epochs(&before, hit), "groups of other devices lost nothing");
        let waits = self.load.waits(&self.rig, struck, hit, SPARED_MAX);
        println!("{} groups were hit: {waits:?}", hit.len());
        self.load.assert_kept(&self.rig);
        self.rig.assert_intact("/kept/before", &self.tree);
        self.rig.assert_no_findings();
        assert!(waits.spared < SPARED_MAX, "groups of other devices waited: {waits:?}");
        assert!(waits.hit < HIT_MAX, "groups of this device waited: {waits:?}");
    }

    /// Waits until no group has a member on the bad device, and each has those of the other hosts.
    fn wait_dropped(&self, hit: &BTreeSet<u64>) {
        let begun = Instant::now();
        loop {
            let status = self.rig.region.status().unwrap();
            let of = |group: &&nova_path::answer::Group| hit.contains(&u64::from(group.group));
            let on_it = status.groups.iter().filter(of).filter(|group| {
                let victim = status.host(VICTIM).unwrap().node;
                group.members.iter().any(|it| it.node == victim && it.role == "in_sync")
            });
            let left = on_it.count();
            if left == 0 {
                return println!("dropped from {} groups after {:?}", hit.len(), begun.elapsed());
            }
            assert!(begun.elapsed() < HANGS_FOR, "{left} of {} groups still have a member there", hit.len());
            thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn a_device_that_fails_costs_its_own_groups_a_member_and_is_never_trusted_again() {
    if cannot_make_disks().is_some() {
        return;
    }
    let mut scene = Scene::set("device_fails", true);
    let hit = groups_on(&scene.rig.region.status().unwrap(), VICTIM, BAD);
    scene.under_load(
        &hit,
        || scene.mood(Mood::Fails),
        |before, ()| {
            let after = wait_for_devices(&scene.rig, VICTIM, &["serving", "serving", "failed"], &[]);
            for host in ["storage-1", "storage-3"] {
                assert_eq!(devices(&after, host), devices(before, host), "{host} was not touched");
            }
            // What was lost is built on the other devices of the host.
            scene.rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        },
    );
    wait_without_bad(&scene.rig);

    // It answers again, as if nothing had been.
    scene.mood(Mood::Works);
    scene.rig.region.kill(VICTIM).unwrap();
    scene.rig.region.restart(VICTIM).unwrap();
    wait_without_bad(&scene.rig);
    let last = Tree::make(scene.rig.local("last"), 16, 300_000, 3);
    last.put(scene.rig.nova(), "/kept/last").success().unwrap();
    scene.load.assert_kept(&scene.rig);
    scene.rig.assert_intact("/kept/last", &last);
    scene.rig.assert_no_findings();
}

/// Groups that were not hit, with their epochs: whether one of them lost or got a member.
fn epochs(status: &Status, hit: &BTreeSet<u64>) -> Vec<(u32, u64)> {
    let spared = status.groups.iter().filter(|group| !hit.contains(&u64::from(group.group)));
    spared.map(|group| (group.group, group.epoch)).collect()
}

/// What `nova cluster status`, `nova node ls` and `nova fs health` say of the devices of the host: place, state and groups.
fn devices_told(rig: &Rig) -> Vec<Vec<(Option<usize>, String, usize)>> {
    let hosts: Hosts = rig.nova().call(["node", "ls"]).answer().unwrap();
    let health: Health = rig.nova().call(["fs", "health"]).finish().unwrap().answer().unwrap();
    let status = rig.region.status().unwrap();
    let lists = [
        &status.host(VICTIM).unwrap().devices,
        &hosts.hosts.iter().find(|host| host.name == VICTIM).unwrap().devices,
        &health.hosts.iter().find(|host| host.name == VICTIM).unwrap().devices,
    ];
    let told = |device: &DeviceStatus| (device.place, device.state.clone(), device.groups);
    lists.map(|devices| devices.iter().map(told).collect()).into()
}

/// Waits until all groups are whole, none of them with the bad device, which every command names as failed.
fn wait_without_bad(rig: &Rig) {
    let begun = Instant::now();
    loop {
        let told = devices_told(rig);
        let without = told.iter().all(|devices| {
            let (bad, good): (Vec<_>, Vec<_>) = devices.iter().partition(|device| device.0 == Some(BAD));
            bad == [&(Some(BAD), "failed".to_owned(), 0)]
                && good.len() == 2
                && good.iter().all(|device| device.1 == "serving" && device.2 > 0)
        });
        let status = rig.region.status().unwrap();
        let noted = status.notes.iter().any(|note| note.contains(VICTIM) && note.contains("failed"));
        if without && noted && status.all_in_sync(3) {
            return;
        }
        assert!(begun.elapsed() < REJOINED_WITHIN, "{told:?}, {:?}", status.notes);
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_device_that_hangs_costs_its_own_groups_a_member_until_it_goes_on() {
    if cannot_make_disks().is_some() {
        return;
    }
    let scene = Scene::set("device_hangs", true);
    let hit = groups_on(&scene.rig.region.status().unwrap(), VICTIM, BAD);
    scene.under_load(
        &hit,
        || scene.mood(Mood::Hangs),
        |_, ()| {
            let begun = Instant::now();
            scene.wait_dropped(&hit);
            thread::sleep(HANGS_FOR.saturating_sub(begun.elapsed()));
            scene.mood(Mood::Works);
            scene.rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        },
    );
}

#[test]
fn a_shard_that_hangs_costs_its_own_groups_a_member_until_it_goes_on() {
    if let Some(why) = cannot_freeze() {
        return skip(&why);
    }
    let scene = Scene::set("shard_hangs", false);
    let novad = scene.rig.region.processes().host(VICTIM).unwrap().novad_pid.unwrap();
    // The second shard has the device at place 1 alone.
    let hit = groups_on(&scene.rig.region.status().unwrap(), VICTIM, 1);
    scene.under_load(
        &hit,
        || FrozenThread::freeze(novad, &format!("{VICTIM}/1")),
        |_, frozen| {
            let begun = Instant::now();
            scene.wait_dropped(&hit);
            thread::sleep(HANGS_FOR.saturating_sub(begun.elapsed()));
            drop(frozen);
            scene.rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        },
    );
}

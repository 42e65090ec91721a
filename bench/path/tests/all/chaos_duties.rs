//! What a region does unasked: rot is found and repaired though nobody reads, and a host is emptied while files are put.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::{Health, Located};
use nova_path::flip::{self, Flip, Found};
use nova_path::nova::Finished;
use nova_path::region::Size;

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// Damage is gone within this time (Spec 3.7 and our own bar of 10 s, with room for a busy machine).
const REPAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// What hosts counted reaches the controllers within this time.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// A host with a few hundred MiB is empty within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Units of which two replicas are damaged.
const UNITS: usize = 6;
const LOOK_EVERY: Duration = Duration::from_millis(250);

fn health(rig: &Rig) -> (Option<i32>, Health) {
    let finished: Finished = rig.nova().call(["fs", "health"]).finish().unwrap();
    (finished.code, finished.answer().unwrap_or_else(|error| panic!("{finished}: {error:#}")))
}

fn locate(rig: &Rig, path: &str) -> Located {
    rig.nova().call(["fs", "locate", path]).answer().unwrap()
}

#[test]
fn rot_that_nobody_reads_is_found_and_repaired() {
    let size = Size { scrub_mib: Some(64), ..Size::standard(512) };
    let rig = Rig::start_of("scrub", size);
    let tree = Tree::make(rig.local("source"), 48, 1_500_000, 7);
    tree.put(rig.nova(), "/kept").success().unwrap();
    let located: Vec<Located> =
        tree.names.iter().map(|name| locate(&rig, &format!("/kept/{name}"))).collect();
    let before: u64 = health(&rig).1.hosts.iter().map(|host| host.repaired).sum();
    let flips: Vec<Flip> =
        flip::plan(&located, UNITS, 11).into_iter().map(|target| Flip::apply(target).unwrap()).collect();
    assert_eq!(flips.len(), 2 * UNITS);
    let begun = Instant::now();
    let mut open: Vec<&Flip> = flips.iter().collect();
    while !open.is_empty() {
        // Asking where a unit lies reads none of it.
        open.retain(|flip| flip.find(&locate(&rig, &flip.target.path)).unwrap() == Found::Damaged);
        assert!(
            begun.elapsed() < REPAIR_TIMEOUT,
            "{} of {} copies are still damaged after {REPAIR_TIMEOUT:?}; {:#?}",
            open.len(),
            flips.len(),
            health(&rig)
        );
        thread::sleep(LOOK_EVERY);
    }
    println!("{} copies repaired unread after {:.1} s", flips.len(), begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    loop {
        let (code, now) = health(&rig);
        let repaired = now.hosts.iter().map(|host| host.repaired).sum::<u64>() - before;
        let verified = now.hosts.iter().all(|host| host.bytes_verified > 0 && host.passes > 0);
        if repaired >= flips.len() as u64 && verified && code == Some(0) {
            assert!(!now.at_risk && now.blocks_at_risk == 0 && now.bad_units == 0, "{now:#?}");
            assert!(now.oldest_verification_seconds.is_some_and(|age| age < 60), "{now:#?}");
            break;
        }
        assert!(begun.elapsed() < COUNTERS_TIMEOUT, "code {code:?}, {repaired} repaired: {now:#?}");
        thread::sleep(LOOK_EVERY);
    }
    // Three storage hosts: nobody could take what a drained one holds.
    let refused = rig.nova().call(["node", "drain", "storage-1"]).finish().unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("Add a storage host"), "{refused}");
    rig.assert_intact("/kept", &tree);
    rig.region.down().unwrap();
}

#[test]
fn a_host_is_emptied_while_files_are_put_and_then_holds_its_share_again() {
    let rig = Rig::start_of("drain", Size { storage: 4, ..Size::standard(512) });
    let kept = Tree::make(rig.local("kept"), 64, 1_000_000, 3);
    kept.put(rig.nova(), "/kept").success().unwrap();
    let stop = AtomicBool::new(false);
    let sources = rig.local("sources");
    let (trees, whole) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut trees = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let index = trees.len();
                let tree =
                    Tree::make(sources.join(format!("batch-{index}")), 12, 300_000, 100 + index as u64);
                tree.put(rig.nova(), &format!("/load/{index}")).success().unwrap();
                trees.push(tree);
            }
            trees
        });
        let watcher = scope.spawn(|| {
            // Groups with fewer than three members in sync at any look.
            let mut whole = true;
            while !stop.load(Ordering::Relaxed) {
                let status = rig.region.status().unwrap();
                whole &= status.groups_with(3) == status.groups.len();
                thread::sleep(LOOK_EVERY);
            }
            whole
        });
        let drained = rig.nova().call(["node", "drain", "storage-2", "--wait"]).limit(DRAIN_TIMEOUT).finish();
        stop.store(true, Ordering::Relaxed);
        let ended = (writer.join().unwrap(), watcher.join().unwrap());
        drained.unwrap().success().unwrap();
        ended
    });
    assert!(whole, "a group was less than whole while its replica moved");
    assert!(!trees.is_empty());
    let (code, now) = health(&rig);
    let left = |health: &Health| health.hosts.iter().find(|host| host.name == "storage-2").unwrap().groups;
    assert_eq!((code, left(&now)), (Some(0), 0), "{now:#?}");
    // It can be switched off.
    rig.region.kill("storage-2").unwrap();
    rig.assert_intact("/kept", &kept);
    for (index, tree) in trees.iter().enumerate() {
        rig.assert_intact(&format!("/load/{index}"), tree);
    }
    let mut rig = rig;
    rig.region.restart("storage-2").unwrap();
    rig.nova().call(["node", "undrain", "storage-2"]).run().unwrap();
    let begun = Instant::now();
    while left(&health(&rig).1) < 8 {
        assert!(begun.elapsed() < DRAIN_TIMEOUT, "it does not get its share: {:#?}", health(&rig).1);
        thread::sleep(LOOK_EVERY);
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    rig.assert_intact("/kept", &kept);
    rig.region.down().unwrap();
}

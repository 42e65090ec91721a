//! A full disk: a clear error, nothing lost, and removing files makes room again, also over a restart of all hosts.

use std::thread;
use std::time::{Duration, Instant};

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// The smallest device.
const DEVICE_MIB: u64 = 256;
/// Files of a batch: one large, the rest small.
const FILES: usize = 8;
const LARGE_BYTES: usize = 12 << 20;
/// More batches than the device has room for.
const BATCHES_MAX: usize = 40;
/// Space is back within this time.
const COLLECTED_WITHIN: Duration = Duration::from_secs(90);
/// A full device is named in the notes within this time.
const NOTED_WITHIN: Duration = Duration::from_secs(20);
const STORAGE: [&str; 3] = ["storage-1", "storage-2", "storage-3"];

#[test]
fn a_full_device_is_refused_clearly_and_loses_nothing() {
    let rig = Rig::start("full_device", DEVICE_MIB);
    let empty = rig.room();
    let sources = rig.local("sources");
    let mut kept = Vec::new();
    let refused = loop {
        let index = kept.len();
        assert!(index < BATCHES_MAX, "the device never filled up");
        let tree = Tree::make(sources.join(format!("batch-{index}")), FILES, LARGE_BYTES, index as u64);
        let put = tree.put(rig.nova(), &format!("/full/{index}"));
        if put.code != Some(0) {
            break put;
        }
        kept.push(tree);
    };
    let said = refused.stderr.to_lowercase();
    assert!(said.contains("full") || said.contains("space"), "not a clear error: {refused}");
    assert!(kept.len() >= 4, "full after only {} batches of 12 MiB", kept.len());
    for (index, tree) in kept.iter().enumerate() {
        rig.assert_intact(&format!("/full/{index}"), tree);
    }

    let half = kept.len() / 2;
    for index in 0..half {
        rig.nova().call(["fs", "rm", "-r", &format!("/full/{index}")]).run().unwrap();
    }
    rig.nova().call(["fs", "trash", "purge", "--all"]).run().unwrap();
    let listed = rig.nova().call(["fs", "ls", "/full/0"]).finish().unwrap();
    assert_eq!(listed.code, Some(3), "removed on a full device: {listed}");
    for (index, tree) in kept.iter().enumerate().skip(half) {
        rig.assert_intact(&format!("/full/{index}"), tree);
    }
    rig.region.wait_collected(empty / 3, COLLECTED_WITHIN).unwrap();
    let again = Tree::make(sources.join("again"), FILES, LARGE_BYTES, 1000);
    let put = again.put(rig.nova(), "/full/again");
    assert_eq!(put.code, Some(0), "there is room again: {put}");
    rig.region.down().unwrap();
}

#[test]
fn hosts_killed_while_their_devices_are_full_come_back_and_can_be_emptied() {
    let mut rig = Rig::start("full_restart", DEVICE_MIB);
    let sources = rig.local("sources");
    let empty = rig.room();
    let make =
        |index: usize| Tree::make(sources.join(format!("batch-{index}")), FILES, LARGE_BYTES, index as u64);
    let first = make(0);
    let mut last = first.clone();
    for index in 0.. {
        assert!(index < BATCHES_MAX, "the device never filled up");
        if last.put(rig.nova(), &format!("/full/{index}")).code != Some(0) {
            break;
        }
        last = make(index + 1);
    }
    // Hosts say once a second how full they are.
    let begun = Instant::now();
    loop {
        let notes = rig.region.status().unwrap().notes;
        if notes.iter().any(|note| note.contains("SPACE IS RUNNING OUT")) {
            break;
        }
        assert!(begun.elapsed() < NOTED_WITHIN, "nobody is told that space runs out: {notes:?}");
        thread::sleep(Duration::from_millis(200));
    }
    for host in STORAGE {
        rig.region.kill(host).unwrap();
    }
    for host in STORAGE {
        rig.region.restart(host).unwrap();
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    rig.assert_intact("/full/0", &first);
    rig.nova().call(["fs", "rm", "-r", "/full"]).run().unwrap();
    rig.nova().call(["fs", "trash", "purge", "--all"]).run().unwrap();
    // What an empty region keeps is its metadata.
    rig.region.wait_collected(empty - empty / 20, COLLECTED_WITHIN).unwrap();
    // The trash is taken apart in steps, and the session of the put that failed runs out.
    let begun = Instant::now();
    while rig.assert_no_findings().blocks_held > 0 {
        assert!(begun.elapsed() < COLLECTED_WITHIN, "blocks of removed files are still held");
    }
    let put = first.put(rig.nova(), "/full/again");
    assert_eq!(put.code, Some(0), "an empty region takes files: {put}");
    rig.assert_intact("/full/again", &first);
    rig.region.down().unwrap();
}

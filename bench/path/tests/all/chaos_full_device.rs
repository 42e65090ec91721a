//! A full disk: a clear error, nothing lost, and room again after something was removed.

use std::thread;
use std::time::{Duration, Instant};

use super::rig::{Rig, Tree};

/// The smallest device.
const DEVICE_MIB: u64 = 256;
/// Files of a batch: one large, the rest small.
const FILES: usize = 8;
const LARGE_BYTES: usize = 12 << 20;
/// More batches than the device has room for.
const BATCHES_MAX: usize = 40;
/// Cells of removed files are free again within this time.
const ROOM_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn a_full_device_is_refused_clearly_and_loses_nothing() {
    let rig = Rig::start("full_device", DEVICE_MIB);
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
    let tree = Tree::make(sources.join("again"), FILES, LARGE_BYTES, 1000);
    let begun = Instant::now();
    let mut tries = 0;
    let folder = loop {
        let folder = format!("/again/{tries}");
        let put = tree.put(rig.nova(), &folder);
        if put.code == Some(0) {
            break folder;
        }
        assert!(begun.elapsed() < ROOM_TIMEOUT, "no room {ROOM_TIMEOUT:?} after half was removed: {put}");
        tries += 1;
        thread::sleep(Duration::from_secs(1));
    };
    rig.assert_intact(&folder, &tree);
    for (index, tree) in kept.iter().enumerate().skip(half) {
        rig.assert_intact(&format!("/full/{index}"), tree);
    }
    rig.region.down().unwrap();
}

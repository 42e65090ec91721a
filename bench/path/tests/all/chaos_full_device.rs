//! A full disk: a clear error, nothing lost, and removing files makes room again, also over a restart of all hosts.

use std::time::Duration;

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

#[test]
fn a_full_device_is_refused_clearly_and_loses_nothing() {
    let mut rig = Rig::start("full_device", DEVICE_MIB);
    let empty = rig.region.status().unwrap().bytes_free_min();
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
    let listed = rig.nova().call(["fs", "ls", "/full/0"]).finish().unwrap();
    assert_eq!(listed.code, Some(3), "removed on a full device: {listed}");
    for (index, tree) in kept.iter().enumerate().skip(half) {
        rig.assert_intact(&format!("/full/{index}"), tree);
    }
    rig.region.wait_collected(empty / 3, COLLECTED_WITHIN).unwrap();
    let again = Tree::make(sources.join("again"), FILES, LARGE_BYTES, 1000);
    let put = again.put(rig.nova(), "/full/again");
    assert_eq!(put.code, Some(0), "there is room again: {put}");

    // Filled once more, killed while it is full, and emptied.
    let mut last = kept.len();
    while Tree::make(sources.join(format!("more-{last}")), FILES, LARGE_BYTES, last as u64)
        .put(rig.nova(), &format!("/full/more-{last}"))
        .code
        == Some(0)
    {
        last += 1;
        assert!(last < kept.len() + BATCHES_MAX, "the device never filled up again");
    }
    let notes = rig.region.status().unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("SPACE IS RUNNING OUT")), "{notes:?}");
    for host in ["storage-1", "storage-2", "storage-3"] {
        rig.region.kill(host).unwrap();
    }
    for host in ["storage-1", "storage-2", "storage-3"] {
        rig.region.restart(host).unwrap();
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    rig.assert_intact("/full/again", &again);
    rig.nova().call(["fs", "rm", "-r", "/full"]).run().unwrap();
    // What a region keeps when it is empty is its metadata.
    rig.region.wait_collected(empty - empty / 50, COLLECTED_WITHIN).unwrap();
    assert_eq!(rig.assert_no_findings().blocks_held, 0);
    assert_eq!(rig.nova().call(["fs", "mkdir", "/full"]).finish().unwrap().code, Some(0));
    let put = again.put(rig.nova(), "/full/after");
    assert_eq!(put.code, Some(0), "an empty region takes files: {put}");
    rig.assert_intact("/full/after", &again);
    rig.region.down().unwrap();
}

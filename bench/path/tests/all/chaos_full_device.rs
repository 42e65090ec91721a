//! A full disk: a clear error, nothing lost, and files can still be removed.

use super::rig::{Rig, Tree};

/// The smallest device.
const DEVICE_MIB: u64 = 256;
/// Files of a batch: one large, the rest small.
const FILES: usize = 8;
const LARGE_BYTES: usize = 12 << 20;
/// More batches than the device has room for.
const BATCHES_MAX: usize = 40;

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
    // Cells of removed blocks wait for the collection of a later version, so room is not asked for here.
    let listed = rig.nova().call(["fs", "ls", "/full/0"]).finish().unwrap();
    assert_eq!(listed.code, Some(3), "removed on a full device: {listed}");
    for (index, tree) in kept.iter().enumerate().skip(half) {
        rig.assert_intact(&format!("/full/{index}"), tree);
    }
    rig.region.down().unwrap();
}

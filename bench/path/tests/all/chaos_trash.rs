//! Trash on full devices: what was removed first goes early, and files that are kept stay.

use std::thread;
use std::time::{Duration, Instant};

use super::rig::{Rig, Tree};

/// The smallest device.
const DEVICE_MIB: u64 = 256;
/// Files of a batch: one large, the rest small.
const FILES: usize = 8;
const LARGE_BYTES: usize = 12 << 20;
/// Far more batches than the device has room for.
const BATCHES: usize = 40;
/// Room for a batch comes back within this time though nobody empties the trash.
const ROOM_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn the_oldest_trash_goes_by_itself_when_devices_are_nearly_full() {
    let rig = Rig::start("trash_full", DEVICE_MIB);
    let sources = rig.local("sources");
    let kept = Tree::make(sources.join("kept"), FILES, LARGE_BYTES, 1000);
    kept.put(rig.nova(), "/hot/kept").success().unwrap();
    let (mut refused, mut longest) = (0, Duration::ZERO);
    for index in 0..BATCHES {
        let tree = Tree::make(sources.join("batch"), FILES, LARGE_BYTES, index as u64);
        let (begun, folder) = (Instant::now(), format!("/hot/{index}"));
        // A put that finds no room is refused; what it left is removed like the rest.
        while tree.put(rig.nova(), &folder).code != Some(0) {
            refused += 1;
            assert!(begun.elapsed() < ROOM_WITHIN, "no room for batch {index}: the trash is kept");
            thread::sleep(Duration::from_secs(1));
            let _ = rig.nova().call(["fs", "rm", "-r", &folder]).finish().unwrap();
        }
        longest = longest.max(begun.elapsed());
        if index % 8 == 7 {
            rig.assert_intact(&folder, &tree);
        }
        rig.nova().call(["fs", "rm", "-r", &folder]).run().unwrap();
        std::fs::remove_dir_all(sources.join("batch")).unwrap();
    }
    println!(
        "{BATCHES} batches went through a device of {DEVICE_MIB} MiB, {refused} puts refused, longest {longest:?}"
    );
    // What was removed last can still be had back: not more went than had to.
    let listed = rig.nova().call(["fs", "trash", "ls"]).finish().unwrap();
    let shown = String::from_utf8_lossy(&listed.stdout);
    assert!(shown.contains(&format!("\"/hot/{}\"", BATCHES - 1)), "{listed}: {shown}");
    assert!(!shown.contains("\"/hot/0\""), "the oldest is gone: {listed}: {shown}");
    rig.assert_intact("/hot/kept", &kept);
    rig.region.down().unwrap();
}

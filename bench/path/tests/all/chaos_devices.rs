//! Hosts with two devices each: one is lost, the host goes on with the other, and what was lost is built anew.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::{HostStatus, Status};
use nova_path::region::Size;

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// The host that loses a device.
const VICTIM: &str = "storage-2";
/// At either end of a device, where all copies of its superblock are.
const DAMAGED_BYTES: usize = 1 << 20;

pub(crate) fn damage(device: &Path) {
    let file = File::options().write(true).open(device).unwrap();
    let end = file.metadata().unwrap().len() - DAMAGED_BYTES as u64;
    for position in [0, end] {
        file.write_all_at(&vec![0xA5; DAMAGED_BYTES], position).unwrap();
    }
    file.sync_all().unwrap();
}

fn host<'a>(status: &'a Status, name: &str) -> &'a HostStatus {
    status.host(name).unwrap()
}

/// State and groups of the devices of a host, in the order of its configuration; those not mounted come last.
pub(crate) fn devices(status: &Status, name: &str) -> Vec<(String, usize)> {
    host(status, name).devices.iter().map(|device| (device.state.clone(), device.groups)).collect()
}

/// Waits until the controllers say of the devices of a host what they should: a host that was started a moment ago is
/// still known as it was before.
pub(crate) fn wait_for_devices(rig: &Rig, name: &str, states: &[&str], broken: &[usize]) -> Status {
    let begun = Instant::now();
    loop {
        let status = rig.region.status().unwrap();
        let found: Vec<_> = devices(&status, name).into_iter().map(|(state, _)| state).collect();
        if found == states && host(&status, name).broken_devices == broken {
            return status;
        }
        assert!(begun.elapsed() < IN_SYNC_TIMEOUT, "{name} has {:?}", host(&status, name));
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_host_that_lost_one_of_its_devices_serves_with_the_other_and_rebuilds_what_was_lost() {
    let mut rig = Rig::start_of("lost_device", Size { devices: 2, ..Size::standard(512) });
    let before = rig.region.status().unwrap();
    for storage in ["storage-1", VICTIM, "storage-3"] {
        assert_eq!(devices(&before, storage), [("serving".into(), 6), ("serving".into(), 6)], "{storage}");
    }
    let tree = Tree::make(rig.local("before"), 40, 3_000_000, 1);
    assert_eq!(tree.put(rig.nova(), "/load/before").code, Some(0));

    rig.region.kill(VICTIM).unwrap();
    let lost = rig.region.processes().host(VICTIM).unwrap().devices[1].clone();
    damage(&lost);
    // The others take writes without it, and it misses these.
    let missed = Tree::make(rig.local("missed"), 16, 300_000, 2);
    assert_eq!(missed.put(rig.nova(), "/load/missed").code, Some(0));
    rig.region.restart(VICTIM).unwrap();
    wait_for_devices(&rig, VICTIM, &["serving", "absent"], &[1]);
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();

    let after = rig.region.status().unwrap();
    assert_eq!(devices(&after, VICTIM), [("serving".into(), 12), ("absent".into(), 0)]);
    let told = after.notes.iter().any(|note| note.contains(VICTIM) && note.contains("could not mount"));
    assert!(told, "{:?}", after.notes);
    for storage in ["storage-1", "storage-3"] {
        assert_eq!(devices(&after, storage), devices(&before, storage), "{storage} was not touched");
    }
    rig.assert_intact("/load/before", &tree);
    rig.assert_intact("/load/missed", &missed);
    rig.assert_no_findings();

    // A new device in its place is laid out, and serves.
    rig.region.kill(VICTIM).unwrap();
    std::fs::remove_file(&lost).unwrap();
    rig.region.restart(VICTIM).unwrap();
    wait_for_devices(&rig, VICTIM, &["serving", "serving", "absent"], &[]);
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    let last = Tree::make(rig.local("last"), 16, 300_000, 3);
    assert_eq!(last.put(rig.nova(), "/load/last").code, Some(0));
    rig.assert_intact("/load/before", &tree);
    rig.assert_intact("/load/last", &last);
    rig.assert_no_findings();
    rig.region.down().unwrap();
}

//! Hosts whose `novad` has several shards: what came to one shard for a device of another is served, and what happens to
//! one device or host costs no other.

use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::{Health, Status};
use nova_path::region::Size;

use super::chaos_devices::{damage, devices, wait_for_devices};
use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

const HOSTS: [&str; 3] = ["storage-1", "storage-2", "storage-3"];
/// The host that is killed, and loses a device.
const VICTIM: &str = "storage-2";
/// Shards of every host, and devices of each storage host: the first shard drives two, the second one.
const SHARDS: u32 = 2;
const DEVICES: u32 = 3;
/// Fast enough for a pass within seconds.
const SCRUB_MIB: u64 = 64;
/// Programs that write at the same time: the edge deals them to its shards.
const WRITERS: usize = 4;

fn counter(status: &Status, host: &str, name: &str) -> u64 {
    status.host(host).unwrap().counters.get(name).copied().unwrap_or(0)
}

/// Puts a tree by each of several programs at once; answers the trees with the folders they are in.
fn put_at_once(rig: &Rig, what: &str) -> Vec<(String, Tree)> {
    thread::scope(|scope| {
        let putting: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let name = format!("{what}-{writer}");
                    let tree = Tree::make(rig.local(&name), 24, 2_500_000, writer as u64);
                    let put = tree.put(rig.nova(), &format!("/load/{name}"));
                    assert_eq!(put.code, Some(0), "{put}");
                    (format!("/load/{name}"), tree)
                })
            })
            .collect();
        putting.into_iter().map(|put| put.join().unwrap()).collect()
    })
}

/// Waits until the controllers heard that all was written: the counts of a host are those of all its shards.
fn wait_counted(rig: &Rig, bytes: u64) {
    let begun = Instant::now();
    loop {
        let status = rig.region.status().unwrap();
        let edge = counter(&status, "compute-1", "bytes_written");
        let stored = HOSTS.map(|host| counter(&status, host, "device_bytes_written"));
        if edge >= bytes && stored.iter().all(|stored| *stored >= bytes) {
            return;
        }
        assert!(
            begun.elapsed() < IN_SYNC_TIMEOUT,
            "of {bytes} bytes the edge counts {edge}, hosts {stored:?}"
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until scrub went over every device of every storage host, and says that nothing is at risk.
fn wait_verified(rig: &Rig) {
    let begun = Instant::now();
    loop {
        let asked = rig.nova().call(["fs", "health"]).finish().unwrap();
        let health: Health = asked.answer().unwrap_or_else(|error| panic!("{asked}: {error:#}"));
        let verified = health.hosts.iter().all(|host| host.passes > 0) && health.hosts.len() == HOSTS.len();
        if verified && !health.at_risk && health.oldest_verification_seconds.is_some() {
            return;
        }
        assert!(begun.elapsed() < IN_SYNC_TIMEOUT, "{health:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn hosts_with_two_shards_lose_a_host_and_a_device_like_those_with_one() {
    let size =
        Size { devices: DEVICES, shards: Some(SHARDS), scrub_mib: Some(SCRUB_MIB), ..Size::standard(512) };
    let mut rig = Rig::start_of("shards", size);
    let before = rig.region.status().unwrap();
    for host in HOSTS {
        let found = devices(&before, host);
        assert!(
            found.len() == 3 && found.iter().all(|(state, groups)| state == "serving" && *groups > 0),
            "{found:?}"
        );
    }
    let mut trees = put_at_once(&rig, "before");
    for (folder, tree) in &trees {
        rig.assert_intact(folder, tree);
    }
    wait_counted(&rig, trees.iter().map(|(_, tree)| tree.bytes).sum());

    rig.region.kill(VICTIM).unwrap();
    trees.extend(put_at_once(&rig, "missed"));
    rig.region.restart(VICTIM).unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    wait_verified(&rig);
    for (folder, tree) in &trees {
        rig.assert_intact(folder, tree);
    }
    rig.assert_no_findings();

    // The only device of the second shard is lost: the first shard goes on.
    rig.region.kill(VICTIM).unwrap();
    damage(&rig.region.processes().host(VICTIM).unwrap().devices[1]);
    rig.region.restart(VICTIM).unwrap();
    let status = wait_for_devices(&rig, VICTIM, &["serving", "serving", "absent"], &[1]);
    assert_eq!(devices(&status, "storage-1"), devices(&before, "storage-1"), "another host was not touched");
    trees.extend(put_at_once(&rig, "after"));
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    for (folder, tree) in &trees {
        rig.assert_intact(folder, tree);
    }
    rig.assert_no_findings();
    rig.region.down().unwrap();
}

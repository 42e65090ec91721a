//! A host is drained while nobody has room: that is refused clearly, and what else a full region must do works. With room it
//! is emptied.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nova_path::answer::Health;
use nova_path::nova::Finished;
use nova_path::region::Size;

use super::chaos_devices::wait_for_devices;
use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// The smallest device.
const DEVICE_MIB: u64 = 256;
/// Files of a batch: one large, the rest small.
const FILES: usize = 8;
const LARGE_BYTES: usize = 12 << 20;
/// More batches than there is room for.
const BATCHES_MAX: usize = 60;
const VICTIM: &str = "storage-2";
const OTHERS: [&str; 3] = ["storage-1", "storage-3", "storage-4"];
/// A drain ends, well or not, within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// What does not depend on room is said at once.
const SAID_WITHIN: Duration = Duration::from_secs(10);
/// Space is back within this time.
const COLLECTED_WITHIN: Duration = Duration::from_secs(90);

/// Files of which all that were acknowledged are kept.
struct Filling {
    trees: Vec<Tree>,
}

impl Filling {
    /// Puts batches until one is refused, or `enough` says so.
    fn put(&mut self, rig: &Rig, enough: impl Fn(&Rig) -> bool) -> Option<Finished> {
        let sources = rig.local("sources");
        while !enough(rig) {
            let index = self.trees.len();
            assert!(index < BATCHES_MAX, "the region never filled up");
            let tree = Tree::make(sources.join(format!("batch-{index}")), FILES, LARGE_BYTES, index as u64);
            let put = tree.put(rig.nova(), &format!("/full/{index}"));
            if put.code != Some(0) {
                return Some(put);
            }
            self.trees.push(tree);
        }
        None
    }

    fn assert_intact(&self, rig: &Rig) {
        for (index, tree) in self.trees.iter().enumerate() {
            rig.assert_intact(&format!("/full/{index}"), tree);
        }
    }
}

fn groups_of(rig: &Rig, host: &str) -> u64 {
    let health: Health = rig.nova().call(["fs", "health"]).finish().unwrap().answer().unwrap();
    health.hosts.iter().find(|it| it.name == host).unwrap().groups
}

/// Gives a host another device, as a person does: a line in the configuration of its `novad`, and a restart.
fn add_device(rig: &mut Rig, host: &str) {
    rig.region.kill(host).unwrap();
    let path = rig.region.processes().host(host).unwrap().devices[0].with_extension("more");
    let config = rig.nova().region().join(host).join("novad.toml");
    append(&config, &format!("\n[[device]]\npath = {path:?}\ncreate_mib = {DEVICE_MIB}\n"));
    rig.region.restart(host).unwrap();
    wait_for_devices(rig, host, &["serving", "serving"], &[]);
    wait_copies(rig);
}

/// Waits until every group has three members in sync; others may join besides, as replicas move onto new devices.
fn wait_copies(rig: &Rig) {
    let begun = Instant::now();
    loop {
        let status = rig.region.status().unwrap();
        let whole = status.groups_with(3);
        if whole == status.groups.len() {
            return;
        }
        assert!(begun.elapsed() < IN_SYNC_TIMEOUT, "{whole} of {} groups are whole", status.groups.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_host_of_a_full_region_is_drained_when_there_is_room_and_not_before() {
    let mut rig = Rig::start_of("full_drain", Size { storage: 4, ..Size::standard(DEVICE_MIB) });
    let empty = rig.room();
    let mut filling = Filling { trees: Vec::new() };
    let refused = filling.put(&rig, |_| false).unwrap();
    assert!(refused.stderr.to_lowercase().contains("full"), "not a clear error: {refused}");
    let before = groups_of(&rig, VICTIM);

    let refused = rig.nova().call(["node", "drain", VICTIM, "--wait"]).limit(SAID_WITHIN).finish().unwrap();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("no other storage host has room"), "{refused}");
    assert_eq!(groups_of(&rig, VICTIM), before, "nothing was begun");

    // It starts while it is full, and one that was refused is like any other.
    for host in [VICTIM, "storage-3"] {
        rig.region.kill(host).unwrap();
        rig.region.restart(host).unwrap();
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    filling.assert_intact(&rig);

    for host in OTHERS {
        add_device(&mut rig, host);
    }
    rig.nova().call(["node", "drain", VICTIM, "--wait"]).limit(DRAIN_TIMEOUT).run().unwrap();
    assert_eq!(groups_of(&rig, VICTIM), 0);
    rig.region.kill(VICTIM).unwrap();
    filling.assert_intact(&rig);

    // What is removed makes room for more.
    rig.nova().call(["fs", "rm", "-r", "/full"]).run().unwrap();
    rig.nova().call(["fs", "trash", "purge", "--all"]).run().unwrap();
    rig.region.restart(VICTIM).unwrap();
    wait_copies(&rig);
    rig.region.wait_collected(empty / 2, COLLECTED_WITHIN).unwrap();
    let again = Tree::make(rig.local("again"), FILES, LARGE_BYTES, 1000);
    again.put(rig.nova(), "/again").success().unwrap();
    rig.assert_intact("/again", &again);
    rig.region.down().unwrap();
}

#[test]
fn a_drain_that_runs_out_of_room_ends_and_says_so() {
    let rig = Rig::start_of("full_while_drained", Size { storage: 4, ..Size::standard(DEVICE_MIB) });
    let empty = rig.room();
    let mut filling = Filling { trees: Vec::new() };
    // The others could take what it holds.
    let early = filling.put(&rig, |rig| rig.region.status().unwrap().bytes_free_min() < empty * 3 / 10);
    assert!(early.is_none(), "full long before: {early:?}");
    let drain = rig.nova().call(["node", "drain", VICTIM, "--wait"]).limit(DRAIN_TIMEOUT).start().unwrap();
    // Others take that room first, or it is done before.
    filling.put(&rig, |_| false).unwrap();
    let ended = drain.wait().unwrap();
    println!("the drain ended after {:?}: {ended}; {} batches", ended.took, filling.trees.len());
    if ended.code == Some(0) {
        assert_eq!(groups_of(&rig, VICTIM), 0);
    } else {
        assert!(ended.stderr.contains("no other storage host has room"), "{ended}");
        let notes = rig.region.status().unwrap().notes;
        let told = |note: &String| note.contains(VICTIM) && note.contains("has room for");
        assert!(notes.iter().any(told), "{notes:?}");
    }
    filling.assert_intact(&rig);

    // Room is made, and the drain goes on by itself.
    let begun = Instant::now();
    for index in 0..filling.trees.len() / 2 {
        rig.nova().call(["fs", "rm", "-r", &format!("/full/{index}")]).run().unwrap();
    }
    rig.nova().call(["fs", "trash", "purge", "--all"]).run().unwrap();
    while groups_of(&rig, VICTIM) > 0 {
        assert!(
            begun.elapsed() < DRAIN_TIMEOUT,
            "it does not go on: {:?}",
            rig.region.status().unwrap().notes
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    wait_copies(&rig);
    rig.region.down().unwrap();
}
